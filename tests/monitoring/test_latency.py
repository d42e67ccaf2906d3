"""Latencies of the last minutes, over operations and processes."""

from __future__ import annotations

from dynamo_stores.monitoring.histogram import bucket_of
from dynamo_stores.monitoring.latency import RecentLatencies, busiest, summary


def test_only_the_last_minutes_count():
    """The present one and ten before."""
    found = RecentLatencies()
    for minute in range(20):
        found.record(60.0 * minute, "t", "GetItem", 0.001 * (minute + 1))
    assert set(found.recent(60.0 * 19)["t"]["GetItem"]) == {
        bucket_of(0.001 * (minute + 1)) for minute in range(9, 20)
    }
    assert found.recent(60.0 * 40) == {}


def test_quantiles_are_of_all_processes():
    """Ninety fast attempts here and ten slow ones there."""
    here, there = RecentLatencies(), RecentLatencies()
    for _ in range(90):
        here.record(0.0, "t", "GetItem", 0.002)
    for _ in range(10):
        there.record(0.0, "t", "GetItem", 0.5)
    there.record(0.0, "t", "PutItem", 0.01)
    there.record(0.0, "other", "PutItem", 9.0)
    get, put = summary("t", [here.recent(0.0), there.recent(0.0)])
    assert (get.operation, get.attempts, put.operation, put.attempts) == (
        "GetItem",
        100,
        "PutItem",
        1,
    )
    assert 0.0018 < get.p50 < 0.0022
    assert 0.45 < get.p95 < 0.55
    assert 0.45 < get.p99 < 0.55
    assert 0.009 < put.p50 == put.p99 < 0.011
    assert summary("none", [here.recent(0.0)]) == ()


def test_the_busiest():
    """By attempts, over all tables."""
    latencies = {"a": {"GetItem": {1: 5}, "PutItem": {1: 1, 2: 1}}, "b": {"Query": {3: 3}}}
    assert busiest(latencies, 2) == {"a": {"GetItem": {1: 5}}, "b": {"Query": {3: 3}}}
    assert busiest(latencies, 0) == {}
