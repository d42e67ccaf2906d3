"""Requests of one limit that are made at the same time are decided together, by one write."""

from __future__ import annotations

import asyncio
import os
import secrets
import threading
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.calls.policy import deadline
from dynamo_stores.calls.server_time import Times
from dynamo_stores.concurrency.flights import AGAIN
from dynamo_stores.conf.rates import Rate
from dynamo_stores.ratelimit import counting, groups
from dynamo_stores.ratelimit.algorithms import Windows
from dynamo_stores.ratelimit.algorithms.base import as_admitted
from dynamo_stores.ratelimit.algorithms.gcra import Gcra
from dynamo_stores.ratelimit.algorithms.log import Log
from dynamo_stores.ratelimit.algorithms.shared import Allocation, SharedWindows
from dynamo_stores.ratelimit.counting import decide_together, settle
from dynamo_stores.ratelimit.groups import Groups, Member
from dynamo_stores.ratelimit.memory import get_rate_memory
from dynamo_stores.stores import AdaptiveRateLimitStore, RateLimitStore
from tests.helpers.counting import operations
from tests.helpers.faults import interrupt_often
from tests.helpers.forking import fork
from tests.ratelimit.items import Item

RATE = "100/h"
START = 1_800_057_600.0


def shared(priority, reserved=4):
    """Return the algorithm of an adaptive limit, for ``priority``."""

    def allocate(limit, users, background, now):
        return Allocation(reserved, limit - reserved, False, "constant", "none")

    return SharedWindows(priority, allocate, monitoring_window=900, interval=600, memory=2700)


def one_by_one(limit, item, costs, times):
    """Return the statuses of requests that come one after the other."""
    found = []
    for cost in costs:
        decision = limit.algorithm.decide(read(limit, item), limit.rates, cost, times)
        if decision.write is not None:
            assert item.write(decision.write)
        if decision.allowed:
            status = limit.algorithm.look(read(limit, item), limit.rates, 0, times)
            found.append(as_admitted(status))
        else:
            found.append(limit.algorithm.look(read(limit, item), limit.rates, cost, times))
    return found


def together(limit, item, costs, times):
    """Return the statuses of the same requests as a group, and how many writes it needed."""
    members, writes = [Member(cost) for cost in costs], 0
    left = members
    while left:
        admitted, decision = decide_together(limit, read(limit, item), left, times)
        if decision.write is None:
            for member in left:
                member.status = limit.algorithm.look(
                    read(limit, item), limit.rates, member.cost, times
                )
            break
        assert item.write(decision.write)
        writes += 1
        left = settle(limit, read(limit, item), left, admitted, times)
    return [member.status for member in members], writes


def read(limit, item):
    if item.attributes is None:
        return None
    return limit.algorithm.read(item.attributes, len(limit.rates))


ONE, TWO = (Rate(12, 10),), (Rate(9, 10), Rate(20, 60))


@pytest.mark.parametrize(
    ("algorithm", "rates"),
    [
        (Windows(), ONE),
        (Windows(), TWO),
        (Windows(0), ONE),
        (Gcra(8), ONE),
        (Gcra(5), TWO),
        (Log(), ONE),
        (Log(), TWO),
        (shared("user"), ONE),
        (shared("background"), ONE),
    ],
)
@given(
    before=st.lists(st.tuples(st.floats(0, 6), st.integers(1, 5)), max_size=4),
    costs=st.lists(st.integers(1, 6), min_size=1, max_size=12),
    skew=st.floats(0, 2),
)
def test_each_status_is_that_of_the_same_requests_one_after_the_other(
    algorithm, rates, before, costs, skew
):
    """Of those that are admitted and of those that are refused; one write counts them all."""
    limit, item, now = SimpleNamespace(algorithm=algorithm, rates=rates), Item(), START
    for pause, cost in before:
        now += pause
        one_by_one(limit, item, [cost], Times(now - skew, now + skew))
    times = Times(now + 1 - skew, now + 1 + skew)
    other = Item()
    other.attributes = item.attributes and dict(item.attributes)
    found, writes = together(limit, item, costs, times)
    expected = one_by_one(limit, other, costs, times)
    assert found == expected
    # The first request of an adaptive limit may be refused, and stores the allocation.
    assert writes <= 1 + any(each.paused for each in found if hasattr(each, "paused"))


def test_smaller_requests_are_admitted_after_one_that_does_not_fit():
    """As if they had come one after the other."""
    limit = SimpleNamespace(algorithm=Windows(), rates=(Rate(10, 60),))
    found, writes = together(limit, Item(), [4, 7, 3, 4, 3, 1], Times(START, START))
    assert [each.allowed for each in found] == [True, False, True, False, True, False]
    assert [each.remaining for each in found] == [6, 6, 3, 3, 0, 0]
    assert writes == 1


def test_who_is_not_refused_by_the_item_after_the_write_is_decided_again():
    """Requests may have been taken back meanwhile."""
    limit, item = SimpleNamespace(algorithm=Windows(), rates=(Rate(10, 60),)), Item()
    times = Times(START, START)
    one_by_one(limit, item, [8], times)
    members = [Member(2), Member(3)]
    admitted, decision = decide_together(limit, read(limit, item), members, times)
    assert [each.cost for each in admitted] == [2]
    assert item.write(limit.algorithm.refund(read(limit, item), limit.rates, 8, times))
    assert item.write(decision.write)
    assert settle(limit, read(limit, item), members, admitted, times) == members[1:]
    assert members[0].status.remaining == 8


# The groups of a process


def test_who_comes_alone_leads_at_once():
    """Those who come meanwhile form one group, which the first of them leads."""
    found, members = Groups(), [Member(1) for _ in range(4)]
    lead, group = found.enter("name", members[0])
    assert group.before is None
    next_lead, next_group = found.enter("name", members[1])
    assert next_group.before is lead.flight
    assert found.enter("name", members[2]) is next_lead.flight
    assert found.enter("other", members[3])[1].before is None
    assert found.close("name", group) == members[:1]
    found.end("name", lead)
    assert found.close("name", next_group) == members[1:3]
    # The next one waits for the group that is being decided now.
    assert found.enter("name", Member(1))[1].before is next_lead.flight
    found.end("name", next_lead)
    assert next_lead.flight.done()


def test_who_has_left_is_not_decided_on():
    """Its cost is not counted."""
    found, members = Groups(), [Member(1) for _ in range(3)]
    lead, _ = found.enter("name", members[0])
    next_lead, next_group = found.enter("name", members[1])
    found.enter("name", members[2])
    members[2].has_left = True
    found.end("name", lead)
    assert found.close("name", next_group) == members[1:2]
    found.end("name", next_lead)
    assert len(found) == 0


def test_a_leader_that_ended_is_followed_by_another_one():
    """Whether it waited or decided; nothing is left of it."""
    found = Groups()
    lead, _ = found.enter("name", Member(1))
    next_lead, next_group = found.enter("name", Member(1))
    flight = found.enter("name", Member(1))
    del next_lead, next_group
    assert flight.done()
    assert flight.result(1) is AGAIN
    other_lead, other_group = found.enter("name", Member(1))
    assert other_group.before is lead.flight
    del lead
    assert other_group.before.done()
    found.close("name", other_group)
    found.end("name", other_lead)
    assert len(found) == 0
    lead, group = found.enter("name", Member(1))
    assert group.before is None
    found.end("name", lead)


def test_a_full_group_is_joined_by_nobody(monkeypatch):
    """Who comes then waits until it was decided, and tries again."""
    monkeypatch.setattr(groups, "_MAX_MEMBERS", 2)
    found = Groups()
    lead, _ = found.enter("name", Member(1))
    next_lead, next_group = found.enter("name", Member(1))
    for _ in range(3):
        assert found.enter("name", Member(1)) is next_lead.flight
    found.end("name", lead)
    assert len(found.close("name", next_group)) == 2
    found.end("name", next_lead)


# On the engine


@pytest.fixture
def resource():
    return secrets.token_hex(6)


@pytest.fixture
def lean(alias, dynamo_faults):
    """``lean(**changes)``: a store behind faults, whose process has made a call."""

    def make(kind=RateLimitStore, **changes):
        limits = {"OPERATION_TIMEOUT": 30.0, "ON_UNAVAILABLE": "deny"}
        changes = {"RATE_LIMIT": limits, **changes}
        store = kind(alias(ENDPOINT_URL=dynamo_faults.url, TRANSPORT="lean", **changes))
        store.acquire(secrets.token_hex(6), rate=RATE)
        return store

    return make


@pytest.fixture
def patient(monkeypatch):
    """Groups that would wait so long for the one before that a test notices it."""
    monkeypatch.setattr(counting, "_LONGEST_WAIT", 30.0)


async def until(condition):
    """Wait until ``condition()`` is true, ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def in_threads(count, function):
    """Call ``function(number)`` in so many threads at the same time, and return the results."""
    found, begin = {}, threading.Barrier(count)

    def work(number):
        begin.wait()
        found[number] = function(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    return [found[number] for number in range(count)]


def in_tasks(count, function):
    """The same in tasks of an event loop."""

    async def work():
        return await asyncio.gather(*(function(number) for number in range(count)))

    return asyncio.run(work())


def is_waiting(store, count):
    """Return a function that returns whether so many requests wait for a group."""

    def check():
        limits = get_rate_memory(store.using).groups._limits.copy().values()
        return any(each.next and len(each.next.members) == count for each in limits)

    return check


@pytest.mark.parametrize("algorithm", ["sliding", "fixed", "gcra", "log"])
@pytest.mark.parametrize("kind", ["threads", "tasks"])
def test_requests_at_the_same_time_need_few_writes(lean, resource, dynamo_faults, algorithm, kind):
    """The limit is exact, and each admitted request has a status of its own."""
    store = lean()
    config = {"RATE": "20/h", "ALGORITHM": algorithm, "BURST": 20}
    store.set_resource_config(resource, config)
    dynamo_faults.lag(0.05)
    found = []

    def ask():
        if kind == "threads":
            found.extend(in_threads(40, lambda _: store.acquire(resource)))
        else:
            found.extend(in_tasks(40, lambda _: store.aacquire(resource)))

    calls = operations(ask)
    store.unset_resource_config(resource)
    assert sorted(each.remaining for each in found if each.allowed) == list(range(20))
    refused = [each for each in found if not each.allowed]
    assert len(refused) == 20
    assert all(each.retry_after > 0 for each in refused)
    assert calls["UpdateItem"] <= 4
    assert calls.total() <= 7
    assert len(get_rate_memory(store.using).groups) == 0


@pytest.mark.parametrize("priority", ["user", "background"])
def test_requests_of_a_priority_are_decided_together(lean, resource, dynamo_faults, priority):
    """Background work up to its share."""
    store = lean(AdaptiveRateLimitStore)
    dynamo_faults.lag(0.05)
    found = []

    def ask():
        found.extend(
            in_threads(40, lambda _: store.acquire(resource, rate="20/h", priority=priority))
        )

    calls = operations(ask)
    share = {"user": 20, "background": found[0].background_max}[priority]
    assert sum(each.allowed for each in found) == share
    assert 0 < share <= 20
    assert calls.total() <= 8


def test_a_request_that_comes_alone_is_one_write(lean, resource):
    """It waits for nobody."""
    store = lean()
    store.acquire(resource, rate=RATE)
    for _ in range(3):
        assert operations(lambda: store.acquire(resource, rate=RATE)) == {"UpdateItem": 1}


def test_requests_with_costs(lean, resource, dynamo_faults):
    """The sum of what was admitted is what the table has counted."""
    store = lean()
    dynamo_faults.lag(0.05)

    def ask(number):
        return store.acquire(resource, rate=RATE, cost=1 + number % 7)

    found = in_threads(40, ask)
    total = sum(1 + number % 7 for number, each in enumerate(found) if each.allowed)
    status = store.get_status(resource, rate=RATE)
    assert status.remaining == 100 - total
    # A request of 7 may be refused while one of 1 still fits.
    assert total > 93


@pytest.mark.usefixtures("patient")
def test_a_leader_that_is_cancelled_is_followed_by_another_one(lean, resource, dynamo_faults):
    """While it waits for the group before it, and while it writes."""
    store = lean()

    async def ask(number):
        dynamo_faults.hang("UpdateItem")
        tasks = [asyncio.create_task(store.aacquire(resource, rate=RATE)) for _ in range(6)]
        await until(is_waiting(store, 5))
        dynamo_faults.clear()
        tasks[number].cancel()
        if number:
            await asyncio.sleep(0.1)
            tasks[0].cancel()
        begin = time.monotonic()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        return found, time.monotonic() - begin

    for number in (0, 1, 3):
        found, took = asyncio.run(ask(number))
        assert isinstance(found[number], asyncio.CancelledError)
        others = [each for each in found if not isinstance(each, asyncio.CancelledError)]
        assert len(others) >= 4
        assert all(each.allowed for each in others)
        assert took < 10
        assert len(get_rate_memory(store.using).groups) == 0


def test_a_group_waits_half_a_second_at_most(lean, resource, dynamo_faults):
    """Then it is decided beside the one that has no answer yet."""
    store = lean()

    async def ask():
        dynamo_faults.hang("UpdateItem")
        first = asyncio.create_task(store.aacquire(resource, rate=RATE))
        await until(lambda: len(get_rate_memory(store.using).groups))
        dynamo_faults.clear()
        begin = time.monotonic()
        found = await asyncio.gather(*(store.aacquire(resource, rate=RATE) for _ in range(5)))
        took = time.monotonic() - begin
        first.cancel()
        return found, took

    found, took = asyncio.run(ask())
    assert all(each.allowed for each in found)
    assert 0.4 < took < 5


@pytest.mark.usefixtures("patient")
def test_a_member_with_a_short_deadline_leaves(lean, resource, dynamo_faults):
    """It makes a call of its own before its deadline, and the others do not count it."""
    store = lean()
    dynamo_faults.delay(8.0, "UpdateItem", times=1)

    def ask(number):
        if number == 1:
            time.sleep(0.3)
        if number < 2:
            return store.acquire(resource, rate=RATE)
        time.sleep(0.6)
        begin = time.monotonic()
        with deadline(4.0):
            status = store.acquire(resource, rate=RATE)
        return status, time.monotonic() - begin

    first, second, (status, took) = in_threads(3, ask)
    assert status.allowed
    assert 2.9 < took < 4.1
    assert (first.allowed, second.allowed) == (True, True)
    assert store.get_status(resource, rate=RATE).remaining == 97


def test_a_member_does_not_depend_on_the_event_loop_of_its_leader(lean, resource, dynamo_faults):
    """That may be busy for as long as it likes."""
    store = lean()
    dynamo_faults.delay(0.3, "UpdateItem", times=1)
    begin, done = threading.Barrier(2), threading.Event()

    def ask(number):
        if number == 0:
            return asyncio.run(busy())
        begin.wait()
        with deadline(2.0):
            status = store.acquire(resource, rate=RATE)
        done.set()
        return status

    async def busy():
        task = asyncio.create_task(store.aacquire(resource, rate=RATE))
        await until(lambda: len(get_rate_memory(store.using).groups))
        begin.wait()
        assert done.wait(10)
        return await task

    assert [each.allowed for each in in_threads(2, ask)] == [True, True]


@pytest.mark.usefixtures("patient")
def test_the_deadline_of_a_leader_is_not_that_of_the_members(lean, resource, dynamo_faults):
    """They are decided by another one."""
    store = lean()
    dynamo_faults.delay(1.5, "UpdateItem", times=2)

    def ask(number):
        if number != 1:
            time.sleep(0.5 * bool(number))
            return store.acquire(resource, rate=RATE)
        time.sleep(0.2)
        with deadline(0.6):
            return store.acquire(resource, rate=RATE)

    found = in_threads(5, ask)
    assert [each.allowed for each in found] == [True, False, True, True, True]


def test_each_member_has_its_own_way_without_dynamodb(lean, resource, dynamo_faults):
    """``on_unavailable`` is that of the request, not that of the leader."""
    store = lean(RETRY={"MAX_RETRIES": 0}, CIRCUIT_BREAKER={"ENABLED": False})
    dynamo_faults.lag(0.1)
    dynamo_faults.fail("UpdateItem")
    policies = ["allow", "deny", "local"] * 5

    def ask(number):
        return store.acquire(resource, rate="3/h", on_unavailable=policies[number])

    found = in_threads(15, ask)
    allowed = [
        sum(each.allowed for each, policy in zip(found, policies, strict=True) if policy == name)
        for name in ("allow", "deny", "local")
    ]
    assert allowed == [5, 0, 3]


def test_a_group_whose_answers_are_lost_is_counted(lean, resource, dynamo_faults):
    """It may be counted twice, but never not at all."""
    store = lean()
    store.acquire(resource, rate=RATE)
    dynamo_faults.lag(0.02)
    admitted = 0
    for _ in range(6):
        dynamo_faults.lose_answer("UpdateItem", times=2)
        found = in_threads(16, lambda _: store.acquire(resource, rate=RATE))
        admitted += sum(each.allowed for each in found)
    assert 16 <= admitted <= 99
    assert 100 - store.get_status(resource, rate=RATE).remaining >= admitted


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_processes_never_admit_too_many(alias, resource):
    """They die between the write of a group and the answers to its members."""
    store = RateLimitStore(alias())
    read_end, write_end = os.pipe()

    def process():
        def ask(number):
            while True:
                if store.acquire(resource, rate="400/h").allowed:
                    os.write(write_end, b".")

        in_threads(16, ask)

    for _ in range(6):
        child = fork.Process(target=process)
        child.start()
        time.sleep(0.6)
        child.kill()
        child.join(60)
    while store.acquire(resource, rate="400/h").allowed:
        os.write(write_end, b".")
    os.close(write_end)
    with os.fdopen(read_end, "rb") as found:
        assert 0 < len(found.read()) <= 400


def test_interrupted_leaders_leave_nobody_waiting(alias, resource, monkeypatch):
    """At any bytecode; the others are decided, and never too many are admitted."""
    store = RateLimitStore(alias(RATE_LIMIT={"OPERATION_TIMEOUT": 30.0, "ON_UNAVAILABLE": "deny"}))
    store.acquire(resource, rate="100000/h")
    has_ended, waits, admitted = threading.Event(), [], []

    def other():
        while not has_ended.is_set():
            begin = time.monotonic()
            admitted.append(store.acquire(resource, rate="100000/h").allowed)
            waits.append(time.monotonic() - begin)

    others = [threading.Thread(target=other) for _ in range(3)]
    for each in others:
        each.start()
    try:
        interrupt_often(monkeypatch, lambda: store.acquire(resource, rate="100000/h"), times=100)
    finally:
        has_ended.set()
        for each in others:
            each.join(60)
    assert not any(each.is_alive() for each in others)
    assert all(admitted)
    assert max(waits) < 5
    remaining = store.get_status(resource, rate="100000/h").remaining
    assert 100_000 - remaining >= len(admitted)


@pytest.mark.usefixtures("patient")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_waits_for_nobody(lean, resource, dynamo_faults):
    """The group of its parent is not its own."""
    store = lean()
    dynamo_faults.hang("UpdateItem")
    leading = threading.Thread(target=store.acquire, args=(resource,), kwargs={"rate": RATE})
    leading.start()
    while not len(get_rate_memory(store.using).groups):
        time.sleep(0.01)
    dynamo_faults.clear()
    results = fork.Queue()

    def process():
        assert len(get_rate_memory(store.using).groups) == 0
        begin = time.monotonic()
        results.put((store.acquire(resource, rate=RATE).allowed, time.monotonic() - begin))

    child = fork.Process(target=process)
    child.start()
    allowed, took = results.get(timeout=60)
    child.join(60)
    dynamo_faults.stop()
    leading.join(60)
    assert allowed
    assert took < 10
