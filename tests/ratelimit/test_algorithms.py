"""The arithmetic of limits: no window admits more than its limit, whatever clocks say."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo_stores.calls.server_time import Times
from dynamo_stores.conf.rates import Rate
from dynamo_stores.ratelimit.algorithms import Windows
from dynamo_stores.ratelimit.algorithms.gcra import Gcra
from dynamo_stores.ratelimit.algorithms.log import Log
from tests.helpers.windows import REQUESTS, SKEWS, Caller, most_in_any
from tests.ratelimit.items import Item


def callers(algorithm, rates, skews):
    item = Item()
    return [Caller(algorithm, rates, item, low, high) for low, high in skews]


def admitted(algorithm, rates, skews, requests):
    """Ask one after the other; return when what was admitted, in true time."""
    asking = callers(algorithm, rates, skews)
    now, found = 1_800_000_000.0, []
    for pause, who, cost in requests:
        now += pause
        if cost <= min(algorithm.capacity(rate) for rate in rates):
            status = asking[who % len(asking)].ask(now, cost)
            if status.allowed:
                found.append((now, cost))
    return found


@given(SKEWS, REQUESTS, st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_a_sliding_window_is_never_exceeded(skews, requests, limit):
    """Three processes whose clocks are wrong, one after the other; several rates at once."""
    rates = (Rate(limit, 7), Rate(limit * 3, 60))
    found = admitted(Windows(), rates, skews, requests)
    for rate in rates:
        assert most_in_any(rate.window, found) <= rate.limit


@given(SKEWS, REQUESTS, st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_a_log_is_never_exceeded(skews, requests, limit):
    """The same of the algorithm that writes all down."""
    rates = (Rate(limit, 7), Rate(limit * 3, 60))
    found = admitted(Log(), rates, skews, requests)
    for rate in rates:
        assert most_in_any(rate.window, found) <= rate.limit


@given(REQUESTS, st.integers(1, 9), st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_gcra_admits_the_limit_and_the_burst_at_most(requests, limit, burst):
    """In any window."""
    found = admitted(Gcra(burst), (Rate(limit, 7),), [(0, 0)], requests)
    assert most_in_any(7, found) <= limit + burst


@given(REQUESTS, st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_waiting_out_retry_after_admits(requests, limit):
    """And not waiting it out does not, for the exact algorithms."""
    for algorithm in (Windows(), Windows(0), Gcra(limit), Log()):
        rate = Rate(limit, 7)
        (caller,) = callers(algorithm, (rate,), [(0, 0)])
        now = 1_800_000_000.0
        for pause, _, cost in requests:
            now += pause
            if cost > algorithm.capacity(rate):
                continue
            status = caller.ask(now, cost)
            if not status.allowed:
                assert not caller.ask(now + status.retry_after * 0.9 - 0.01, cost).allowed
                now += status.retry_after
                assert caller.ask(now, cost).allowed


@given(REQUESTS, st.integers(2, 9))
@settings(max_examples=100, deadline=None)
def test_remaining_is_what_is_admitted_at_once(requests, limit):
    """Asked at one moment, exactly so many more are allowed."""
    for algorithm in (Windows(), Windows(0), Gcra(limit), Log()):
        (caller,) = callers(algorithm, (Rate(limit, 7),), [(0, 0)])
        now = 1_800_000_000.0
        for pause, _, _ in requests[:20]:
            now += pause
            status = caller.ask(now)
        left = status.remaining
        for _ in range(left):
            assert caller.ask(now).allowed
        assert not caller.ask(now).allowed


@given(REQUESTS, st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_half_the_demand_is_never_refused(requests, limit):
    """Evenly spread requests at half the limit all pass."""
    for algorithm in (Windows(), Windows(0), Gcra(), Log()):
        (caller,) = callers(algorithm, (Rate(limit * 2, 10),), [(0.1, 0.1)])
        now = 1_800_000_000.0 + requests[0][0]
        for _ in range(50):
            assert caller.ask(now).allowed
            now += 10 / limit


@given(st.integers(1, 9), st.floats(0, 4), st.floats(0, 4))
@settings(max_examples=100, deadline=None)
def test_an_unknown_time_lengthens_the_window_by_no_more(limit, behind, ahead):
    """Requests at the rate of the limit over window, bucket and interval of the time pass."""
    (caller,) = callers(Windows(), (Rate(limit, 10),), [(behind, ahead)])
    now = 1_800_000_000.0
    for _ in range(limit * 10):
        assert caller.ask(now).allowed
        now += (10 + 1 + behind + ahead) / limit + 0.001


def test_a_refund_never_goes_below_zero():
    """What is given back twice is given back once."""
    for algorithm in (Windows(), Gcra(3), Log()):
        item = Item()
        rates, times = (Rate(3, 7),), Times(1_800_000_000.0, 1_800_000_000.0)
        item.write(algorithm.decide(None, rates, 2, times).write)
        for _ in range(2):
            write = algorithm.refund(algorithm.read(item.attributes, 1), rates, 5, times)
            if write is not None:
                assert item.write(write)
        state = algorithm.read(item.attributes, 1)
        assert algorithm.look(state, rates, 1, times).remaining == 3
