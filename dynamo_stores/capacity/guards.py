"""Hours in which nothing is lowered."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from ..rules import parse_hours


def end_of_maintenance(windows: Sequence[str], now: float) -> float | None:
    """Return when the maintenance window ends in which ``now`` is, None outside of all; UTC."""
    moment = datetime.fromtimestamp(now, UTC)
    minute = moment.hour * 60 + moment.minute
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    ends = []
    for window in windows:
        begin, end = parse_hours(window)
        if begin <= end and begin <= minute < end:
            ends.append(midnight + timedelta(minutes=end))
        elif begin > end and minute >= begin:
            ends.append(midnight + timedelta(days=1, minutes=end))
        elif begin > end and minute < end:
            ends.append(midnight + timedelta(minutes=end))
    return max(ends).timestamp() if ends else None
