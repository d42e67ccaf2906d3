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
        self._ended_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def add(self, pks: Iterable[str]) -> None:
        """Add the keys of a write that has just ended, or whose outcome is not known."""
        now = clock.monotonic()
        with self._lock:
            ended_at = self._ended_at
            for pk in pks:
                # The oldest is first.
                ended_at.pop(pk, None)
                ended_at[pk] = now
            while ended_at and now - ended_at[oldest := next(iter(ended_at))] >= LAG:
                del ended_at[oldest]

    def __contains__(self, pk: str) -> bool:
        ended_at = self._ended_at.get(pk)
        return ended_at is not None and clock.monotonic() - ended_at < LAG


def _make(using: str) -> dict[str, RecentWrites]:
    return {}


_by_prefix = PerProcess(_make)


def get_recent_writes(using: str, prefix: str) -> RecentWrites:
    """Return the recent writes of this process with the prefix."""
    found = _by_prefix.get(using)
    return found.get(prefix) or found.setdefault(prefix, RecentWrites())
