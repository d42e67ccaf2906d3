"""Background work and renewals, when an exception from outside ends a call of theirs anywhere."""

from __future__ import annotations

import itertools
import signal
import threading

import pytest

from dynamo_stores.concurrency.background import Background
from dynamo_stores.leases import Renewal

# Seconds that a busy machine needs at most for what takes milliseconds.
LONG = 40.0


class Interrupted(BaseException):
    """Raised by a signal handler."""


@pytest.fixture
def interrupted():
    """Return a function that makes a call and interrupts it after so many seconds."""

    def interrupt(*args):
        raise Interrupted

    def call(seconds, function):
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            function()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            return True
        return False

    before = signal.signal(signal.SIGALRM, interrupt)
    yield call
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def is_done_in_time(function):
    """Return whether ``function`` ends; a thread of its own calls it."""
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    thread.join(LONG)
    return not thread.is_alive()


def moments(count):
    """Return so many times after which calls are interrupted, 1 to 60 µs."""
    return itertools.islice(itertools.cycle(each / 1e6 for each in range(1, 61)), count)


def test_a_renewal_whose_stop_was_interrupted_can_be_stopped(interrupted):
    """By a second call, which does not wait for ever, and its thread ends."""
    for seconds in moments(3_000):
        renewal = Renewal(lambda: True, 600, "lock")
        if interrupted(seconds, renewal.stop):
            assert is_done_in_time(renewal.stop)
    renewal = Renewal(lambda: True, 600, "lock")
    renewal.start()
    for seconds in moments(3_000):
        interrupted(seconds, lambda: renewal.ends_in(600))
    assert is_done_in_time(renewal.stop)
    renewal.join(LONG)
    assert not renewal.is_alive()


def test_interrupted_submits_leave_background_work_running(interrupted, until):
    """What is submitted later is done."""
    background, done = Background("test", most=100_000), []
    for seconds in moments(3_000):
        interrupted(seconds, lambda: background.submit(lambda: None))
    assert is_done_in_time(lambda: background.submit(lambda: done.append(1)))
    until(lambda: done == [1])


def test_background_work_is_done_at_its_time(until):
    """The earlier first, and no more than the limit waits."""
    background, done, go_on = Background("test", most=3), [], threading.Event()
    assert background.submit(lambda: go_on.wait(LONG))
    until(lambda: not background._work and background._new.empty())
    for name, after in (("late", 0.3), ("early", 0.1), ("now", 0.0)):
        assert background.submit(lambda name=name: done.append(name), after=after)
    assert not background.submit(lambda: done.append("too many"))
    go_on.set()
    until(lambda: done == ["now", "early", "late"])
