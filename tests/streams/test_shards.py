"""The tree of shards: children after their parents, streams one after the other."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.streams.shards import Known, Shard, ShardId, fair_share, hidden, readable


def shard(name, parent=None, label="1"):
    return Shard(ShardId(label, name), ShardId(label, parent) if parent else None)


def known(*, parent=None, finished=False, label="1", opened=0.0):
    return Known(ShardId(label, parent) if parent else None, finished, opened=opened)


def names(listed, stored):
    return [each.name for each in readable(listed, stored)]


def test_a_child_waits_for_its_parent():
    """Only when the parent is finished its children are read."""
    listed = [shard("a"), shard("b", "a"), shard("c", "a"), shard("d", "b")]
    assert names(listed, {}) == ["a"]
    done = {ShardId("1", "a"): known(finished=True)}
    assert names(listed, done) == ["b", "c"]
    done[ShardId("1", "b")] = known(parent="a", finished=True)
    assert names(listed, done) == ["c", "d"]


def test_a_parent_that_is_not_listed_is_trimmed():
    """Its children do not wait for it, unless it is known and unfinished."""
    assert names([shard("b", "a")], {}) == ["b"]
    assert names([shard("b", "a")], {ShardId("1", "a"): known()}) == ["a"]
    done = {ShardId("1", "a"): known(finished=True)}
    assert names([shard("b", "a")], done) == ["b"]


def test_a_stream_that_was_open_today_is_not_trimmed():
    """It is hidden by a wrong endpoint; one of yesterday is trimmed, and a finished one is read."""
    now = 1_000_000.0
    found = {
        ShardId("1", "a"): known(opened=now - 86_401),
        ShardId("2", "a"): known(finished=True, opened=now - 60),
        ShardId("2", "b"): known(parent="a", label="2"),
        ShardId("3", "a"): known(finished=True, opened=now),
        ShardId("4", "a"): known(opened=now),
    }
    assert hidden(["4"], found, now) == ["2"]
    assert hidden(["2", "4"], found, now) == []


def test_a_stream_waits_for_the_one_before():
    """A stream that was disabled and enabled again continues with the same keys."""
    listed = [shard("z", label="1"), shard("a", label="2")]
    assert readable(listed, {}) == (ShardId("1", "z"),)
    done = {ShardId("1", "z"): known(finished=True)}
    assert readable(listed, done) == (ShardId("2", "a"),)


@given(st.integers(1, 30), st.integers(0, 2**32))
def test_every_shard_is_read_once_and_after_its_ancestors(count, seed):
    """Reading what is readable, in any order, ends with all shards read."""
    chance = random.Random(seed)
    listed = []
    for number in range(count):
        has_parent = number and chance.random() < 0.8
        parent = f"{chance.randrange(number):03}" if has_parent else None
        listed.append(shard(f"{number:03}", parent))
    parents = {each.id: each.parent for each in listed}
    done = {}
    while found := readable(listed, done):
        each = chance.choice(found)
        assert each not in done
        assert parents[each] is None or parents[each] in done
        done[each] = Known(parents[each], True)
    assert done.keys() == parents.keys()


@given(st.integers(0, 50), st.integers(1, 12))
def test_shares_add_up(count, workers):
    """Every shard has a reader, and no worker has two more than another."""
    names = [f"w{number}" for number in range(workers)]
    shares = [fair_share(count, names, me) for me in names]
    assert sum(shares) == count
    assert max(shares) - min(shares) <= 1


def test_a_worker_that_is_not_listed_yet_counts():
    """It has a share before it has told the others about itself."""
    assert fair_share(4, {"a"}, "b") == 2
