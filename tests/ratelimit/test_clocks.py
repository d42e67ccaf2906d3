"""Limits while the clock of a process is set, and items that a broken clock wrote."""

from __future__ import annotations

import secrets
import time

import pytest

from dynamo_stores import clock
from dynamo_stores.calls.server_time import Times
from dynamo_stores.conf.rates import Rate
from dynamo_stores.ratelimit.algorithms.gcra import Gcra
from dynamo_stores.ratelimit.algorithms.log import Log
from dynamo_stores.ratelimit.algorithms.shared import Allocation, SharedWindows
from dynamo_stores.ratelimit.algorithms.windows import Windows
from dynamo_stores.stores import RateLimitStore
from tests.helpers.counting import operations
from tests.helpers.windows import Caller
from tests.ratelimit.items import Item

DAY = 86_400.0
START = 1_800_000_000.0


class SetClock(clock.Clock):
    """A wall clock that tests set; it is ``wrong`` by so many seconds."""

    wrong = 0.0

    def now(self):
        return time.time() + self.wrong


@pytest.fixture
def wall():
    found = SetClock()
    before = clock.use(found)
    yield found
    clock.use(before)


@pytest.mark.parametrize("algorithm", ["sliding", "fixed", "gcra", "log"])
@pytest.mark.parametrize("days", [100, -100])
def test_a_clock_that_is_set_admits_no_more_and_locks_no_key(alias, wall, algorithm, days):
    """What is remembered is read again, and its answer has the time."""
    store, resource = RateLimitStore(alias()), secrets.token_hex(6)
    config = {"RATE": "10/d", "ALGORITHM": algorithm, "BURST": 10}
    store.set_resource_config(resource, config)
    assert [store.acquire(resource).allowed for _ in range(9)] == [True] * 9
    wall.wrong = days * DAY
    last = store.acquire(resource)
    if not last.allowed:
        # The time is known to a second again, and gcra goes by the earliest.
        assert (algorithm, 0 < last.retry_after < 5) == ("gcra", True)
        time.sleep(last.retry_after)
        last = store.acquire(resource)
    assert last.allowed
    assert [store.acquire(resource).allowed for _ in range(2)] == [False] * 2
    wall.wrong = 0.0
    status = store.acquire(resource)
    assert not status.allowed
    assert 0 < status.retry_after < 1.2 * DAY
    store.unset_resource_config(resource)


def test_a_block_is_not_used_while_the_time_is_unknown(alias, wall):
    """It may have ended."""
    store, resource = RateLimitStore(alias()), secrets.token_hex(6)
    store.set_resource_config(resource, {"RATE": "1000/d", "BLOCK": 50})
    for _ in range(50):
        store.acquire(resource)
    assert operations(store.acquire, resource) == {}
    wall.wrong = -100 * DAY
    assert operations(store.acquire, resource)["GetItem"] == 1
    store.unset_resource_config(resource)


def allocate(limit, users, background, now):
    return Allocation(5, limit - 5, False, "constant", "none")


def shared():
    return SharedWindows("background", allocate, monitoring_window=900, interval=30, memory=2700)


@pytest.mark.parametrize("algorithm", [Windows(), Windows(0), Gcra(10), Log(), shared()])
def test_an_item_of_a_broken_clock_does_not_lock_its_key(algorithm):
    """It is replaced by one with the time of the next request, and the limit holds from then on."""
    item, rates = Item(), [Rate(10, 60)]
    broken = Caller(algorithm, rates, item, -10 * DAY, 10 * DAY)
    while broken.ask(START).allowed:
        pass
    caller = Caller(algorithm, rates, item, 0.0, 0.0)
    statuses = [caller.ask(START + 0.01 * number) for number in range(12)]
    admitted = [each.allowed for each in statuses]
    most = 5 if isinstance(algorithm, SharedWindows) else 10
    assert admitted == [True] * most + [False] * (12 - most)
    assert statuses[-1].retry_after < 70


@pytest.mark.parametrize("algorithm", [Windows(), Windows(0), Gcra(10), Log(), shared()])
@pytest.mark.parametrize("seconds", [5, 60])
def test_an_item_within_its_window_ahead_is_counted(algorithm, seconds):
    """Clocks differ; to forget what they counted would admit more."""
    item, rates = Item(), [Rate(10, 60)]
    ahead = Caller(algorithm, rates, item, -seconds, seconds)
    while ahead.ask(START).allowed:
        pass
    status = Caller(algorithm, rates, item, 0.0, 0.0).ask(START)
    assert not status.allowed
    assert 0 < status.retry_after <= 2 * 60 + 10


def test_an_allocation_of_a_broken_clock_is_made_again_once():
    """Not for every request until its time has come."""
    item, seen = Item(), []

    def observed(*arguments):
        seen.append(arguments)
        return allocate(*arguments)

    algorithm = SharedWindows("user", observed, monitoring_window=900, interval=30, memory=2700)
    Caller(algorithm, [Rate(10, 60)], item, -10 * DAY, 10 * DAY).ask(START)
    caller = Caller(algorithm, [Rate(10, 60)], item, 0.0, 0.0)
    caller.ask(START)
    seen.clear()
    for number in range(5):
        assert caller.ask(START + number).allowed
    assert seen == []


def test_requests_of_gcra_that_are_recorded_are_ahead_by_a_window_and_the_burst_at_most():
    """More would look like those of a broken clock."""
    item, rates, times = Item(), [Rate(10, 60)], Times(START, START)
    state = None
    for _ in range(100):
        assert item.write(Gcra(2).decide(state, rates, 1, times, force=True).write)
        state = Gcra(2).read(item.attributes, 1)
    assert state == (round((START + 60 + 12) * 1e6),)
    assert 0 < Gcra(2).look(state, rates, 1, times).retry_after <= 72
