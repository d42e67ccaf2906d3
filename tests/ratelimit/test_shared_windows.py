"""The windows that users and background work share, without an engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.calls.server_time import Times
from dynamo_stores.conf.rates import Rate
from dynamo_stores.ratelimit.algorithms.shared import Allocation, SharedWindows
from tests.helpers.windows import REQUESTS, SKEWS, Caller, Item, most_in_any

START = 1_800_000_000.0
RATE = Rate(10, 60)


def shares(reserved, *, paused=False, seen=None):
    """Return a function that allocates always alike, and appends its arguments to ``seen``."""

    def allocate(limit, users, background, now):
        if seen is not None:
            seen.append((limit, users, background, now))
        return Allocation(reserved, limit - reserved, paused, "constant", "none")

    return allocate


def windows(priority, allocate, interval=30.0):
    return SharedWindows(priority, allocate, monitoring_window=900, interval=interval, memory=2700)


def pair(allocate, item=None, **options):
    """Return a caller for users and one for background work, of one item."""
    item = item or Item()
    return [
        Caller(windows(priority, allocate, **options), [RATE], item, 0.0, 0.0)
        for priority in ("user", "background")
    ]


@given(SKEWS, REQUESTS, st.integers(2, 9), st.data())
def test_neither_the_limit_nor_the_share_is_exceeded_in_any_window(skews, requests, limit, data):
    """However wrong the clocks are within their bounds, in any order of requests."""
    reserved = data.draw(st.integers(0, limit))
    item, rate = Item(), Rate(limit, 10)
    callers = [
        (priority, Caller(windows(priority, shares(reserved)), [rate], item, low, high))
        for low, high in skews
        for priority in ("user", "background")
    ]
    now, total, background = START, [], []
    for pause, number, cost in requests:
        now += pause
        priority, caller = callers[(number * 7 + int(now)) % len(callers)]
        if cost <= limit and caller.ask(now, cost).allowed:
            total.append((now, cost))
            if priority == "background":
                background.append((now, cost))
    assert most_in_any(10, total) <= limit
    assert most_in_any(10, background) <= limit - reserved


def test_users_may_use_everything_and_background_work_its_share():
    """The reserve for users is a minimum, the share of the background a maximum."""
    users, background = pair(shares(7))
    assert [background.ask(START).allowed for _ in range(5)] == [True] * 3 + [False] * 2
    assert [users.ask(START).allowed for _ in range(8)] == [True] * 7 + [False]
    users, background = pair(shares(7))
    assert [users.ask(START).allowed for _ in range(11)] == [True] * 10 + [False]
    refused = background.ask(START)
    assert (refused.allowed, refused.limit, refused.remaining) == (False, 10, 0)


def test_the_status_has_the_tightest_limit_and_the_allocation():
    """Of the total and the share the one with least left, and why."""
    users, background = pair(shares(7))
    status = background.ask(START)
    assert (status.limit, status.remaining, status.window) == (3, 2, 60)
    assert status[6:] == (7, 3, False, "constant", "none")
    status = users.ask(START)
    assert (status.limit, status.remaining) == (10, 8)
    assert START + 60 <= status.reset_at <= START + 73


def test_while_paused_background_work_waits_for_the_next_allocation():
    """Users go on; the wait ends with the interval."""
    users, background = pair(shares(7, paused=True))
    assert users.ask(START).allowed
    refused = background.ask(START + 10)
    assert (refused.allowed, refused.remaining, refused.paused) == (False, 0, True)
    assert refused.retry_after == pytest.approx(20)
    assert users.ask(START + 10).allowed


def test_an_allocation_is_made_once_in_an_interval():
    """By the first request, then not before the interval is over, then by one caller for all."""
    seen = []
    users, background = pair(shares(5, seen=seen))
    for seconds in (0, 10, 29.9):
        users.ask(START + seconds)
        background.ask(START + seconds)
    stored = {(limit, now) for limit, _, _, now in seen}
    assert stored == {(10, START)}
    users.ask(START + 30)
    background.ask(START + 30)
    assert {now for _, _, _, now in seen} == {START, START + 30}


def test_another_limit_is_allocated_at_once():
    """An allocation of another limit is not used."""
    seen, item = [], Item()
    Caller(windows("user", shares(5, seen=seen)), [RATE], item, 0.0, 0.0).ask(START)
    other = Caller(windows("user", shares(5, seen=seen)), [Rate(20, 60)], item, 0.0, 0.0)
    assert other.ask(START + 1).background_max == 15
    assert {limit for limit, *_ in seen} == {10, 20}


def test_users_requests_are_remembered_for_the_monitoring_window():
    """In buckets of a thirtieth of it; afterwards only the last one is known."""
    seen = []
    users, background = pair(shares(5, seen=seen))
    for seconds in (0, 1, 60):
        users.ask(START + seconds)
    seen.clear()
    background.ask(START + 300)
    _, times, before, now = seen[-1]
    assert (len(times), before, now) == (3, [], START + 300)
    assert all(abs(each - START) < 100 for each in times)
    seen.clear()
    users.ask(START + 2000)
    _, times, before, _ = seen[-1]
    assert times == [START + 60]
    assert before == [START + 300]


def test_a_refund_goes_to_its_priority():
    """Out of the total and of the part that was counted; nothing without an item."""
    users, background = pair(shares(7))
    for _ in range(3):
        background.ask(START)
    users.ask(START)
    item, algorithm = users._item, windows("background", shares(7))
    times = Times(START, START)
    state = algorithm.read(item.attributes, 1)
    assert item.write(algorithm.refund(state, [RATE], 2, times))
    after = algorithm.read(item.attributes, 1)
    assert [window.held for window in after.windows] == [2, 1, 1]
    assert item.write(windows("user", shares(7)).refund(after, [RATE], 5, times))
    after = algorithm.read(item.attributes, 1)
    assert [window.held for window in after.windows] == [0, 1, 0]
    assert algorithm.refund(None, [RATE], 1, times) is None
    assert windows("user", shares(7)).refund(after, [RATE], 1, times) is None


def test_a_refused_request_that_is_forced_is_counted():
    """Whatever the limit and the share."""
    item, algorithm = Item(), windows("background", shares(10))
    state = None
    for expected in (1, 2):
        decision = algorithm.decide(state, [RATE], 1, Times(START, START), force=True)
        assert item.write(decision.write)
        state = algorithm.read(item.attributes, 1)
        assert [window.held for window in state.windows] == [expected, expected, 0]


def test_the_item_lives_as_long_as_its_memory():
    """As long as users' inactivity counts, at least; longer for longer windows."""
    item = Item()
    Caller(windows("user", shares(5)), [RATE], item, 0.0, 0.0).ask(START)
    assert int(item.attributes["#ttl"]["N"]) == START + 2700 + 60
    item = Item()
    Caller(windows("user", shares(5)), [Rate(5, 3600)], item, 0.0, 0.0).ask(START)
    assert int(item.attributes["#ttl"]["N"]) == START + 7200 + 60


def test_looking_changes_nothing():
    """The same status as deciding, without a write."""
    algorithm = windows("background", shares(7))
    looked = algorithm.look(None, [RATE], 1, Times(START, START))
    assert (looked.allowed, looked.limit, looked.remaining) == (True, 3, 3)
    assert (algorithm.sort_key([RATE]), algorithm.capacity(RATE)) == ("SW", 10)
