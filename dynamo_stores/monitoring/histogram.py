"""
Latencies in exponential buckets: counts that can be added up over processes and minutes. Pure.

Bucket ``n`` has the values above ``2 ** ((n - 1) / 4)`` and up to ``2 ** (n / 4)`` microseconds, so
that a quantile is at most 9 % off, whatever the size of the values. A dict has only the buckets in
use: the latencies of one operation are in some twenty of them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import partial

# Counts by bucket.
Buckets = dict[int, int]

# Buckets for each doubling.
_SCALE = 4
_MICROSECONDS = 1e6
# Values up to a microsecond, and those above 19 hours.
LOWEST, HIGHEST = 0, 144


def bound_of(bucket: int) -> float:
    """Return the largest value of a bucket, in seconds."""
    return float(2 ** (bucket / _SCALE) / _MICROSECONDS)


_BOUNDS = [bound_of(bucket) for bucket in range(HIGHEST)]
_bucket_of = partial(bisect_left, _BOUNDS)


def bucket_of(seconds: float) -> int:
    """Return the bucket of a value."""
    return _bucket_of(seconds)


def buckets_of(values: Iterable[float]) -> Buckets:
    """Return the counts of values by bucket."""
    return Counter(map(_bucket_of, values))


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
