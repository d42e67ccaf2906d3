"""Numbers and times as readable text."""

from __future__ import annotations

from datetime import UTC, datetime

_SPANS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))


def span(seconds: float) -> str:
    """Return ``3 minutes``: the whole number of the largest unit that fits."""
    for size, name in _SPANS:
        if seconds >= size or size == 1:
            count = max(0, int(seconds // size))
            return f"{count} {name}{'' if count == 1 else 's'}"
    return ""


def ago(moment: float, now: float) -> str:
    """Return ``3 minutes ago``, or ``in 3 minutes``, or ``just now``."""
    if abs(now - moment) < 1:
        return "just now"
    return f"{span(now - moment)} ago" if moment < now else f"in {span(moment - now)}"


def exact(moment: float) -> str:
    """Return the moment in UTC, to the second."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"


def clock_time(moment: float, now: float) -> str:
    """Return the time of day in UTC, with the date unless it is that of ``now``."""
    text = exact(moment)
    date, _, time = text.partition(" ")
    return time if date == exact(now).partition(" ")[0] else text


def number(value: float) -> str:
    """Return a short form of a number: 0, under 0.1, 0.4, 12, 3,400."""
    if value and value < 0.05:
        return "under 0.1"
    return f"{value:.1f}".removesuffix(".0") if value < 10 else f"{value:,.0f}"


def count_of(count: int, noun: str, plural: str = "") -> str:
    """Return ``1 process``, ``2 processes``."""
    plural = plural or noun + ("es" if noun.endswith("s") else "s")
    return f"{count:,} {noun if count == 1 else plural}"


def milliseconds(seconds: float) -> str:
    """Return ``0.42 ms``, ``5.1 ms``, ``1,240 ms``: three digits or all whole ones."""
    value = seconds * 1000
    digits = 2 if value < 1 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} ms"
