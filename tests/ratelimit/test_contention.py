"""
Limits under 3 processes with 32 threads each: exact, no window over its limit, and few calls.

The store denies if the table does not answer in time: no request is admitted uncounted, however
busy the machine is.
"""

from __future__ import annotations

import os
import secrets
import threading
import time

import pytest

from dynamo_stores import clock
from dynamo_stores.calls.observer import measuring
from dynamo_stores.stores import AdaptiveRateLimitStore, RateLimitStore
from tests.helpers.forking import fork, in_processes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
PROCESSES, THREADS = 3, 32


class SkewedClock(clock.Clock):
    """A clock that is wrong by some seconds."""

    def __init__(self, wrong):
        self.wrong = wrong

    def now(self):
        return time.time() + self.wrong


def contend(
    ask,
    *,
    seconds=0.0,
    refusals=0,
    requests=0,
    admissions=0,
    threads=THREADS,
    skews=(0, 0, 0),
    pause=0.0,
):
    """
    Call ``ask`` in all threads of all processes for ``seconds``, until each made ``requests`` and
    was refused ``refusals`` times, and until ``admissions`` were admitted in all; return the
    admissions, each as the times between which it happened, the number of requests, and how many
    calls they needed.
    """
    begin = time.time() + 1.0
    total = fork.Value("i", 0)

    def process(number):
        clock.use(SkewedClock(skews[number]))
        admitted, asked = [], []

        def thread(each):
            time.sleep(max(0.0, begin - time.time()) + pause * each / threads)
            refused = made = 0
            while (
                time.time() < begin + seconds
                or refused < refusals
                or made < requests
                or total.value < admissions
            ):
                asked_at = time.time()
                made += 1
                status = ask(number, each)
                asked.append(status)
                refused += not status.allowed
                if status.allowed:
                    admitted.append((asked_at, time.time()))
                    with total.get_lock():
                        total.value += 1
                time.sleep(pause)

        running = [threading.Thread(target=thread, args=(each,)) for each in range(threads)]
        with measuring() as calls:
            for each in running:
                each.start()
            for each in running:
                each.join()
        return admitted, len(asked), len(calls)

    pairs, asked, calls = zip(*in_processes(PROCESSES, process), strict=True)
    return [each for found in pairs for each in found], sum(asked), sum(calls)


def most_in_any(window, admitted):
    """Return the largest number that was certainly admitted within a window of so many seconds."""
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


@pytest.fixture
def strict(alias):
    """An alias with a long timeout that denies requests which it cannot count."""
    return alias(
        RATE_LIMIT={"OPERATION_TIMEOUT": 30.0, "ON_UNAVAILABLE": "deny"},
        # The first allocation applies to the end, however long that takes.
        ADAPTIVE={"RECALCULATION_INTERVAL": 3600},
    )


@pytest.mark.parametrize("skews", [(0, 0, 0), (-2, 0, 2)])
@pytest.mark.parametrize("algorithm", ["sliding", "log"])
def test_a_burst_admits_exactly_the_limit(resource, strict, algorithm, skews):
    """Of some thousand requests for 100/m at once; also with clocks four seconds apart."""
    store = RateLimitStore(strict)
    limit = {"sliding": 100, "log": 30}[algorithm]
    store.set_resource_config(resource, {"RATE": f"{limit}/m", "ALGORITHM": algorithm})
    admitted, asked, calls = contend(
        lambda *_: store.acquire(resource), refusals=15, skews=skews, pause=0.01
    )
    store.unset_resource_config(resource)
    assert len(admitted) == limit
    assert asked > 1000
    # Each write of the log fails if another process was faster.
    assert calls <= (0.5 if algorithm == "sliding" else 2) * limit


def test_kills_and_lost_answers_admit_no_more(resource, alias, dynamo_faults):
    """A request that was counted, but whose process or answer is lost, is not admitted."""
    limits = {"OPERATION_TIMEOUT": 30.0, "ON_UNAVAILABLE": "deny"}
    store = RateLimitStore(alias(ENDPOINT_URL=dynamo_faults.url, RATE_LIMIT=limits))
    read_end, write_end = os.pipe()

    def process():
        def thread():
            while store.acquire(resource, rate="3000/h").allowed:
                os.write(write_end, b".")

        running = [threading.Thread(target=thread) for _ in range(THREADS)]
        for each in running:
            each.start()
        for each in running:
            each.join()

    running = [fork.Process(target=process) for _ in range(PROCESSES)]
    for each in running:
        each.start()
    for number in range(16):
        dynamo_faults.lose_answer("UpdateItem", times=1)
        time.sleep(0.1)
        if number % 4 == 3:
            running[0].kill()
            running[0].join(60)
            running = [*running[1:], fork.Process(target=process)]
            running[-1].start()
    for each in running:
        each.join(100)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as found:
        admitted = len(found.read())
    assert 0 < admitted <= 3000
    assert store.get_status(resource, rate="3000/h").remaining == 0


@pytest.mark.parametrize("skews", [(0, 0, 0), (-2, 0, 2)])
def test_no_window_is_over_its_limit(resource, strict, skews):
    """Under saturation over many windows, each of which admits some."""
    store = RateLimitStore(strict)
    admitted, _, calls = contend(
        lambda *_: store.acquire(resource, rate="50/1s"), admissions=150, skews=skews, pause=0.01
    )
    assert most_in_any(1.0, admitted) <= 50
    assert calls <= 1.0 * len(admitted)


def test_half_the_demand_is_not_refused(resource, strict):
    """
    Twelve threads that request half of the limit, evenly spread, for several windows.

    The window is longer than the interval in which a busy machine knows the server's time.
    """
    store = RateLimitStore(strict)
    admitted, asked, calls = contend(
        lambda *_: store.acquire(resource, rate="150/3s"), requests=20, threads=4, pause=0.5
    )
    assert asked == 240
    assert len(admitted) == asked
    assert calls <= 1.2 * len(admitted)


def test_keys_do_not_share(resource, strict):
    """Eight keys at once get exactly their own limits."""
    store = RateLimitStore(strict)
    admitted, *_ = contend(
        lambda _, each: store.acquire(resource, key=str(each % 8), rate="20/m"),
        refusals=15,
        pause=0.01,
    )
    assert len(admitted) == 20 * 8
    for key in range(8):
        assert store.get_status(resource, key=str(key), rate="20/m").remaining == 0


def test_users_and_background_never_exceed_the_limit_together(resource, strict):
    """One process acquires for users, two for background work, which gets at most its share."""
    store = AdaptiveRateLimitStore(strict)

    def ask(number, each):
        priority = "user" if number == 0 else "background"
        return store.acquire(resource, rate="100/2s", priority=priority)

    admitted, _, calls = contend(ask, seconds=6, pause=0.02)
    assert most_in_any(2.0, admitted) <= 100
    assert len(admitted) > 100
    status = store.get_status(resource, rate="100/2s")
    assert (status.user_reserved, status.background_max) == (30, 70)
    assert calls <= 1.0 * len(admitted)
