"""What the stores of this process count, beside their calls: refusals, jobs, waits."""

from __future__ import annotations

import threading
from collections import Counter

from ..concurrency.per_process import PerProcess

# Labels counted apart, such as the resources of limits; further ones are counted as OTHER.
MOST_LABELS, OTHER = 500, "(other)"


class Counters:
    """Counts by name and labels, of one alias since the process began. Thread-safe."""

    def __init__(self, using: str) -> None:
        self._counts: dict[str, Counter[tuple[str, ...]]] = {}
        # A signal handler of the same thread may count, too.
        self._lock = threading.RLock()

    def add(self, name: str, *labels: str) -> None:
        """Add one to a count."""
        with self._lock:
            counts = self._counts.setdefault(name, Counter())
            if labels not in counts and len(counts) >= MOST_LABELS:
                labels = (OTHER,) * len(labels)
            counts[labels] += 1

    def total(self, name: str) -> int:
        """Return the sum of the counts of ``name``."""
        with self._lock:
            return sum(self._counts.get(name, {}).values())

    def all(self) -> dict[str, dict[tuple[str, ...], int]]:
        """Return all counts by name and labels."""
        with self._lock:
            return {name: dict(counts) for name, counts in self._counts.items()}


_counters = PerProcess(Counters)


def get_counters(using: str) -> Counters:
    """Return this process's counters for the alias ``using``."""
    return _counters.get(using)
