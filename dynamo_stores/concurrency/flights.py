"""Single flight: one thread or task of a process works, the others wait for its outcome."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import Future
from typing import Any, Final

from .. import clock
from .per_process import PerProcess

# The outcome of a flight whose leader ended without one: its followers try again.
AGAIN: Final = object()


class Flight(Future[Any]):
    """Work in progress since ``started_at``, in monotonic seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.started_at = clock.monotonic()


class Flights:
    """The flights in progress that other callers may join, by name."""

    def __init__(self) -> None:
        self._joinable: dict[Hashable, Flight] = {}
        self._lock = threading.Lock()

    def join(self, name: Hashable) -> tuple[Flight, bool]:
        """Return the flight called ``name``, and whether the caller leads it."""
        with self._lock:
            flight = self._joinable.get(name)
            if flight is not None:
                return flight, False
            flight = self._joinable[name] = Flight()
            return flight, True

    def lead(self, name: Hashable) -> Flight:
        """Return a new flight that the caller leads, even if another one is in progress."""
        with self._lock:
            flight = self._joinable[name] = Flight()
            return flight

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
        return len(self._joinable)

    def land(
        self, name: Hashable, flight: Flight, outcome: Any, error: BaseException | None = None
    ) -> bool:
        """
        End the flight with an outcome or an error for all callers that wait for it.

        Return whether callers could still join it: it was neither detached nor replaced.
        """
        with self._lock:
            was_current = self._joinable.get(name) is flight
            if was_current:
                del self._joinable[name]
        if error is not None:
            flight.set_exception(error)
        else:
            flight.set_result(outcome)
        return was_current


def _make(using: str) -> Flights:
    return Flights()


_flights = PerProcess(_make)


def get_flights(using: str) -> Flights:
    """Return this process's flights of the alias ``using``."""
    return _flights.get(using)
