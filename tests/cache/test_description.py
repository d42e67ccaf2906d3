"""What the store tells of entries without their values, and counts and deletes within a time."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from asgiref.sync import async_to_sync

from dynamo_stores.cache.store.values import PART_BYTES
from dynamo_stores.calls.observer import measuring
from dynamo_stores.concurrency.effects import run
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import FakeClock


def operations(function, *args, **kwargs):
    """Return the result of ``function``, and the operations that it made, counted."""
    with measuring() as measurements:
        result = function(*args, **kwargs)
    return result, Counter(each.operation for each in measurements)


def describe(cache, key):
    return cache.store.describe(cache.make_key(key))


def test_an_entry_is_described_without_its_value(cache, dynamo_clock: FakeClock):
    """When it was written, its expiry, and its size; one call."""
    began = dynamo_clock.now()
    cache.set("k", b"x" * 100, 60)
    found, sent = operations(describe, cache, "k")
    assert (found.state, found.parts, found.is_compressed, found.tags) == ("live", 1, False, ())
    assert found.written_at == pytest.approx(began, abs=0.01)
    assert found.expiry == pytest.approx(began + 60, abs=0.01)
    assert 100 < found.size < 130
    assert sent == {"GetItem": 1}
    assert describe(cache, "missing") is None


def test_an_int_and_a_key_without_an_expiry(cache):
    """An int is stored as a number."""
    cache.set("n", -1234, None)
    found = describe(cache, "n")
    assert (found.state, found.size, found.expiry) == ("live", 5, None)


def test_the_size_is_that_of_the_stored_bytes(make_cache):
    """Compressed values are smaller."""
    cache = make_cache(OPTIONS={"COMPRESSOR": "zlib", "COMPRESS_OVER": 100})
    cache.set("k", "x" * 10_000)
    found = describe(cache, "k")
    assert found.is_compressed
    assert found.size < 200


def test_a_value_in_parts(cache):
    """Its size comes from the first and the last part."""
    data = os.urandom(2 * PART_BYTES + 1000)
    cache.set("k", data)
    found, sent = operations(describe, cache, "k")
    assert (found.state, found.parts) == ("live", 3)
    assert 0 <= found.size - len(data) < 100
    assert sent == {"GetItem": 1, "BatchGetItem": 1}


def test_a_value_whose_part_is_missing(cache):
    """Is a miss of the cache, and no size is claimed."""
    cache.set("k", os.urandom(PART_BYTES + 10_000))
    core = cache.store.core
    head = run(core.items.get(cache.store.item_key(cache.make_key("k")), consistent=True))
    run(core.items.delete(core.parts.keys_of(head)[-1]))
    assert cache.get("k") is None
    found = describe(cache, "k")
    assert (found.state, found.size, found.parts) == ("unreadable", None, 2)


def test_entries_that_the_cache_does_not_return(make_cache, dynamo_clock: FakeClock):
    """They are described as long as the table has them, with the reason."""
    cache = make_cache()
    cache.set("tagged", 1, tags=["b", "a"])
    assert describe(cache, "tagged").tags == ("a", "b")
    cache.invalidate_tags(["a"])
    assert describe(cache, "tagged").state == "invalidated"
    cache.set("old", 1, 10)
    dynamo_clock.advance(11)
    assert describe(cache, "old").state == "expired"
    cache.set("k", "v")
    other = make_cache(KEY_PREFIX=cache.key_prefix, OPTIONS={"SERIALIZER": "json"})
    assert describe(other, "k").state == "unreadable"


def test_a_generation_invalidates(make_cache):
    """By a clear() of one write."""
    cache = make_cache(OPTIONS={"CLEAR": "generation"})
    cache.set("k", 1)
    assert describe(cache, "k").state == "live"
    cache.clear()
    assert describe(cache, "k").state == "invalidated"


def test_an_item_of_other_software(cache):
    """Is described as far as it can be."""
    store = cache.store
    key = store.item_key("odd")
    odd = {**key.raw(), "e": {"N": "-1"}, "w": {"S": "when?"}, "p": {"N": "1.5"}}
    run(store.core.items.put(odd))
    found = store.describe("odd")
    assert (found.state, found.written_at, found.expiry) == ("expired", None, None)
    run(store.core.items.put({**key.raw(), "v": {"B": b"?"}}))
    assert store.describe("odd").state == "unreadable"


def test_keys_are_counted(cache, dynamo_clock: FakeClock):
    """Only live ones that match."""
    cache.set_many({"a:1": 1, "a:2": 1, "b:1": 1})
    cache.set("a:3", 1, 10)
    dynamo_clock.advance(11)
    found = cache.store.count_keys(cache.make_pattern("a:*"), seconds=600)
    assert (found.keys, found.is_whole) == (2, True)


def test_after_the_time_no_further_page_is_read(alias, make_cache):
    """What was found by then is returned."""
    cache = make_cache(alias(CACHE={"EXPIRY_INDEX": True}))
    cache.set_many({f"k{number}": 1 for number in range(60)})
    pattern = cache.make_pattern("*")
    found, sent = operations(cache.store.count_keys, pattern, seconds=0)
    assert (found.pages, found.is_whole, sent) == (1, False, {"Query": 1})
    assert 0 <= found.keys < 60
    found, sent = operations(cache.store.delete_some, pattern, seconds=0)
    assert (found.keys, found.is_whole, sent) == (0, False, {"Query": 1})
    found = cache.store.delete_some(pattern, seconds=600)
    assert (found.keys, found.pages, found.is_whole) == (60, 8, True)
    assert cache.keys("*") == []


def test_the_async_twins(cache):
    """They return the same."""

    async def work():
        store, pattern = cache.store, cache.make_pattern("k*")
        await cache.aset("k", 1)
        described = await store.adescribe(cache.make_key("k"))
        counted = await store.acount_keys(pattern, seconds=600)
        deleted = await store.adelete_some(pattern, seconds=600)
        return described.state, counted.keys, deleted.keys

    assert async_to_sync(work)() == ("live", 1, 1)


def test_an_outage_is_raised(alias, make_cache, dynamo_faults):
    """Also with IGNORE_EXCEPTIONS, which is of the backend."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    cache = make_cache(using, OPTIONS={"IGNORE_EXCEPTIONS": True})
    dynamo_faults.fail("*")
    with pytest.raises(StoreUnavailable):
        describe(cache, "k")
    with pytest.raises(StoreUnavailable):
        CacheStore(using).count_keys("k*", seconds=1)
