"""get_or_set under a lease: one caller computes, the others get a stale value, or wait."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynamo_stores import keys
from dynamo_stores.cache import stampede as computing
from dynamo_stores.cache.store.items import CacheEntry
from dynamo_stores.calls.observer import measuring
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.testing import FakeClock
from tests.helpers.counting import operations
from tests.helpers.forking import in_processes

fork = multiprocessing.get_context("fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
LEASE = {"STAMPEDE_LEASE": 10}


@pytest.fixture
def make(make_cache):
    return lambda **options: make_cache(OPTIONS={**LEASE, **options})


@pytest.fixture
def cache(make):
    return make()


def counted(path, value="computed", seconds=0.5):
    """Return a function that records its call in a file, works, and returns a value."""

    def compute():
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        return value

    return compute


def test_forty_callers_one_computation(cache, tmp_path):
    """Four processes with ten threads each ask for one missing key at once."""
    path = tmp_path / "calls"

    def work(number):
        with ThreadPoolExecutor(10) as threads:
            return list(threads.map(lambda _: cache.get_or_set("k", counted(path)), range(10)))

    assert in_processes(4, work) == [["computed"] * 10] * 4
    assert len(path.read_text().splitlines()) == 1


def test_async_callers_one_computation(cache):
    """Tasks of one loop, with a coroutine function and a plain one."""
    calls = []

    async def compute():
        calls.append(1)
        await asyncio.sleep(0.3)
        return "async"

    def plain():
        calls.append(2)
        return "plain"

    async def run():
        found = await asyncio.gather(*(cache.aget_or_set("k", compute) for _ in range(20)))
        return set(found), await cache.aget_or_set("l", plain), await cache.aget_or_set("m", 3)

    assert asyncio.run(run()) == ({"async"}, "plain", 3)
    assert calls == [1, 2]
    assert cache.get("k") == "async"


def test_a_killed_computer_is_replaced(make, tmp_path):
    """Within the lease and a second; once."""
    cache = make(STAMPEDE_LEASE=2)
    path = tmp_path / "calls"
    computer = fork.Process(target=lambda: cache.get_or_set("k", counted(path, seconds=60)))
    computer.start()
    while not path.exists():
        time.sleep(0.01)
    time.sleep(1)

    def work(number):
        if number == 0:
            os.kill(computer.pid, signal.SIGKILL)
            killed_at = time.monotonic()
        with ThreadPoolExecutor(5) as threads:
            found = set(threads.map(lambda _: cache.get_or_set("k", counted(path, 2)), range(5)))
        return found, time.monotonic() - killed_at if number == 0 else 0

    (found, took), *others = in_processes(3, work)
    computer.join()
    assert [found, *(each for each, _ in others)] == [{2}] * 3
    assert len(path.read_text().splitlines()) == 2
    # The lease, a second, half a second of computing, and a busy machine.
    assert took < 2 + 1 + 0.5 + 15


def test_a_long_computation_keeps_its_lease(make, tmp_path):
    """Two and a half leases of work are done once."""
    cache = make(STAMPEDE_LEASE=2)
    path = tmp_path / "calls"

    def work(number):
        return cache.get_or_set("k", counted(path, seconds=5))

    assert in_processes(3, work) == ["computed"] * 3
    assert len(path.read_text().splitlines()) == 1


def test_a_paused_computer_cannot_overwrite(make, tmp_path):
    """It returns the result of its successor."""
    cache = make(STAMPEDE_LEASE=1)
    path = tmp_path / "calls"
    results = fork.SimpleQueue()

    def work():
        results.put(cache.get_or_set("k", counted(path, "late", seconds=1)))

    computer = fork.Process(target=work)
    computer.start()
    while not path.exists():
        time.sleep(0.01)
    os.kill(computer.pid, signal.SIGSTOP)
    assert cache.get_or_set("k", lambda: "successor") == "successor"
    os.kill(computer.pid, signal.SIGCONT)
    computer.join(30)
    assert results.get() == "successor"
    assert cache.get("k") == "successor"


def test_a_failed_computation_lets_the_next_one_try(cache):
    """Its error reaches its caller alone."""
    began = threading.Event()

    def fail():
        began.set()
        time.sleep(0.5)
        raise LookupError("mine")

    with ThreadPoolExecutor(1) as threads:
        failing = threads.submit(cache.get_or_set, "k", fail)
        began.wait(10)
        began_at = time.monotonic()
        assert cache.get_or_set("k", lambda: "second") == "second"
        assert time.monotonic() - began_at < LEASE["STAMPEDE_LEASE"]
        with pytest.raises(LookupError, match="mine"):
            failing.result()


def test_a_cancelled_task_frees_its_lease(cache):
    """The next caller need not wait for its end."""

    async def run():
        task = asyncio.create_task(cache.aget_or_set("k", lambda: asyncio.sleep(60)))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await asyncio.wait_for(cache.aget_or_set("k", lambda: "next"), 9)

    assert asyncio.run(run()) == "next"


def test_a_stale_value_is_served_while_one_computes(make, tmp_path):
    """Only the caller that computes waits; the value was stored by a plain set."""
    cache = make(STALE_TIMEOUT=60)
    path = tmp_path / "calls"
    cache.set("k", "stale", 0.5)
    time.sleep(0.6)
    assert cache.get("k") is None

    def work(number):
        with ThreadPoolExecutor(5) as threads:
            return list(
                threads.map(lambda _: cache.get_or_set("k", counted(path, "new", 2)), range(5))
            )

    found = [value for each in in_processes(3, work) for value in each]
    assert len(path.read_text().splitlines()) == 1
    # The computer's thread may be given another turn, after it.
    assert found.count("stale") >= 10
    assert set(found) == {"stale", "new"}
    assert cache.get("k") == "new"


def test_an_entry_is_kept_until_its_removal(make, dynamo_clock: FakeClock, alias):
    """TTL and cleanup go by expiry + STALE_TIMEOUT; every other verb by the expiry."""
    for changes in ({}, {"CACHE": {"EXPIRY_INDEX": True}}):
        cache = make(STALE_TIMEOUT=1000)
        cache.store.using = alias(**changes)
        cache.set("k", ["old"], 10)
        cache.set("l", ["old"], 50)
        cache.touch("l", 10)
        for key in "kl":
            item_key = keys.cache_entry(cache.store.prefix, cache.make_key(key))
            item = CacheEntry.get(item_key.pk, item_key.sk)
            assert item.ttl == -(-item.expiry // 1000) + 1000

        def cleanup(cache=cache):
            # Waiting between pages moves this clock on.
            return cache.store.cleanup(units_per_second=1e9)

        dynamo_clock.advance(11)
        assert cache.get("k") is None
        assert not cache.has_key("k")
        assert cache.keys("*") == []
        assert cleanup() == 0
        assert cache.add("l", "new", 10_000)
        dynamo_clock.advance(500)
        assert cleanup() == 0
        dynamo_clock.advance(500)
        assert cleanup() == 1
        assert cache.get("l") == "new"


def test_an_invalidated_value_is_not_served_stale(make):
    """An invalidated value is not served stale."""
    cache = make(STALE_TIMEOUT=60)
    cache.set("k", "old", 60, tags=["t"])
    cache.invalidate_tags(["t"])
    assert cache.get_or_set("k", "new", tags=["t"]) == "new"


def test_none_is_a_value(cache):
    """It is stored, and not computed again."""
    calls = []
    for _ in range(2):
        assert cache.get_or_set("k", lambda: calls.append(1)) is None
    assert calls == [1]


def test_a_value_set_meanwhile_wins(cache):
    """A value that was stored during a computation is newer than its result."""

    def compute():
        cache.set("k", "set meanwhile")
        return "computed"

    assert cache.get_or_set("k", compute) == "set meanwhile"
    assert cache.get("k") == "set meanwhile"


def test_calls(make, make_cache):
    """A hit is one, a miss five: look, lease, look again, store, give back."""
    for cache, calls in (
        (make(), {"GetItem": 2, "UpdateItem": 2, "PutItem": 1}),
        (make_cache(), {"GetItem": 1, "PutItem": 1}),
    ):
        assert operations(cache.get_or_set, "k", lambda: "v") == calls
        assert operations(cache.get_or_set, "k", lambda: "v") == {"GetItem": 1}
    with measuring() as measurements:
        assert make().get_or_set("unstored", lambda: 1, 0) == 1
    assert [each.operation for each in measurements] == ["GetItem"]


def test_early_refresh(make, monkeypatch):
    """One caller computes a slow value again before it expires; others get the old value."""
    cache = make(EARLY_REFRESH=1.0)
    cache.get_or_set("k", lambda: time.sleep(0.2) or "old", 60)
    monkeypatch.setattr(random, "random", lambda: 0.5)
    assert cache.get_or_set("k", lambda: "new") == "old"
    # -ln(1 - r) is about 1,000 now: 200 s are more than the 60 s that are left.
    monkeypatch.setattr(computing.math, "log", lambda _: -1000.0)
    assert cache.get_or_set("k", lambda: "new") == "new"
    assert cache.get("k") == "new"


def test_early_refresh_under_load(make, monkeypatch):
    """While one refreshes, the others get the value that is still alive."""
    cache = make(EARLY_REFRESH=1.0)
    cache.get_or_set("k", lambda: time.sleep(0.1) or "old", 60)
    monkeypatch.setattr(computing.math, "log", lambda _: -10_000.0)
    began, served = threading.Event(), threading.Event()

    def refresh():
        began.set()
        served.wait(20)
        return "new"

    with ThreadPoolExecutor(1) as threads:
        refreshing = threads.submit(cache.get_or_set, "k", refresh)
        began.wait(10)
        assert cache.get_or_set("k", lambda: "never") == "old"
        served.set()
        assert refreshing.result() == "new"


def test_unavailable(alias, make_cache, dynamo_faults):
    """It raises; with IGNORE_EXCEPTIONS the function is called once and its value returned."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    strict = make_cache(using, OPTIONS=LEASE)
    cache = make_cache(using, OPTIONS={**LEASE, "IGNORE_EXCEPTIONS": True})
    calls = []

    def compute():
        calls.append(1)
        return "computed"

    dynamo_faults.fail("PutItem")
    with pytest.raises(StoreUnavailable):
        strict.get_or_set("k", compute)
    assert cache.get_or_set("k", compute) == "computed"
    assert asyncio.run(cache.aget_or_set("k", compute)) == "computed"
    dynamo_faults.fail()
    assert cache.get_or_set("k", compute) == "computed"
    assert asyncio.run(cache.aget_or_set("k", compute)) == "computed"
    assert len(calls) == 5


def test_an_error_of_the_function_is_no_error_of_the_store(make):
    """Also when it looks like one."""
    cache = make(IGNORE_EXCEPTIONS=True)

    def compute():
        raise StoreUnavailable("another store's")

    with pytest.raises(StoreUnavailable, match="another store's"):
        cache.get_or_set("k", compute)
    assert cache.get_or_set("k", "free") == "free"


def test_leases_are_no_keys(cache):
    """Invisible to keys and has_key; clear leaves a computation alone."""

    def compute():
        assert cache.keys("*") == []
        assert not cache.has_key("k")
        cache.clear()
        return "v"

    assert cache.get_or_set("k", compute) == "v"
    assert cache.keys("*") == ["k"]
