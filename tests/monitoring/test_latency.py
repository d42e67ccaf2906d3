"""Latencies over operations, minutes and processes, and their short forms."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.monitoring.histogram import HIGHEST, LOWEST, bucket_of
from dynamo_stores.monitoring.latency import busiest, packed, summary, total_latencies, unpacked
from dynamo_stores.monitoring.tally import Tally


def test_only_the_last_minutes_count():
    """The present one and five before."""
    found = Tally()
    for minute in range(20):
        found.count_operation(60.0 * minute, "t", "GetItem", 0.001 * (minute + 1))
    assert found.latencies(60.0 * 19) == {
        minute: {"t": {"GetItem": {bucket_of(0.001 * (minute + 1)): 1}}} for minute in range(14, 20)
    }
    assert found.latencies(60.0 * 40) == {}


def test_quantiles_are_of_all_processes():
    """Ninety fast calls here and ten slow ones there, in two minutes."""
    here, there = Tally(), Tally()
    for each in range(90):
        here.count_operation(60.0 * (each % 2), "t", "GetItem", 0.002)
    for _ in range(10):
        there.count_operation(0.0, "t", "GetItem", 0.5)
    there.count_operation(0.0, "t", "PutItem", 0.01)
    there.count_operation(0.0, "other", "PutItem", 9.0)
    totals = total_latencies([here.latencies(60.0), there.latencies(60.0)])
    assert set(totals) == {0, 1}
    get, put = summary("t", totals.values())
    assert (get.operation, get.calls) == ("GetItem", 100)
    assert (put.operation, put.calls) == ("PutItem", 1)
    assert 0.0018 < get.p50 < 0.0022
    assert 0.45 < get.p95 < 0.55
    assert 0.45 < get.p99 < 0.55
    assert 0.009 < put.p50 == put.p99 < 0.011
    assert summary("none", totals.values()) == ()


def test_the_busiest():
    """By calls in all minutes, over all tables."""
    latencies = {
        1: {"a": {"GetItem": {1: 5}, "PutItem": {1: 1, 2: 1}}, "b": {"Query": {3: 3}}},
        2: {"a": {"PutItem": {1: 2}}},
    }
    assert busiest(latencies, 2) == {
        1: {"a": {"GetItem": {1: 5}, "PutItem": {1: 1, 2: 1}}},
        2: {"a": {"PutItem": {1: 2}}},
    }
    assert busiest(latencies, 0) == {}


@given(st.dictionaries(st.integers(LOWEST, HIGHEST), st.integers(1, 10**9), max_size=30))
def test_the_short_form_is_the_same(buckets):
    """In one list, whose first number is a bucket."""
    assert unpacked(packed(buckets)) == buckets
    assert len(packed(buckets)) <= HIGHEST + 2
