"""Limits under 3 processes with 32 threads each: exact, cheap, and no window over its limit."""

from __future__ import annotations

import secrets
import threading
import time

import pytest

from dynamo_stores import clock
from dynamo_stores.calls.observer import measuring
from dynamo_stores.stores import AdaptiveRateLimitStore, RateLimitStore
from tests.helpers.forking import in_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
PROCESSES, THREADS = 3, 32


class SkewedClock(clock.Clock):
    """A clock that is wrong by some seconds."""

    def __init__(self, wrong):
        self.wrong = wrong

    def now(self):
        return time.time() + self.wrong


def battle(ask, *, seconds, threads=THREADS, skews=(0, 0, 0), pause=0.0):
    """
    Ask from all threads of all processes for so long; return what was admitted, as pairs of times
    between which it was, how many asked, and how many calls that made.
    """
    begin = time.time() + 1.0

    def process(number):
        clock.use(SkewedClock(skews[number]))
        admitted, asked = [], []

        def thread(each):
            time.sleep(max(0.0, begin - time.time()) + pause * each / threads)
            while time.time() < begin + seconds:
                asked_at = time.time()
                status = ask(number, each)
                asked.append(status)
                if status.allowed:
                    admitted.append((asked_at, time.time()))
                time.sleep(pause)

        running = [threading.Thread(target=thread, args=(each,)) for each in range(threads)]
        with measuring() as measurements:
            for each in running:
                each.start()
            for each in running:
                each.join()
        return admitted, len(asked), len(measurements)

    found = in_processes(PROCESSES, process)
    admitted = [each for pairs, _, _ in found for each in pairs]
    return admitted, sum(each for _, each, _ in found), sum(each for _, _, each in found)


def most_in_any(window, admitted):
    """Return the most that was certainly admitted within any window of so many seconds."""
    return max(
        (
            sum(1 for asked, got in admitted if asked >= start and got < start + window)
            for start, _ in admitted
        ),
        default=0,
    )


@pytest.fixture
def resource(tables):
    return secrets.token_hex(6)


@pytest.mark.parametrize("skews", [(0, 0, 0), (-2, 0, 2)])
@pytest.mark.parametrize("algorithm", ["sliding", "log"])
def test_a_burst_admits_exactly_the_limit(resource, algorithm, skews):
    """Of some thousand requests for 100/m at once; also with clocks four seconds apart."""
    store = RateLimitStore()
    limit = {"sliding": 100, "log": 30}[algorithm]
    store.set_resource_config(resource, {"RATE": f"{limit}/m", "ALGORITHM": algorithm})
    admitted, asked, calls = battle(
        lambda *_: store.acquire(resource), seconds=4, skews=skews, pause=0.01
    )
    store.unset_resource_config(resource)
    assert len(admitted) == limit
    assert asked > 1000
    if algorithm == "sliding":
        assert calls <= 2.5 * limit + 2 * PROCESSES * THREADS


@pytest.mark.parametrize("skews", [(0, 0, 0), (-2, 0, 2)])
def test_no_window_is_over_its_limit(resource, skews):
    """Under saturation over many windows; at no more than 2.5 calls for each that is admitted."""
    store = RateLimitStore()
    admitted, _, calls = battle(
        lambda *_: store.acquire(resource, rate="100/2s"), seconds=8, skews=skews, pause=0.01
    )
    assert most_in_any(2.0, admitted) <= 100
    # An eighth of the time is given to strictness, the rest to a busy machine.
    assert len(admitted) >= 200
    assert calls <= 2.5 * len(admitted) + PROCESSES * THREADS


def test_half_the_demand_is_not_refused(resource):
    """Twelve threads that ask evenly for half of what there is."""
    store = RateLimitStore()
    admitted, asked, _ = battle(
        lambda *_: store.acquire(resource, rate="100/2s"), seconds=6, threads=4, pause=0.5
    )
    assert asked > 100
    assert len(admitted) == asked


def test_keys_do_not_share(resource):
    """Eight keys at once get exactly theirs."""
    store = RateLimitStore()
    counted = dict.fromkeys(range(8), 0)
    admitted, _, _ = battle(
        lambda _, each: store.acquire(resource, key=str(each % 8), rate="20/m"),
        seconds=4,
        pause=0.01,
    )
    assert len(admitted) == 20 * 8
    for key in counted:
        assert store.get_status(resource, key=str(key), rate="20/m").remaining == 0


def test_users_and_background_never_exceed_the_limit_together(resource):
    """One process asks for users, two for background work; its share is the background's most."""
    store = AdaptiveRateLimitStore()

    def ask(number, each):
        priority = "user" if number == 0 else "background"
        return store.acquire(resource, rate="100/2s", priority=priority)

    admitted, _, calls = battle(ask, seconds=8, pause=0.02)
    assert most_in_any(2.0, admitted) <= 100
    assert len(admitted) >= 150
    assert calls <= 3 * len(admitted) + 2 * PROCESSES * THREADS
    status = store.get_status(resource, rate="100/2s")
    assert (status.user_reserved, status.background_max) == (30, 70)
