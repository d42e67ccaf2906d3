"""COMBINE_READS: what tasks read in one turn of their event loop travels together."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from dynamo_stores.calls.observer import measuring
from dynamo_stores.calls.policy import deadline
from dynamo_stores.exceptions import OperationTimeoutError, StoreUnavailable

OPTIONS = {"COMBINE_READS": True}


@pytest.fixture
def combined(alias, make_cache, dynamo_faults):
    """A cache behind the relay of faults, in which this process has just written nothing."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    values = {f"k{number}": number for number in range(250)}
    make_cache(KEY_PREFIX="combined").set_many(values)
    # Another prefix of its own, whose recent writes it does not know.
    from dynamo_stores.cache.store import recent

    recent._by_prefix.clear()
    return make_cache(using, KEY_PREFIX="combined", OPTIONS=OPTIONS)


def operations(coroutine_function):
    with measuring() as found:
        result = asyncio.run(coroutine_function())
    return result, Counter(each.operation for each in found)


def test_a_turn_is_one_request_for_a_hundred_keys(combined):
    """Each task gets its value; a key that two ask for is read once."""

    async def read():
        keys = [*(f"k{number}" for number in range(250)), "k7", "none"]
        return await asyncio.gather(*(combined.aget(key, "default") for key in keys))

    found, made = operations(read)
    assert found == [*range(250), 7, "default"]
    assert made == {"BatchGetItem": 3}
    assert combined.get("k1") == 1

    async def alone():
        return await combined.aget("k2"), await combined.aget("k3")

    assert operations(alone) == ((2, 3), {"BatchGetItem": 2})


def test_strong_reads_go_alone(combined, make_cache):
    """What this process has just written is among them."""

    async def read():
        await combined.aset("k1", "new")
        return await asyncio.gather(*(combined.aget(f"k{number}") for number in range(3)))

    assert operations(read) == ([0, "new", 2], {"PutItem": 1, "GetItem": 1, "BatchGetItem": 1})
    stale = make_cache(KEY_PREFIX="combined", OPTIONS={**OPTIONS, "STALE_TIMEOUT": 60})

    async def stale_ones():
        return await asyncio.gather(stale.aget("k3"), stale.aget("k4"))

    assert operations(stale_ones) == ([3, 4], {"GetItem": 2})


def test_values_in_parts_and_with_tags(combined):
    """They need further requests of their own."""
    combined.set("large", b"x" * 900_000)
    combined.set("tagged", "v", tags=["t"])

    async def read():
        return await asyncio.gather(combined.aget("large"), combined.aget("tagged"))

    assert asyncio.run(read()) == [b"x" * 900_000, "v"]
    combined.invalidate_tags(["t"])
    assert asyncio.run(read()) == [b"x" * 900_000, None]


def test_each_task_has_its_own_deadline_and_its_own_error(combined, dynamo_faults):
    """One that gives up or is cancelled ends no other."""
    dynamo_faults.delay(0.6, "BatchGetItem", times=1)

    async def hurried():
        with deadline(0.2), pytest.raises(OperationTimeoutError):
            await combined.aget("k1")

    async def read():
        tasks = [asyncio.ensure_future(combined.aget("k1")) for _ in range(3)]
        await asyncio.gather(hurried(), asyncio.sleep(0.1))
        tasks[0].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    cancelled, *found = asyncio.run(read())
    assert isinstance(cancelled, asyncio.CancelledError)
    assert found == [1, 1]
    dynamo_faults.fail("BatchGetItem")

    async def fail():
        tasks = [combined.aget("k1") for _ in range(2)]
        return await asyncio.gather(*tasks, return_exceptions=True)

    errors = asyncio.run(fail())
    assert all(isinstance(each, StoreUnavailable) for each in errors)
    assert errors[0] is not errors[1]


def test_in_a_thread_it_is_one_get(combined):
    """There are no turns."""
    with measuring() as found:
        assert combined.get("k9") == 9
    assert [each.operation for each in found] == ["GetItem"]
