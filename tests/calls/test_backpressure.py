"""Backpressure: the limit of requests in flight while a table throttles."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque

import pytest

from dynamo_stores.calls.backpressure import (
    Backpressure,
    background,
    is_background,
    set_background,
)
from dynamo_stores.concurrency.effects import run
from dynamo_stores.exceptions import ThrottlingError
from dynamo_stores.testing import FakeClock


def soon(seconds=10.0):
    return time.monotonic() + seconds


class Held(Backpressure):
    """Holds its requests, and ends the one that entered first."""

    def __init__(self, table):
        super().__init__(table)
        self.held = deque()

    def enter(self, until):
        self.held.append(run(super().enter(until)))

    def leave(self, seconds, *, throttled):
        super().leave(self.held.popleft(), seconds, throttled=throttled)


def engaged(in_flight=8):
    """Return a Backpressure whose limit is half of ``in_flight``, after one throttle."""
    backpressure = Held("t")
    for _ in range(in_flight):
        backpressure.enter(soon())
    for _ in range(in_flight):
        backpressure.leave(0.01, throttled=True)
    return backpressure


def test_without_throttles_there_is_no_limit():
    """Any number may be in flight."""
    backpressure = Held("t")
    for _ in range(1000):
        backpressure.enter(soon())
    for _ in range(1000):
        backpressure.leave(0.01, throttled=False)
    assert backpressure.limit is None


def test_a_throttle_halves_and_successes_add_one_a_round():
    """A burst of throttles is one halving; after a while without any there is no limit."""
    with FakeClock() as now:
        backpressure = engaged(16)
        assert backpressure.limit == 8
        now.advance(0.2)
        backpressure.enter(now.now() + 10)
        backpressure.leave(0.01, throttled=True)
        assert backpressure.limit == 4
        for _ in range(4):
            backpressure.enter(now.now() + 10)
        for _ in range(4):
            backpressure.leave(0.01, throttled=False)
        assert 4.8 < backpressure.limit < 5.1
        for _ in range(20):
            now.advance(0.2)
            backpressure.enter(now.now() + 10)
            backpressure.leave(0.01, throttled=True)
        assert backpressure.limit == 1
        now.advance(10.1)
        backpressure.enter(now.now() + 10)
        backpressure.leave(0.01, throttled=False)
        assert backpressure.limit is None


def test_no_more_than_the_limit_are_in_flight():
    """Thirty threads, and all of them are served in the end."""
    backpressure = engaged(8)
    lock, inside, most, served = threading.Lock(), 0, 0, 0
    limits = []

    def work():
        nonlocal inside, most, served
        backpressure.enter(soon(30))
        with lock:
            inside += 1
            most = max(most, inside)
            limits.append(backpressure.limit)
        time.sleep(0.01)
        with lock:
            inside -= 1
            served += 1
        backpressure.leave(0.01, throttled=False)

    threads = [threading.Thread(target=work) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert served == 30
    assert most <= max(limits) + 1


def test_users_go_before_background(until):
    """Background calls wait for waiting users, and use at most half of the limit."""
    backpressure = engaged(2)
    assert backpressure.limit == 1
    backpressure.enter(soon())
    order = []

    def work(name, is_user):
        def wait():
            backpressure.enter(soon(60))
            order.append(name)
            backpressure.leave(0.001, throttled=False)

        if is_user:
            wait()
            return
        with background():
            assert is_background()
            wait()

    threads = [threading.Thread(target=work, args=("background", False))]
    threads[0].start()
    until(lambda: len(backpressure._background) == 1)
    threads.append(threading.Thread(target=work, args=("user", True)))
    threads[1].start()
    until(lambda: len(backpressure._users) == 1)
    backpressure.leave(0.001, throttled=False)
    for thread in threads:
        thread.join(20)
    assert order == ["user", "background"]
    assert not is_background()


def test_a_request_over_the_limit_fails_with_retry_after():
    """At its deadline, or at once if the expected wait is longer."""
    backpressure = engaged(2)
    backpressure.enter(soon())
    began_at = time.monotonic()
    with pytest.raises(ThrottlingError) as caught:
        backpressure.enter(time.monotonic() + 0.2)
    assert 0.1 < time.monotonic() - began_at < 5
    assert caught.value.retry_after >= 1
    for _ in range(20):
        backpressure.leave(60.0, throttled=False)
        backpressure.enter(soon())
    backpressure._limit = 1.0
    began_at = time.monotonic()
    with pytest.raises(ThrottlingError, match="requests are waiting"):
        backpressure.enter(soon(30))
    assert time.monotonic() - began_at < 5


def test_background_calls_use_half_of_the_limit():
    """The other half is left to calls for users."""
    backpressure = engaged(16)
    assert backpressure.limit == 8
    with background():
        for _ in range(4):
            backpressure.enter(soon())
        with pytest.raises(ThrottlingError):
            backpressure.enter(time.monotonic())
    for _ in range(4):
        backpressure.enter(soon())
    with pytest.raises(ThrottlingError):
        backpressure.enter(time.monotonic())


def wait_for(backpressure, count):
    """Return when ``count`` requests wait."""
    deadline = soon()
    while len(backpressure._users) + len(backpressure._background) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def waiting_user(backpressure):
    """Return a thread that enters, and waits for it."""
    thread = threading.Thread(target=backpressure.enter, args=(soon(20),))
    thread.start()
    wait_for(backpressure, 1)
    return thread


def test_a_new_request_does_not_overtake_a_waiting_one():
    """A request that finds free capacity waits behind those that came before it."""
    backpressure = engaged(4)
    for _ in range(2):
        backpressure.enter(soon())
    thread = waiting_user(backpressure)
    # The waiting thread cannot run before the lock is given back; the newcomer is here first.
    with backpressure._lock:
        backpressure.leave(0.001, throttled=False)
        with pytest.raises(ThrottlingError):
            backpressure.enter(time.monotonic())
    thread.join(20)
    assert not thread.is_alive()


def test_background_calls_wait_while_users_wait():
    """Free capacity is not used for the background while a call for a user waits for it."""
    backpressure = engaged(8)
    for _ in range(4):
        backpressure.enter(soon())
    thread = waiting_user(backpressure)
    with backpressure._lock:
        for _ in range(4):
            backpressure.leave(0.001, throttled=False)
        with background(), pytest.raises(ThrottlingError):
            backpressure.enter(time.monotonic())
    thread.join(20)
    with background():
        backpressure.enter(soon())


def test_waiting_requests_are_served_in_their_order():
    """Each release admits the request that waits longest, users before the background."""
    backpressure = engaged(2)
    backpressure.enter(soon())
    order, threads = [], []

    def work(name, in_background):
        with background() if in_background else contextlib.nullcontext():
            backpressure.enter(soon(20))
        order.append(name)
        backpressure.leave(0.0, throttled=False)

    for count, (name, in_background) in enumerate(
        [("b1", True), ("u1", False), ("u2", False), ("b2", True)], 1
    ):
        threads.append(threading.Thread(target=work, args=(name, in_background)))
        threads[-1].start()
        wait_for(backpressure, count)
    with backpressure._lock:
        # One request in flight at any time, however many were served.
        backpressure._limit = 1.0
        backpressure.leave(0.0, throttled=True)
    for thread in threads:
        thread.join(20)
    assert order[:2] == ["u1", "u2"]
    assert sorted(order[2:]) == ["b1", "b2"]


def test_one_halving_in_a_tenth_of_a_second():
    """The next throttle halves again from then on; one request is always allowed."""
    with FakeClock() as now:
        backpressure = engaged(8)
        for seconds, limit in ((0.05, 4), (0.0625, 2), (0.125, 1), (0.125, 1)):
            now.advance(seconds)
            backpressure.enter(now.monotonic())
            backpressure.leave(0.01, throttled=True)
            assert backpressure.limit == limit


def test_the_limit_ends_after_ten_seconds_without_a_throttle():
    """With the first answer after them; a throttle begins them anew."""
    with FakeClock() as now:
        backpressure = engaged(2)
        for seconds, throttled, is_limited in (
            (9, True, True),
            (9, False, True),
            (0.5, False, True),
            (1, False, False),
        ):
            now.advance(seconds)
            backpressure.enter(now.monotonic())
            backpressure.leave(0.01, throttled=throttled)
            assert (backpressure.limit is not None) is is_limited


def test_a_thread_can_be_marked_as_background():
    """Until it is marked as one for users again."""
    assert not is_background()
    set_background(True)
    try:
        assert is_background()
        with background():
            assert is_background()
        assert is_background()
    finally:
        set_background(False)
    assert not is_background()


def test_the_message_has_the_table_and_the_number_of_waiting_requests():
    """And at least a second to wait."""
    backpressure = engaged(2)
    backpressure.enter(soon())
    with pytest.raises(ThrottlingError, match=r"^t is throttled, and 1 requests are waiting") as e:
        backpressure.enter(time.monotonic())
    assert e.value.retry_after == 1.0


def test_requests_that_wait_are_admitted_when_the_limit_ends():
    """They do not wait for the requests before them."""
    with FakeClock() as now:
        backpressure = engaged(4)
        for _ in range(2):
            backpressure.enter(now.monotonic())
        until = now.monotonic() + 1000
        threads = [
            threading.Thread(target=backpressure.enter, args=(until,), daemon=True)
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        wait_for(backpressure, 3)
        now.advance(10.1)
        backpressure.leave(0.01, throttled=False)
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()


def test_background_calls_that_wait_are_counted():
    """In the message, with those for users."""
    backpressure = engaged(2)
    backpressure.enter(soon())
    with background(), pytest.raises(ThrottlingError, match="and 1 requests are waiting"):
        backpressure.enter(time.monotonic())


def test_when_the_limit_is_lifted_all_waiting_requests_go_on():
    """Without an estimate of their wait, however slow the table was."""
    backpressure = engaged(2)
    backpressure.enter(soon())
    threads = [threading.Thread(target=backpressure.enter, args=(soon(20),)) for _ in range(15)]
    for thread in threads:
        thread.start()
    wait_for(backpressure, 15)
    with backpressure._lock:
        backpressure._seconds = 60.0
        backpressure._throttled_at -= 60
        backpressure.leave(0.01, throttled=False)
    for thread in threads:
        thread.join(20)
    assert backpressure.limit is None
    assert backpressure.in_flight == 15


@pytest.mark.parametrize("line", range(1, 40))
def test_an_exception_from_outside_blocks_no_other_request(line):
    """A soft time limit or Ctrl-C may come at any line of ``enter``."""
    backpressure = engaged(2)
    backpressure.enter(soon())
    lines = 0

    def interrupt(frame, event, arg):
        nonlocal lines
        if frame.f_code.co_name != "_wait_in":
            return interrupt if frame.f_code.co_name == "enter" else None
        if event == "line":
            lines += 1
            if lines == line:
                sys.settrace(None)
                raise KeyboardInterrupt
        return interrupt

    sys.settrace(interrupt)
    try:
        backpressure.enter(time.monotonic() + 0.01)
    except (KeyboardInterrupt, ThrottlingError):
        pass
    finally:
        sys.settrace(None)
    backpressure.leave(0.001, throttled=False)
    started = time.monotonic()
    backpressure.enter(soon())
    assert time.monotonic() - started < 5


def test_a_limit_without_throttles_ends_although_no_request_was_served():
    """A place that was lost must not limit the table for ever."""
    with FakeClock() as now:
        backpressure = engaged(2)
        backpressure.enter(now.monotonic() + 10)
        with pytest.raises(ThrottlingError):
            backpressure.enter(now.monotonic())
        now.advance(10.1)
        backpressure.enter(now.monotonic())
        assert backpressure.limit is None
