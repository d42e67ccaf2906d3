"""Times as text: stored, so that they sort by time, and in words."""

from __future__ import annotations

from datetime import UTC, datetime

from dynamo_stores import clock

_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second"))
# Seconds: below it a time is "just now"; days: from then on it is a date.
_NOW, _DAYS = 45, 30


def stamp(moment: datetime) -> str:
    """Return ``moment`` (UTC) as stored text."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def now() -> str:
    """Return the present time as stored text."""
    return stamp(datetime.fromtimestamp(clock.now(), UTC))


def moment_of(stored: str) -> datetime:
    """Return the time of stored text."""
    return datetime.fromisoformat(stored)


def exact(moment: datetime) -> str:
    """Return a time as ``5 January 2024, 09:07:03 UTC``."""
    return f"{date_of(moment)}, {moment.astimezone(UTC):%H:%M:%S} UTC"


def date_of(moment: datetime) -> str:
    """Return the day of a time as ``5 January 2024``."""
    utc = moment.astimezone(UTC)
    return f"{utc.day} {utc:%B %Y}"


def in_words(seconds: float) -> str:
    """Return a length of time by its largest unit: ``2 hours``; at least ``1 second``."""
    whole = max(1, int(seconds))
    size, unit = next(each for each in _UNITS if whole >= each[0])
    count = whole // size
    return f"{count} {unit}{'' if count == 1 else 's'}"


def ago(moment: datetime, now: datetime) -> str:
    """Return how long before ``now`` a time was: ``just now``, ``2 hours ago``, or its day."""
    seconds = (now - moment).total_seconds()
    if seconds < _NOW:
        return "just now"
    if seconds < 60:
        return "1 minute ago"
    return date_of(moment) if seconds >= _DAYS * 86_400 else f"{in_words(seconds)} ago"
