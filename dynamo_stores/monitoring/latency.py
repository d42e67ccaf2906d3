"""The latencies of the last ten minutes, by table and operation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..capacity.usage import minute_of
from .histogram import Buckets, add, bucket_of, quantile

# Minutes whose latencies are in a report, beside the present one.
MINUTES = 10

# By table and operation.
Latencies = Mapping[str, Mapping[str, Mapping[int, int]]]


@dataclass(frozen=True)
class Latency:
    """
    The attempts of one operation on a table, and the seconds that a half, 95 % and 99 % of them
    took at most. Waits between attempts are not in them.
    """

    operation: str
    attempts: int
    p50: float
    p95: float
    p99: float


class RecentLatencies:
    """Counts the latencies of one alias in this process. Not thread-safe."""

    def __init__(self) -> None:
        self._minutes: dict[int, dict[tuple[str, str], Buckets]] = {}

    def record(self, at: float, table: str, operation: str, seconds: float) -> None:
        """Record an attempt that ended ``at`` a time."""
        minute = minute_of(at)
        found = self._minutes.get(minute)
        if found is None:
            self._forget(minute)
            found = self._minutes[minute] = {}
        buckets = found.get((table, operation))
        if buckets is None:
            buckets = found[table, operation] = {}
        bucket = bucket_of(seconds)
        buckets[bucket] = buckets.get(bucket, 0) + 1

    def recent(self, now: float) -> dict[str, dict[str, Buckets]]:
        """Return the counts by bucket of the last minutes, by table and operation."""
        self._forget(minute_of(now))
        found: dict[str, dict[str, Buckets]] = {}
        for minute in self._minutes.values():
            for (table, operation), buckets in minute.items():
                add(found.setdefault(table, {}).setdefault(operation, {}), buckets)
        return found

    def _forget(self, minute: int) -> None:
        for old in [each for each in self._minutes if each < minute - MINUTES]:
            del self._minutes[old]


def busiest(latencies: Latencies, most: int) -> dict[str, dict[str, Mapping[int, int]]]:
    """Return the latencies of the ``most`` operations with the most attempts."""
    counts = [
        (sum(buckets.values()), table, operation)
        for table, operations in latencies.items()
        for operation, buckets in operations.items()
    ]
    found: dict[str, dict[str, Mapping[int, int]]] = {}
    for _, table, operation in sorted(counts, reverse=True)[:most]:
        found.setdefault(table, {})[operation] = latencies[table][operation]
    return found


def summary(table: str, latencies: Iterable[Latencies]) -> tuple[Latency, ...]:
    """Return the latency of each operation on a table, by all ``latencies``, the busiest first."""
    totals: dict[str, Buckets] = {}
    for each in latencies:
        for operation, buckets in each.get(table, {}).items():
            add(totals.setdefault(operation, {}), buckets)
    found = [
        Latency(
            operation,
            sum(buckets.values()),
            *(quantile(buckets, share) for share in (0.5, 0.95, 0.99)),
        )
        for operation, buckets in totals.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.attempts, each.operation)))
