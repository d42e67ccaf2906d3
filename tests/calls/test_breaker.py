"""The circuit breaker, by the fake clock."""

from __future__ import annotations

import threading

import pytest

from dynamo_stores.calls.breaker import BreakerStatus, CircuitBreaker, State
from dynamo_stores.conf.groups import BreakerConfig
from dynamo_stores.exceptions import CircuitBreakerOpenError
from dynamo_stores.testing import FakeClock


def make(changes=None, **config):
    return CircuitBreaker(
        BreakerConfig(**{"failure_threshold": 3, "recovery_timeout": 60.0, **config}),
        name="table t",
        on_change=lambda old, new, error: (
            changes.append((old, new, error)) if changes is not None else None
        ),
    )


def fail(breaker, times=1):
    for _ in range(times):
        breaker.failed(breaker.admit(), "ReadTimeoutError")


def test_opens_after_failures_in_a_row_with_the_reason(dynamo_clock: FakeClock):
    """The third failure in a row opens it; calls are refused without waiting."""
    changes = []
    breaker = make(changes)
    fail(breaker, 3)
    with pytest.raises(CircuitBreakerOpenError, match="table t is open after ReadTime") as e:
        breaker.admit()
    assert e.value.retry_after == 60.0
    assert changes == [(State.CLOSED, State.OPEN, "ReadTimeoutError")]
    assert breaker.status().state is State.OPEN
    assert breaker.status().failures == 3
    assert dynamo_clock.slept == []


def test_an_answer_between_failures_starts_the_count_anew(dynamo_clock: FakeClock):
    """Only failures in a row count."""
    breaker = make()
    fail(breaker, 2)
    breaker.succeeded(breaker.admit())
    fail(breaker, 2)
    assert breaker.state is State.CLOSED


def test_probe_that_succeeds_closes_it(dynamo_clock: FakeClock):
    """After the recovery timeout one call passes, and its answer closes the breaker."""
    breaker = make()
    fail(breaker, 3)
    dynamo_clock.advance(60)
    probe = breaker.admit()
    assert probe.probe
    assert breaker.state is State.HALF_OPEN
    breaker.succeeded(probe)
    assert breaker.state is State.CLOSED
    assert breaker.status().retry_after == 0


def test_probe_that_fails_opens_it_for_another_timeout(dynamo_clock: FakeClock):
    """A failed probe starts the wait again."""
    breaker = make()
    fail(breaker, 3)
    dynamo_clock.advance(60)
    breaker.failed(breaker.admit(), "EndpointConnectionError")
    dynamo_clock.advance(59)
    with pytest.raises(CircuitBreakerOpenError):
        breaker.admit()
    dynamo_clock.advance(1)
    assert breaker.admit().probe


def test_of_many_threads_exactly_one_probes(dynamo_clock: FakeClock):
    """Fifty threads at the same moment: one admission."""
    breaker = make()
    fail(breaker, 3)
    dynamo_clock.advance(60)
    barrier = threading.Barrier(50)
    admitted, refused = [], []

    def call():
        barrier.wait()
        try:
            admitted.append(breaker.admit())
        except CircuitBreakerOpenError as exc:
            refused.append(exc)

    threads = [threading.Thread(target=call) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 1
    assert len(refused) == 49


def test_probe_without_an_outcome_is_released(dynamo_clock: FakeClock):
    """A probe that was interrupted lets the next call probe at once."""
    breaker = make()
    fail(breaker, 3)
    dynamo_clock.advance(60)
    breaker.release(breaker.admit())
    assert breaker.admit().probe


def test_outcomes_of_calls_admitted_earlier_are_ignored(dynamo_clock: FakeClock):
    """A slow call from before the outage neither closes an open breaker nor fails a closed one."""
    breaker = make()
    old = breaker.admit()
    fail(breaker, 3)
    breaker.succeeded(old)
    assert breaker.state is State.OPEN
    breaker.reset()
    for _ in range(5):
        breaker.failed(old, "ReadTimeoutError")
    assert breaker.state is State.CLOSED


def test_throttling_counts_only_when_asked(dynamo_clock: FakeClock):
    """A throttle is an answer, also for a probe, unless COUNT_THROTTLES is True."""
    breaker = make()
    for _ in range(10):
        breaker.throttled(breaker.admit())
    assert breaker.state is State.CLOSED
    fail(breaker, 3)
    dynamo_clock.advance(60)
    breaker.throttled(breaker.admit())
    assert breaker.state is State.CLOSED

    counting = make(count_throttles=True)
    for _ in range(3):
        counting.throttled(counting.admit())
    assert counting.state is State.OPEN
    dynamo_clock.advance(60)
    counting.throttled(counting.admit())
    assert counting.state is State.OPEN


def test_trips_on_the_share_of_failures_in_a_window(dynamo_clock: FakeClock):
    """Half of at least ten calls failed, never three in a row."""
    breaker = make(failure_rate=0.5, minimum_calls=10, window=60.0)
    for _ in range(4):
        fail(breaker)
        breaker.succeeded(breaker.admit())
    assert breaker.state is State.CLOSED
    fail(breaker)
    breaker.succeeded(breaker.admit())
    assert breaker.state is State.OPEN


def test_failures_outside_the_window_are_forgotten(dynamo_clock: FakeClock):
    """Failures of a window ago no longer count."""
    breaker = make(failure_rate=0.5, minimum_calls=4, window=60.0)
    fail(breaker, 2)
    dynamo_clock.advance(61)
    for _ in range(3):
        breaker.succeeded(breaker.admit())
    fail(breaker)
    assert breaker.state is State.CLOSED


def test_trips_on_slow_calls(dynamo_clock: FakeClock):
    """Enough answers that took too long open it as well."""
    breaker = make(slow_call_duration=1.0, slow_call_rate=0.5, minimum_calls=4)
    for seconds in (0.1, 2.0, 0.1, 2.0):
        breaker.succeeded(breaker.admit(), seconds)
    assert breaker.state is State.OPEN
    assert breaker.status().error == "slow calls"


def test_disabled_it_never_opens(dynamo_clock: FakeClock):
    """ENABLED: False lets everything pass."""
    breaker = make(enabled=False)
    fail(breaker, 100)
    assert breaker.admit() is not None
    assert breaker.state is State.CLOSED


def test_the_status_has_the_time_until_the_next_probe(dynamo_clock: FakeClock):
    """And since when the state is what it is, in seconds since the epoch; 0 while closed."""
    started = dynamo_clock.now()
    breaker = make()
    assert breaker.status() == BreakerStatus(State.CLOSED, 0, "", started, 0.0)
    dynamo_clock.advance(10)
    fail(breaker, 3)
    dynamo_clock.advance(20)
    opened = BreakerStatus(State.OPEN, 3, "ReadTimeoutError", started + 10, 40.0)
    assert breaker.status() == opened
    dynamo_clock.advance(100)
    assert breaker.status().retry_after == 0.0


def test_failed_probes_do_not_change_since_when_it_is_open(dynamo_clock: FakeClock):
    """Nor do probes that were released; the next try is counted from the last failure."""
    started = dynamo_clock.now()
    breaker = make()
    fail(breaker, 3)
    dynamo_clock.advance(60)
    probe = breaker.admit()
    assert breaker.status().state is State.HALF_OPEN
    assert breaker.status().since == started
    breaker.failed(probe, "ReadTimeoutError")
    dynamo_clock.advance(20)
    assert breaker.status() == BreakerStatus(State.OPEN, 4, "ReadTimeoutError", started, 40.0)
    dynamo_clock.advance(40)
    breaker.release(breaker.admit())
    assert breaker.status().since == started
    breaker.succeeded(breaker.admit())
    assert breaker.status().since == started + 120
    dynamo_clock.advance(5)
    fail(breaker, 3)
    assert breaker.status().since == started + 125


def test_every_change_is_reported_once(dynamo_clock: FakeClock):
    """Opened, half open, opened again, closed by a probe; resetting a closed one is no change."""
    changes = []
    breaker = make(changes)
    breaker.reset()
    assert changes == []
    fail(breaker, 3)
    dynamo_clock.advance(60)
    fail(breaker)
    dynamo_clock.advance(60)
    breaker.succeeded(breaker.admit())
    assert [(old, new) for old, new, _ in changes] == [
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
    ]
    fail(breaker, 3)
    breaker.reset()
    assert changes[-1] == (State.OPEN, State.CLOSED, "")
    assert breaker.status().failures == 0


def test_a_released_probe_does_not_move_the_next_one(dynamo_clock: FakeClock):
    """The next call may probe at once; a release after an outcome does nothing."""
    breaker = make()
    fail(breaker, 3)
    dynamo_clock.advance(60)
    probe = breaker.admit()
    dynamo_clock.advance(5)
    breaker.release(probe)
    assert breaker.status().retry_after == 0.0
    probe = breaker.admit()
    breaker.succeeded(probe)
    breaker.release(probe)
    assert breaker.state is State.CLOSED


def test_a_counted_throttle_is_the_error_and_may_be_slow(dynamo_clock: FakeClock):
    """With COUNT_THROTTLES; its duration counts as that of other operations."""
    breaker = make(count_throttles=True)
    breaker.throttled(breaker.admit())
    assert breaker.status().error == "ThrottlingError"
    for count in (False, True):
        slow = {"slow_call_duration": 1.0, "slow_call_rate": 1.0, "minimum_calls": 1}
        breaker = make(count_throttles=count, **slow)
        breaker.throttled(breaker.admit(), 1.0)
        assert breaker.state is State.CLOSED
        breaker.throttled(breaker.admit())
        assert breaker.state is State.CLOSED
        breaker = make(count_throttles=count, **slow)
        breaker.throttled(breaker.admit(), 1.1)
        assert breaker.state is State.OPEN


def test_failures_may_be_slow(dynamo_clock: FakeClock):
    """A slow failure is one of the slow calls; a quick one is not."""
    slow = {"slow_call_duration": 1.0, "slow_call_rate": 0.5, "minimum_calls": 2}
    for seconds, state in ((0.9, State.CLOSED), (1.1, State.OPEN)):
        breaker = make(**slow)
        breaker.succeeded(breaker.admit(), 0.1)
        breaker.failed(breaker.admit(), "ReadTimeoutError", seconds)
        assert breaker.state is state
        assert breaker.status().error == "ReadTimeoutError"


def test_too_few_slow_calls_do_not_trip(dynamo_clock: FakeClock):
    """Less than SLOW_CALL_RATE of the calls, or fewer calls than MINIMUM_CALLS."""
    breaker = make(slow_call_duration=1.0, slow_call_rate=0.5, minimum_calls=4)
    for seconds in (2.0, 2.0, 0.1):
        breaker.succeeded(breaker.admit(), seconds)
        assert breaker.state is State.CLOSED
    breaker = make(slow_call_duration=1.0, slow_call_rate=0.5, minimum_calls=4)
    for seconds in (0.1, 0.1, 0.1, 0.1, 2.0, 2.0, 2.0):
        breaker.succeeded(breaker.admit(), seconds)
        assert breaker.state is State.CLOSED
    breaker.succeeded(breaker.admit(), 2.0)
    assert breaker.state is State.OPEN


def test_a_refusal_during_a_probe_has_no_time_to_wait(dynamo_clock: FakeClock):
    """The probe may end at any moment; without a name it is left out."""
    breaker = make()
    fail(breaker, 3)
    dynamo_clock.advance(61)
    probe = breaker.admit()
    with pytest.raises(CircuitBreakerOpenError, match=r"is half_open .* next try in 0\.0 s") as e:
        breaker.admit()
    assert e.value.retry_after == 0.0
    assert probe.probe


def test_a_probe_that_nobody_holds_is_lost(dynamo_clock: FakeClock):
    """An exception from outside ended its frame; the next call probes at once."""
    breaker = make()
    fail(breaker, 3)
    dynamo_clock.advance(60)
    breaker.admit()
    assert breaker.admit().probe


def test_a_released_probe_is_reported(dynamo_clock: FakeClock):
    """The breaker is open again, though the next call may probe."""
    changes = []
    breaker = make(changes)
    fail(breaker, 3)
    dynamo_clock.advance(60)
    breaker.release(breaker.admit())
    assert breaker.state is State.OPEN
    assert [new for _, new, _ in changes] == [State.OPEN, State.HALF_OPEN, State.OPEN]


def test_a_probe_of_an_earlier_state_is_not_released_twice(dynamo_clock: FakeClock):
    """The release of a probe does not end the probe of another call."""
    breaker = make()
    fail(breaker, 3)
    dynamo_clock.advance(60)
    first = breaker.admit()
    breaker.release(first)
    second = breaker.admit()
    breaker.release(first)
    assert breaker.state is State.HALF_OPEN
    breaker.succeeded(second)
    assert breaker.state is State.CLOSED


def test_a_closed_breaker_has_nothing_to_wait_for(dynamo_clock: FakeClock):
    """Also soon after it was open."""
    breaker = make()
    fail(breaker, 3)
    breaker.reset()
    assert breaker.status().retry_after == 0.0


def test_failures_count_for_the_whole_window(dynamo_clock: FakeClock):
    """In tenths of it: no less than nine of them."""
    for seconds, state in ((54, State.OPEN), (61, State.CLOSED)):
        breaker = make(failure_rate=0.5, minimum_calls=4, window=60.0)
        fail(breaker, 2)
        dynamo_clock.advance(seconds)
        for _ in range(2):
            breaker.succeeded(breaker.admit())
        assert breaker.state is state


def test_a_lost_probe_holds_the_breaker_half_open_for_one_timeout(dynamo_clock: FakeClock):
    """An exception from outside may come before its outcome can be recorded; its own is ignored."""
    breaker = make()
    fail(breaker, 3)
    dynamo_clock.advance(60)
    lost = breaker.admit()
    dynamo_clock.advance(59)
    with pytest.raises(CircuitBreakerOpenError):
        breaker.admit()
    dynamo_clock.advance(1)
    probe = breaker.admit()
    assert probe.probe
    breaker.failed(lost, "ReadTimeoutError")
    breaker.succeeded(probe)
    assert breaker.state is State.CLOSED


def test_a_receiver_that_ends_the_probe_does_not_end_the_breaker(dynamo_clock: FakeClock):
    """Such as one that is interrupted at the change to the half-open state."""

    def interrupted(old, new, error):
        if new is State.HALF_OPEN:
            raise KeyboardInterrupt

    breaker = CircuitBreaker(
        BreakerConfig(failure_threshold=1, recovery_timeout=60.0), on_change=interrupted
    )
    fail(breaker)
    dynamo_clock.advance(60)
    with pytest.raises(KeyboardInterrupt):
        breaker.admit()
    dynamo_clock.advance(60)
    breaker._on_change = lambda old, new, error: None
    breaker.succeeded(breaker.admit())
    assert breaker.state is State.CLOSED
