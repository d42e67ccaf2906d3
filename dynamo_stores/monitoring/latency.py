"""Latencies by minute, table and operation: their sums, quantiles and short forms. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .histogram import Buckets, add, quantile

# By table and operation, then by bucket.
Latencies = Mapping[str, Mapping[str, Mapping[int, int]]]
# By minute since the epoch.
LatenciesByMinute = Mapping[int, Latencies]
# The same, to be added to.
Totals = dict[str, dict[str, Buckets]]


@dataclass(frozen=True)
class Latency:
    """
    The calls of one operation on a table, and the seconds that a half, 95 % and 99 % of them took
    at most, with their retries and the waits between them.
    """

    operation: str
    calls: int
    p50: float
    p95: float
    p99: float


def add_latencies(totals: Totals, latencies: Latencies) -> None:
    """Add the counts of ``latencies`` to those of ``totals``."""
    for table, operations in latencies.items():
        found = totals.setdefault(table, {})
        for operation, buckets in operations.items():
            add(found.setdefault(operation, {}), buckets)


def total_latencies(found: Iterable[LatenciesByMinute]) -> dict[int, Totals]:
    """Return the sums of the latencies of several processes, by minute."""
    totals: dict[int, Totals] = {}
    for latencies in found:
        for minute, each in latencies.items():
            add_latencies(totals.setdefault(minute, {}), each)
    return totals


def busiest(latencies: LatenciesByMinute, most: int) -> dict[int, Totals]:
    """Return the latencies of the ``most`` operations with the most calls in all minutes."""
    counts: dict[tuple[str, str], int] = {}
    for minute in latencies.values():
        for table, operations in minute.items():
            for operation, buckets in operations.items():
                key = table, operation
                counts[key] = counts.get(key, 0) + sum(buckets.values())
    ranked = sorted(counts, key=lambda key: (counts[key], key), reverse=True)
    kept, found = frozenset(ranked[:most]), {}
    for at, minute in latencies.items():
        tables: Totals = {}
        for table, operations in minute.items():
            for operation, buckets in operations.items():
                if (table, operation) in kept:
                    tables.setdefault(table, {})[operation] = dict(buckets)
        if tables:
            found[at] = tables
    return found


def summary(table: str, latencies: Iterable[Latencies]) -> tuple[Latency, ...]:
    """Return the latency of each operation on a table, by all ``latencies``, the busiest first."""
    totals: Totals = {}
    for each in latencies:
        if table in each:
            add_latencies(totals, {table: each[table]})
    found = [
        Latency(
            operation,
            sum(buckets.values()),
            *(quantile(buckets, share) for share in (0.5, 0.95, 0.99)),
        )
        for operation, buckets in totals.get(table, {}).items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.calls, each.operation)))


def packed(buckets: Mapping[int, int]) -> list[int]:
    """Return the first bucket, and the counts of it and of all up to the last one."""
    if not buckets:
        return []
    first = min(buckets)
    return [first, *(buckets.get(each, 0) for each in range(first, max(buckets) + 1))]


def unpacked(counts: list[int]) -> Buckets:
    """Return the counts by bucket that ``packed`` made short."""
    return {bucket: count for bucket, count in enumerate(counts[1:], *counts[:1]) if count}


def packed_latencies(latencies: Latencies) -> dict[str, dict[str, list[int]]]:
    """Return the latencies with the counts of each operation in their short form."""
    return {
        table: {operation: packed(buckets) for operation, buckets in operations.items()}
        for table, operations in latencies.items()
    }
