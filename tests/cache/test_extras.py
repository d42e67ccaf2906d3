"""Expiry in hand and patterns of keys, sync and async."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import UTC, datetime

import pytest
from asgiref.sync import async_to_sync

from dynamo_stores.cache import cache_for
from dynamo_stores.cache.fallback import ignored_exceptions
from dynamo_stores.calls.observer import measuring
from dynamo_stores.exceptions import ConfigurationError, StoreUnavailable
from dynamo_stores.testing import FakeClock


def operations(function, *args, **kwargs):
    """Return the operations that ``function`` made, counted."""
    with measuring() as measurements:
        function(*args, **kwargs)
    return Counter(each.operation for each in measurements)


def test_ttl(cache, dynamo_clock: FakeClock):
    """Seconds rounded up, None for ever, 0 for missing; one call each."""
    cache.set_many({"k": 1}, 10)
    cache.set("ever", 1, None)
    assert (cache.ttl("k"), cache.pttl("k")) == (10, 10_000)
    dynamo_clock.advance(9.2)
    assert (cache.ttl("k"), cache.pttl("k")) == (1, 800)
    assert (cache.ttl("ever"), cache.pttl("ever")) == (None, None)
    assert (cache.ttl("missing"), cache.pttl("missing")) == (0, 0)
    dynamo_clock.advance(0.8)
    assert (cache.ttl("k"), cache.pttl("k")) == (0, 0)
    assert operations(cache.ttl, "k") == {"GetItem": 1}


def test_ttl_between_two_milliseconds(cache, dynamo_clock: FakeClock):
    """What is left is never more than the timeout, and never 0 while there is a value."""
    dynamo_clock.advance(0.0004)
    cache.set("k", 1, 10)
    assert (cache.ttl("k"), cache.pttl("k")) == (10, 10_000)
    dynamo_clock.advance(10.0003)
    assert (cache.get("k"), cache.pttl("k")) == (1, 1)


def test_expire_and_persist(cache, dynamo_clock: FakeClock):
    """They change existing keys, and create none."""
    cache.set("k", "v", 10)
    assert cache.expire("k", 100) is True
    assert cache.ttl("k") == 100
    assert cache.expire_at("k", datetime.fromtimestamp(dynamo_clock.now() + 50, UTC)) is True
    assert cache.ttl("k") == 50
    assert cache.expire_at("k", dynamo_clock.now() + 20.5) is True
    assert cache.pttl("k") == 20_500
    assert cache.persist("k") is True
    assert cache.ttl("k") is None
    assert cache.expire_at("k", dynamo_clock.now() - 1) is True
    assert cache.get("k") is None
    for method, args in ((cache.expire, (5,)), (cache.expire_at, (4e9,)), (cache.persist, ())):
        assert method("missing", *args) is False
    assert cache.get("missing") is None


def test_incr_that_creates(cache, dynamo_clock: FakeClock):
    """With its timeout where there is nothing live, else as always."""
    assert cache.incr("n", 5, ignore_key_check=True, timeout=10) == 5
    assert cache.ttl("n") == 10
    dynamo_clock.advance(5)
    assert cache.incr("n", 2, ignore_key_check=True, timeout=10) == 7
    assert cache.ttl("n") == 5
    dynamo_clock.advance(5)
    assert cache.incr("n", ignore_key_check=True, timeout=None) == 1
    assert cache.ttl("n") is None
    with pytest.raises(ValueError, match="no such key"):
        cache.incr("other")


def test_parallel_incr_that_creates(cache):
    """Nothing is lost when many create at once."""
    threads = [
        threading.Thread(target=lambda: cache.incr("n", ignore_key_check=True)) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.get("n") == 20


@pytest.fixture(params=["scan", "index"])
def listed(request, alias, make_cache):
    """A cache without and with the expiry index."""
    return make_cache(alias(CACHE={"EXPIRY_INDEX": request.param == "index"}))


def fill(cache):
    """Keys of two versions, one of them expired, one too long for a partition key."""
    cache.set_many({"user:1": 1, "user:2": 2, "post:1": 3, "u*": 4, "x" * 3000: 5}, 100)
    cache.set("user:3", 1, version=2)
    cache.set("user:ever", 1, None)
    cache.set("user:old", 1, 1)


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_keys_by_pattern(listed, make_cache, dynamo_clock: FakeClock):
    """Live ones of the version, by their own names; other prefixes never."""
    other = make_cache(listed.store.using, KEY_PREFIX=f"{listed.key_prefix}#")
    fill(listed)
    fill(other)
    dynamo_clock.advance(2)
    assert sorted(listed.keys("user:*")) == ["user:1", "user:2", "user:ever"]
    assert listed.keys("user:*", version=2) == ["user:3"]
    assert listed.keys("u\\*") == ["u*"]
    assert listed.keys("nothing*") == []
    assert len(listed.keys("*")) == 6
    assert listed.keys("x*") == ["x" * 3000]
    assert sorted(listed.iter_keys("*:1", itersize=2)) == ["post:1", "user:1"]


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_delete_pattern(listed, dynamo_clock: FakeClock):
    """Keys that match are deleted and counted; the others stay."""
    fill(listed)
    dynamo_clock.advance(2)
    assert listed.delete_pattern("user:*") == 3
    assert sorted(listed.keys("*"), key=len) == ["u*", "post:1", "x" * 3000]
    assert listed.get("user:3", version=2) == 1
    assert listed.delete_pattern("*", itersize=1) == 3
    assert listed.keys("*") == []


def test_by_the_index_keys_are_queried(alias, make_cache):
    """No Scan."""
    cache = make_cache(alias(CACHE={"EXPIRY_INDEX": True}))
    cache.set_many({f"k{n}": n for n in range(30)})
    assert operations(cache.keys, "k*") == {"Query": 8}
    assert operations(cache.delete_pattern, "k*") == {"Query": 8, "BatchWriteItem": 2}


def own_key(key, prefix, version):
    return f"{version}/{prefix}/{key}"


def own_key_back(made):
    return made.split("/", 2)[2]


def test_a_key_function_of_ones_own(make_cache):
    """Keys need the reverse function; special characters in prefixes match literally."""
    cache = make_cache(KEY_FUNCTION=own_key, KEY_PREFIX="a*b")
    cache.set("k", 1)
    with pytest.raises(ConfigurationError, match="REVERSE_KEY_FUNCTION"):
        cache.keys("*")
    options = {"REVERSE_KEY_FUNCTION": f"{__name__}.own_key_back"}
    cache = make_cache(KEY_FUNCTION=own_key, KEY_PREFIX="a*b", OPTIONS=options)
    assert cache.keys("*") == ["k"]


def test_the_async_twins(cache):
    """Each means the same."""

    async def work():
        await cache.aset_many({f"k{n}": n for n in range(250)}, 100)
        assert 90 <= await cache.attl("k1") <= 100
        assert 90_000 <= await cache.apttl("k1") <= 100_000
        assert await cache.aexpire("k1", 1000)
        assert await cache.aexpire_at("k1", 4e9)
        assert await cache.apersist("k1")
        assert await cache.attl("k1") is None
        assert await cache.aincr("new", 3, ignore_key_check=True, timeout=60) == 3
        assert len(await cache.akeys("k*")) == 250
        assert len([key async for key in cache.aiter_keys("k*")]) == 250
        assert await cache.adelete_pattern("k*") == 250
        return await cache.akeys("*")

    assert async_to_sync(work)() == ["new"]


def test_outages(alias, make_cache, dynamo_faults):
    """IGNORE_EXCEPTIONS: nothing there."""
    cache = make_cache(
        alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}),
        OPTIONS={"IGNORE_EXCEPTIONS": True},
    )
    dynamo_faults.fail()
    assert (cache.ttl("k"), cache.pttl("k"), cache.keys("*")) == (0, 0, [])
    assert (cache.expire("k", 5), cache.persist("k"), cache.expire_at("k", 4e9)) == (False,) * 3
    assert cache.delete_pattern("*") == 0
    assert list(cache.iter_keys("*")) == []


def test_an_outage_ends_an_iteration(alias, make_cache, dynamo_faults):
    """IGNORE_EXCEPTIONS: with the keys that had been read; without it, with the error."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    cache = make_cache(using, OPTIONS={"IGNORE_EXCEPTIONS": True})
    cache.set_many({f"k{n}": n for n in range(20)})
    strict = make_cache(using, KEY_PREFIX=cache.key_prefix)

    def read_some(found):
        first = next(found)
        dynamo_faults.fail("Scan")
        return [first, *found]

    assert 0 < len(read_some(cache.iter_keys("*", itersize=1))) < 20
    assert cache.keys("*") == []
    dynamo_faults.clear()
    with pytest.raises(StoreUnavailable):
        read_some(strict.iter_keys("*", itersize=1))

    async def aread():
        return [key async for key in cache.aiter_keys("*")]

    assert async_to_sync(aread)() == []
    assert ignored_exceptions[using, "iter_keys"] > 0


def test_set_with_nx_names_add(cache):
    """The argument of django-redis; others are refused as Python does."""
    with pytest.raises(TypeError, match=r"has no argument 'nx'. Use add\(\)"):
        cache.set("k", 1, nx=True)
    with pytest.raises(TypeError, match=r"Use aadd\(\)"):
        async_to_sync(cache.aset)("k", 1, nx=True)
    with pytest.raises(TypeError, match=r"set\(\) has no argument 'timeoout'.$"):
        cache.set("k", 1, timeoout=5)
    assert cache.get("k") is None


def test_a_cache_with_its_type(settings):
    """Type checkers do not know more of Django's caches than BaseCache."""
    settings.CACHES = {
        "default": {"BACKEND": "dynamo_stores.cache.DynamoDBCache"},
        "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    assert cache_for().store.using == "default"
    with pytest.raises(ConfigurationError, match=r"CACHES\['local'\]\['BACKEND'\] is LocMemCache"):
        cache_for("local")
