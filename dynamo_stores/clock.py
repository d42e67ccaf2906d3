"""The clock of this process: the only module that reads the time."""

from __future__ import annotations

import time


class Clock:
    """Wall time for expiries, monotonic time for durations, and sleep; all in seconds."""

    # By how many seconds ``now`` may differ from the true time; 0 for the clock of tests.
    skew = 2.0

    def now(self) -> float:
        """Return seconds since the epoch, the unit of ``TTL``."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds from an arbitrary start; never goes backwards."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait ``seconds``."""
        time.sleep(seconds)


_clock = Clock()


def use(clock: Clock) -> Clock:
    """Use ``clock`` in this process, and return the clock used before."""
    global _clock
    before, _clock = _clock, clock
    return before


def now() -> float:
    """Return seconds since the epoch."""
    return _clock.now()


def now_ms() -> int:
    """Return whole milliseconds since the epoch, rounded down."""
    return int(_clock.now() * 1000)


def monotonic() -> float:
    """Return seconds from an arbitrary start; never goes backwards."""
    return _clock.monotonic()


def sleep(seconds: float) -> None:
    """Wait ``seconds``."""
    _clock.sleep(seconds)


def skew() -> float:
    """Return by how many seconds :func:`now` may differ from the true time."""
    return _clock.skew
