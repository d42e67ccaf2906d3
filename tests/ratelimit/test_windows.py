"""What sliding and fixed windows store, and when they admit, at exact moments."""

from __future__ import annotations

import pytest

from dynamo_stores.conf.rates import Rate
from dynamo_stores.ratelimit.algorithms import Windows
from dynamo_stores.ratelimit.algorithms.windows import Changes, Window, counter_of
from tests.ratelimit.items import START, TEN, Item, Limit, at


def test_what_a_sliding_window_stores():
    """For each rate the live bucket, and the count of each bucket; then the TTL."""
    limit = Limit(Windows(), TEN, Rate(100, 60))
    limit.ask(0.5, 2)
    tenths = START // 6
    assert limit.stored == {
        "b0": START,
        counter_of(0, START): 2,
        "b1": tenths,
        counter_of(1, tenths): 2,
        "#ttl": START + 1 + 2 * 60 + 60,
    }
    limit.ask(0.9)
    limit.ask(1.0)
    limit.ask(4.0)
    assert limit.stored == {
        "b0": START + 4,
        counter_of(0, START): 3,
        counter_of(0, START + 1): 1,
        counter_of(0, START + 4): 1,
        "b1": tenths,
        counter_of(1, tenths): 5,
        "#ttl": START + 4 + 2 * 60 + 60,
    }
    assert limit.state[0] == Window(START + 4, 1, (0, 0, 1, 3))


def test_the_attribute_of_a_bucket_is_short():
    """Its index is written to the base 36."""
    assert counter_of(0, START) == "c0_trphc0"
    assert [counter_of(10, bucket) for bucket in (0, 35, 36)] == ["c10_0", "c10_z", "c10_10"]


def test_within_a_bucket_only_its_count_is_written():
    """The time to live is set with a new bucket."""
    limit = Limit(Windows())
    assert ":ttl" in limit.decide(0).write.values
    limit.ask(0)
    write = limit.decide(0.5).write
    assert set(write.values) == {":n", ":b0", ":m0"}
    assert ":ttl" in limit.decide(1).write.values


def test_what_a_fixed_window_stores():
    """One bucket, and none before."""
    limit = Limit(Windows(0))
    limit.ask(9.9, 2)
    ttl = START + 10 + 20 + 60
    assert limit.stored == {"b0": START // 10, counter_of(0, START // 10): 2, "#ttl": ttl}
    limit.ask(10)
    assert limit.stored == {"b0": START // 10 + 1, counter_of(0, START // 10 + 1): 1, "#ttl": ttl}


def test_a_bucket_is_kept_for_a_window_after_its_end():
    """At the earliest possible time."""
    for seconds, low, is_kept in (
        (10.9, 0, True),
        (11, 0, False),
        (500, 0, False),
        (11, 0.1, True),
    ):
        limit = Limit(Windows())
        limit.ask(0.5, 3)
        times = at(seconds, low=low)
        assert limit.item.write(limit.algorithm.decide(limit.state, limit.rates, 1, times).write)
        assert (counter_of(0, START) in limit.stored) is is_kept
        assert sum(limit.state[0].frozen) == (3 if is_kept else 0)


def test_requests_are_counted_at_the_latest_possible_time():
    """And in the bucket of the item, if that is ahead of this clock."""
    algorithm, item = Windows(), Item()
    item.write(algorithm.decide(None, (TEN,), 1, at(0.5, high=2)).write)
    assert item.attributes["b0"] == {"N": str(START + 2)}
    item.write(algorithm.decide(algorithm.read(item.attributes, 1), (TEN,), 1, at(0.5)).write)
    assert item.attributes["b0"] == {"N": str(START + 2)}
    assert item.attributes[counter_of(0, START + 2)] == {"N": "2"}


def test_when_a_sliding_window_admits_again():
    """A window after the end of the bucket that must be dropped for it; reset after the last."""
    limit = Limit(Windows(), Rate(3, 10))
    limit.ask(0.5, 2)
    assert limit.ask(2.5).reset_at == pytest.approx(START + 3 + 10.001)
    refused = limit.ask(5)
    assert (refused.allowed, refused.remaining) == (False, 0)
    assert refused.retry_after == pytest.approx(11.001 - 5, abs=1e-5)
    assert refused.reset_at == pytest.approx(START + 13.001)
    assert limit.look(5, 2).retry_after == pytest.approx(11.001 - 5, abs=1e-5)
    assert limit.look(5, 3).retry_after == pytest.approx(13.001 - 5, abs=1e-5)
    assert limit.look(5, 4).retry_after == 10
    assert limit.look(13).reset_at == START + 13


def test_when_a_fixed_window_admits_again():
    """At its end."""
    limit = Limit(Windows(0), Rate(3, 10))
    limit.ask(0.5, 3)
    refused = limit.ask(4)
    assert refused.retry_after == pytest.approx(6.001, abs=1e-5)
    assert refused.reset_at == pytest.approx(START + 10.001)
    assert limit.look(4, 4).retry_after == 10


@pytest.mark.parametrize(
    ("buckets", "seconds", "is_live"),
    [(10, 0, True), (10, 0.99, True), (10, 1, False), (0, 9.9, True), (0, 10, False)],
)
def test_a_state_is_live_in_its_bucket(buckets, seconds, is_live):
    """At the latest possible time."""
    limit = Limit(Windows(buckets), TEN, Rate(100, 60))
    limit.ask(0, 2)
    algorithm, state, rates = limit.algorithm, limit.state, limit.rates
    assert algorithm.is_live(state, rates, at(seconds)) is is_live
    assert algorithm.is_live(state, rates, at(seconds - 0.5, high=0.5)) is is_live
    # An item ahead of this clock is live.
    assert algorithm.is_live(state, rates, at(-30))


def test_a_refund_of_windows_takes_from_live_buckets():
    """Earlier buckets do not change; nothing can be taken back from them."""
    limit = Limit(Windows(), TEN, Rate(100, 60))
    limit.ask(0, 3)
    assert limit.item.write(limit.refund(1, 2))
    assert (limit.stored[counter_of(0, START)], limit.stored[counter_of(1, START // 6)]) == (3, 1)
    assert limit.refund(6) is None
    fixed = Limit(Windows(0))
    fixed.ask(0, 3)
    assert fixed.item.write(fixed.refund(9.9, 2))
    assert fixed.stored[counter_of(0, START // 10)] == 1
    assert fixed.refund(10) is None


@pytest.mark.parametrize("algorithm", [Windows(), Windows(0)])
def test_a_refund_follows_the_bucket_of_the_item(algorithm):
    """Also if that is ahead of this clock, because a faster one counted."""
    item = Item()
    item.write(algorithm.decide(None, (TEN,), 3, at(9, high=2)).write)
    state = algorithm.read(item.attributes, 1)
    assert item.write(algorithm.refund(state, (TEN,), 2, at(9)))
    assert algorithm.read(item.attributes, 1)[0].held == 1


def test_a_refund_of_windows_fails_in_another_bucket():
    """Another process has moved on meanwhile: its count is not reduced."""
    limit = Limit(Windows())
    limit.ask(0, 3)
    late = limit.refund(0, 3)
    limit.ask(1, 5)
    assert not limit.item.write(late)


@pytest.mark.parametrize("algorithm", [Windows(), Windows(0)])
def test_several_processes_begin_the_same_bucket(algorithm):
    """Each by the last bucket; what is counted meanwhile is not lost."""
    limit = Limit(algorithm)
    limit.ask(9, 3)
    one, other, third = limit.decide(10), limit.decide(10, 2), limit.decide(10)
    limit.ask(9.1)
    for each in (one, other, third):
        assert limit.item.write(each.write)
    assert limit.state[0].held == 4
    assert sum(limit.state[0].frozen) == (4 if algorithm.sort_key([TEN]).startswith("SW") else 0)


@pytest.mark.parametrize(("last", "new"), [(0, 0), (4, 4), (5, 0), (0, 5)])
def test_what_others_count_while_a_bucket_is_begun_is_half_of_what_is_left(last, new):
    """At most, in the last bucket and in the new one; with more of either the write fails."""
    limit = Limit(Windows())
    limit.ask(0.5)
    # Eight are left beside this one.
    write = limit.decide(1).write
    if last:
        limit.ask(0.6, last)
    if new:
        limit.ask(1, new)
    assert limit.item.write(write) is (max(last, new) <= 4)
    assert limit.look(1).remaining >= 0


def test_a_bucket_is_not_begun_over_another_one():
    """One of which the process knows nothing: its count is not lost."""
    limit = Limit(Windows())
    limit.ask(0, 3)
    stale = limit.decide(3)
    limit.ask(2, 3)
    assert not limit.item.write(stale.write)
    limit.ask(3)
    assert not limit.item.write(stale.write)
    # One that is far ahead is begun only after the bucket that was read.
    stale = limit.decide(9)
    limit.ask(8)
    assert not limit.item.write(stale.write)
    limit.ask(9)
    assert not limit.item.write(stale.write)
    assert limit.item.write(limit.decide(9).write)
    assert limit.look(9).remaining == 10 - 3 - 3 - 1 - 1 - 1 - 1


def test_an_item_without_a_window_gets_it_once():
    """As that of a rate which was added: the window must still be missing."""
    old = Window(0, 0, ())
    item = Item()
    item.attributes = {"x": {"N": "1"}}
    changes = Changes(is_new=False)
    changes.count(0, old, Window(7, 0, ()), 2, 5)
    assert item.write(changes.write(START))
    assert item.attributes == {
        "x": {"N": "1"},
        "b0": {"N": "7"},
        "c0_7": {"N": "2"},
        "#ttl": {"N": str(START)},
    }
    assert not item.write(changes.write(START))
