"""
DynamoDB's time, as an interval that contains it.

Expressions have no function for the time, so clients send their own, and their clocks differ. The
``Date`` header of an answer has the time in whole seconds, rounded down. So the service's clock is
ahead of the local one by at least ``Date - received``, and by less than ``Date + 1 - sent``. The
intersection of these intervals over many answers is much shorter than a second.
"""

from __future__ import annotations

import threading
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from .. import clock

# By how much the clocks of two servers may differ, and how far the local clock may drift a second.
_SERVER_SKEW = 0.01
_DRIFT = 1e-4
# If the wall clock and the monotonic clock diverge by so many seconds, one was set or the machine
# slept, and the interval is discarded.
_MAX_DIVERGENCE = 0.5


class Times(NamedTuple):
    """An interval that contains the true time, in seconds since the epoch."""

    low: float
    high: float


class _Ahead(NamedTuple):
    low: float
    high: float
    at: float
    wall_ahead: float


class ServerClock:
    """The clock of one service, estimated from its answers. Thread-safe."""

    def __init__(self) -> None:
        self._ahead: _Ahead | None = None
        self._lock = threading.Lock()
        self._last: tuple[str, float] = ("", 0.0)

    @property
    def is_learned(self) -> bool:
        """Whether there was an answer to estimate from, or the local clock is exact."""
        return not clock.skew() or self._known(clock.monotonic()) is not None

    def record(self, date: str, sent_at: float, received_at: float) -> None:
        """Use an answer's ``Date``; both times are monotonic, of the request and the answer."""
        text, second = self._last
        if text != date:
            try:
                second = parsedate_to_datetime(date).timestamp()
            except (TypeError, ValueError):
                return
            self._last = (date, second)
        low = second - received_at - _SERVER_SKEW
        high = second + 1 - sent_at + _SERVER_SKEW
        with self._lock:
            known = self._known(received_at)
            if known is not None and max(low, known.low) < min(high, known.high):
                low, high = max(low, known.low), min(high, known.high)
            self._ahead = _Ahead(low, high, received_at, clock.now() - received_at)

    def times(self) -> Times:
        """Return the interval; before any answer it is the local time plus and minus its skew."""
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
        if known is None or abs(clock.now() - monotonic - known.wall_ahead) > _MAX_DIVERGENCE:
            return None
        drift = max(0.0, monotonic - known.at) * _DRIFT
        return known._replace(low=known.low - drift, high=known.high + drift)
