"""Helpers of the commands: choice of tables, and errors."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from django.apps import apps
from django.core.management.base import CommandError

from .. import clock
from ..calls.control import get_control
from ..calls.environment import is_loopback
from ..conf import aliases, get_config
from ..exceptions import StoreError, StoreUnavailable
from ..infrastructure.tables import TableSpec, models_of_apps, table_of, wanted_tables
from ..models import ControlItem, StoreItem
from ..testing.engine import is_taken

# The exit status of a command that Ctrl-C ended.
INTERRUPTED = 130
# Seconds that a local engine may take to start.
_START = 10.0


@contextmanager
def command_errors(service: str = "DynamoDB") -> Iterator[None]:
    """Turn errors of the service and of the settings into a CommandError with one sentence."""
    try:
        yield
    except ClientError as exc:
        error = exc.response.get("Error", {})
        raise CommandError(
            f"{service} refused {exc.operation_name}: {error.get('Message') or error.get('Code')}"
        ) from exc
    except (StoreError, BotoCoreError) as exc:
        raise CommandError(str(exc)) from exc


@contextmanager
def interruptible(advice: str) -> Iterator[None]:
    """Turn Ctrl-C into a CommandError with the ``advice`` how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise CommandError(f"Interrupted. {advice}", returncode=INTERRUPTED) from None


def add_choice_of_tables(parser: ArgumentParser) -> None:
    """Add the options ``--table`` and ``--using``."""
    parser.add_argument(
        "--table", action="append", metavar="NAME", help="Only this table; may be repeated."
    )
    add_choice_of_aliases(parser)


def add_choice_of_aliases(parser: ArgumentParser, default: str = "all aliases") -> None:
    """Add the option ``--using``; ``default`` is what the help says."""
    parser.add_argument(
        "--using",
        action="append",
        metavar="ALIAS",
        help=f"Only this alias; may be repeated (default: {default}).",
    )


def chosen_aliases(using: list[str] | str | None) -> list[str]:
    """
    Return the aliases ``using``, each once, or all of them without any. ``call_command`` may pass
    one as a string. Raises ConfigurationError for an alias that does not exist.
    """
    if not using:
        return aliases()
    found = list(dict.fromkeys([using] if isinstance(using, str) else using))
    for each in found:
        get_config(each)
    return found


def for_each_alias(names: Iterable[str], work: Callable[[str], object]) -> list[str]:
    """Call ``work`` for each alias, and return a sentence for each that failed."""
    failed = []
    for using in names:
        try:
            with command_errors():
                work(using)
        except CommandError as exc:
            failed.append(f"Alias {using!r}: {exc}")
    return failed


def for_each_table(
    names: list[str] | None,
    using: list[str] | str | None,
    work: Callable[[TableSpec], None],
    write: Callable[[str], object],
) -> list[str]:
    """
    Call ``work`` for each chosen table, and return a sentence for each that failed. The endpoint
    and the region of each alias are written first.

    If DynamoDB does not answer for an alias, its other tables are left out.
    """
    with command_errors():
        tables = chosen_tables(names, using)
    return for_each(tables, work, write)


def for_each(
    tables: Iterable[TableSpec],
    work: Callable[[TableSpec], None],
    write: Callable[[str], object],
) -> list[str]:
    """Call ``work`` for each of ``tables``, as :func:`for_each_table` does."""
    failed: list[str] = []
    silent: set[str] = set()
    named: set[str] = set()
    for table in tables:
        if table.using in silent:
            continue
        try:
            with command_errors():
                if table.using not in named:
                    named.add(table.using)
                    write(f"Alias {table.using}: {get_control(table.using).place}")
                work(table)
        except CommandError as exc:
            failed.append(f"{table.name} of alias {table.using!r}: {exc}")
            if isinstance(exc.__cause__, StoreUnavailable):
                silent.add(table.using)
    return failed


def await_engines(names: Iterable[str], write: Callable[[str], object]) -> None:
    """Wait some seconds until the engines of the aliases ``names`` on this machine listen."""
    urls = {get_config(using).endpoint_url for using in names}
    until = clock.monotonic() + _START
    for url in sorted(url for url in urls if url is not None and is_loopback(url)):
        endpoint = urlsplit(url)
        if not endpoint.port or is_taken(endpoint.port):
            continue
        write(f"Waiting for DynamoDB at {url}. 'manage.py dynamo_local' starts one.")
        while not is_taken(endpoint.port) and clock.monotonic() < until:
            clock.sleep(0.2)


def chosen_tables(names: list[str] | None, using: list[str] | str | None = None) -> list[TableSpec]:
    """Return all required tables, or only those with one of ``names``, of the aliases ``using``."""
    tables = wanted_tables()
    if using:
        chosen = chosen_aliases(using)
        tables = [table for table in tables if any(_is_of(table, each) for each in chosen)]
    if not names:
        return tables
    named = {name: _named(tables, name) for name in names}
    if unknown := [name for name, found in named.items() if not found]:
        raise CommandError(
            f"No model or alias has the table {', '.join(unknown)}. "
            f"Known tables: {', '.join(sorted({table.name for table in tables}))}."
        )
    return [table for table in tables if any(table in found for found in named.values())]


def tables_of_apps(labels: Iterable[str]) -> list[str]:
    """Return the names of the tables of the models of apps. Raises CommandError, StoreError."""
    found = []
    for label in labels:
        try:
            app = apps.get_app_config(label)
        except LookupError as exc:
            raise CommandError(str(exc)) from exc
        models = models_of_apps(app)
        if not models:
            raise CommandError(f"The app {label!r} has no models with a table in DynamoDB.")
        found += [table_of(model).name for model in models]
    return found


def name_in_dynamodb(using: str, name: str) -> str:
    """
    Return the name in DynamoDB of the table ``name`` of an alias. Tables of models, and those of
    the stores, may have the name that the model or the settings have, without the prefix. Any
    other table has its name in DynamoDB.
    """
    found = _named([table for table in wanted_tables() if _is_of(table, using)], name)
    return found[0].name if found else name


def _named(tables: list[TableSpec], name: str) -> list[TableSpec]:
    exactly = [table for table in tables if table.name == name]
    return exactly or [
        table for table in tables if table.name == get_config(table.using).real_name(name)
    ]


def _is_of(table: TableSpec, using: str) -> bool:
    config, other = get_config(using), get_config(table.using)
    if table.using == using:
        return True
    # Aliases may share their tables, each of which is listed once.
    names = {model.bound_to(using).Meta.table_name for model in (StoreItem, ControlItem)}
    is_same_place = (config.endpoint_url, config.region) == (other.endpoint_url, other.region)
    return is_same_place and table.name in names
