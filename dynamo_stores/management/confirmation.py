"""The question before a command changes something."""

from __future__ import annotations

from django.core.management.base import CommandError


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
