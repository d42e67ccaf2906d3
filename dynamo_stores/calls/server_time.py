"""
DynamoDB's time, as an interval that contains it.

Expressions have no function for the time, so clients send their own, and their clocks differ. The
``Date`` header of an answer has the time in whole seconds, rounded down. So the service's clock is
ahead of the local one by at least ``Date - received``, and by less than ``Date + 1 - sent``. The
intersection of these intervals over many answers is much shorter than a second.

An answer outside of the known interval is one server's error or a change of the service's clock.
It replaces the interval only if the next answer agrees with it.
"""

from __future__ import annotations

import logging
import threading
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from .. import clock

logger = logging.getLogger(__name__)

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
        # The last answer, if it contradicted the known interval.
        self._doubted: _Ahead | None = None
        self._has_warned = False
        self._lock = threading.Lock()
        self._last: tuple[bytes | None, float] = (None, 0.0)

    @property
    def is_learned(self) -> bool:
        """Whether there was an answer to estimate from, or the local clock is exact."""
        return not clock.skew() or _at(self._ahead, clock.monotonic()) is not None

    def record(self, date: bytes, sent_at: float, received_at: float) -> None:
        """Use an answer's ``Date``; both times are monotonic, of the request and the answer."""
        known_date, second = self._last
        if known_date != date:
            try:
                second = parsedate_to_datetime(date.decode("latin-1")).timestamp()
            except (TypeError, ValueError):
                return
            self._last = (date, second)
        elif self._narrows_nothing(second, sent_at, received_at):
            return
        answer = _Ahead(
            second - received_at - _SERVER_SKEW,
            second + 1 - sent_at + _SERVER_SKEW,
            received_at,
            clock.now() - received_at,
        )
        with self._lock:
            known = _at(self._ahead, received_at)
            if known is None:
                self._ahead, self._doubted = answer, None
                return
            agreed = _agreed(answer, known)
            if agreed is None and (doubted := _at(self._doubted, received_at)) is not None:
                agreed = _agreed(answer, doubted)
            if agreed is not None:
                self._ahead, self._doubted = agreed, None
                return
            self._doubted = answer
            warns, self._has_warned = not self._has_warned, True
        # The local clock of tests is exact, and its time not the service's.
        if warns and clock.skew():
            logger.warning(
                "The Date header of an answer differs by %.1f seconds from DynamoDB's time as "
                "earlier answers told it. It is used only if the next answer agrees with it. "
                "Further ones are not logged. Check the clock of the endpoint, or of a proxy "
                "before it.",
                max(answer.low - known.high, known.low - answer.high),
            )

    def _narrows_nothing(self, second: float, sent_at: float, received_at: float) -> bool:
        known = self._ahead
        return (
            known is not None
            and not _was_set(known, received_at)
            and known.low >= second - received_at - _SERVER_SKEW
            and known.high <= second + 1 - sent_at + _SERVER_SKEW
        )

    def times(self) -> Times:
        """Return the interval; before any answer it is the local time plus and minus its skew."""
        skew = clock.skew()
        now = clock.now()
        if not skew:
            return Times(now, now)
        monotonic, known = clock.monotonic(), self._ahead
        if known is None or abs(now - monotonic - known.wall_ahead) > _MAX_DIVERGENCE:
            return Times(now - skew, now + skew)
        drift = max(0.0, monotonic - known.at) * _DRIFT
        return Times(monotonic + known.low - drift, monotonic + known.high + drift)


def _at(found: _Ahead | None, monotonic: float) -> _Ahead | None:
    """Return the interval with the drift until then, None if a clock was set meanwhile."""
    if found is None or _was_set(found, monotonic):
        return None
    drift = max(0.0, monotonic - found.at) * _DRIFT
    return found._replace(low=found.low - drift, high=found.high + drift)


def _was_set(found: _Ahead, monotonic: float) -> bool:
    return abs(clock.now() - monotonic - found.wall_ahead) > _MAX_DIVERGENCE


def _agreed(answer: _Ahead, other: _Ahead) -> _Ahead | None:
    """Return the answer with what both intervals have in common, None without that."""
    low, high = max(answer.low, other.low), min(answer.high, other.high)
    return answer._replace(low=low, high=high) if low < high else None
