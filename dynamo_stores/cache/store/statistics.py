"""How often this process's caches were asked for something, and had it."""

from __future__ import annotations

import threading
from typing import NamedTuple

from ...concurrency.per_process import PerProcess


class Counts(NamedTuple):
    """Keys that were asked for: found, and not."""

    hits: int
    misses: int


class Lookups:
    """The counts of one alias, since the process began; for all threads."""

    def __init__(self, using: str) -> None:
        self._hits = self._misses = 0
        self._lock = threading.Lock()

    def add(self, hits: int, misses: int) -> None:
        """Count keys that were found, and others that were not."""
        with self._lock:
            self._hits += hits
            self._misses += misses

    def counts(self) -> Counts:
        """Return what was counted so far."""
        with self._lock:
            return Counts(self._hits, self._misses)


_lookups = PerProcess(Lookups)


def get_lookups(using: str) -> Lookups:
    """Return this process's counts for the alias ``using``."""
    return _lookups.get(using)
