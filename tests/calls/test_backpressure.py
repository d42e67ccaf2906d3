"""Backpressure: how many may be in flight while a table throttles."""

from __future__ import annotations

import threading
import time

import pytest

from dynamo_stores.calls.backpressure import Pressure, background, is_background
from dynamo_stores.exceptions import ThrottlingError
from dynamo_stores.testing import FakeClock


def soon(seconds=10.0):
    return time.monotonic() + seconds


def engaged(in_flight=8):
    """A gate that was halved once: half of what was in flight may be."""
    pressure = Pressure("t")
    for _ in range(in_flight):
        pressure.enter(soon())
    for _ in range(in_flight):
        pressure.leave(0.01, throttled=True)
    return pressure


def test_while_all_is_calm_there_is_no_limit():
    """Any number may be in flight."""
    pressure = Pressure("t")
    for _ in range(1000):
        pressure.enter(soon())
    for _ in range(1000):
        pressure.leave(0.01, throttled=False)
    assert pressure.limit is None


def test_a_throttle_halves_and_successes_add_one_a_round():
    """A burst of throttles is one halving; without any for a while the limit is gone."""
    with FakeClock() as now:
        pressure = engaged(16)
        assert pressure.limit == 8
        now.advance(0.2)
        pressure.enter(now.now() + 10)
        pressure.leave(0.01, throttled=True)
        assert pressure.limit == 4
        for _ in range(4):
            pressure.enter(now.now() + 10)
        for _ in range(4):
            pressure.leave(0.01, throttled=False)
        assert 4.8 < pressure.limit < 5.1
        for _ in range(20):
            now.advance(0.2)
            pressure.enter(now.now() + 10)
            pressure.leave(0.01, throttled=True)
        assert pressure.limit == 1
        now.advance(10.1)
        pressure.enter(now.now() + 10)
        pressure.leave(0.01, throttled=False)
        assert pressure.limit is None


def test_no_more_than_the_limit_are_in_flight():
    """Thirty threads, and all of them are served in the end."""
    pressure = engaged(8)
    lock, inside, most, served = threading.Lock(), 0, 0, 0
    limits = []

    def work():
        nonlocal inside, most, served
        pressure.enter(soon(30))
        with lock:
            inside += 1
            most = max(most, inside)
            limits.append(pressure.limit)
        time.sleep(0.01)
        with lock:
            inside -= 1
            served += 1
        pressure.leave(0.01, throttled=False)

    threads = [threading.Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served == 30
    assert most <= max(limits) + 1


def test_users_go_before_background(until):
    """Background work waits for users who wait, and has half of the places at most."""
    pressure = engaged(2)
    assert pressure.limit == 1
    pressure.enter(soon())
    order = []

    def work(name, is_user):
        def wait():
            pressure.enter(soon(60))
            order.append(name)
            pressure.leave(0.001, throttled=False)

        if is_user:
            wait()
            return
        with background():
            assert is_background()
            wait()

    threads = [threading.Thread(target=work, args=("background", False))]
    threads[0].start()
    until(lambda: pressure._waiting == 1)
    threads.append(threading.Thread(target=work, args=("user", True)))
    threads[1].start()
    until(lambda: pressure._users_waiting == 1)
    pressure.leave(0.001, throttled=False)
    for thread in threads:
        thread.join(20)
    assert order == ["user", "background"]
    assert not is_background()


def test_who_finds_no_place_fails_with_a_time_to_come_back():
    """At its deadline, or at once where that can be told."""
    pressure = engaged(2)
    pressure.enter(soon())
    began_at = time.monotonic()
    with pytest.raises(ThrottlingError) as caught:
        pressure.enter(time.monotonic() + 0.2)
    assert 0.1 < time.monotonic() - began_at < 5
    assert caught.value.retry_after >= 1
    for _ in range(20):
        pressure.leave(60.0, throttled=False)
        pressure.enter(soon())
    pressure._limit = 1.0
    began_at = time.monotonic()
    with pytest.raises(ThrottlingError, match="requests wait for it"):
        pressure.enter(soon(30))
    assert time.monotonic() - began_at < 5
