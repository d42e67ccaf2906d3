"""The windows that users and background work share, without an engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.calls.server_time import Times
from dynamo_stores.conf.rates import Rate
from dynamo_stores.ratelimit.algorithms.shared import Allocation, SharedWindows
from tests.helpers.windows import REQUESTS, SKEWS, Caller, most_in_any
from tests.ratelimit.items import Item

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
    assert refused.reset_at == START + 30
    assert background.ask(START + 29.75).retry_after == pytest.approx(0.25)
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
    assert (sum(times.values()), before, now) == (3, {}, START + 300)
    assert all(abs(each - START) < 100 for each in times)
    seen.clear()
    users.ask(START + 2000)
    _, times, before, _ = seen[-1]
    assert times == {START + 60: 1}
    assert before == {START + 300: 1}


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


def decided(algorithm, item, seconds=0.0, cost=1, **options):
    """Return a decision by what is in ``item`` now."""
    state = None if item.attributes is None else algorithm.read(item.attributes, 1)
    moment = START + seconds
    return algorithm.decide(state, [RATE], cost, Times(moment, moment), **options)


@pytest.mark.parametrize("later", [0, 6])
def test_of_two_requests_for_the_last_of_the_limit_one_is_counted(later):
    """Both were decided by the same state; also with earlier buckets."""
    item, algorithm = Item(), windows("user", shares(7))
    item.write(decided(algorithm, item, 0, 6).write)
    item.write(decided(algorithm, item, later, 1).write)
    one, other = decided(algorithm, item, later, 3), decided(algorithm, item, later, 3)
    assert one.status.allowed
    assert item.write(one.write)
    assert not item.write(other.write)


@pytest.mark.parametrize("later", [0, 6])
def test_of_two_requests_for_the_last_of_the_share_one_is_counted(later):
    """The total would admit both."""
    item, algorithm = Item(), windows("background", shares(5))
    item.write(decided(algorithm, item, 0, 2).write)
    item.write(decided(algorithm, item, later, 1).write)
    one, other = decided(algorithm, item, later, 2), decided(algorithm, item, later, 2)
    assert one.status.allowed
    assert item.write(one.write)
    assert not item.write(other.write)


def test_forced_requests_are_counted_over_the_limit():
    """With nothing left afterwards, and no time to wait."""
    for priority in ("user", "background"):
        item, algorithm = Item(), windows(priority, shares(5))
        item.write(decided(algorithm, item, 0, 5).write)
        forced = decided(algorithm, item, 0, 9, force=True)
        assert item.write(forced.write)
        assert (forced.status.allowed, forced.status.remaining) == (True, 0)
        assert forced.status.retry_after == 0.0
        assert algorithm.read(item.attributes, 1).windows[0].held == 14


def test_only_a_new_allocation_wants_a_fresh_item():
    """Other requests only add, so that many processes may count at the same time."""
    item, algorithm = Item(), windows("user", shares(5))
    for seconds, is_due in ((0, True), (1, False), (29, False), (30, True)):
        decision = decided(algorithm, item, seconds)
        assert decision.wants_fresh is is_due
        # A bucket of the limit lasts 6 seconds.
        assert (":ttl" in decision.write.values) is (is_due or seconds == 29)
        assert item.write(decision.write)


def test_of_two_allocations_of_the_same_moment_one_is_stored():
    """Each is stored under another time, so the second finds that it was made already."""
    item, algorithm = Item(), windows("background", shares(5))
    item.write(decided(algorithm, item, 0).write)
    other = SharedWindows("user", shares(6), monitoring_window=900, interval=0, memory=2700)
    late, later = decided(other, item, 0), decided(other, item, 0)
    assert item.write(late.write)
    assert not item.write(later.write)
    assert int(item.attributes["aa"]["N"]) == START * 1000 + 1


def test_an_item_without_an_allocation_gets_one_once():
    """As the item of a limit that was counted before."""
    item, algorithm = Item(), windows("user", shares(5))
    item.write(decided(algorithm, item, 0).write)
    for name in ("aa", "al"):
        del item.attributes[name]
    assert algorithm.read(item.attributes, 1).stored is None
    one, other = decided(algorithm, item, 1), decided(algorithm, item, 1)
    assert item.write(one.write)
    assert not item.write(other.write)
    assert algorithm.read(item.attributes, 1).stored.at == START * 1000 + 1000


def test_looking_goes_by_what_was_counted_and_allocated():
    """The same refusal as deciding."""
    item, algorithm = Item(), windows("background", shares(7))
    item.write(decided(algorithm, item, 0, 2).write)
    state, times = algorithm.read(item.attributes, 1), Times(START, START)
    assert algorithm.look(state, [RATE], 1, times)[:3] == (True, 3, 1)
    assert algorithm.look(state, [RATE], 2, times) == decided(algorithm, item, 0, 2).status
    changed = windows("background", shares(2))
    assert changed.look(state, [RATE], 1, times).background_max == 3


def test_a_refund_follows_the_bucket_of_the_item():
    """Also if that is ahead of this clock."""
    item, algorithm = Item(), windows("user", shares(7))
    item.write(algorithm.decide(None, [RATE], 3, Times(START, START + 7)).write)
    state = algorithm.read(item.attributes, 1)
    assert item.write(algorithm.refund(state, [RATE], 2, Times(START, START)))
    assert algorithm.read(item.attributes, 1).windows[0].held == 1


def test_users_requests_are_remembered_at_the_middle_of_their_buckets():
    """A bucket lasts a thirtieth of the monitoring window, 30 seconds; none is in the future."""
    seen = []
    users, background = pair(shares(5, seen=seen))
    for seconds in (0, 1, 60):
        users.ask(START + seconds)
    seen.clear()
    background.ask(START + 300)
    assert seen[-1][1] == {START + 15: 2, START + 75: 1}
    users.ask(START + 331)
    seen.clear()
    users.ask(START + 362)
    users.ask(START + 393)
    assert all(each <= now for _, times, _, now in seen for each in times)
