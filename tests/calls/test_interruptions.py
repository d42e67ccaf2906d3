"""Exceptions that come from outside into the call policy, at any bytecode."""

from __future__ import annotations

import contextlib
import gc

import pytest

from dynamo_stores.calls.breaker import State
from dynamo_stores.calls.policy import deadline, time_left
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.testing import FakeClock
from tests.helpers.faults import interrupt_often
from tests.helpers.policy import Script, no_answer, policy, throttle


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_probe_is_released(dynamo_clock: FakeClock, interruption):
    """Whatever ends a probe without an outcome, the next call may probe."""
    rule = policy(breaker={"failure_threshold": 1, "recovery_timeout": 60.0}, max_retries=0)
    with pytest.raises(StoreUnavailable):
        rule.call("GetItem", Script(no_answer()))
    dynamo_clock.advance(60)

    def interrupted(seconds):
        raise interruption

    with pytest.raises(interruption):
        rule.call("GetItem", interrupted)
    assert rule.call("GetItem", Script({"Item": 1})) == {"Item": 1}
    assert rule.breaker.state is State.CLOSED


def test_exceptions_from_outside_lose_no_probe_and_no_place(monkeypatch):
    """At whatever bytecode they come; every call here is a probe, on a table that throttles."""
    breaker = {"failure_threshold": 1, "recovery_timeout": 1000.0}
    rule = policy(timeout=1.0, breaker=breaker, max_retries=0, throttle_retries=0)

    def call(outcome):
        # The recovery timeout is over.
        rule.breaker._opened_at = -10_000.0
        with contextlib.suppress(StoreUnavailable):
            rule.call("GetItem", Script(outcome))

    def work():
        call(no_answer())
        call(throttle())

    interrupt_often(monkeypatch, work)
    # Until then frames live on in tracebacks.
    gc.collect()
    assert rule.backpressure.in_flight == 0
    rule.breaker._opened_at = -10_000.0
    rule.backpressure._limit = None
    assert rule.call("GetItem", Script({})) == {}
    assert rule.breaker.state is State.CLOSED


def test_exceptions_from_outside_leave_no_deadline_behind(monkeypatch):
    """At whatever bytecode of a block they come, also where blocks are nested."""
    seen = set()

    def work():
        seen.add(time_left(9.0))
        with deadline(1.0), deadline(2.0):
            pass

    interrupt_often(monkeypatch, work)
    assert seen == {9.0}


@pytest.mark.parametrize("outer", [None, 5.0])
def test_a_block_that_never_began_has_no_deadline(dynamo_clock: FakeClock, outer):
    """The deadline of the block around it applies."""
    send = Script({})
    with deadline(outer) if outer else contextlib.nullcontext():
        deadline(0.5).__enter__()
        policy(timeout=30.0, max_retries=0).call("GetItem", send)
    assert send.seconds == [outer or 10.0]
    policy(timeout=30.0, max_retries=0).call("GetItem", send)
    assert send.seconds[1] == 10.0
