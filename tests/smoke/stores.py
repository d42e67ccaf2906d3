"""The main methods of each store and of the client, sync and async."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from django.core.cache import cache

from dynamo_stores.client import (
    Check,
    Delete,
    Get,
    Listing,
    Put,
    Update,
    get_dynamodb_client,
)
from dynamo_stores.exceptions import TransactionCancelledError
from dynamo_stores.stores import (
    AdaptiveRateLimitStore,
    CacheStore,
    DedupeStore,
    RateLimitStore,
)

from .project import TABLE
from .twins import Async

# A value of one second is gone after it, and soon after it.
_EXPIRY_SECONDS = 30.0


def use_cache(store: Any, name: str) -> None:
    """Values, counters, expiry, many keys, tags and patterns."""
    key = f"{name}:value"
    store.set(key, {"a": 1}, 60.0)
    assert store.get(key) == {"a": 1}
    assert not store.add(key, "other")
    assert store.has_key(key)
    assert 0 < store.ttl(key) <= 60_000
    assert store.touch(key, 600.0)
    assert store.ttl(key) > 60_000
    store.set(f"{name}:count", 1)
    assert store.incr(f"{name}:count", 2) == 3
    many = {f"{name}:{number}": number for number in range(5)}
    assert store.set_many(many) == []
    assert store.get_many([*many, f"{name}:none"]) == many
    store.delete_many(list(many))
    assert store.get_many(list(many)) == {}
    store.set(f"{name}:tagged", "x", 60.0, ["smoke"])
    store.invalidate_tags(["smoke"])
    assert store.get(f"{name}:tagged") is None
    assert store.delete_pattern(f"{name}:cou*") == 1
    assert store.delete(key)
    assert store.get(key, "none") == "none"


def use_expiry(store: Any, name: str) -> None:
    """A value ends by its time, before DynamoDB deletes it."""
    store.set(f"{name}:short", "x", 1.0)
    until = time.monotonic() + _EXPIRY_SECONDS
    while store.get(f"{name}:short") is not None:
        assert time.monotonic() < until, "A value of one second is still there."
        time.sleep(0.2)


def use_limits(store: Any, name: str) -> None:
    """A limit of two admits two."""
    decisions = [store.acquire("smoke", key=name, rate="2/h") for _ in range(3)]
    assert [each.allowed for each in decisions] == [True, True, False]
    assert store.get_wait_time("smoke", key=name, rate="2/h") > 0
    store.reset("smoke", key=name)
    assert store.can_proceed("smoke", key=name, rate="2/h")
    store.record("smoke", key=name, rate="2/h")
    assert store.get_status("smoke", key=name, rate="2/h").remaining == 1


def use_shared_limits(store: Any, name: str) -> None:
    """Users and background work share a limit."""
    for priority in ("user", "background"):
        status = store.acquire("smoke-shared", key=name, rate="100/h", priority=priority)
        assert status.allowed
    assert store.is_counted("smoke-shared", key=name)
    store.reset("smoke-shared", key=name)
    assert not store.is_counted("smoke-shared", key=name)


def use_jobs(store: Any, name: str) -> None:
    """A job runs once, and a fence completes it."""
    calls: list[int] = []

    def work() -> int:
        calls.append(1)
        return 42

    assert [store.run(f"{name}:run", work) for _ in range(2)] == [42, 42]
    assert len(calls) == 1
    fence = store.register(f"{name}:job")
    assert store.register(f"{name}:job") is None
    assert store.is_in_progress(f"{name}:job")
    assert store.complete(f"{name}:job", [1], fence=fence)
    assert store.wait_for(f"{name}:job") == [1]


def use_client(client: Any, name: str) -> None:
    """Items with conditions, in batches and in transactions."""

    def key(sort: str) -> dict[str, str]:
        return {"PK": f"SMOKE#{name}", "SK": sort}

    client.put(TABLE, {**key("1"), "likes": 0}, condition="attribute_not_exists(PK)")
    changed = client.update(TABLE, key("1"), "ADD likes :n", values={":n": 1})
    assert changed["likes"] == 1
    assert client.get(TABLE, key("1"), consistent=True)["likes"] == 1
    others = [key(str(number)) for number in range(2, 6)]
    assert client.batch_write(TABLE, puts=others) == len(others)
    assert len(client.batch_get(TABLE, others, consistent=True)) == len(others)
    exists = "attribute_exists(PK)"
    client.transact_write(
        [
            Update(TABLE, key("1"), "ADD likes :n", values={":n": 1}),
            Put(TABLE, key("6"), "attribute_not_exists(PK)"),
            Check(TABLE, key("2"), exists),
            Delete(TABLE, key("3")),
        ]
    )
    first, third = client.transact_get([Get(TABLE, key("1")), Get(TABLE, key("3"))])
    assert (first["likes"], third) == (2, None)
    try:
        client.transact_write([Check(TABLE, key("none"), exists)])
    except TransactionCancelledError:
        pass
    else:
        raise AssertionError("A transaction whose check fails was carried out.")
    deleted = client.delete(TABLE, key("6"), return_old=True)
    assert deleted["SK"] == "6"
    assert client.health_check(TABLE)


def use_queries(runner: asyncio.Runner) -> None:
    """The items that are left of a partition, in their order."""
    client = get_dynamodb_client()

    def left(name: str) -> Listing:
        values = {":pk": f"SMOKE#{name}"}
        return client.query(TABLE, "PK = :pk", values=values, consistent=True, page_size=3)

    async def read() -> list[Any]:
        return [item["SK"] async for item in left("async")]

    for found in ([item["SK"] for item in left("sync")], runner.run(read())):
        assert found == ["1", "2", "4", "5"]


def use_locks(runner: asyncio.Runner) -> None:
    """One holder at a time, with a fence that rises, for threads and for event loops."""
    with cache.lock("smoke", timeout=30) as lock:
        assert not cache.lock("smoke", blocking=False, timeout=30).acquire()
        assert lock.owned()
        first = lock.fence

    async def hold() -> int:
        async with cache.alock("smoke", timeout=30) as held:
            assert await held.owned()
            assert not await cache.alock("smoke", blocking=False, timeout=30).acquire()
            return held.fence

    assert runner.run(hold()) > first


def use_django_cache(runner: asyncio.Runner) -> None:
    """Django's API, with a value that is computed once."""
    cache.set("django", [1, 2], 60)
    assert cache.get("django") == [1, 2]
    assert cache.get_or_set("computed", lambda: "once", 60) == "once"
    assert runner.run(cache.aget_or_set("computed", lambda: "again", 60)) == "once"
    assert runner.run(cache.aget("django")) == [1, 2]
    assert runner.run(cache.aincr_version("django")) == 2
    cache.delete_many(["computed"])


def use_stores(write: Callable[[str], None]) -> None:
    """Use every store, by its methods and by their async twins."""
    with asyncio.Runner() as runner:
        for use, store in (
            (use_cache, CacheStore(prefix="smoke-store")),
            (use_expiry, CacheStore(prefix="smoke-store")),
            (use_limits, RateLimitStore()),
            (use_shared_limits, AdaptiveRateLimitStore()),
            (use_jobs, DedupeStore()),
            (use_client, get_dynamodb_client()),
        ):
            use(store, "sync")
            use(Async(store, runner), "async")
            write(_line(use))
        for each in (use_queries, use_locks, use_django_cache):
            each(runner)
            write(_line(each))


def _line(use: Callable[..., None]) -> str:
    what = use.__name__.removeprefix("use_").replace("_", " ")
    return f"{what}: {use.__doc__}"
