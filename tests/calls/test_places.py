"""The bound on the requests of tasks: nobody waits for ever, and no place is lost."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from dynamo_stores.cache.store.near import Entry, NearTier
from dynamo_stores.calls.backpressure import Backpressure
from dynamo_stores.calls.breaker import State
from dynamo_stores.calls.places import Place, Places
from dynamo_stores.calls.policy import deadline
from dynamo_stores.concurrency.effects import arun, run
from dynamo_stores.exceptions import OperationTimeoutError, StoreUnavailable


def soon(seconds=30.0):
    return time.monotonic() + seconds


async def use(places, seconds=30.0, held=0.01):
    """Take a place, hold it, and leave it."""

    async def verb():
        return await Place(places, soon(seconds))

    assert await arun(verb())
    try:
        await asyncio.sleep(held)
    finally:
        places.leave()


def test_tasks_wait_for_each_other_and_threads_do_not():
    """In their order, and to their deadlines."""
    places = Places(2)

    async def verb(seconds=30.0):
        return await Place(places, soon(seconds))

    async def work():
        order = []

        async def one(number):
            await use(places)
            order.append(number)

        await asyncio.gather(*(one(number) for number in range(10)))
        assert order == sorted(order)
        assert await arun(verb())
        assert await arun(verb())
        with pytest.raises(OperationTimeoutError, match="MAX_POOL_CONNECTIONS") as late:
            await arun(verb(0.05))
        assert late.value.counts is False
        assert run(verb()) is False
        places.leave()
        places.leave()

    asyncio.run(work())
    assert places.free == 2


def test_a_cancelled_wait_gives_its_place_to_the_next():
    """Also when it is cancelled just as its place is handed over."""
    places = Places(1)

    async def work():
        holder = asyncio.ensure_future(use(places, held=0.05))
        await asyncio.sleep(0)
        waiting = [asyncio.ensure_future(use(places)) for _ in range(6)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        await holder
        waiting[1].cancel()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in found[2:]] == [type(None)] * 4

    for _ in range(20):
        asyncio.run(work())
        assert places.free == 1


def test_a_place_is_not_left_to_a_task_of_a_closed_loop():
    """Nor lost when such a task is dropped."""
    places = Places(1)
    assert places.take() is None
    loop = asyncio.new_event_loop()
    waiting = [loop.create_task(use(places)) for _ in range(3)]
    loop.call_later(0.05, loop.stop)
    loop.run_forever()
    loop.close()
    places.leave()
    assert places.free == 1
    for task in waiting:
        task._log_destroy_pending = False
    del waiting, task
    gc.collect()
    assert places.free == 1
    asyncio.run(use(places))


def test_a_crowd_of_tasks_opens_no_breaker(alias, make_cache, dynamo_faults):
    """Those that come too late say nothing about DynamoDB, which answers all that are sent."""
    using = alias(
        ENDPOINT_URL=dynamo_faults.url,
        MAX_POOL_CONNECTIONS=5,
        CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1},
    )
    cache = make_cache(using, OPTIONS={"OPERATION_TIMEOUT": 2.0})
    cache.set("k", "v")
    dynamo_faults.delay(0.2)

    async def get():
        try:
            return await cache.aget("k")
        except StoreUnavailable as exc:
            return type(exc).__name__

    async def work():
        return await asyncio.gather(*(get() for _ in range(200)))

    found = asyncio.run(work())
    assert set(found) <= {"v", "OperationTimeoutError"}
    assert found.count("v") > 5
    assert cache.store.get_circuit_breaker_status().state is State.CLOSED
    dynamo_faults.clear()
    assert cache.get("k") == "v"


def test_a_sync_call_in_a_task_waits_for_no_task_of_its_loop(make_cache, alias, dynamo_faults):
    """It would wait for itself."""
    cache = make_cache(alias(ENDPOINT_URL=dynamo_faults.url), OPTIONS={"LOCAL_TIMEOUT": 60})
    cache.set("k", "v")
    cache.store.core.reader.near.clear()
    dynamo_faults.delay(0.1, "GetItem", times=2)

    async def work():
        leader = asyncio.ensure_future(cache.aget("k"))
        await asyncio.sleep(0.02)
        with deadline(30):
            assert cache.get("k") == "v"
        return await leader

    began_at = time.monotonic()
    assert asyncio.run(work()) == "v"
    assert time.monotonic() - began_at < 10


def test_a_sync_call_in_a_task_waits_for_no_backpressure():
    """The requests before it may be of tasks of its loop."""
    backpressure = Backpressure("t")
    for _ in range(2):
        backpressure.leave(run(backpressure.enter(soon())), 0.01, throttled=True)
    backpressure._limit = 1.0

    async def work():
        first = await arun(backpressure.enter(soon()))
        began_at = time.monotonic()
        second = run(backpressure.enter(soon(20)))
        assert time.monotonic() - began_at < 10
        return first, second

    assert len(asyncio.run(work())) == 2


def test_the_first_limit_is_half_of_what_is_sent():
    """And not of what waits for a place."""
    backpressure = Backpressure("t", most=10)
    requests = [run(backpressure.enter(soon())) for _ in range(100)]
    backpressure.leave(requests.pop(), 0.01, throttled=True)
    assert backpressure.limit == 5


def test_a_read_whose_leader_is_cancelled_is_made_by_another():
    """Among threads and tasks alike."""
    tier, begun = NearTier(10, 10_000), threading.Event()

    async def never(pks):
        begun.set()
        await Place(Places(1), soon())
        places = Places(0)
        await Place(places, soon(60))

    async def fetch(pks):
        return {"k": Entry({"PK": {"S": "k"}})}

    async def work():
        leader = asyncio.ensure_future(arun(tier.fetch(["k"], never, join=True, wait=30)))
        await asyncio.sleep(0.02)
        thread = asyncio.create_task(
            asyncio.to_thread(run, tier.fetch(["k"], fetch, join=True, wait=30))
        )
        follower = asyncio.ensure_future(arun(tier.fetch(["k"], fetch, join=True, wait=30)))
        await asyncio.sleep(0.05)
        leader.cancel()
        return await asyncio.gather(thread, follower)

    found = asyncio.run(work())
    assert [list(each) for each in found] == [["k"], ["k"]]
    assert begun.is_set()
