"""Locks: one owner, a fence that only rises, owners that die or are paused."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync

from dynamo_stores.cache.store.items import LockItem
from dynamo_stores.calls.observer import measuring
from dynamo_stores.exceptions import ConfigurationError, LockError
from dynamo_stores.leases import Waits
from dynamo_stores.testing import FakeClock
from tests.helpers.counting import operations
from tests.helpers.forking import fork, in_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_a_free_lock_is_one_call(cache):
    """To take, to extend, to release, to ask; any earlier answer told the process the time."""
    cache.get("k")
    lock = cache.lock("k", renew=False)
    for method, args in ((lock.acquire, ()), (lock.extend, (5,)), (lock.release, ())):
        assert operations(method, *args) == {"UpdateItem": 1}
    assert operations(lock.acquire) == {"UpdateItem": 1}
    assert operations(lock.locked) == {"GetItem": 1}
    lock.release()


def test_one_holder_at_a_time(cache):
    """Others get False, or LockError from with; afterwards it is free."""
    one, other = cache.lock("k"), cache.lock("k", blocking=False)
    assert one.fence is None
    with one:
        assert one.locked()
        assert other.acquire() is False
        assert cache.lock("k").acquire(blocking_timeout=0.2) is False
        with pytest.raises(LockError, match="held by another owner"), other:
            raise AssertionError
        assert other.release() is False
        assert cache.lock("another").acquire()
    assert not one.locked()
    assert one.release() is False
    assert other.acquire() is True
    other.release()


def test_the_fence_only_ever_rises(cache, dynamo_clock: FakeClock):
    """Over release, expiry, a clock that goes back, and the sweep."""
    fences = []

    def take(timeout=10.0):
        lock = cache.lock("k", timeout, renew=False, blocking=False)
        assert lock.acquire()
        fences.append(lock.fence)
        return lock

    take().release()
    take().release()
    take()
    dynamo_clock.advance(11)
    take().release()
    dynamo_clock.advance(-3600)
    take().release()
    take().release()
    dynamo_clock.advance(3700)
    take().release()
    key = cache._locks.locks.item_key(cache.make_key("k"))
    LockItem.get(key.pk, key.sk).delete()
    dynamo_clock.advance(0.001)
    take().release()
    assert fences == sorted(set(fences))
    assert all(isinstance(fence, int) for fence in fences)


def test_a_lost_lock_is_neither_extended_nor_released(cache, dynamo_clock: FakeClock):
    """Neither after its lease, nor when it is a successor's."""
    one = cache.lock("k", 10, renew=False)
    assert one.acquire()
    assert one.extend(20) is True
    dynamo_clock.advance(15)
    assert one.locked()
    dynamo_clock.advance(5)
    assert not one.locked()
    assert one.extend(10) is False
    two = cache.lock("k", 10, renew=False)
    assert two.acquire(blocking=False)
    assert one.extend(10) is False
    assert one.release() is False
    assert two.locked()
    assert two.release() is True


def test_waiting_ends_with_the_lease(cache, dynamo_clock: FakeClock):
    """A lock that is not released is taken just after its lease ends."""
    assert cache.lock("k", 30, renew=False).acquire()
    started = dynamo_clock.now()
    assert cache.lock("k", 30, renew=False).acquire()
    assert 30 <= dynamo_clock.now() - started < 30.1


def test_sleep_is_the_longest_wait(cache, dynamo_clock: FakeClock):
    """Between two attempts, which are one call each."""
    assert cache.lock("k", 60, renew=False).acquire()
    with measuring() as calls:
        assert not cache.lock("k", sleep=0.1, blocking_timeout=5).acquire()
    assert 50 <= len(calls) <= 101
    with pytest.raises(ConfigurationError, match="sleep is 0; expected"):
        cache.lock("k", sleep=0)


@pytest.mark.parametrize("is_async", [False, True])
def test_the_owner_of_a_lock_knows_it(cache, dynamo_clock: FakeClock, is_async):
    """As long as its lease is valid and nobody else took it."""

    def call(method):
        return asyncio.run(method()) if is_async else method()

    make = cache.alock if is_async else cache.lock
    one, two = make("k", 10, renew=False), make("k", 10, renew=False)
    assert call(one.owned) is False
    assert call(one.acquire)
    assert (call(one.owned), call(two.owned)) == (True, False)
    dynamo_clock.advance(9)
    assert call(one.reacquire) is True
    dynamo_clock.advance(9)
    assert call(one.owned) is True
    dynamo_clock.advance(1)
    assert call(one.owned) is False
    assert call(two.acquire)
    assert (call(one.owned), call(two.owned)) == (False, True)
    assert call(one.reacquire) is False
    assert call(two.release)
    assert call(two.owned) is False


def test_it_is_renewed_while_the_object_lives(cache):
    """Longer than its timeout; and not when the object is gone."""
    lock = cache.lock("k", 2.0)
    assert lock.acquire()
    time.sleep(3)
    assert cache.lock("k").acquire(blocking=False) is False
    renewal = lock._holding.renewal
    del lock
    gc.collect()
    assert cache.lock("k", 5).acquire(blocking_timeout=2.0 + 15)
    renewal.join(5)
    assert not renewal.is_alive()


def test_renewal_goes_on_after_an_outage(alias, make_cache, dynamo_faults):
    """One failed renewal does not lose the lock."""
    cache = make_cache(alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}))
    lock = cache.lock("k", 3.0)
    assert lock.acquire()
    dynamo_faults.fail("UpdateItem", times=1)
    time.sleep(4)
    assert lock.locked()
    assert lock.release() is True


def test_an_unavailable_store_gives_no_lock(alias, make_cache, dynamo_faults):
    """acquire() returns False, `with` raises LockError; a lost answer is recognised."""
    cache = make_cache(alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 1}))
    dynamo_faults.fail("UpdateItem")
    assert cache.lock("k").acquire(blocking=False) is False
    with pytest.raises(LockError, match="DynamoDB is unavailable: UpdateItem on"):
        cache.lock("k", blocking=False).__enter__()
    dynamo_faults.clear()
    dynamo_faults.lose_answer("UpdateItem", times=1)
    lock = cache.lock("k")
    assert lock.acquire(blocking=False) is True
    assert lock.release() is True


def test_locks_are_no_keys(cache):
    """has_key, keys and clear do not see them; versions and prefixes keep them apart."""
    with cache.lock("k"), cache.lock("k", version=2), cache.lock("x" * 200):
        assert not cache.has_key("k")
        assert cache.keys("*") == []
        cache.clear()
        assert cache.lock("k").locked()
    assert cache.store.get_stats().total_items == 0


@pytest.mark.parametrize("seconds", [1e300, 10**400, 3_153_600_001])
def test_a_lock_of_over_100_years_is_refused(cache, seconds):
    """Before anything is sent, and without a change to a lock that is held."""
    for name in ("timeout", "blocking_timeout", "sleep"):
        with pytest.raises(ConfigurationError, match=f"^{name} is too long; expected at most 31"):
            cache.lock("k", **{name: seconds})
    with cache.lock("k", timeout=3_153_600_000) as lock:
        with pytest.raises(ConfigurationError, match=r"^seconds is too long; expected at most 31"):
            lock.extend(seconds)
        assert lock.owned()


def test_wrong_times_are_refused(cache):
    """At once, with what was expected."""
    for arguments in ({"timeout": 0}, {"timeout": None}, {"blocking_timeout": -1}):
        with pytest.raises(ConfigurationError, match="expected a number above 0"):
            cache.lock("k", **arguments)


def test_a_forked_child_does_not_hold_it(cache):
    """It has a copy of the object, and can neither release nor extend."""
    with cache.lock("k") as lock:
        assert in_processes(1, lambda number: (lock.release(), lock.extend(9))) == [(False, False)]
        assert lock.locked()


def test_read_modify_write_by_many(cache):
    """Three processes of eight threads count to 72, one after the other."""
    cache.set("n", 0.0)

    def work(number):
        def add():
            for _ in range(3):
                with cache.lock("counter", 30):
                    cache.set("n", cache.get("n") + 1)

        with ThreadPoolExecutor(8) as threads:
            for done in [threads.submit(add) for _ in range(8)]:
                done.result()

    strong = type(cache)("default", {"KEY_PREFIX": cache.key_prefix})
    # A set that is given up may be carried out later, when another has the lock.
    strong._options = {"CONSISTENT_READ": True, "OPERATION_TIMEOUT": 30}
    cache = strong
    in_processes(3, work)
    assert cache.get("n") == 72.0


@contextlib.contextmanager
def holder(cache, timeout):
    """A process that holds the lock; yields it and the queue of its release's result."""
    ready, answers, go = fork.Event(), fork.SimpleQueue(), fork.Event()

    def hold():
        lock = cache.lock("k", timeout)
        lock.acquire()
        ready.set()
        go.wait(60)
        answers.put((lock.extend(timeout), lock.release()))

    process = fork.Process(target=hold)
    process.start()
    try:
        assert ready.wait(20)
        yield process, answers, go
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
        process.kill()
        process.join()


def test_the_lock_of_a_dead_process_is_taken(cache):
    """SIGKILL: within its timeout and a little."""
    with holder(cache, 2.0) as (process, _, _):
        time.sleep(3)
        assert cache.lock("k").acquire(blocking=False) is False
        os.kill(process.pid, signal.SIGKILL)
        assert cache.lock("k", 5).acquire(blocking_timeout=2.0 + 15)


def test_a_paused_holder_cannot_harm_its_successor(cache):
    """SIGSTOP past the lease: it can neither extend nor release, and its fence is smaller."""
    with holder(cache, 1.0) as (process, answers, go):
        os.kill(process.pid, signal.SIGSTOP)
        successor = cache.lock("k", 30)
        assert successor.acquire(blocking_timeout=1.0 + 15)
        os.kill(process.pid, signal.SIGCONT)
        go.set()
        assert answers.get() == (False, False)
        assert successor.locked()
        assert successor.release() is True


def test_the_async_twin(cache):
    """async with, waiting without a thread, False and LockError alike."""

    async def work():
        order = []

        async def one(number):
            async with cache.alock("k", 30) as lock:
                assert lock.fence > 0
                order.append(number)
                await asyncio.sleep(0.01)
                order.append(number)

        await asyncio.gather(*(one(number) for number in range(5)))
        async with cache.alock("k"):
            other = cache.alock("k", blocking=False)
            assert await other.acquire() is False
            assert await other.locked() is True
            with pytest.raises(LockError):
                async with other:
                    pass
        lock = cache.alock("k")
        assert await lock.acquire(blocking=False)
        assert await lock.extend(5)
        assert await lock.release()
        return order

    order = async_to_sync(work)()
    assert order[::2] == order[1::2]


def test_waits_are_never_negative():
    """A lease that ended while it was read is free, and no reason to give up."""
    waits = Waits(0.05, 1.0)
    for left in (-5.0, 0.0, 0.001):
        assert 0 <= waits.next(left) <= 0.1


def test_blocking_acquire_waits_for_leases_that_end_meanwhile(cache):
    """Six threads take leases of a tenth of a second from each other; none gives up."""
    taken = []

    def work():
        for _ in range(6):
            taken.append(cache.lock("k", 0.1, renew=False).acquire())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken == [True] * 36


def test_a_reused_lock_keeps_nothing_of_its_past(cache, until):
    """Its renewals are collected, and a lock object that is dropped ends its renewal."""
    lock = cache.lock("k")
    renewals = []
    for _ in range(3):
        with lock:
            renewals.append(weakref.ref(lock._holding.renewal))
    until(lambda: gc.collect() >= 0 and not any(each() for each in renewals))
    lock.acquire()
    renewal = lock._holding.renewal
    del lock
    gc.collect()
    assert renewal.is_stopping
