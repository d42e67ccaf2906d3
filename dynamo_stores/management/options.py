"""Checks of the commands' options, before any work."""

from __future__ import annotations

from typing import Any

from django.core.management.base import CommandError

from ..conf.rules import Rule, is_number


def between(least: float, most: float) -> Rule:
    """Return the rule of a number from ``least`` to ``most``."""
    return Rule(
        f"a number from {least:,} to {most:,}",
        lambda value: is_number(value) and least <= value <= most,
    )


def whole_between(least: int, most: int) -> Rule:
    """Return the rule of a whole number from ``least`` to ``most``."""
    return Rule(
        f"a whole number from {least:,} to {most:,}",
        lambda value: isinstance(value, int) and least <= value <= most,
    )


def check_options(options: dict[str, Any], **rules: Rule) -> None:
    """Raise CommandError for the first option with a value that its rule does not accept."""
    for name, rule in rules.items():
        if not rule.accepts(options[name]):
            raise CommandError(
                f"--{name.replace('_', '-')} is {options[name]}; expected {rule.expected}."
            )
