"""Clearing by a generation number: one write, at once here, within the bound elsewhere."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from dynamo_stores import keys
from dynamo_stores.cache.store import invalidation as numbers
from dynamo_stores.cache.store import store as stores
from dynamo_stores.cache.store.items import InvalidationNumber
from dynamo_stores.calls.background import Pace
from dynamo_stores.calls.observer import measuring
from dynamo_stores.concurrency.effects import run
from dynamo_stores.testing import FakeClock
from tests.helpers.counting import operations
from tests.helpers.forking import fork, in_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
GENERATION = {"CLEAR": "generation"}


@pytest.fixture
def cache(make_cache):
    return make_cache(OPTIONS=GENERATION)


def forget():
    """As in a process that has not looked at any number yet."""
    numbers._by_prefix.clear()
    stores._cores.clear()


def test_clear_is_one_write_and_is_seen_at_once_here(cache, make_cache):
    """All versions of the prefix are gone, and nothing of another prefix."""
    other = make_cache(OPTIONS=GENERATION)
    for each in (cache, other):
        each.set_many({"a": 1, "b": "text"})
        each.set("a", 2, version=2)
    assert operations(cache.clear) == {"UpdateItem": 1}
    assert cache.get_many(["a", "b"]) == {}
    assert cache.get("a", version=2) is None
    assert not cache.has_key("b")
    assert cache.ttl("a") == 0
    assert cache.keys("*") == []
    assert cache.touch("a") is False
    assert cache.delete("a") is False
    with pytest.raises(ValueError, match="no such key"):
        cache.incr("a")
    assert cache.add("b", "new")
    assert cache.get("b") == "new"
    assert other.get_many(["a", "b"]) == {"a": 1, "b": "text"}
    cache.set("a", 5)
    assert cache.incr("a") == 6
    assert cache.get_many(["a", "b"]) == {"a": 6, "b": "new"}


def test_a_read_is_one_call_and_looks_at_the_number_once_per_bound(cache, dynamo_clock: FakeClock):
    """Entry and number together, strongly, when the bound has passed; else as without it."""
    cache.set("k", "v")
    forget()
    assert operations(cache.get, "k") == {"BatchGetItem": 1}
    assert operations(cache.get, "k") == {"GetItem": 1}
    assert operations(cache.get_many, ["k", "l"]) == {"BatchGetItem": 1}
    dynamo_clock.advance(1.01)
    assert operations(cache.get, "k") == {"BatchGetItem": 1}
    assert operations(cache.set, "k", 1) == {"PutItem": 1}
    assert operations(cache.incr, "k") == {"UpdateItem": 1}
    dynamo_clock.advance(1.01)
    assert operations(cache.get_many, ["k", "l"]) == {"BatchGetItem": 1}
    assert operations(cache.touch, "k") == {"UpdateItem": 1}
    dynamo_clock.advance(1.01)
    assert operations(cache.add, "k", 1) == {"BatchGetItem": 1, "PutItem": 1}


def test_units_of_reads(cache, dynamo_clock: FakeClock, true_units):
    """Half a unit; one after an own write; or one for the entry and one for the number."""
    cache.set("k", "v")
    cache.clear()
    cache.set("k", "v")

    def units(function, *args):
        with measuring() as measurements:
            function(*args)
        return sum(sum(each.units.values()) for each in measurements)

    assert units(cache.get, "k") == 1.0
    dynamo_clock.advance(2)
    assert units(cache.get, "k") == 2.0
    assert units(cache.get, "k") == 0.5


def test_other_processes_see_it_within_the_bound(cache):
    """One that read a moment before may serve for a second more, and not longer."""
    cache.set("k", "old")
    together = fork.Barrier(3)

    def work(number):
        assert cache.get("k") == "old"
        together.wait(60)
        late = []
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            if number == 0 and not late:
                time.sleep(0.5)
                cache.clear()
                late.append(time.time())
            asked_at = time.time()
            if cache.get("k") is not None:
                late.append(asked_at)
        return late

    cleared, *others = in_processes(3, work)
    cleared_at = cleared[0]
    assert len(cleared) == 1
    for seen in others:
        assert seen
        assert seen[-1] < cleared_at + 1.0


def test_a_slow_read_is_looked_at_again(alias, make_cache, dynamo_faults):
    """An answer that comes after the bound is checked again."""
    cache = make_cache(alias(ENDPOINT_URL=dynamo_faults.url), OPTIONS=GENERATION)
    cache.set("k", "v")
    dynamo_faults.delay(1.1, "GetItem")
    assert operations(cache.get, "k") == {"GetItem": 1, "BatchGetItem": 1}


def test_a_higher_generation_is_alive_and_adopted(cache, make_cache):
    """An entry from a process that knows of a later clear is read, and older ones are not."""
    cache.set_many({"old": 1, "new": 2})
    pk = keys.generation(cache.store.prefix).pk
    other = make_cache(OPTIONS=GENERATION, KEY_PREFIX=cache.key_prefix)
    other.clear()
    other.set("new", 3)
    known = cache.store.core.validity.numbers
    known._known[pk] = known._known[pk]._replace(number=0)
    assert cache.get("new") == 3
    assert cache.get("old") is None


def test_entries_without_a_number_count_as_zero(make_cache):
    """Entries written before CLEAR was changed are valid until the first clear."""
    before = make_cache()
    before.set("k", "v")
    cache = make_cache(OPTIONS=GENERATION, KEY_PREFIX=before.key_prefix)
    assert cache.get("k") == "v"
    cache.clear()
    assert cache.get("k") is None


def test_cleanup_takes_the_dead_generation(cache):
    """Also entries that never expire; later ones stay."""
    cache.set_many({f"k{number}": number for number in range(30)}, None)
    cache.clear()
    cache.set("k1", "new", None)
    assert cache.store.get_stats().expired_items == 29
    assert cache.store.cleanup() == 29
    assert cache.store.get_stats() == (1, 0) or cache.store.get_stats().total_items == 1
    assert cache.keys("*") == ["k1"]


def test_cleanup_spares_what_is_written_meanwhile(cache):
    """It deletes the write that it saw, not the key."""
    cache.set("k", "old", None)
    cache.clear()
    store = cache.store
    sweep = store._sweep()
    key = store.item_key(cache.make_key("k"))
    item = run(store.core.items.get(key, consistent=True))
    cache.set("k", "new", None)
    assert run(sweep._delete_unchanged(item, Pace(100.0))) is False
    assert cache.get("k") == "new"


def test_async_twins(cache):
    """The a* methods go by the same numbers."""
    import asyncio

    async def run():
        await cache.aset("k", "v")
        await cache.aclear()
        return await cache.aget("k"), await cache.aadd("k", 1), await cache.aget_many(["k"])

    assert asyncio.run(run()) == (None, True, {"k": 1})


def test_a_large_cache_is_cleared_by_one_write(cache, true_units):
    """However many entries: the calls and units are those of an empty one."""
    cache.set_many({f"k{number}": number for number in range(2_000)}, None)
    with measuring() as measurements:
        cache.clear()
        cache.get("k1")
    assert Counter(each.operation for each in measurements) == {"UpdateItem": 1, "GetItem": 1}
    assert [sum(each.units.values()) for each in measurements] == [1.0, 1.0]
    assert cache.get_many([f"k{number}" for number in range(100)]) == {}


def test_the_number_is_kept_for_ever(cache):
    """It has no TTL: the entries would come back."""
    cache.clear()
    key = keys.generation(cache.store.prefix)
    item = InvalidationNumber.get(key.pk, key.sk)
    assert item.number == 1
    assert item.ttl is None
