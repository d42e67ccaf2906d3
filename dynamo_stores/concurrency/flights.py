"""Work that one thread or task of a process does while the others wait for its outcome."""

from __future__ import annotations

import threading
from collections.abc import Hashable
from concurrent.futures import Future
from typing import Any

from .per_process import PerProcess


class Flights:
    """What is under way in this process, by name."""

    def __init__(self) -> None:
        self._flying: dict[Hashable, Future[Any]] = {}
        self._lock = threading.Lock()

    def join(self, name: Hashable) -> tuple[Future[Any], bool]:
        """Return the flight called ``name``, and whether the caller leads it."""
        with self._lock:
            flight = self._flying.get(name)
            if flight is not None:
                return flight, False
            flight = self._flying[name] = Future()
            return flight, True

    def land(self, name: Hashable, outcome: Any, error: BaseException | None = None) -> None:
        """End the flight, for all who wait, with an outcome or an error."""
        with self._lock:
            flight = self._flying.pop(name)
        if error is not None:
            flight.set_exception(error)
        else:
            flight.set_result(outcome)


def _make(using: str) -> Flights:
    return Flights()


_flights = PerProcess(_make)


def get_flights(using: str) -> Flights:
    """Return this process's flights."""
    return _flights.get(using)
