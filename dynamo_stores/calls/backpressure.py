"""
Backpressure: a limit on the requests in flight to a table while it throttles.

As in TCP the limit is halved when the table throttles and raised by one for each round without a
throttle (additive increase, multiplicative decrease); without throttles there is no limit.
D. Chiu, R. Jain, "Analysis of the Increase and Decrease Algorithms for Congestion Avoidance in
Computer Networks", Computer Networks and ISDN Systems 17, 1989. Calls for users have priority over
background calls, which use at most half of the limit.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

from .. import clock
from ..concurrency.effects import BlocksLoop, Opened
from ..concurrency.flights import Gate
from ..exceptions import ThrottlingError

# One halving for a burst of throttles, in seconds.
_ROUND = 0.1
# After so many seconds without a throttle there is no limit.
_QUIET = 10.0
# A waiting request looks for lost ones after so many seconds: nobody wakes it for them.
_LONGEST_WAIT = 1.0

_background: ContextVar[bool] = ContextVar("dynamo_stores_background", default=False)


@contextmanager
def background() -> Iterator[None]:
    """Mark the calls of a block as background calls, which have lower priority."""
    token = _background.set(True)
    try:
        yield
    finally:
        # A task's context is not that of who drops the task.
        with suppress(ValueError):
            _background.reset(token)


def set_background(value: bool) -> None:
    """Mark further calls of this thread or task as background calls, or as calls for users."""
    _background.set(value)


def is_background() -> bool:
    """Return whether calls are background calls now, as in Celery tasks."""
    return _background.get()


class Request:
    """A request that waits or is in flight; ``until`` is the monotonic time of its deadline."""

    __slots__ = ("__weakref__", "ref", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        # While it is in flight.
        self.ref: weakref.ref[Request] | None = None


class Backpressure:
    """
    The requests in flight to one table, of all threads and tasks of this process. Tasks send at
    most ``most`` of theirs at a time.
    """

    def __init__(self, table: str, most: float = math.inf) -> None:
        self._table = table
        self._most = most
        self._lock = threading.RLock()
        # Of the requests that wait.
        self._gates: list[Gate] = []
        self._limit: float | None = None
        # Weakly: a request whose frame an exception from outside has ended is not in flight.
        self._in_flight: set[weakref.ref[Request]] = set()
        self._users: deque[Request] = deque()
        self._background: deque[Request] = deque()
        self._halved_at = -_ROUND
        self._throttled_at = 0.0
        self._seconds = 0.0

    @property
    def limit(self) -> float | None:
        """The maximum of requests in flight, None without a limit."""
        return self._limit

    @property
    def in_flight(self) -> int:
        """How many requests are in flight."""
        return len(self._in_flight)

    def try_enter(self, until: float) -> Request | None:
        """Begin a request and return it, None while there is a limit; see :meth:`enter`."""
        if self._limit is not None:
            return None
        request = Request(until)
        self._begin(request)
        return request

    async def enter(self, until: float) -> Request:
        """
        Begin a request, waiting until the limit allows it, at most until the monotonic ``until``.

        Return the request; it is in flight until :meth:`leave`, or until nobody refers to it.
        Raises ThrottlingError if the limit does not allow it; at once if the expected wait is
        longer.
        """
        request = Request(until)
        with self._lock:
            if self._limit is not None and clock.monotonic() - self._throttled_at > _QUIET:
                # No request that ended has lifted it.
                self._limit = None
                self._wake_all()
            if self._limit is None:
                self._begin(request)
                return request
        await self._wait_in(self._background if is_background() else self._users, request)
        return request

    def leave(self, request: Request, seconds: float, *, throttled: bool) -> None:
        """End a request that took ``seconds``, and adapt the limit."""
        if request.ref is not None:
            self._in_flight.discard(request.ref)
        if not throttled and self._limit is None and not self._gates:
            return
        now = clock.monotonic()
        with self._lock:
            if throttled:
                self._throttled_at = now
                if now - self._halved_at >= _ROUND:
                    in_flight = min(self.in_flight + 1, self._most)
                    self._limit = max(1.0, (self._limit or in_flight) / 2)
                    self._halved_at = now
            elif self._limit is not None:
                self._limit += 1 / self._limit
                self._seconds += (seconds - self._seconds) / 8
                if now - self._throttled_at > _QUIET:
                    self._limit = None
            if self._gates:
                self._wake_all()

    async def _wait_in(self, queue: deque[Request], request: Request) -> None:
        """Wait until ``request`` is the first of ``queue`` and the limit allows it; begin it."""
        if await BlocksLoop():
            # Those before it may be of tasks that wait for this thread.
            self._begin(request)
            return
        try:
            with self._lock:
                queue.append(request)
            while (change := self._begin_in_turn(queue, request)) is not None:
                await change
        finally:
            with self._lock:
                if request in queue:
                    queue.remove(request)
                self._wake_all()

    def _begin(self, request: Request) -> None:
        request.ref = weakref.ref(request, self._in_flight.discard)
        self._in_flight.add(request.ref)

    def _begin_in_turn(self, queue: deque[Request], request: Request) -> Opened | None:
        """Begin the request if that is allowed, or return a wait until something changes."""
        with self._lock:
            now = clock.monotonic()
            self._drop_overdue(now, request)
            limit = self._limit
            if limit is None or (queue and queue[0] is request and self._has_capacity(limit)):
                self._begin(request)
                return None
            left = request.until - now
            waiting = len(self._users) + len(self._background)
            wait = waiting * self._seconds / limit
            if left <= 0 or wait > left:
                error = ThrottlingError(
                    f"{self._table} is throttled, and {waiting} requests are waiting.",
                    retry_after=max(1.0, wait),
                )
                error.counts = False
                raise error
            gate = Gate()
            self._gates.append(gate)
            return Opened(gate, min(left, self._next_deadline() - now, _LONGEST_WAIT))

    def _wake_all(self) -> None:
        while self._gates:
            self._gates.pop().open()

    def _drop_overdue(self, now: float, request: Request) -> None:
        # An exception from outside, such as a soft time limit, can end a request between any two
        # bytecodes, so that it stays in its queue.
        for queue in (self._users, self._background):
            while queue and queue[0].until < now and queue[0] is not request:
                queue.popleft()

    def _next_deadline(self) -> float:
        return min(queue[0].until for queue in (self._users, self._background) if queue) + 0.001

    def _has_capacity(self, limit: float) -> bool:
        if is_background():
            return not self._users and self.in_flight < max(1.0, limit / 2)
        return self.in_flight < max(1, int(limit))
