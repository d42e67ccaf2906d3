"""Single flight: one thread or task of a process works, and the others wait for its outcome."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import Future
from typing import Any, Final

from .. import clock
from .per_process import PerProcess

# The outcome of a flight whose leader ended without one: its followers try for themselves.
AGAIN: Final = object()


class Flight(Future[Any]):
    """Work that is under way since ``started_at``, in monotonic seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.started_at = clock.monotonic()


class Flights:
    """The flights of this process that may be joined, by name."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, Flight] = {}
        self._lock = threading.Lock()

    def join(self, name: Hashable) -> tuple[Flight, bool]:
        """Return the flight called ``name``, and whether the caller leads it."""
        with self._lock:
            flight = self._flying.get(name)
            if flight is not None:
                return flight, False
            flight = self._flying[name] = Flight()
            return flight, True

    def lead(self, name: Hashable) -> Flight:
        """Return a new flight, which the caller leads even where another one is under way."""
        with self._lock:
            flight = self._flying[name] = Flight()
            return flight

    def detach(self, name: Hashable) -> None:
        """Let no further caller join the flight called ``name``."""
        with self._lock:
            self._flying.pop(name, None)

    def detach_all(self) -> None:
        """Let no further caller join any flight that is under way."""
        with self._lock:
            self._flying.clear()

    def __len__(self) -> int:
        """Return how many flights may be joined."""
        return len(self._flying)

    def land(
        self, name: Hashable, flight: Flight, outcome: Any, error: BaseException | None = None
    ) -> bool:
        """
        End the flight with an outcome or an error for all who wait for it.

        Return whether it could still be joined: neither detached nor replaced by another one.
        """
        with self._lock:
            was_current = self._flying.get(name) is flight
            if was_current:
                del self._flying[name]
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
