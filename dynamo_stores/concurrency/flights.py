"""Single flight: one thread or task of a process works, the others wait for its outcome."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from typing import Any, Final

from .. import clock
from .per_process import PerProcess

# The outcome of a flight whose leader ended without one: its followers try again.
AGAIN: Final = object()
# An exception from outside may come before the leader wakes its followers: they look, too.
_LOOK_EVERY = 1.0


class Gate:
    """
    Opened once, by any thread or task; one thread or task waits for it.

    No caller holds a lock here. An exception from outside may come at any bytecode, and a lock of
    Python code (as in a Condition or a Future) would then be held for ever.
    """

    __slots__ = ("_is_open", "_wake")

    def __init__(self) -> None:
        self._is_open = False
        self._wake: Callable[[], object] | None = None

    @property
    def is_open(self) -> bool:
        """Whether it was opened."""
        return self._is_open

    def open(self) -> bool:
        """Open it and wake the waiter; return False if that is a task whose loop is closed."""
        self._is_open = True
        if (wake := self._wake) is not None:
            try:
                wake()
            except RuntimeError:
                self._is_open = False
        return self._is_open

    def wait(self, seconds: float) -> None:
        """Wait until it is open, at most so many seconds."""
        lock = threading.Lock()
        lock.acquire()
        self._wake = functools.partial(_release, lock)
        # It may have been opened before it had somebody to wake.
        if not self._is_open:
            lock.acquire(timeout=max(0.0, seconds))

    async def await_opened(self, seconds: float) -> None:
        """The same on an event loop."""
        loop = asyncio.get_running_loop()
        woken = loop.create_future()

        def wake() -> None:
            if asyncio._get_running_loop() is loop:
                finish(woken)
            else:
                loop.call_soon_threadsafe(finish, woken)

        self._wake = wake
        if not self._is_open:
            timer = loop.call_later(seconds, finish, woken)
            try:
                await woken
            finally:
                timer.cancel()


def finish(future: asyncio.Future[None]) -> None:
    """End the wait for ``future``, unless it has ended."""
    if not future.done():
        future.set_result(None)


def _release(lock: threading.Lock) -> None:
    with contextlib.suppress(RuntimeError):
        lock.release()


class Flight:
    """
    Work in progress since ``started_at``, in monotonic seconds, with an outcome or an error later.
    """

    __slots__ = (
        "_error", "_has_ended", "_lead", "_loop", "_outcome", "_waiting", "started_at",
    )  # fmt: skip

    def __init__(self, lead: Lead) -> None:
        self.started_at = clock.monotonic()
        self._lead = weakref.ref(lead)
        # Of a leader that is a task.
        self._loop = asyncio._get_running_loop()
        self._has_ended = False
        self._outcome: Any = AGAIN
        self._error: BaseException | None = None
        self._waiting: list[Gate] = []

    def done(self) -> bool:
        """Return whether the flight has ended, with its leader at the latest."""
        return self._has_ended or self._lead() is None

    def end(self, outcome: Any, error: BaseException | None = None) -> None:
        """Give the outcome or the error to all followers, unless the flight has ended."""
        if not self._has_ended:
            self._outcome, self._error, self._has_ended = outcome, error, True
        while self._waiting:
            self._waiting.pop().open()

    def result(self, seconds: float) -> Any:
        """
        Wait for the outcome, at most so many seconds. Raises the error, or TimeoutError: at once if
        the leader is a task that this thread keeps from going on.
        """
        if self._loop is not None and self._loop is asyncio._get_running_loop():
            seconds = 0.0
        until = time.monotonic() + seconds
        gate = self._add_gate()
        while not self.done():
            gate.wait(_next_look(until))
        return self._get()

    async def aresult(self, seconds: float) -> Any:
        """The same on an event loop."""
        until = time.monotonic() + seconds
        gate = self._add_gate()
        while not self.done():
            await gate.await_opened(_next_look(until))
        return self._get()

    def _add_gate(self) -> Gate:
        gate = Gate()
        self._waiting.append(gate)
        return gate

    def _get(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._outcome


def _next_look(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return min(left, _LOOK_EVERY)


class Lead:
    """
    The leader's reference to its flight. The flight ends with it: an exception from outside may
    come before the leader gives an outcome.
    """

    __slots__ = ("__weakref__", "flight")

    def __init__(self) -> None:
        self.flight = Flight(self)

    def __del__(self) -> None:
        self.end()

    def end(self) -> None:
        """End the flight if it has no outcome yet."""
        self.flight.end(AGAIN)


class Flights:
    """The flights in progress that other callers may join, by name."""

    def __init__(self) -> None:
        self._joinable: dict[Hashable, Flight] = {}
        self._lock = threading.Lock()

    def join(self, name: Hashable) -> Flight | Lead:
        """Return the flight called ``name``, or a lead if the caller leads it."""
        with self._lock:
            flight = self._joinable.get(name)
            return self._lead(name) if flight is None or flight.done() else flight

    def lead(self, name: Hashable) -> Lead:
        """Let the caller lead a new flight, even if another one is in progress."""
        with self._lock:
            return self._lead(name)

    def detach(self, name: Hashable) -> None:
        """Let no further caller join the flight called ``name``."""
        with self._lock:
            self._joinable.pop(name, None)

    def detach_all(self) -> None:
        """Let no further caller join any flight in progress."""
        with self._lock:
            self._joinable.clear()

    def __len__(self) -> int:
        """Return how many flights may be joined."""
        return sum(not flight.done() for flight in self._joinable.copy().values())

    def land(
        self, name: Hashable, lead: Lead, outcome: Any, error: BaseException | None = None
    ) -> bool:
        """
        End the flight with an outcome or an error for all callers that wait for it.

        Return whether callers could still join it: it was neither detached nor replaced.
        """
        with self._lock:
            was_current = self._joinable.get(name) is lead.flight
            if was_current:
                del self._joinable[name]
        lead.flight.end(outcome, error)
        return was_current

    def _lead(self, name: Hashable) -> Lead:
        lead = Lead()
        self._joinable[name] = lead.flight
        return lead


def _make(using: str) -> Flights:
    return Flights()


_flights = PerProcess(_make)


def get_flights(using: str) -> Flights:
    """Return this process's flights of the alias ``using``."""
    return _flights.get(using)
