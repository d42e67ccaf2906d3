"""The async half of the cache: atomic, batched, side by side."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import ClassVar

import pytest
from asgiref.sync import async_to_sync

from dynamo_stores.cache.fallback import ignored_exceptions
from dynamo_stores.calls.observer import measuring
from tests.helpers.entries import as_text, entries_of


class Lazy:
    """Remembers the thread that serialised it."""

    threads: ClassVar[list[threading.Thread]] = []

    def __reduce__(self):
        Lazy.threads.append(threading.current_thread())
        return (str, ("lazy",))


def run(coroutine_function):
    """Run it on a loop of its own, from this thread."""
    return async_to_sync(coroutine_function)()


def test_calls_of_the_async_methods(cache):
    """As many as the others make."""
    many = {f"k{number}": number for number in range(50)}
    expected = [
        (cache.aset, ("a", 1), {"PutItem": 1}),
        (cache.aget, ("a",), {"GetItem": 1}),
        (cache.ahas_key, ("a",), {"GetItem": 1}),
        (cache.aadd, ("a", [2]), {"PutItem": 1}),
        (cache.aincr, ("a",), {"UpdateItem": 1}),
        (cache.adecr, ("a",), {"UpdateItem": 1}),
        (cache.atouch, ("a",), {"UpdateItem": 1}),
        (cache.aset_many, (many,), {"BatchWriteItem": 2}),
        (cache.aget_many, (many,), {"BatchGetItem": 1}),
        (cache.adelete_many, (many,), {"BatchWriteItem": 2}),
        (cache.aincr_version, ("a",), {"GetItem": 1, "PutItem": 1, "DeleteItem": 1}),
        (cache.adelete, ("a",), {"DeleteItem": 1}),
    ]
    for method, args, operations in expected:
        with measuring() as measurements:
            async_to_sync(method)(*args)
        # Threads of other tests may still be at work, for aliases of their own.
        own = Counter(each.operation for each in measurements if each.using == "default")
        assert own == operations, method.__name__


def test_parallel_increments_all_count(cache):
    """A hundred coroutines."""
    cache.set("n", 0)

    async def work():
        await asyncio.gather(*(cache.aincr("n") for _ in range(100)))
        return await cache.aget("n")

    assert run(work) == 100


def test_reads_run_side_by_side(alias, make_cache, dynamo_faults):
    """A hundred reads together are four at a time: none is answered before four are under way."""
    cache = make_cache(alias(ENDPOINT_URL=dynamo_faults.url), OPTIONS={"OPERATION_TIMEOUT": 60.0})
    cache.set_many({f"k{number}": number for number in range(100)})
    four = threading.Barrier(4, timeout=50)

    def wait_for_four(handler, request):
        four.wait()
        return False

    dynamo_faults._add("GetItem", None, wait_for_four)

    async def side_by_side():
        return await asyncio.gather(*(cache.aget(f"k{number}") for number in range(100)))

    assert list(run(side_by_side)) == list(range(100))
    assert dynamo_faults.requests["GetItem"] == 100


def test_lazy_values_are_serialised_on_the_sensitive_thread(cache):
    """Pickling a queryset reads the database, which belongs to that thread."""
    Lazy.threads.clear()

    async def work():
        await cache.aset("a", Lazy())
        await cache.aadd("b", Lazy())
        await cache.aset_many({"c": Lazy(), "d": 1})
        return await cache.aget_many(["a", "b", "c"])

    assert run(work) == {"a": "lazy", "b": "lazy", "c": "lazy"}
    assert set(Lazy.threads) == {threading.current_thread()}
    assert len(Lazy.threads) == 3


def test_async_outages(alias, make_cache, dynamo_faults):
    """With IGNORE_EXCEPTIONS the same defaults, logged and counted."""
    cache = make_cache(
        alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}),
        OPTIONS={"IGNORE_EXCEPTIONS": True, "OPERATION_TIMEOUT": 0.5},
    )
    dynamo_faults.fail()
    before = ignored_exceptions.total()

    async def work():
        return [
            await cache.aget("k", "default"),
            await cache.aset("k", 1),
            await cache.aadd("k", 1),
            await cache.atouch("k"),
            await cache.adelete("k"),
            await cache.ahas_key("k"),
            await cache.aget_many(["k"]),
            await cache.aset_many({"k": 1}),
            await cache.adelete_many(["k"]),
            await cache.aclear(),
        ]

    assert run(work) == ["default", None, False, False, False, False, {}, ["k"], None, None]
    assert ignored_exceptions.total() - before == 10
    for method in (cache.aincr, cache.aincr_version):
        with pytest.raises(ValueError, match="unavailable"):
            async_to_sync(method)("k")


def test_get_or_set_and_versions(cache):
    """The rest of the family."""

    async def work():
        assert await cache.aget_or_set("k", lambda: 5, 60) == 5
        assert await cache.aincr_version("k") == 2
        assert await cache.adecr_version("k", version=2) == 1
        assert await cache.aget("k") == 5
        await cache.aset("gone", 1, 0)
        assert await cache.aget("gone") is None
        await cache.aclear()
        await cache.aclose()
        return await cache.aget("k")

    assert run(work) is None


def test_async_methods_use_no_thread(alias, make_cache):
    """Of a cache whose requests are sent directly; the renewal of a lock has its own."""
    cache = make_cache(alias(TRANSPORT="lean"), OPTIONS={"STAMPEDE_LEASE": 5})
    cache.get("k")

    async def use():
        await cache.aset("k", 1, tags=["t"])
        await cache.aset_many({f"k{number}": b"x" for number in range(30)})
        await cache.aset("large", b"x" * 900_000)
        assert len(await cache.aget_many([f"k{number}" for number in range(30)])) == 30
        assert await cache.aget("large") == b"x" * 900_000
        assert await cache.aincr("k") == 2
        assert await cache.atouch("k", 60)
        assert await cache.attl("k") == 60
        assert not await cache.aadd("k", 1)
        await cache.ainvalidate_tags(["t"])
        assert not await cache.ahas_key("k")
        async with cache.alock("lock", renew=False) as lock:
            assert await lock.locked()
        assert len([key async for key in cache.aiter_keys("*")]) == 31
        assert await cache.adelete_pattern("k*") == 30
        await cache.aclear()

    async def watched():
        before, found = set(threading.enumerate()), set()

        async def watch():
            while True:
                found.update(threading.enumerate())
                await asyncio.sleep(0.001)

        watching = asyncio.create_task(watch())
        await use()
        watching.cancel()
        return {each.name for each in found - before}

    names = asyncio.run(watched())
    assert not [name for name in names if name.startswith("dynamo-stores")]


def test_a_get_goes_through_little_code(alias, make_cache):
    """``print(as_text(found))`` shows where it goes."""
    cache = make_cache(alias(TRANSPORT="lean"))
    cache.set("k", {"a": "x" * 900})
    for _ in range(20):
        cache.get("k")
    found = entries_of(lambda: cache.get("k"))
    assert found.total() <= 74, as_text(found)
    assert found["cache/store/reader.py:Reader.head"] == 1
