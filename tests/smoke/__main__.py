"""
``python -m tests.smoke``: create tables, use everything on them, remove them, tell the price.

On an embedded engine, on the engine at ``--endpoint``, or with ``--aws`` in an account at AWS.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
import traceback
from collections.abc import Iterator

from botocore.exceptions import BotoCoreError, ClientError
from django.core.management.base import CommandError

from dynamo_stores.calls.observer import measuring
from dynamo_stores.exceptions import StoreError
from dynamo_stores.testing import EmbeddedEngine, EngineError

from .place import FAMILY, Place, Refused, aws, local, new_prefix, require_consent
from .price import MOST, Consumed, prices_of, told
from .project import set_up

_INTERRUPTED = 130


def main() -> int:
    """Run and return the exit status: 0 if all is well, 1 otherwise, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m tests.smoke", description=__doc__)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--endpoint", metavar="URL", help="A DynamoDB on this machine.")
    where.add_argument("--aws", action="store_true", help="An account at AWS; costs money.")
    parser.add_argument(
        "--leftovers",
        choices=["list", "remove"],
        help="List or remove the tables of runs that could not remove them.",
    )
    options = parser.parse_args()
    # Also where a shell ignores them, as in the background: tables must be removed.
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.default_int_handler)
    try:
        with _place(options) as place:
            return _leftovers(place, options) if options.leftovers else _run(place)
    except (Refused, EngineError) as exc:
        print(exc, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return _INTERRUPTED


@contextlib.contextmanager
def _place(options: argparse.Namespace) -> Iterator[Place]:
    if options.aws:
        yield aws()
    elif options.endpoint:
        yield local(options.endpoint)
    else:
        with EmbeddedEngine() as engine:
            yield local(engine.url)


def _run(place: Place) -> int:
    prefix = new_prefix()
    set_up(place, prefix)
    # They import models, which need Django's settings.
    from dynamo_stores.infrastructure.tables import wanted_tables

    prices, note = prices_of(place.region)
    names = [spec.name for spec in wanted_tables()]
    print(f"Account:  {place.account or 'none, this is a local engine'}")
    print(f"Endpoint: {place.endpoint or 'AWS'}, {place.region}")
    print(f"Tables:   {len(names)}, named {prefix}…; they are removed at the end")
    print(f"Price:    at most {told(MOST, prices)}. {note}", flush=True)
    if place.account is not None:
        require_consent(place.account)
    consumed, began = Consumed(), time.monotonic()
    try:
        try:
            _steps(place, consumed)
        finally:
            _remove(place, prefix, names)
    except (AssertionError, StoreError, BotoCoreError, ClientError, CommandError) as exc:
        traceback.print_exception(exc)
        print("\nFailed.", file=sys.stderr)
        return 1
    print(f"\nPassed in {time.monotonic() - began:.0f} s.")
    print(f"Consumed: {told(consumed, prices)}{'' if place.is_aws else ' at AWS'}.")
    return 0


def _steps(place: Place, consumed: Consumed) -> None:
    from . import service, stores

    def write(line: str) -> None:
        print(f"  {line}", flush=True)

    print("\nUsing it:")
    with measuring() as measured:
        try:
            service.create_tables(write)
            stores.use_stores(write)
            service.read_options(write, is_aws=place.is_aws)
            service.raise_capacity(write)
            service.read_cloudwatch(write, consumed, is_aws=place.is_aws)
            service.open_pages(write)
        finally:
            consumed.add(measured)


def _remove(place: Place, prefix: str, names: list[str]) -> None:
    """Remove the tables; say how to do it if that fails, and raise what failed."""
    from dynamo_stores.monitoring.reporter import publish_last_reports

    from .tables import remove, tables_with

    print("\nRemoving the tables:", flush=True)
    publish_last_reports()
    try:
        remove(names, lambda line: print(line, flush=True))
        # A request to create one may have been carried out after the answer was given up.
        if left := tables_with(prefix):
            remove(left, lambda line: print(line, flush=True))
    except BaseException:
        lines = [f"Tables may be left in {place.region}: they are named {prefix}…."]
        if place.is_aws:
            lines.append("To remove them: make smoke AWS=1 LEFTOVERS=remove. Or one by one:")
            lines += [
                f"  aws dynamodb delete-table --region {place.region} --table-name {name}"
                for name in names
            ]
        print("\n".join(lines), file=sys.stderr)
        raise


def _leftovers(place: Place, options: argparse.Namespace) -> int:
    set_up(place, FAMILY)
    from .tables import remove, tables_with

    try:
        found = tables_with(FAMILY)
        print("\n".join(found) or f"No table of {place.region} is named {FAMILY}….")
        if found and options.leftovers == "remove":
            if place.account is not None:
                require_consent(place.account)
            remove(found, print)
    except (StoreError, BotoCoreError, ClientError) as exc:
        print(f"Failed: {type(exc).__name__}: {exc}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
