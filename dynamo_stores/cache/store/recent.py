"""The keys that this process wrote lately: replicas of DynamoDB may not show those writes yet."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ... import clock
from ...concurrency.per_process import PerProcess

# An eventually consistent read usually shows a write within a second:
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.ReadConsistency.html
LAG = 1.0


class RecentWrites:
    """The partition keys of the entries that were written in the last second. Thread-safe."""

    def __init__(self) -> None:
        self._written_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, pks: Iterable[str]) -> None:
        """Add the keys of a write that begins, has just ended, or whose outcome is not known."""
        now = clock.monotonic()
        with self._lock:
            written_at = self._written_at
            for pk in pks:
                # The oldest is first.
                written_at.pop(pk, None)
                written_at[pk] = now
            while written_at and now - written_at[oldest := next(iter(written_at))] >= LAG:
                del written_at[oldest]

    def __contains__(self, pk: str) -> bool:
        written_at = self._written_at.get(pk)
        return written_at is not None and clock.monotonic() - written_at < LAG


def _make(using: str) -> dict[str, RecentWrites]:
    return {}


_by_prefix = PerProcess(_make)


def get_recent_writes(using: str, prefix: str) -> RecentWrites:
    """Return the recent writes of this process with the prefix."""
    found = _by_prefix.get(using)
    return found.get(prefix) or found.setdefault(prefix, RecentWrites())
