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


class Lead:
    """
    The leader's reference to its flight. The flight ends with it: an exception from outside may
    come before the leader gives an outcome.
    """

    __slots__ = ("flight",)

    def __init__(self) -> None:
        self.flight = Flight()

    def __del__(self) -> None:
        self.end()

    def end(self) -> None:
        """End the flight if it has no outcome yet."""
        if not self.flight.done():
            self.flight.set_result(AGAIN)


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
        if error is not None:
            lead.flight.set_exception(error)
        else:
            lead.flight.set_result(outcome)
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
