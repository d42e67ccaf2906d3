"""Locks and computations under wrong clocks, cancelled tasks, lost answers and errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time

import pytest

from dynamo_stores import clock, keys
from dynamo_stores.cache.locks import LeaseItems
from dynamo_stores.calls.observer import measuring
from dynamo_stores.calls.policy import deadline
from dynamo_stores.concurrency.effects import run
from dynamo_stores.exceptions import LockError, StoreUnavailable
from dynamo_stores.leases import Renewal
from tests.helpers.clocks import with_clock
from tests.helpers.faults import QUICK, Interrupted, cancelled_during, interrupting
from tests.helpers.forking import in_processes
from tests.ratelimit.test_contention import SkewedClock

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
HOUR = 3600.0
# More than a busy machine needs, and less than a lease of an hour.
LONG = 40.0


def renewals():
    return [each for each in threading.enumerate() if isinstance(each, Renewal)]


@pytest.mark.parametrize("wrong", [HOUR, -HOUR])
def test_a_wrong_clock_steals_no_lock(cache, wrong):
    """Not with the first call of its process; neither is its own lock taken from it."""
    with cache.lock("held", 30):
        assert with_clock(wrong, lambda: cache.lock("held").acquire(blocking=False)) is False

    def leave():
        lock = cache.lock("left", 30, renew=False)
        return lock.acquire(), lock.locked()

    assert with_clock(wrong, leave) == (True, True)
    assert cache.lock("left").acquire(blocking=False) is False


@pytest.mark.parametrize("wrong", [HOUR, -HOUR])
def test_a_wrong_clock_holds_no_lock_after_its_owner(cache, wrong):
    """The lock of an owner that died is free after its lease, whose clock was wrong or not."""
    assert with_clock(wrong, lambda: cache.lock("k", 1, renew=False).acquire())
    assert cache.lock("k", 1, renew=False).acquire(blocking_timeout=LONG)
    assert with_clock(wrong, lambda: cache.lock("k", 1).acquire(blocking_timeout=LONG))


def test_a_clock_that_is_set_changes_no_lock(cache):
    """Neither takes it from its holder nor lets the holder extend it for an hour."""
    before = clock.use(SkewedClock(0))
    try:
        lock = cache.lock("k", 3)
        assert lock.acquire()
        clock.use(SkewedClock(HOUR))
        assert cache.lock("k").acquire(blocking=False) is False
        assert lock.extend(4)
        assert lock.fence is not None
        assert cache._locks.seconds_left(cache.make_key("k")) < 30
    finally:
        clock.use(before)
        lock.release()


def test_only_the_first_lock_of_a_process_asks_for_the_time(cache):
    """By one read; any earlier answer spares it."""

    def take():
        with measuring() as measurements:
            for key in "ab":
                assert cache.lock(key, renew=False).acquire()
        return [each.operation for each in measurements]

    assert in_processes(1, lambda number: take()) == [["GetItem", "UpdateItem", "UpdateItem"]]


@pytest.mark.parametrize("with_block", [False, True])
def test_a_cancelled_acquire_leaves_no_lock(faulty, dynamo_faults, until, with_block):
    """What its thread takes after that is released, and nothing renews it."""
    cache = faulty()
    cache.get("k")

    async def enter(lock):
        async with lock:
            raise AssertionError

    async def give_up():
        lock = cache.alock("k", 60)
        taking = enter(lock) if with_block else lock.acquire()
        await cancelled_during(dynamo_faults, "UpdateItem", taking)
        assert lock.fence is None
        return lock

    lock = asyncio.run(give_up())
    other = cache.lock("k", 60)
    assert other.acquire(blocking_timeout=LONG)
    assert lock.fence is None
    other.release()
    until(lambda: not renewals())


def test_a_cancelled_get_or_set_leaves_no_lease(faulty, dynamo_faults):
    """The next caller computes long before the lease would end."""
    cache = faulty({"STAMPEDE_LEASE": 600})
    cache.get("k")

    async def run():
        computing = cache.aget_or_set("k", lambda: "never")
        await cancelled_during(dynamo_faults, "UpdateItem", computing)
        return await asyncio.wait_for(cache.aget_or_set("k", lambda: "next"), LONG)

    assert asyncio.run(run()) == "next"


def test_a_take_whose_answers_were_lost_is_recognised(faulty, dynamo_faults):
    """By the next attempt of the same acquire()."""
    cache = faulty(RETRY={**QUICK, "MAX_RETRIES": 1}, CIRCUIT_BREAKER={"ENABLED": False})
    dynamo_faults.lose_answer("UpdateItem", times=2)
    lock = cache.lock("k", 600)
    assert lock.acquire(blocking_timeout=LONG)
    assert lock.fence is not None
    assert lock.release()
    assert not lock.locked()


def test_a_take_that_lands_after_giving_up_is_undone(faulty, dynamo_faults):
    """A lock and the lease of get_or_set, whose request was slower than its time."""
    cache = faulty(
        {"OPERATION_TIMEOUT": 0.5, "STAMPEDE_LEASE": 600}, RETRY={**QUICK, "MAX_RETRIES": 0}
    )
    patient = faulty()
    patient._options["STAMPEDE_LEASE"] = 600
    patient.key_prefix = cache.key_prefix
    for _ in range(10):
        # The first request makes the client, which takes longer on a busy machine.
        with contextlib.suppress(StoreUnavailable):
            cache.get("k")
            break
    dynamo_faults.delay(2.0, "UpdateItem", times=1)
    assert cache.lock("k", 600).acquire(blocking=False) is False
    time.sleep(2.5)
    assert patient.lock("k").acquire(blocking_timeout=LONG)
    dynamo_faults.delay(2.0, "UpdateItem", times=1)
    with pytest.raises(StoreUnavailable):
        cache.get_or_set("c", lambda: "slow")
    time.sleep(2.5)
    began_at = time.monotonic()
    assert patient.get_or_set("c", lambda: "next") == "next"
    assert time.monotonic() - began_at < LONG


@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize("is_held", [False, True])
def test_a_deadline_ends_the_wait_for_a_lock(faulty, dynamo_faults, is_held, is_async):
    """A held one, and one of a DynamoDB that does not answer."""
    cache = faulty(RETRY={"MAX_RETRIES": 0})
    assert cache.lock("k", 600).acquire()
    if not is_held:
        dynamo_faults.fail("*", status=500)
    began_at = time.monotonic()
    with deadline(1.5):
        if is_async:
            assert asyncio.run(cache.alock("k").acquire()) is False
        else:
            with pytest.raises(LockError), cache.lock("k"):
                pass
    assert 1.4 <= time.monotonic() - began_at < LONG


def test_a_held_lock_is_not_called_unavailable(faulty):
    """Where the deadline leaves too little time for the last attempt."""
    cache = faulty()
    assert cache.lock("k", 600).acquire()
    for _ in range(10):
        with deadline(0.4), pytest.raises(LockError, match="held by another owner"):
            cache.lock("k", sleep=0.03).__enter__()


def test_attempts_are_far_apart_while_dynamodb_does_not_answer(faulty, dynamo_faults, caplog):
    """However short ``sleep`` is; those that the breaker refuses are no warnings."""
    cache = faulty(RETRY={"MAX_RETRIES": 0})
    cache.get("k")
    dynamo_faults.fail("*", status=500)
    before = dynamo_faults.requests.total()
    assert not cache.lock("k", sleep=0.001, blocking_timeout=3).acquire()
    assert dynamo_faults.requests.total() - before < 12
    failed = [each for each in caplog.records if "attempt to take a lock" in each.message]
    assert len([each for each in failed if each.levelno == logging.WARNING]) < 12


def losses(caplog):
    """The records that say that a lock was lost."""
    return [each for each in caplog.records if "was lost" in each.message]


@pytest.mark.parametrize(
    "error",
    [
        {"status": 400, "code": "TransactionConflictException"},
        {"status": 400, "code": "ExpiredTokenException"},
        {"status": 500},
    ],
)
def test_a_renewal_survives_any_error(faulty, dynamo_faults, until, caplog, error):
    """Also beyond the end of the lease, as long as nobody takes it: nothing is lost then."""
    cache = faulty(RETRY={**QUICK, "MAX_RETRIES": 0}, CIRCUIT_BREAKER={"ENABLED": False})
    lock = cache.lock("k", 1.5)
    assert lock.acquire()
    dynamo_faults.fail("UpdateItem", **error)
    until(lambda: lock.fence is None)
    until(lambda: losses(caplog))
    assert [each.levelno for each in losses(caplog)] == [logging.WARNING]
    assert "ended without a renewal" in losses(caplog)[0].message
    dynamo_faults.clear()
    until(lambda: lock.fence is not None)
    assert lock.locked()
    assert lock.release() is True


def test_a_lost_lock_is_logged_once(cache, until, caplog):
    """And has no fence."""
    lock = cache.lock("k", 1.5)
    assert lock.acquire()
    locks = cache._locks.locks
    assert run(locks.release_owner(cache.make_key("k"), lock._holding._owner))
    until(lambda: lock.fence is None)
    assert not lock.extend(5)
    assert not lock.release()
    until(lambda: losses(caplog))
    assert [each.levelno for each in losses(caplog)] == [logging.WARNING]


def test_a_lock_that_cannot_be_renewed_is_released(cache, monkeypatch):
    """If the thread cannot start, the error is raised."""

    def fail(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Renewal, "start", fail)
        lock = cache.lock("k", 600)
        with pytest.raises(RuntimeError, match="start new thread"):
            lock.acquire()
    assert lock.fence is None
    assert not lock.locked()


def test_a_release_whose_answer_was_lost_is_recognised(faulty, dynamo_faults):
    """It says True, because the lock was released."""
    lock = faulty().lock("k")
    assert lock.acquire()
    dynamo_faults.lose_answer("UpdateItem", times=1)
    assert lock.release() is True
    assert not lock.locked()


def test_a_release_can_be_tried_again(faulty, dynamo_faults):
    """After StoreUnavailable."""
    lock = faulty(RETRY={**QUICK, "MAX_RETRIES": 0}).lock("k")
    assert lock.acquire()
    dynamo_faults.fail("UpdateItem", times=1)
    with pytest.raises(StoreUnavailable):
        lock.release()
    assert lock.release() is True
    assert not lock.locked()


def test_the_end_of_a_block_raises_nothing(faulty, dynamo_faults, until, caplog):
    """Its own result counts; the release is logged and tried again in the background."""
    cache = faulty(RETRY={**QUICK, "MAX_RETRIES": 0})
    with cache.lock("k", 600) as lock:
        dynamo_faults.fail("UpdateItem", times=1)
    assert "not released at the end of its block" in caplog.text
    until(lambda: not lock.locked())

    async def work():
        async with cache.alock("k", 600) as held:
            dynamo_faults.fail("UpdateItem", times=1)
        return held

    asyncio.run(work())
    until(lambda: not lock.locked())

    def fail():
        with cache.lock("k", 600):
            dynamo_faults.fail("UpdateItem", times=1)
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fail()


@pytest.mark.parametrize("is_async", [False, True])
def test_an_interrupted_release_is_tried_again(faulty, dynamo_faults, until, is_async):
    """The exception from outside is raised, and the lock is free long before its lease ends."""
    slow = {"DELAY": 0.5, "MAX_DELAY": 0.5, "MAX_RETRIES": 50}
    cache = faulty(RETRY=slow, CIRCUIT_BREAKER={"ENABLED": False})
    other = cache.lock("k", 600)

    def work():
        with cache.lock("k", 600):
            dynamo_faults.delay(1.0, "UpdateItem", times=1)
            interrupt_in(0.3)

    async def awork():
        async with cache.alock("k", 600):
            dynamo_faults.fail("UpdateItem", status=500)
            asyncio.get_running_loop().call_later(0.3, asyncio.current_task().cancel)

    with interrupting() as interrupt_in:
        if is_async:
            with pytest.raises(asyncio.CancelledError):
                asyncio.run(awork())
            dynamo_faults.clear()
        else:
            with pytest.raises(Interrupted):
                work()
    assert other.acquire(blocking_timeout=LONG)
    other.release()
    until(lambda: not renewals())


def test_an_interrupted_end_of_a_block_hangs_no_thread(cache, until):
    """Wherever the exception from outside comes; nothing renews the lock after it."""

    def work(number):
        with cache.lock(f"k{number}", 60):
            interrupt_in((number % 120 + 1) / 1e6)

    with interrupting() as interrupt_in:
        for number in range(240):
            with contextlib.suppress(Interrupted):
                work(number)
                interrupt_in(0)
    until(lambda: not renewals())


def test_many_unanswered_acquires_leave_no_lock(faulty, dynamo_faults, until):
    """However many releases wait for their next attempt."""
    cache = faulty(RETRY={**QUICK, "MAX_RETRIES": 0}, CIRCUIT_BREAKER={"ENABLED": False})
    cache.get("k")
    dynamo_faults.lose_answer("UpdateItem")
    for number in range(240):
        assert not cache.lock(f"k{number}", 600).acquire(blocking=False)
    dynamo_faults.clear()
    taken = [cache.lock(f"k{number}", 600) for number in range(240)]

    def are_free():
        taken[:] = [each for each in taken if each.locked()]
        return not taken

    until(are_free)


def test_renewals_do_not_undo_an_extension(cache):
    """A longer one stays; a shorter one is renewed before its end."""
    with cache.lock("k", 1.5) as lock:
        assert lock.extend(600)
        time.sleep(2)
        assert cache._locks.seconds_left(cache.make_key("k")) > 500
    with cache.lock("l", 600) as lock:
        assert lock.extend(3)
        time.sleep(4)
        assert lock.locked()
        assert lock.fence is not None


def test_get_or_set_waits_with_a_bound(make_cache, until):
    """A computation that hangs does not hang the callers that wait for it."""
    cache = make_cache(OPTIONS={"STAMPEDE_LEASE": 2, "STAMPEDE_WAIT": 1})
    began, go_on = threading.Event(), threading.Event()

    def hang():
        began.set()
        go_on.wait(60)
        return "late"

    hanging = threading.Thread(target=cache.get_or_set, args=("k", hang))
    hanging.start()
    began.wait(10)
    assert cache.get_or_set("k", lambda: "mine") == "mine"
    assert hanging.is_alive()
    go_on.set()
    hanging.join()
    assert cache.get("k") == "mine"


def test_a_computation_that_asks_for_its_own_key(make_cache):
    """Computes without waiting for itself, sync and async."""
    cache = make_cache(OPTIONS={"STAMPEDE_LEASE": 600})
    asked = []

    def compute(key):
        asked.append(key)
        return len(asked) if len(asked) % 2 == 0 else cache.get_or_set(key, lambda: compute(key))

    async def acompute():
        asked.append("c")
        return "inner" if len(asked) > 5 else await cache.aget_or_set("c", acompute)

    assert cache.get_or_set("a", lambda: compute("a")) == 2
    assert asyncio.run(cache.aget_or_set("b", lambda: compute("b"))) == 4
    assert asyncio.run(cache.aget_or_set("c", acompute)) == "inner"
    assert asked == ["a", "a", "b", "b", "c", "c"]


def test_stale_values_end_by_the_clock(make_cache, dynamo_clock):
    """Whether DynamoDB has removed the item or not, and while another caller computes."""
    cache = make_cache(OPTIONS={"STAMPEDE_LEASE": 5, "STAMPEDE_WAIT": 1, "STALE_TIMEOUT": 10})
    cache.set("k", "old", 20)
    leases = LeaseItems("default", cache.store.prefix, cache.store.options, keys.lease)
    dynamo_clock.advance(29)
    run(leases.take(cache.make_key("k"), 600))
    assert cache.get_or_set("k", lambda: "new") == "old"
    dynamo_clock.advance(2)
    assert cache.get_or_set("k", lambda: "new") == "new"
