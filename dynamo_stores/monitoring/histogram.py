"""
Latencies in exponential buckets: counts that can be added up over processes and minutes. Pure.

Bucket ``n`` has the values above ``2 ** ((n - 1) / 4)`` and up to ``2 ** (n / 4)`` microseconds, so
that a quantile is at most 9 % off, whatever the size of the values. A dict has only the buckets in
use: the latencies of one operation are in some twenty of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil, log2

# Counts by bucket.
Buckets = dict[int, int]

# Buckets for each doubling.
_SCALE = 4
_MICROSECONDS = 1e6
# Values below a microsecond, and those above 19 hours.
LOWEST, HIGHEST = 0, 144
_MOST = 2.0 ** (HIGHEST / _SCALE)


def bucket_of(seconds: float) -> int:
    """Return the bucket of a value."""
    microseconds = seconds * _MICROSECONDS
    if not microseconds > 1.0:
        return LOWEST
    return HIGHEST if microseconds >= _MOST else ceil(log2(microseconds) * _SCALE)


def buckets_of(values: Iterable[float]) -> Buckets:
    """Return the counts of values by bucket."""
    found: Buckets = {}
    for seconds in values:
        # As bucket_of, without a call for each value.
        microseconds = seconds * _MICROSECONDS
        if 1.0 < microseconds < _MOST:
            bucket = ceil(log2(microseconds) * _SCALE)
        else:
            bucket = bucket_of(seconds)
        found[bucket] = found.get(bucket, 0) + 1
    return found


def bound_of(bucket: int) -> float:
    """Return the largest value of a bucket, in seconds."""
    return float(2 ** (bucket / _SCALE) / _MICROSECONDS)


def add(buckets: Buckets, others: Mapping[int, int]) -> None:
    """Add the counts of another histogram."""
    for bucket, count in others.items():
        buckets[bucket] = buckets.get(bucket, 0) + count


def quantile(buckets: Mapping[int, int], share: float) -> float:
    """
    Return the value, in seconds, that a ``share`` of all values does not exceed: the middle of its
    bucket (the geometric mean of its bounds). 0 without values.
    """
    count = sum(buckets.values())
    rank, seen = share * count, 0
    for bucket in sorted(buckets):
        seen += buckets[bucket]
        if seen >= rank and seen:
            return bound_of(bucket) / 2 ** (1 / (2 * _SCALE))
    return 0.0
