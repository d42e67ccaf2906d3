"""Options and errors that the commands about backups share."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import CommandError

from .. import conf
from ..conf.rules import POSITIVE, SHARE, or_none
from ..exceptions import StoreUnavailable
from .options import check_options, whole_between
from .tables import (
    INTERRUPTED,
    add_choice_of_aliases,
    chosen_aliases,
    command_errors,
    interruptible,
)


def add_pace(parser: ArgumentParser, kind: str) -> None:
    """Add ``--using``, ``--segments``, ``--share`` and ``--units``; ``kind`` is read or write."""
    add_choice_of_aliases(parser, conf.DEFAULT_ALIAS)
    parser.add_argument(
        "--segments", type=int, default=4, help="Work in parallel (default: %(default)s)."
    )
    parser.add_argument(
        "--share",
        type=float,
        default=0.5,
        help=f"Share of the table's provisioned {kind} capacity (default: %(default)s).",
    )
    parser.add_argument(
        "--units",
        type=float,
        default=None,
        metavar="N",
        help=f"So many {kind} units a second instead; without it an on-demand table is not paced.",
    )


def check_pace(options: dict[str, Any]) -> None:
    """Raise CommandError for a wrong value of the options of :func:`add_pace`."""
    check_options(options, segments=whole_between(1, 32), share=SHARE, units=or_none(POSITIVE))


def for_each_chosen(using: list[str] | str | None, work: Callable[[str, bool], object]) -> None:
    """
    Call ``work`` for each alias, or the default one, with whether it is one of several. Raises
    CommandError with the aliases that failed in the end. Ctrl-C ends it at once.
    """
    with command_errors():
        names = chosen_aliases(using or [conf.DEFAULT_ALIAS])
    failed = []
    for each in names:
        try:
            work(each, len(names) > 1)
        except CommandError as exc:
            if len(names) == 1 or exc.returncode == INTERRUPTED:
                raise
            failed.append(f"Alias {each!r}: {exc}")
    if failed:
        raise CommandError("\n".join(failed))


@contextmanager
def resumable(advice: str) -> Iterator[None]:
    """Turn errors into a CommandError, also of files, and Ctrl-C with the ``advice`` to resume."""
    try:
        with interruptible(advice), command_errors():
            yield
    except CommandError as exc:
        if isinstance(exc.__cause__, StoreUnavailable):
            raise CommandError(f"{exc} {advice}") from exc.__cause__
        raise
    except OSError as exc:
        place = f"{exc.filename}: " if exc.filename else ""
        raise CommandError(f"{place}{exc.strerror or exc}. {advice}") from exc


def pace_of(rate: float | None, kind: str) -> str:
    """Return the pace as text."""
    return "not paced" if rate is None else f"at most {rate:g} {kind} units a second"
