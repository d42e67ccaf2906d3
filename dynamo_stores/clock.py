"""The clock of this process: the only module that reads the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any


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

# Each call of DynamoDB asks a dozen times, so the system's functions are called directly.
now: Callable[[], float] = time.time
monotonic: Callable[[], float] = time.monotonic


def use(clock: Clock) -> Clock:
    """Use ``clock`` in this process, and return the clock used before."""
    global _clock, now, monotonic
    before, _clock = _clock, clock
    is_systems = type(clock) is Clock
    now = time.time if is_systems else clock.now
    monotonic = time.monotonic if is_systems else clock.monotonic
    return before


def now_ms() -> int:
    """Return whole milliseconds since the epoch, rounded down."""
    return int(now() * 1000)


def as_seconds(moment: Any) -> float:
    """Return a time of DynamoDB in seconds since the epoch; botocore's client parses them."""
    return float(moment.timestamp() if hasattr(moment, "timestamp") else moment)


def sleep(seconds: float) -> None:
    """Wait ``seconds``."""
    _clock.sleep(seconds)


async def asleep(seconds: float) -> None:
    """Wait ``seconds`` on the running event loop."""
    if type(_clock) is Clock:
        await asyncio.sleep(seconds)
    else:
        _clock.sleep(seconds)
        await asyncio.sleep(0)


def skew() -> float:
    """Return by how many seconds :func:`now` may differ from the true time."""
    return _clock.skew
