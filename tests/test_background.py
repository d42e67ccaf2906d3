"""Background work and renewals, when an exception from outside ends a call of theirs anywhere."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from dynamo_stores.concurrency.background import Background
from dynamo_stores.leases import Renewal, release_later
from tests.helpers.faults import Interrupted, interrupting

# Seconds that a busy machine needs at most for what takes milliseconds.
LONG = 40.0


@pytest.fixture
def interrupted():
    """Return a function that makes a call and interrupts it after so many seconds."""
    with interrupting() as interrupt_in:

        def call(seconds, function):
            try:
                interrupt_in(seconds)
                function()
                interrupt_in(0)
            except Interrupted:
                return True
            return False

        yield call


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


def test_a_lease_that_is_known_to_be_taken_is_released_first(until, caplog):
    """Whatever number of others waits; those beyond the limit are logged."""
    go_on, known = threading.Event(), []
    for _ in range(10_002):
        release_later("busy", lambda: go_on.wait(LONG), 600, untaken=60)
    assert "too many releases wait" in caplog.text
    for number in range(300):
        release_later("busy", lambda number=number: known.append(number) or True, 600)
    until(lambda: len(known) == 300)
    go_on.set()


@pytest.mark.parametrize(("untaken", "most"), [(None, 1), (1.0, 4)])
def test_a_lease_that_nobody_has_is_not_released_for_ever(until, untaken, most):
    """Only as long as a request on its way may take it, and the last time at the end of that."""
    calls, ended = [], threading.Event()
    release_later("free", lambda: calls.append(time.monotonic()), 600, untaken=untaken)
    until(lambda: calls)
    ended.wait(4.0)
    assert 1 <= len(calls) <= most
    assert calls[-1] - calls[0] >= 0.9 * (untaken or 0.0)
