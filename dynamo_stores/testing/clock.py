"""A clock that only tests advance."""

from __future__ import annotations

import threading
from typing import Self

from .. import clock


class FakeClock(clock.Clock):
    """
    The clock of this process in a block: ``with FakeClock() as now: now.advance(5)``.

    Sleeping advances it at once and is recorded in ``slept``, in seconds. It starts in 2033, so
    that the engine, which uses its own clock, does not delete items that expire by this one.
    """

    skew = 0.0

    def __init__(self, start: float = 2_000_000_000.0) -> None:
        self.slept: list[float] = []
        self._now = start
        self._lock = threading.Lock()
        self._before: clock.Clock | None = None

    def now(self) -> float:
        return self._now

    def monotonic(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Advance the clock by ``seconds``."""
        with self._lock:
            self._now += seconds

    def __enter__(self) -> Self:
        self._before = clock.use(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._before is not None:
            clock.use(self._before)
