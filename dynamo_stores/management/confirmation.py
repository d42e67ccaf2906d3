"""The question before a command changes something."""

from __future__ import annotations

from argparse import ArgumentParser

from django.core.management.base import CommandError


def add_no_input(parser: ArgumentParser) -> None:
    """Add the option ``--no-input``, so that ``interactive`` is False."""
    parser.add_argument(
        "--no-input", "--noinput", action="store_false", dest="interactive", help="Do not ask."
    )


def confirm(question: str) -> None:
    """Ask; raise CommandError unless the answer is ``yes`` or ``y``, or if nobody can answer."""
    try:
        answer = input(f"{question} [y/N] ")
    except EOFError:
        raise CommandError("Nobody can answer here. Use --no-input to go on without.") from None
    except KeyboardInterrupt:
        raise CommandError("Cancelled; nothing was changed.") from None
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandError("Cancelled; nothing was changed.")
