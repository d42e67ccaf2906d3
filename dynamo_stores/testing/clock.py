"""A clock that goes only when told to."""

from __future__ import annotations

import threading
from typing import Self

from .. import clock


class FakeClock(clock.Clock):
    """
    ``with FakeClock() as now: now.advance(5)``: this process tells the time from it.

    Sleeping moves it on at once and is noted in ``slept``, in seconds. It starts in 2033: what
    expires by it is not swept by an engine that goes by its own clock.
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
        """Let ``seconds`` pass."""
        with self._lock:
            self._now += seconds

    def __enter__(self) -> Self:
        self._before = clock.use(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._before is not None:
            clock.use(self._before)
