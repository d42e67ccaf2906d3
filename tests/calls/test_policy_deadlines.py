"""The deadlines of the call policy, with the fake clock and prepared answers."""

from __future__ import annotations

import contextlib
import contextvars

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from dynamo_stores.calls.breaker import State
from dynamo_stores.calls.policy import deadline
from dynamo_stores.concurrency.effects import run
from dynamo_stores.exceptions import (
    OperationTimeoutError,
    StoreUnavailable,
    ThrottlingError,
)
from dynamo_stores.testing import FakeClock
from tests.helpers.policy import Script, no_answer, policy, throttle


def test_throttling_is_retried_to_the_deadline(dynamo_clock: FakeClock):
    """More often than MAX_RETRIES, until the time is up; then ThrottlingError with advice."""
    send = Script(throttle())
    rule = policy(timeout=20.0, max_retries=1)
    started = dynamo_clock.monotonic()
    with pytest.raises(ThrottlingError) as e:
        rule.call("PutItem", send)
    assert len(send.seconds) > 3
    assert dynamo_clock.monotonic() - started <= 20.0
    assert e.value.retry_after >= 1.0
    assert rule.breaker.state is State.CLOSED


def test_an_attempt_is_cut_to_the_time_that_is_left(dynamo_clock: FakeClock):
    """The second attempt may not take longer than the operation."""
    send = Script(ReadTimeoutError(endpoint_url="x"), clock=dynamo_clock, takes=10.0)
    with pytest.raises(OperationTimeoutError):
        policy(timeout=20.0, max_retries=1, delay=0.001, max_delay=0.001).call("GetItem", send)
    assert send.seconds[0] == 10.0
    assert send.seconds[1] == pytest.approx(10.0, abs=0.01)
    assert len(send.seconds) == 2


def test_the_last_cause_decides_at_the_deadline(dynamo_clock: FakeClock):
    """No answer until the time is up is a time-out; throttled, a ThrottlingError."""
    retry = {"delay": 4.0, "max_delay": 4.0, "max_retries": 100}
    with pytest.raises(OperationTimeoutError, match="did not succeed in time") as e:
        policy(timeout=10.0, **retry).call("GetItem", Script(no_answer()))
    assert isinstance(e.value.__cause__, EndpointConnectionError)
    with pytest.raises(ThrottlingError):
        policy(timeout=10.0, **retry).call("GetItem", Script(no_answer(), throttle()))


def test_calls_of_a_block_share_its_deadline(dynamo_clock: FakeClock):
    """deadline() replaces the alias's time-out, nested ones only shorten it."""
    send = Script({}, clock=dynamo_clock, takes=3.0)
    rule = policy(timeout=1.0, max_retries=0)
    with deadline(5.0):
        rule.call("GetItem", send)
        with deadline(60.0):
            rule.call("GetItem", send)
        with pytest.raises(OperationTimeoutError, match="not sent"):
            rule.call("GetItem", send)
    assert send.seconds == pytest.approx([5.0, 2.0])
    assert rule.breaker.status().failures == 0


def test_the_deadline_goes_into_copied_contexts(dynamo_clock: FakeClock):
    """A helper thread that was given the context has the same deadline."""
    send = Script({})
    with deadline(2.0):
        context = contextvars.copy_context()
    context.run(policy(max_retries=0).call, "GetItem", send)
    assert send.seconds == [2.0]


@pytest.mark.parametrize(("attempts", "words"), [(1, "1 attempt:"), (2, "2 attempts:")])
def test_the_message_at_the_deadline_has_the_number_of_attempts(
    dynamo_clock: FakeClock, attempts, words
):
    """In the singular for one."""
    rule = policy(timeout=10.0 * attempts, max_retries=9, delay=0.001, max_delay=0.001)

    def send(seconds):
        # As a look-up of the name, which is not cut.
        dynamo_clock.advance(10.0)
        raise no_answer()

    with pytest.raises(OperationTimeoutError, match=f"GetItem on t did .* after {words}"):
        rule.call("GetItem", send)


def test_a_short_deadline_is_the_time_of_the_attempt(dynamo_clock: FakeClock):
    """Less than a second, too."""
    send = Script({})
    with deadline(0.25):
        policy(max_retries=0).call("GetItem", send)
    assert send.seconds == [0.25]


def test_an_attempt_waits_for_the_limit_of_requests_until_the_deadline():
    """Then it is throttled, without having been sent."""
    rule = policy(timeout=0.05, throttle_retries=0)
    with pytest.raises(ThrottlingError):
        rule.call("GetItem", Script(throttle()))
    request = run(rule.backpressure.enter(0.0))
    send = Script({})
    with pytest.raises(ThrottlingError, match="requests are waiting"):
        rule.call("GetItem", send)
    assert send.seconds == []
    rule.backpressure.leave(request, 0.0, throttled=False)


def test_a_short_deadline_is_not_a_failure_of_the_table(dynamo_clock: FakeClock):
    """An attempt that had less than a second, or the alias's own time, tells nothing."""
    late = ReadTimeoutError(endpoint_url="x")
    for seconds, own, state in ((0.02, 30.0, State.CLOSED), (2.0, 30.0, State.OPEN)):
        rule = policy(timeout=own, breaker={"failure_threshold": 3})
        for _ in range(3):
            with deadline(seconds), pytest.raises(OperationTimeoutError):
                rule.call("GetItem", Script(late, clock=dynamo_clock, takes=60.0))
        assert rule.breaker.state is state
    rule = policy(timeout=0.3, breaker={"failure_threshold": 1})
    with pytest.raises(OperationTimeoutError):
        rule.call("GetItem", Script(late, clock=dynamo_clock, takes=60.0))
    assert rule.breaker.state is State.OPEN


def test_the_end_of_a_shared_deadline_is_not_a_failure(dynamo_clock: FakeClock):
    """The last call of a block has what the others left."""
    rule = policy(breaker={"failure_threshold": 1})
    with deadline(5.0):
        dynamo_clock.advance(4.9)
        with pytest.raises(OperationTimeoutError):
            rule.call(
                "GetItem",
                Script(ReadTimeoutError(endpoint_url="x"), clock=dynamo_clock, takes=60.0),
            )
    assert rule.breaker.state is State.CLOSED


def test_a_probe_with_a_short_deadline_has_no_outcome(dynamo_clock: FakeClock):
    """The next call may probe at once."""
    rule = policy(breaker={"failure_threshold": 1}, max_retries=0)
    with pytest.raises(StoreUnavailable):
        rule.call("GetItem", Script(no_answer()))
    dynamo_clock.advance(60)
    with deadline(0.02), pytest.raises(OperationTimeoutError):
        rule.call("GetItem", Script(ReadTimeoutError(endpoint_url="x")))
    assert rule.call("GetItem", Script({})) == {}


def test_a_wait_after_a_throttle_is_cut_to_the_deadline(dynamo_clock: FakeClock):
    """One last attempt, however long the wait would be."""
    for _ in range(20):
        send = Script(throttle(), throttle(), {"Item": {}})
        started = dynamo_clock.monotonic()
        with contextlib.suppress(ThrottlingError):
            policy(timeout=2.0, delay=1000.0, max_delay=1000.0).call("GetItem", send)
        assert len(send.seconds) >= 2
        assert 0 < dynamo_clock.monotonic() - started < 2.0


def test_a_last_attempt_without_time_hides_no_throttle(dynamo_clock: FakeClock):
    """The error is the one that DynamoDB gave."""
    send = Script(throttle(), ReadTimeoutError(endpoint_url="x"), clock=dynamo_clock)
    rule = policy(timeout=0.5, read_timeout=10.0, delay=1000.0, max_delay=1000.0)
    with deadline(0.5), pytest.raises(ThrottlingError):
        policy(timeout=30.0, delay=1000.0, max_delay=1000.0).call("GetItem", send)
    assert rule.breaker.status().failures == 0


def test_while_retries_remain_an_attempt_has_half_of_the_time(dynamo_clock: FakeClock):
    """And at least 0.2 s; the last one, and a probe, have all that is left."""
    retry = {"delay": 1e-9, "max_delay": 1e-9}
    late = ReadTimeoutError(endpoint_url="x")
    send = Script(late, clock=dynamo_clock, takes=60.0)
    with pytest.raises(OperationTimeoutError):
        policy(timeout=2.0, max_retries=2, **retry).call("GetItem", send)
    assert send.seconds == pytest.approx([1.0, 0.5, 0.5], abs=0.001)
    send = Script(late, clock=dynamo_clock, takes=60.0)
    with pytest.raises(OperationTimeoutError):
        policy(timeout=0.3, max_retries=5, **retry).call("GetItem", send)
    assert send.seconds == pytest.approx([0.2, 0.1], abs=0.001)
    rule = policy(timeout=2.0, breaker={"failure_threshold": 1}, max_retries=0)
    with pytest.raises(StoreUnavailable):
        rule.call("GetItem", Script(no_answer()))
    dynamo_clock.advance(60)
    send = Script({})
    rule.call("GetItem", send)
    assert send.seconds == [2.0]
