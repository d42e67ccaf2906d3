"""Latencies in buckets: quantiles are nearly exact, and sums are those of all values."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.monitoring.histogram import (
    HIGHEST,
    LOWEST,
    add,
    bound_of,
    bucket_of,
    quantile,
)

_seconds = st.floats(1e-6, 50_000.0)
# Half a bucket, by which the middle of one is away from its bounds.
_NEAR = 2 ** (1 / 8) * (1 + 1e-9)


def histogram(values):
    found = {}
    for value in values:
        add(found, {bucket_of(value): 1})
    return found


@given(_seconds)
def test_a_value_is_in_its_bucket(seconds):
    """At most its bound, and above the one before; whatever floats round to."""
    bucket = bucket_of(seconds)
    assert seconds <= bound_of(bucket) * (1 + 1e-9)
    assert bucket == LOWEST or seconds > bound_of(bucket - 1) * (1 - 1e-9)


@given(st.lists(_seconds, min_size=1, max_size=200), st.floats(0.001, 1.0))
def test_a_quantile_is_at_most_nine_percent_off(values, share):
    """Of the value that this share of all values does not exceed."""
    exact = sorted(values)[math.ceil(share * len(values)) - 1]
    found = quantile(histogram(values), share)
    assert exact / _NEAR <= found <= exact * _NEAR


@given(st.lists(_seconds, max_size=20), st.lists(_seconds, max_size=20))
def test_a_sum_is_the_histogram_of_all_values(some, others):
    """In any order."""
    whole = histogram(some + others)
    for first, second in ((some, others), (others, some)):
        found = histogram(first)
        add(found, histogram(second))
        assert found == whole


def test_values_beyond_all_buckets():
    """Clocks that stand still or jump make no bucket of their own."""
    for odd in (0.0, -1.0, float("nan"), 1e-9):
        assert bucket_of(odd) == LOWEST
    assert bucket_of(1e9) == bucket_of(math.inf) == HIGHEST


def test_no_values():
    assert quantile({}, 0.99) == 0.0
