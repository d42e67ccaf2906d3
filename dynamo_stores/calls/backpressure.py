"""
Backpressure: while a table throttles, callers share what it serves, instead of all trying at once.

A limit on requests in flight, as TCP has one: halved when the table throttles, raised by one for
each round that it does not (additive increase, multiplicative decrease), and none while all is
calm. D. Chiu, R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance
in Computer Networks", Computer Networks and ISDN Systems 17, 1989. Work for users goes before work
in the background, which leaves half of it to them.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .. import clock
from ..exceptions import ThrottlingError

# One halving for a burst of throttles, in seconds.
_ROUND = 0.1
# After so many seconds without a throttle there is no limit.
_CALM = 10.0

_background: ContextVar[bool] = ContextVar("dynamo_stores_background", default=False)


@contextmanager
def background() -> Iterator[None]:
    """Let users' work go before that of the block while a table throttles."""
    token = _background.set(True)
    try:
        yield
    finally:
        _background.reset(token)


def set_background(value: bool) -> None:
    """Let what this thread or task does from now on be work in the background, or not."""
    _background.set(value)


def is_background() -> bool:
    """Return whether this is work in the background; Celery's tasks are."""
    return _background.get()


class Backpressure:
    """The requests in flight to one table, of all threads of this process."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._changed = threading.Condition()
        self._limit: float | None = None
        self._in_flight = 0
        self._waiting = 0
        self._users_waiting = 0
        self._halved_at = -_ROUND
        self._throttled_at = 0.0
        self._seconds = 0.0

    @property
    def limit(self) -> float | None:
        """How many requests may be in flight, None for any number."""
        return self._limit

    def enter(self, until: float) -> None:
        """
        Wait for a place until the monotonic time ``until``.

        Raises ThrottlingError for who will find none before: at once, where that can be told.
        """
        with self._changed:
            if self._limit is not None and not self._has_place():
                self._wait(until)
            self._in_flight += 1

    def leave(self, seconds: float, *, throttled: bool) -> None:
        """Give the place back after a request that took ``seconds``."""
        now = clock.monotonic()
        with self._changed:
            if throttled:
                self._throttled_at = now
                if now - self._halved_at >= _ROUND:
                    self._limit = max(1.0, (self._limit or float(self._in_flight)) / 2)
                    self._halved_at = now
            elif self._limit is not None:
                self._limit += 1 / self._limit
                self._seconds += (seconds - self._seconds) / 8
                if now - self._throttled_at > _CALM:
                    self._limit = None
            self._in_flight -= 1
            if self._waiting:
                self._changed.notify_all()

    def _wait(self, until: float) -> None:
        is_user = not is_background()
        self._waiting += 1
        self._users_waiting += is_user
        try:
            while not self._has_place(asking=True):
                left = until - clock.monotonic()
                wait = self._waiting * self._seconds / max(1.0, self._limit or 1.0)
                if left <= 0 or wait > left:
                    raise ThrottlingError(
                        f"{self._table} is throttled, and {self._waiting} requests wait for it.",
                        retry_after=max(1.0, wait),
                    )
                self._changed.wait(left)
        finally:
            self._waiting -= 1
            self._users_waiting -= is_user

    def _has_place(self, *, asking: bool = False) -> bool:
        limit = self._limit
        if limit is None:
            return True
        if is_background():
            return self._users_waiting == 0 and self._in_flight < max(1.0, limit / 2)
        # Who comes does not overtake who waits.
        return self._in_flight < max(1, int(limit)) and (asking or not self._users_waiting)
