"""Jobs that run once: one caller works, the others get its result, an old owner writes nothing."""

from __future__ import annotations

import asyncio
import datetime
import multiprocessing
import os
import secrets
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynamo_stores import keys
from dynamo_stores.calls.observer import measuring
from dynamo_stores.dedupe.items import DedupeJob
from dynamo_stores.exceptions import (
    ConfigurationError,
    DedupeError,
    DedupeFailedError,
    DedupeTimeoutError,
    StoreUnavailable,
)
from dynamo_stores.stores import DedupeStore
from dynamo_stores.testing import FakeClock
from tests.helpers.counting import operations
from tests.helpers.forking import in_processes

fork = multiprocessing.get_context("fork")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def key():
    return secrets.token_hex(6)


@pytest.fixture
def store(tables):
    return DedupeStore()


@pytest.fixture
def brief(alias):
    """A store whose leases are short."""
    return DedupeStore(alias(DEDUPE={"LEASE": 2}))


def counted(path, result, seconds=0.5):
    """Return a function that records its run in a file, works, and returns a result."""

    def work():
        with path.open("a") as file:
            file.write("ran\n")
        time.sleep(seconds)
        return result

    return work


def runs(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.parametrize("result", [None, 0, "", [1, {"a": None}], "é\ud800", "x" * 900_000])
def test_all_callers_get_the_result(store, key, result):
    """Any JSON value, of any size; the second caller does not work."""
    assert store.run(key, lambda: result) == result
    assert store.run(key, lambda: "again") == result
    assert store.wait_for(key) == result
    assert not store.is_in_progress(key)


def test_a_key_may_be_a_number():
    """It is the same job as that of its text; None is an error."""
    store, number = DedupeStore(), secrets.randbits(62)
    assert store.run(number, lambda: "done") == "done"
    assert store.run(str(number), lambda: "never") == "done"
    with pytest.raises(TypeError, match="A key is None; expected a string"):
        store.run(None, lambda: "never")


def test_calls(store, key):
    """Two for the caller that works, one for a later one; two for a large result."""
    store.is_in_progress(key)
    assert operations(lambda: store.run(key, lambda: 1)) == {"UpdateItem": 2}
    assert operations(lambda: store.run(key, lambda: 1)) == {"UpdateItem": 1}
    assert operations(lambda: store.wait_for(key)) == {"GetItem": 1}
    store.run(key + "large", lambda: "x" * 900_000)
    assert operations(lambda: store.run(key + "large", lambda: 1)) == {
        "UpdateItem": 1,
        "BatchGetItem": 1,
    }


def test_callers_at_once(store, key, tmp_path):
    """96 callers in three processes, on four keys: four run, all callers get the results."""
    paths = [tmp_path / str(number) for number in range(4)]

    def process(number):
        def call(each):
            which = each % 4
            return which, store.run(f"{key}{which}", counted(paths[which], [which] * 3))

        with ThreadPoolExecutor(32) as threads:
            return list(threads.map(call, range(32)))

    for found in in_processes(3, process):
        assert all(result == [which] * 3 for which, result in found)
    assert [runs(path) for path in paths] == [1] * 4


def test_a_large_result_is_the_same_for_all(store, key):
    """900 KB, in parts."""
    text = secrets.token_hex(450_000)
    found = in_processes(3, lambda number: store.run(key, lambda: text) == text)
    assert found == [True] * 3


def test_a_killed_owner_is_followed_by_one(brief, key, tmp_path):
    """Within the lease and some seconds."""
    path = tmp_path / "runs"
    owner = fork.Process(target=lambda: brief.run(key, counted(path, 1, seconds=60)))
    owner.start()
    while not runs(path):
        time.sleep(0.01)
    os.kill(owner.pid, signal.SIGKILL)
    owner.join()
    began_at = time.monotonic()
    assert in_processes(3, lambda number: brief.run(key, counted(path, 2))) == [2] * 3
    assert time.monotonic() - began_at < 2 + 15
    assert runs(path) == 2


def test_a_stopped_owner_cannot_overwrite(brief, key, tmp_path):
    """It returns the result of its successor."""
    path = tmp_path / "runs"
    results = fork.SimpleQueue()
    owner = fork.Process(target=lambda: results.put(brief.run(key, counted(path, "late", 1))))
    owner.start()
    while not runs(path):
        time.sleep(0.01)
    os.kill(owner.pid, signal.SIGSTOP)
    assert brief.run(key, lambda: "successor") == "successor"
    os.kill(owner.pid, signal.SIGCONT)
    owner.join(30)
    assert results.get() == "successor"
    assert brief.wait_for(key) == "successor"


def test_long_work_runs_once(brief, key, tmp_path):
    """Two and a half leases of it."""
    path = tmp_path / "runs"
    found = in_processes(3, lambda number: brief.run(key, counted(path, number, seconds=5)))
    assert len(set(found)) == 1
    assert runs(path) == 1


def test_an_error_reaches_its_caller_and_all_who_wait(store, key):
    """As it is, and as a typed error with its type and message."""

    def fail():
        time.sleep(0.5)
        raise LookupError("of mine")

    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(store.run, key, fail) for _ in range(4)]
        errors = [call.exception() for call in calls]
    own = [each for each in errors if isinstance(each, LookupError)]
    others = [each for each in errors if isinstance(each, DedupeFailedError)]
    assert (len(own), len(others)) == (1, 3)
    assert {(each.original_type, each.original_message) for each in others} == {
        ("LookupError", "of mine")
    }
    with pytest.raises(DedupeFailedError, match="failed with LookupError: of mine"):
        store.wait_for(key)


def test_a_failure_is_remembered_or_not(store, key, dynamo_clock: FakeClock):
    """For FAILURE_TTL seconds, or the caller's failure_ttl; 0 lets the next caller run."""

    def fail():
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.run(key, fail)
    with pytest.raises(DedupeFailedError):
        store.run(key, lambda: 1)
    dynamo_clock.advance(5.1)
    assert store.run(key, lambda: 1) == 1
    with pytest.raises(ValueError, match="no"):
        store.run(key + "0", fail, failure_ttl=0)
    assert store.run(key + "0", lambda: 2) == 2


def test_the_verbs_of_a_job(store, key, dynamo_clock: FakeClock):
    """One owner at a time; only its fence completes, fails or extends."""
    assert store.wait_for(key, default="no job") == "no job"
    fence = store.register(key)
    assert store.is_in_progress(key)
    assert store.register(key) is None
    assert store.complete(key, 1, fence=fence - 1) is False
    assert store.fail(key, ValueError("x"), fence=fence - 1) is False
    assert store.extend(key, fence - 1) is False
    assert store.extend(key, fence) is True
    assert store.complete(key, {"a": 1}, fence=fence) is True
    assert store.complete(key, {"a": 2}, fence=fence) is True  # its own, as after a lost answer
    assert store.wait_for(key) == {"a": 1}
    assert store.register(key) is None
    dynamo_clock.advance(301)
    assert store.wait_for(key, default="forgotten") == "forgotten"
    later = store.register(key)
    assert later > fence
    assert store.fail(key, ValueError("x"), fence=later, ttl=0) is True
    assert store.register(key) > later


def test_the_fence_only_rises(store, key, dynamo_clock: FakeClock):
    """Over expiry, a clock that goes back, and the sweep."""
    fences = []
    for step in (31, 31, -3600, 31, 31):
        fence = store.register(key)
        if fence is not None:
            fences.append(fence)
        dynamo_clock.advance(step)
        if step < 0:
            # Still leased by a clock that was ahead.
            assert store.register(key) is None
            dynamo_clock.advance(3600)
    item = keys.dedupe_job(key)
    DedupeJob(item.pk, item.sk).delete()
    fences.append(store.register(key))
    assert fences == sorted(set(fences))
    assert len(fences) >= 4


def test_ttls(store, key, dynamo_clock: FakeClock):
    """In progress until the lease's end and TTL; a result for TTL from its completion."""
    item_key = keys.dedupe_job(key)
    fence = store.register(key)
    assert DedupeJob.get(item_key.pk, item_key.sk).ttl == dynamo_clock.now() + 30 + 300
    dynamo_clock.advance(20)
    store.complete(key, "x" * 10_000, fence=fence, ttl=60)
    assert DedupeJob.get(item_key.pk, item_key.sk).ttl == dynamo_clock.now() + 60
    part = keys.dedupe_part(item_key, fence, 0)
    assert DedupeJob.get(part.pk, part.sk).ttl == dynamo_clock.now() + 60
    dynamo_clock.advance(59)
    assert store.run(key, lambda: 1) == "x" * 10_000
    dynamo_clock.advance(2)
    assert store.run(key, lambda: 1) == 1


@pytest.mark.parametrize("wrong", ["60", datetime.timedelta(days=1), -1])
def test_wrong_durations_are_refused(store, key, wrong):
    """Before anything is written or run; the job is as it was."""
    fence, error = store.register(key), ValueError("no")
    refused = {
        "ttl": [
            lambda: store.run(key + "r", pytest.fail, ttl=wrong),
            lambda: store.run(key + "r", pytest.fail, ttl=wrong, wait=False),
            lambda: asyncio.run(store.arun(key + "r", pytest.fail, ttl=wrong)),
            lambda: store.complete(key, 1, fence=fence, ttl=wrong),
            lambda: asyncio.run(store.acomplete(key, 1, fence=fence, ttl=wrong)),
            lambda: store.fail(key, error, fence=fence, ttl=wrong),
            lambda: asyncio.run(store.afail(key, error, fence=fence, ttl=wrong)),
        ],
        "failure_ttl": [lambda: store.run(key + "r", pytest.fail, failure_ttl=wrong)],
        "timeout": [
            lambda: store.wait_for(key, timeout=wrong),
            lambda: asyncio.run(store.await_for(key, timeout=wrong)),
        ],
        "most_pages": [lambda: store.list_jobs(most_pages=wrong)],
        "page_size": [lambda: store.list_jobs(most_pages=1, page_size=wrong)],
    }
    with measuring() as measurements:
        for name, calls in refused.items():
            for call in calls:
                with pytest.raises(ConfigurationError, match=f"^{name} is .*; expected a .*number"):
                    call()
    assert not measurements
    assert store.is_in_progress(key)
    assert store.describe(key + "r") is None
    with pytest.raises(ConfigurationError, match="ttl is 0; expected a number above 0, in seconds"):
        store.complete(key, 1, fence=fence, ttl=0)


def test_waiting_ends(alias, key):
    """With an error, while the job keeps running."""
    store = DedupeStore(alias(DEDUPE={"MAX_WAIT": 0.5}))
    store.register(key)
    for wait in (lambda: store.wait_for(key), lambda: store.run(key, lambda: 1)):
        with pytest.raises(DedupeTimeoutError, match="still in progress"):
            wait()
    assert store.is_in_progress(key)


def test_waiting_for_a_dead_owner_ends_with_its_lease(brief, key):
    """wait_for works on nothing itself."""
    brief.register(key)
    began_at = time.monotonic()
    assert brief.wait_for(key, default="none") == "none"
    assert 1 < time.monotonic() - began_at < 2 + 15


def test_one_of_a_processes_callers_looks_for_all(store, key):
    """Twenty threads that wait cost as much as one."""
    fence = store.register(key)
    with measuring() as measurements, ThreadPoolExecutor(21) as threads:
        waiting = [threads.submit(store.wait_for, key) for _ in range(20)]
        time.sleep(1)
        store.complete(key, "r", fence=fence)
        assert [each.result() for each in waiting] == ["r"] * 20
    assert len(measurements) < 20


@pytest.mark.parametrize("result", [object(), {1, 2}, b"bytes", float])
def test_a_result_that_is_not_json_serializable(store, key, result):
    """It raises DedupeError for the caller, and the job failed."""
    with pytest.raises(DedupeError, match="must be JSON serializable"):
        store.run(key, lambda: result)
    with pytest.raises(DedupeFailedError, match="DedupeError"):
        store.wait_for(key)


def test_unavailable(alias, key, dynamo_faults):
    """Raises, and nothing hangs; the next call works."""
    store = DedupeStore(alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}))
    dynamo_faults.fail(times=1)
    with pytest.raises(StoreUnavailable):
        store.run(key, lambda: 1)
    assert store.run(key, lambda: 1) == 1


def test_lost_answers(alias, key, dynamo_faults):
    """A claim and a completion that were done are taken for done."""
    store = DedupeStore(alias(ENDPOINT_URL=dynamo_faults.url))
    calls = []
    dynamo_faults.lose_answer("UpdateItem", times=1)
    assert store.run(key, lambda: calls.append(1) or 7) == 7
    dynamo_faults.clear()
    fence = store.register(key + "2")
    dynamo_faults.lose_answer("UpdateItem", times=1)
    assert store.complete(key + "2", 8, fence=fence)
    assert calls == [1]


def test_async_twins(store, key):
    """Coroutine functions and plain ones, in tasks of one loop."""
    calls = []

    async def work():
        calls.append(1)
        await asyncio.sleep(0.3)
        return "async"

    async def run():
        found = await asyncio.gather(*(store.arun(key, work) for _ in range(20)))
        plain = await store.arun(key + "p", lambda: calls.append(2) or "plain")
        fence = await store.aregister(key + "f")
        busy = await store.ais_in_progress(key + "f")
        await store.afail(key + "f", ValueError("x"), fence=fence, ttl=0)
        fence = await store.aregister(key + "f")
        await store.acomplete(key + "f", 1, fence=fence)
        return set(found), plain, busy, await store.await_for(key + "f")

    assert asyncio.run(run()) == ({"async"}, "plain", True, 1)
    assert calls == [1, 2]


def test_async_calls_use_no_thread(alias, key, monkeypatch):
    """On the lean transport; only the renewal of a lease has a thread."""
    store, started = DedupeStore(alias(TRANSPORT="lean")), []
    store.is_in_progress(key)
    start = threading.Thread.start

    def record(thread):
        started.append(thread.name)
        start(thread)

    def refuse(*args):
        raise AssertionError("A call was made in a thread.")

    async def work():
        return "done"

    async def use_jobs():
        monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
        fence = await store.aregister(key)
        assert await store.ais_in_progress(key)
        assert await store.acomplete(key, "x" * 900_000, fence=fence)
        assert await store.await_for(key) == "x" * 900_000
        fence = await store.aregister(key + "f")
        assert await store.afail(key + "f", ValueError("x"), fence=fence)
        found = await asyncio.gather(*(store.arun(key + "r", work) for _ in range(5)))
        assert found == ["done"] * 5

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", record)
        asyncio.run(use_jobs())
    assert started == ["dynamo-stores-job"]


def test_a_cancelled_task_lets_the_next_one_try(store, key):
    """It did not fail."""

    async def run():
        task = asyncio.create_task(store.arun(key, lambda: asyncio.sleep(60)))
        await asyncio.sleep(0.5)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await asyncio.wait_for(store.arun(key, lambda: "next"), 20)

    assert asyncio.run(run()) == "next"
