"""Limits on an event loop: the same decisions, no thread, nothing held by a task that ended."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.http import HttpResponse

from dynamo_stores.calls.observer import measuring
from dynamo_stores.decorators import aget_usage, ratelimit
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.keys import ItemKey
from dynamo_stores.ratelimit import counting
from dynamo_stores.ratelimit.memory import Blocks, get_rate_memory
from dynamo_stores.signals import rate_limited
from dynamo_stores.stores import AdaptiveRateLimitStore, RateLimitStore
from tests.helpers.counting import operations
from tests.helpers.limits import get

KINDS = [RateLimitStore, AdaptiveRateLimitStore]
RATE = "9/h"


@pytest.fixture
def resource():
    return secrets.token_hex(6)


@pytest.fixture
def lean(alias, dynamo_faults):
    """A store behind faults, whose connection was used once."""
    store = RateLimitStore(alias(ENDPOINT_URL=dynamo_faults.url, TRANSPORT="lean"))
    assert store.acquire(secrets.token_hex(6), rate=RATE).allowed
    return store


async def beat(moments):
    """Write down the time a hundred times a second."""
    while True:
        moments.append(time.monotonic())
        await asyncio.sleep(0.01)


async def until(condition):
    """Wait until ``condition()`` is true, ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_decision_neither_uses_a_thread_nor_blocks_the_loop(lean, resource, dynamo_faults):
    """While DynamoDB takes a second for each answer."""
    lean.acquire(resource, rate=RATE)
    dynamo_faults.delay(1.0)

    async def ask():
        before, moments = set(threading.enumerate()), []
        beating = asyncio.create_task(beat(moments))
        begin = time.monotonic()
        statuses = [
            await lean.aacquire(resource, rate=RATE),
            await lean.aget_status(resource, rate=RATE),
        ]
        took = time.monotonic() - begin
        # The faulty endpoint answers each connection in a thread of its own.
        threads = {each.name for each in set(threading.enumerate()) - before}
        beating.cancel()
        return statuses, took, threads, moments

    statuses, took, threads, moments = asyncio.run(ask())
    assert [each.remaining for each in statuses] == [7, 7]
    assert took >= 2
    assert not {name for name in threads if "process_request_thread" not in name}
    assert len(moments) > 50
    assert max(after - at for at, after in itertools.pairwise(moments)) < 0.8


def test_a_known_refusal_uses_no_thread_of_the_alias(lean, resource):
    """It is decided by the memory of the process."""
    while lean.acquire(resource, rate=RATE).allowed:
        pass
    before = set(threading.enumerate())
    assert not asyncio.run(lean.aacquire(resource, rate=RATE)).allowed
    names = {each.name for each in set(threading.enumerate()) - before}
    assert not {name for name in names if name.startswith("dynamo-stores")}


@pytest.fixture
def patient(monkeypatch):
    """Requests that would wait so long for another one that a test notices it."""
    monkeypatch.setattr(counting, "_LONGEST_WAIT", 30.0)


@pytest.mark.usefixtures("patient")
def test_a_task_that_is_cancelled_holds_nothing(lean, resource, dynamo_faults):
    """Another request of the same item is decided at once, in a task as in a thread."""
    groups = get_rate_memory(lean.using).groups

    async def ask():
        dynamo_faults.hang("UpdateItem")
        task = asyncio.create_task(lean.aacquire(resource, rate=RATE))
        await until(lambda: len(groups))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(groups) == 0
        dynamo_faults.clear()
        begin = time.monotonic()
        assert (await lean.aacquire(resource, rate=RATE)).allowed
        return time.monotonic() - begin

    assert asyncio.run(ask()) < 10
    begin = time.monotonic()
    assert lean.acquire(resource, rate=RATE).allowed
    assert time.monotonic() - begin < 10
    assert len(groups) == 0


def test_a_probe_that_is_cancelled_is_followed_by_another_one(
    lean, resource, dynamo_faults, dynamo_clock
):
    """The table decides on the next request; it would be refused for ten seconds otherwise."""
    while lean.acquire(resource, rate=RATE).allowed:
        pass
    dynamo_clock.advance(2.1)
    dynamo_faults.hang("GetItem")
    before = dynamo_faults.requests["GetItem"]

    async def ask():
        task = asyncio.create_task(lean.aacquire(resource, rate=RATE))
        await until(lambda: dynamo_faults.requests["GetItem"] > before)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    dynamo_faults.clear()
    assert operations(lambda: lean.acquire(resource, rate=RATE)) == {"GetItem": 1}


@pytest.mark.usefixtures("patient")
def test_those_that_wait_for_a_cancelled_task_go_on(lean, resource, dynamo_faults):
    """As soon as it has ended."""
    groups = get_rate_memory(lean.using).groups

    async def ask():
        dynamo_faults.hang("UpdateItem")
        leading = asyncio.create_task(lean.aacquire(resource, rate=RATE))
        await until(lambda: len(groups))
        dynamo_faults.clear()
        following = [asyncio.create_task(lean.aacquire(resource, rate=RATE)) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert not any(each.done() for each in following)
        begin = time.monotonic()
        leading.cancel()
        statuses = await asyncio.gather(*following)
        return statuses, time.monotonic() - begin

    statuses, took = asyncio.run(ask())
    assert [each.allowed for each in statuses] == [True] * 3
    assert took < 10
    assert len(groups) == 0


def test_a_write_that_failed_holds_nothing(lean, resource, dynamo_faults):
    """Nor one without an answer."""
    dynamo_faults.fail("UpdateItem")
    with pytest.raises(StoreUnavailable):
        lean.record(resource, rate=RATE)
    dynamo_faults.clear()
    assert len(get_rate_memory(lean.using).groups) == 0
    assert lean.acquire(resource, rate=RATE).allowed


def test_tasks_of_a_new_key_lose_no_race(alias, resource):
    """One creates the item, the others wait for it and are counted together."""
    store = RateLimitStore(alias())
    store.acquire(secrets.token_hex(6), rate=RATE)

    async def ask():
        return await asyncio.gather(*(store.aacquire(resource, rate=RATE) for _ in range(9)))

    found = []
    assert operations(lambda: found.extend(asyncio.run(ask())))["UpdateItem"] == 2
    assert sorted(each.remaining for each in found) == list(range(9))


@pytest.mark.parametrize("algorithm", ["sliding", "fixed", "gcra", "log", "shards", "block"])
def test_tasks_of_one_key_are_admitted_up_to_the_limit(alias, resource, algorithm):
    """Exactly, also beside threads."""
    store = RateLimitStore(alias(RATE_LIMIT={"OPERATION_TIMEOUT": 30.0, "ON_UNAVAILABLE": "deny"}))
    config = {"RATE": "12/h", "BURST": 12, "ALGORITHM": algorithm}
    if algorithm == "shards":
        config = {"RATE": "12/h", "SHARDS": 3}
    elif algorithm == "block":
        config = {"RATE": "12/h", "BLOCK": 4}
    store.set_resource_config(resource, config)

    async def ask():
        with_await = [store.aacquire(resource) for _ in range(20)]
        in_threads = [asyncio.to_thread(store.acquire, resource) for _ in range(10)]
        return await asyncio.gather(*with_await, *in_threads)

    assert sum(each.allowed for each in asyncio.run(ask())) == 12
    assert len(get_rate_memory(store.using).groups) == 0
    store.unset_resource_config(resource)


def test_threads_and_tasks_share_the_blocks_of_a_process(alias, resource):
    """One takes a block at a time, so that all of the limit is given out, in few calls."""
    store = RateLimitStore(alias(RATE_LIMIT={"OPERATION_TIMEOUT": 30.0, "ON_UNAVAILABLE": "deny"}))
    store.set_resource_config(resource, {"RATE": "16000/d", "BLOCK": 1000})
    begin = threading.Barrier(17)

    def work():
        begin.wait(60)
        count = 0
        while store.acquire(resource).allowed:
            count += 1
        return count

    async def awork():
        count = 0
        while (await store.aacquire(resource)).allowed:
            count += 1
        return count

    async def ask():
        begin.wait(60)
        return await asyncio.gather(*(awork() for _ in range(8)))

    with measuring() as measurements, ThreadPoolExecutor(16) as threads:
        in_threads = [threads.submit(work) for _ in range(16)]
        found = asyncio.run(ask()) + [each.result() for each in in_threads]
    assert sum(found) == 16_000
    assert len(measurements) < 4_000
    assert store.get_status(resource).remaining == 0
    store.unset_resource_config(resource)


def test_a_block_without_an_answer_is_followed_by_a_small_one(alias, dynamo_faults, resource):
    """Requests that are cancelled or have no answer do not use up the limit."""
    store = RateLimitStore(
        alias(
            ENDPOINT_URL=dynamo_faults.url,
            RATE_LIMIT={"ON_UNAVAILABLE": "deny"},
            RETRY={"MAX_RETRIES": 0},
        )
    )
    store.set_resource_config(resource, {"RATE": "1000/d", "BLOCK": 50})
    assert all(store.acquire(resource).allowed for _ in range(130))
    before = store.get_status(resource).remaining
    dynamo_faults.lose_answer("UpdateItem", times=4)
    while store.acquire(resource).allowed:
        pass
    assert [store.acquire(resource).allowed for _ in range(3)] == [False] * 3
    assert before - store.get_status(resource).remaining <= 50 + 3 * 2
    store.unset_resource_config(resource)


def test_a_late_outcome_leaves_the_block_of_another_one(dynamo_clock):
    """Which may be taken after ten seconds without an outcome."""
    blocks, name = Blocks(), (ItemKey("pk", "sk"),)
    late = blocks.begin(name, 1, 10)
    dynamo_clock.advance(10.1)
    other = blocks.begin(name, 1, 10)
    with late:
        pass
    assert blocks.begin(name, 1, 10) is None
    with other:
        pass
    assert blocks.begin(name, 1, 10) is not None


def test_tasks_of_users_and_of_the_background_share_a_limit(alias, resource):
    """Exactly, too."""
    store = AdaptiveRateLimitStore(
        alias(RATE_LIMIT={"OPERATION_TIMEOUT": 30.0, "ON_UNAVAILABLE": "deny"})
    )

    async def ask():
        return await asyncio.gather(
            *(
                store.aacquire(resource, rate="20/h", priority=priority)
                for _ in range(25)
                for priority in ("background", "user")
            )
        )

    assert sum(each.allowed for each in asyncio.run(ask())) == 20


TWINS = [
    ("acquire", {"rate": RATE}),
    ("get_status", {"rate": RATE}),
    ("can_proceed", {"rate": RATE}),
    ("get_wait_time", {"rate": "0/h"}),
    ("record", {"rate": RATE}),
    ("refund", {"rate": RATE, "cost": 2}),
    ("reset", {}),
    ("set_resource_config", {"config": "7/h", "everywhere": True}),
    ("get_resource_config", {}),
    ("unset_resource_config", {"everywhere": True}),
]


@pytest.mark.parametrize("kind", KINDS)
def test_twins_do_and_return_the_same(alias, resource, dynamo_clock, kind):
    """Each on a resource of its own, one after the other."""
    store = kind(alias())
    plain, on_a_loop = f"{resource}-plain", f"{resource}-loop"

    async def ask(name, arguments):
        return await getattr(store, f"a{name}")(on_a_loop, **arguments)

    for name, arguments in [TWINS[0]] * 10 + TWINS + TWINS:
        found = getattr(store, name)(plain, **arguments)
        assert asyncio.run(ask(name, arguments)) == found, name
        assert store.get_status(plain, rate=RATE) == store.get_status(on_a_loop, rate=RATE), name
        assert store.get_status(plain) == store.get_status(on_a_loop), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_rate_that_is_a_function_is_not_called_on_the_loop(alias, resource, kind):
    """It may read a database; a coroutine function is awaited."""
    store, threads = kind(alias()), []

    def rate(name, key):
        threads.append(threading.current_thread())
        return "1/h" if (name, key) == (resource, "k") else None

    async def async_rate(name, key):
        return "2/h"

    async def ask(rate):
        return [await store.aacquire(resource, key="k", rate=rate) for _ in range(3)]

    assert [each.allowed for each in asyncio.run(ask(rate))] == [True, False, False]
    assert threading.current_thread() not in threads
    assert asyncio.run(ask(async_rate))[0].limit == 2


def test_receivers_of_a_refusal_may_block_or_be_coroutine_functions(alias, resource):
    """Plain ones are called off the event loop."""
    store, received = RateLimitStore(alias()), []

    def plain(sender, **kwargs):
        with pytest.raises(RuntimeError):
            asyncio.get_running_loop()
        received.append((sender, kwargs["resource"], kwargs["status"].allowed))

    async def on_the_loop(sender, **kwargs):
        asyncio.get_running_loop()
        received.append((sender, kwargs["resource"], kwargs["status"].allowed))

    for each in (plain, on_the_loop):
        rate_limited.connect(each)
    try:
        asyncio.run(store.aacquire(resource, rate="0/h"))
        store.acquire(resource, rate="0/h")
    finally:
        for each in (plain, on_the_loop):
            rate_limited.disconnect(each)
    assert received == [(RateLimitStore, resource, False)] * 4


def test_an_unanswered_decision_has_one_deadline(alias, resource, dynamo_faults):
    """On a loop as in a thread: the limit of the resource and the count share it."""
    dynamo_faults.hang()
    store = RateLimitStore(
        alias(
            ENDPOINT_URL=dynamo_faults.url,
            RETRY={"MAX_RETRIES": 0},
            CIRCUIT_BREAKER={"ENABLED": False},
            RATE_LIMIT={"OPERATION_TIMEOUT": 2.0, "ON_UNAVAILABLE": "deny"},
        )
    )

    async def ask():
        begin = time.monotonic()
        statuses = await asyncio.gather(
            *(store.aacquire(resource, key=str(number)) for number in range(20))
        )
        return statuses, time.monotonic() - begin

    statuses, took = asyncio.run(ask())
    assert not any(each.allowed for each in statuses)
    assert took < 3.5


def test_the_limit_of_a_resource_is_read_without_a_thread(alias, group, resource):
    """By a view that calls no functions of the project."""
    using = alias(RATE_LIMIT={"RESOURCES": {resource: "1/h"}}, TRANSPORT="lean")
    RateLimitStore(using).acquire(group, rate=RATE)

    @ratelimit(group, "ip", resource=resource, using=using)
    async def view(request):
        return HttpResponse("async")

    async def ask():
        first = await view(get())
        return first, {each.name for each in set(threading.enumerate()) - before}

    before = set(threading.enumerate())
    first, names = asyncio.run(ask())
    assert first["X-RateLimit-Limit"] == "1"
    assert not names
    assert asyncio.run(view(get())).status_code == 429
    before_usage = asyncio.run(aget_usage(get(), group, None, "ip", RATE, using=using))
    usage = asyncio.run(aget_usage(get(), group, None, "ip", RATE, increment=True, using=using))
    assert (before_usage["count"], usage["count"]) == (0, 1)
