"""Work on many entries in the background: it goes on when the table throttles, and is paced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ... import clock
from ...calls.backpressure import background
from ...calls.batches import AdaptiveDelayCalculator
from ...calls.policy import time_left
from ...exceptions import StoreUnavailable, ThrottlingError

T = TypeVar("T")
R = TypeVar("R")

# Returns the items that were not processed, and the error that is the reason.
Write = Callable[[list[T]], tuple[list[T], StoreUnavailable | None]]

# Seconds between two tries, the shortest and the longest.
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
# After so many seconds in which the table processed nothing, the work ends.
_GIVES_UP_AFTER = 60.0


class BackgroundWork:
    """Sends throttled requests again, after waits that grow. Thread-safe."""

    def __init__(self) -> None:
        self._waits = AdaptiveDelayCalculator(_FIRST_WAIT, _LONGEST_WAIT)
        self._throttled_since: float | None = None

    def call(self, request: Callable[[], R]) -> R:
        """Return what ``request`` returns; it is called again while it raises ThrottlingError."""
        while True:
            try:
                with background():
                    answer = request()
            except ThrottlingError as exc:
                self.wait(exc)
            else:
                self.progressed()
                return answer

    def write_all(self, items: list[T], write: Write[T]) -> None:
        """Call ``write`` with ``items``, then with those that it returns as unprocessed."""
        while items:
            with background():
                left, error = write(items)
            if len(left) < len(items):
                self.progressed()
            if isinstance(error, ThrottlingError):
                self.wait(error)
            elif error is not None:
                raise error
            items = left

    def progressed(self) -> None:
        """Record that the table processed something."""
        self._waits.succeeded()
        self._throttled_since = None

    def wait(self, error: ThrottlingError) -> None:
        """
        Wait until the next try. Raises ``error`` if the table has processed nothing for a minute,
        or the caller's deadline is before the next try.
        """
        seconds, now = self._waits.throttled(), clock.monotonic()
        since = self._throttled_since
        if since is None:
            since = self._throttled_since = now
        if now - since >= _GIVES_UP_AFTER or time_left(seconds) < seconds:
            raise error
        clock.sleep(seconds)


class Pace:
    """At most so many units a second, for all threads together."""

    def __init__(self, units_per_second: float) -> None:
        self._units_per_second = units_per_second
        self._paid_at = clock.monotonic()
        self._lock = threading.Lock()

    def consumed(self, units: float) -> None:
        """Wait until ``units`` that were consumed are available again."""
        with self._lock:
            now = clock.monotonic()
            self._paid_at = max(self._paid_at, now) + units / self._units_per_second
            wait = self._paid_at - now
        if wait > 0:
            clock.sleep(wait)
