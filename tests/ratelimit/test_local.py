"""Limits within a process: exact, bounded, and not forgotten for keys that are made up."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.conf.rates import Rate
from dynamo_stores.ratelimit import memory
from dynamo_stores.ratelimit.memory import LocalLimiter
from dynamo_stores.testing import FakeClock
from tests.helpers.windows import REQUESTS, most_in_any

RATES = (Rate(5, 60),)


@given(REQUESTS, st.integers(1, 20), st.integers(1, 20))
def test_no_window_of_any_rate_is_exceeded(requests, short, long):
    """By any sequence of requests and costs; a request after the wait is admitted."""
    rates = (Rate(short, 5), Rate(long, 20))
    with FakeClock() as clock:
        limiter, begin, found = LocalLimiter(), clock.monotonic(), []
        for pause, _, cost in requests:
            clock.advance(pause)
            status = limiter.acquire("k", rates, cost)
            if status.allowed:
                found.append((clock.monotonic() - begin, cost))
            elif cost <= min(short, long):
                clock.advance(status.retry_after)
                assert limiter.acquire("k", rates, cost, count=False).allowed
    assert most_in_any(5, found) <= short
    assert most_in_any(20, found) <= long


def test_a_key_that_is_limited_is_not_forgotten_for_made_up_keys(dynamo_clock):
    """Nor one that has used half of its limit."""
    limiter = LocalLimiter()
    for _ in range(5):
        assert limiter.acquire("victim", RATES, 1).allowed
    for _ in range(3):
        assert limiter.acquire("half", RATES, 1).allowed
    for number in range(25_000):
        limiter.acquire(number, RATES, 1)
    assert not limiter.acquire("victim", RATES, 1).allowed
    assert limiter.acquire("half", RATES, 1).remaining == 1


def test_memory_is_bounded(dynamo_clock, monkeypatch):
    """Too many keys that are limited: further ones are refused until a window ends."""
    monkeypatch.setattr(memory, "_MAX_ENTRIES", 100)
    limiter = LocalLimiter()
    for number in range(300):
        for _ in range(5):
            limiter.acquire(number, RATES, 1)
    assert len(limiter._kept) == 100
    assert len(limiter._keys) <= 100
    assert [limiter.acquire("new", RATES, 1).allowed for _ in range(3)] == [True, True, False]
    dynamo_clock.advance(61)
    assert limiter.acquire("new", RATES, 3).allowed
    assert len(limiter._kept) < 100


def test_a_key_with_many_requests_takes_little_memory(dynamo_clock):
    """A window is counted in a hundred parts, whatever the limit is."""
    limiter, rates = LocalLimiter(), (Rate(1_000_000, 60),)
    for _ in range(20_000):
        limiter.acquire("k", rates, 1)
        dynamo_clock.advance(0.01)
    (key,) = limiter._keys.values()
    assert len(key.tallies[0]._parts) <= 101
    assert 5_900 <= key.tallies[0].held <= 6_100


def test_a_decision_does_not_take_longer_with_more_requests():
    """A hundred thousand requests in the window; each used to be looked at by every decision."""
    limiter, rates = LocalLimiter(), (Rate(10**9, 3600),)
    limiter.acquire("k", rates, 1)
    begin = time.process_time()
    for _ in range(100_000):
        limiter.acquire("k", rates, 1)
    assert time.process_time() - begin < 30


def test_threads_admit_no_more_than_the_limit():
    """Of one key, and of many."""
    limiter, admitted, lock = LocalLimiter(), {}, threading.Lock()

    def ask():
        for number in range(500):
            key = number % 10
            if limiter.acquire(key, (Rate(20, 3600),), 1).allowed:
                with lock:
                    admitted[key] = admitted.get(key, 0) + 1

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert admitted == dict.fromkeys(range(10), 20)


@pytest.fixture
def switching():
    """Threads that are switched as often as possible."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_threads_that_race_for_a_new_key_admit_no_more_than_the_limit(switching):
    """While the key is moved to those that are not forgotten."""
    limiter, rates = LocalLimiter(), (Rate(4, 3600),)
    barrier = threading.Barrier(6)

    def ask(admitted):
        for key in range(500):
            barrier.wait(60)
            admitted.update(key for _ in range(4) if limiter.acquire(key, rates, 1).allowed)

    counts = [Counter() for _ in range(6)]
    threads = [threading.Thread(target=ask, args=(each,)) for each in counts]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sum(counts, Counter()) == dict.fromkeys(range(500), 4)


@pytest.mark.parametrize("cost", [2, 5])
def test_a_key_is_kept_from_half_of_its_limit_on(dynamo_clock, cost):
    """One request can use that much at once."""
    limiter = LocalLimiter()
    assert limiter.acquire("k", (Rate(4, 60), Rate(9, 600)), cost).allowed is (cost <= 4)
    assert ("k" in limiter._kept) is (cost <= 4)
