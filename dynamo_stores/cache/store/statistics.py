"""Hits and misses of this process's caches."""

from __future__ import annotations

import threading
from typing import NamedTuple

from ...concurrency.per_process import PerProcess


class Counts(NamedTuple):
    """How many keys were found, and how many were not."""

    hits: int
    misses: int


class Lookups:
    """The counts of one alias since the process began. Thread-safe."""

    def __init__(self, using: str) -> None:
        self._hits = self._misses = 0
        self._lock = threading.Lock()

    def add(self, hits: int, misses: int) -> None:
        """Add to the counts."""
        with self._lock:
            self._hits += hits
            self._misses += misses

    def counts(self) -> Counts:
        """Return the counts."""
        with self._lock:
            return Counts(self._hits, self._misses)


_lookups = PerProcess(Lookups)


def get_lookups(using: str) -> Lookups:
    """Return this process's counts for the alias ``using``."""
    return _lookups.get(using)
