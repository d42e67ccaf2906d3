"""Work on many items in the background: it goes on when the table throttles, and is paced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from .. import clock
from ..concurrency.effects import Verb, Wait
from ..exceptions import StoreUnavailable, ThrottlingError
from .backpressure import background
from .batches import AdaptiveDelayCalculator
from .policy import time_left

T = TypeVar("T")
R = TypeVar("R")

# Returns the items that were not processed, and the error that is the reason: a verb.
Write = Callable[[list[T]], Verb[tuple[list[T], StoreUnavailable | None]]]

# Seconds between two tries, the shortest and the longest.
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
# After so many seconds in which the table processed nothing, the work ends.
GIVES_UP_AFTER = 60.0


class BackgroundWork:
    """
    Sends throttled requests again, after waits that grow. Thread-safe. Its coroutines are verbs.

    It ends with ThrottlingError after ``patience`` seconds in which the table processed nothing.
    """

    def __init__(self, patience: float = GIVES_UP_AFTER) -> None:
        self._patience = patience
        self._waits = AdaptiveDelayCalculator(_FIRST_WAIT, _LONGEST_WAIT)
        self._throttled_since: float | None = None

    async def call(self, request: Callable[[], Verb[R]]) -> R:
        """Return what ``request`` returns; it is called again while it raises ThrottlingError."""
        while True:
            try:
                with background():
                    answer = await request()
            except ThrottlingError as exc:
                await self.wait(exc)
            else:
                self.progressed()
                return answer

    async def write_all(self, items: list[T], write: Write[T]) -> None:
        """Call ``write`` with ``items``, then with those that it returns as unprocessed."""
        while items:
            with background():
                left, error = await write(items)
            if len(left) < len(items):
                self.progressed()
            if isinstance(error, ThrottlingError):
                await self.wait(error)
            elif error is not None:
                raise error
            items = left

    def progressed(self) -> None:
        """Record that the table processed something."""
        self._waits.succeeded()
        self._throttled_since = None

    async def wait(self, error: ThrottlingError) -> None:
        """
        Wait until the next try. Raises ``error`` if the table has processed nothing for too long,
        or the caller's deadline is before the next try.
        """
        seconds, now = self._waits.throttled(), clock.monotonic()
        since = self._throttled_since
        if since is None:
            since = self._throttled_since = now
        if now - since >= self._patience or time_left(seconds) < seconds:
            raise error
        await Wait(seconds)


class Pace:
    """At most so many units a second, for all threads together."""

    def __init__(self, units_per_second: float) -> None:
        self._units_per_second = units_per_second
        self._paid_at = clock.monotonic()
        self._lock = threading.Lock()

    def seconds_for(self, units: float) -> float:
        """Count ``units`` as consumed; return in how many seconds they are available again."""
        with self._lock:
            now = clock.monotonic()
            self._paid_at = max(self._paid_at, now) + units / self._units_per_second
            return self._paid_at - now

    def seconds_before(self, units: float) -> float:
        """Count ``units`` that will be consumed; return in how many seconds they may be."""
        return self.seconds_for(units) - units / self._units_per_second

    async def consumed(self, units: float) -> None:
        """Wait until ``units`` that were consumed are available again. A verb."""
        wait = self.seconds_for(units)
        if wait > 0:
            await Wait(wait)
