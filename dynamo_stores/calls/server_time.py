"""
What time it is at DynamoDB, between which bounds.

Expressions know no time, so clients bring their own; their clocks differ. Each answer's ``Date``
header says within a second when it was made: not before the second that it names, so the service's
clock is ahead of ours by at least ``Date - received``, and by less than ``Date + 1 - sent``. The
bounds of many answers together are much narrower than a second.
"""

from __future__ import annotations

import threading
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from .. import clock

# What two of the service's machines may differ by, and how far our clock may drift a second.
_FRONTENDS = 0.01
_DRIFT = 1e-4
# When our clocks part by so many seconds, one was set or the machine slept: what was learned is
# forgotten.
_PARTED = 0.5


class Times(NamedTuple):
    """The true time, in seconds since the epoch, is between ``low`` and ``high``."""

    low: float
    high: float


class _Ahead(NamedTuple):
    low: float
    high: float
    at: float
    wall_ahead: float


class ServerClock:
    """One service's clock, learned from its answers. For all threads."""

    def __init__(self) -> None:
        self._ahead: _Ahead | None = None
        self._lock = threading.Lock()
        self._last: tuple[str, float] = ("", 0.0)

    @property
    def is_learned(self) -> bool:
        """Whether there was an answer to learn from, or nothing need be learned."""
        return not clock.skew() or self._known(clock.monotonic()) is not None

    def record(self, date: str, sent_at: float, received_at: float) -> None:
        """Learn from an answer's ``Date``, sent and received at these monotonic times."""
        text, second = self._last
        if text != date:
            try:
                second = parsedate_to_datetime(date).timestamp()
            except (TypeError, ValueError):
                return
            self._last = (date, second)
        low = second - received_at - _FRONTENDS
        high = second + 1 - sent_at + _FRONTENDS
        with self._lock:
            known = self._known(received_at)
            if known is not None and max(low, known.low) < min(high, known.high):
                low, high = max(low, known.low), min(high, known.high)
            self._ahead = _Ahead(low, high, received_at, clock.now() - received_at)

    def times(self) -> Times:
        """Return the bounds; before any answer those of a clock that is right within its skew."""
        skew = clock.skew()
        now = clock.now()
        if not skew:
            return Times(now, now)
        monotonic = clock.monotonic()
        known = self._known(monotonic)
        if known is None:
            return Times(now - skew, now + skew)
        return Times(monotonic + known.low, monotonic + known.high)

    def _known(self, monotonic: float) -> _Ahead | None:
        known = self._ahead
        if known is None or abs(clock.now() - monotonic - known.wall_ahead) > _PARTED:
            return None
        drift = max(0.0, monotonic - known.at) * _DRIFT
        return known._replace(low=known.low - drift, high=known.high + drift)
