"""The call policy, with the fake clock and prepared answers."""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import gc
import random
import threading
import time

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from pynamodb.exceptions import VerboseClientError

from dynamo_stores.calls.backpressure import Backpressure
from dynamo_stores.calls.breaker import CircuitBreaker, State
from dynamo_stores.calls.observer import measuring
from dynamo_stores.calls.policy import CallPolicy, deadline
from dynamo_stores.calls.retry import delays
from dynamo_stores.conf.groups import BreakerConfig, RetryConfig
from dynamo_stores.exceptions import (
    THROTTLING_CODES,
    CircuitBreakerOpenError,
    OperationTimeoutError,
    StoreUnavailable,
    ThrottlingError,
)
from dynamo_stores.testing import FakeClock


def throttle(code="ProvisionedThroughputExceededException", reasons=()):
    key = "throttlingReasons" if code == "ThrottlingException" else "ThrottlingReasons"
    return ClientError({"Error": {"Code": code}, key: list(reasons)}, "PutItem")


def refused():
    return ClientError({"Error": {"Code": "ConditionalCheckFailedException"}}, "PutItem")


def no_answer():
    return EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


class Script:
    """Raises or returns each of its outcomes in order, then the last one again."""

    def __init__(self, *steps, clock=None, takes=0.0):
        self.steps, self.clock, self.takes, self.seconds = list(steps), clock, takes, []

    def __call__(self, seconds):
        self.seconds.append(seconds)
        if self.clock is not None:
            self.clock.advance(min(self.takes, seconds))
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step


def policy(timeout=30.0, read_timeout=10.0, breaker=None, **retry):
    return CallPolicy(
        using="default",
        table="t",
        breaker=CircuitBreaker(BreakerConfig(**(breaker or {}))),
        retry=RetryConfig(**retry),
        timeout=timeout,
        read_timeout=read_timeout,
        backpressure=Backpressure("t"),
    )


def test_an_answer_is_returned_at_once(dynamo_clock: FakeClock):
    """One attempt, no waiting."""
    send = Script({"Item": {}})
    assert policy().call("GetItem", send) == {"Item": {}}
    assert send.seconds == [10.0]
    assert dynamo_clock.slept == []


def test_connection_errors_are_retried_up_to_max_retries(dynamo_clock: FakeClock):
    """MAX_RETRIES retries, then StoreUnavailable caused by botocore's own error."""
    send = Script(no_answer())
    with pytest.raises(StoreUnavailable, match="GetItem on t got no answer") as e:
        policy(max_retries=2).call("GetItem", send)
    assert len(send.seconds) == 3
    assert isinstance(e.value.__cause__, EndpointConnectionError)


def test_a_read_timeout_is_an_operation_timeout(dynamo_clock: FakeClock):
    """A time-out has its own error."""
    with pytest.raises(OperationTimeoutError):
        policy(max_retries=0).call("GetItem", Script(ReadTimeoutError(endpoint_url="x")))


def test_a_refusal_is_an_answer(dynamo_clock: FakeClock):
    """A failed condition is not retried, and passes through as it is."""
    rule = policy(breaker={"failure_threshold": 1})
    answer = refused()
    send = Script(answer)
    with pytest.raises(ClientError) as e:
        rule.call("PutItem", send)
    assert e.value is answer
    assert len(send.seconds) == 1
    assert rule.breaker.state is State.CLOSED


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


def test_throttle_retries_bounds_them(dynamo_clock: FakeClock):
    """THROTTLE_RETRIES: 2 makes three attempts."""
    send = Script(throttle())
    with pytest.raises(ThrottlingError):
        policy(throttle_retries=2).call("PutItem", send)
    assert len(send.seconds) == 3


@pytest.mark.parametrize("code", sorted(THROTTLING_CODES))
def test_reasons_survive_in_both_spellings(dynamo_clock: FakeClock, code):
    """DynamoDB's reasons are in the error and the measurement, under their table."""
    arn = "arn:aws:dynamodb:us-east-1:1:table/other/index/GSI1"
    error = throttle(code, [{"reason": "IndexWriteProvisionedThroughputExceeded", "resource": arn}])
    with measuring() as measurements, pytest.raises(ThrottlingError) as e:
        policy(throttle_retries=0).call("PutItem", Script(error))
    (reason,) = e.value.reasons
    assert (reason.table, reason.index) == ("other", "GSI1")
    (measurement,) = measurements
    assert measurement.throttled
    assert measurement.table == "other"
    assert measurement.reasons == e.value.reasons


def test_a_transaction_cancelled_by_throttling_is_throttled(dynamo_clock: FakeClock):
    """Unless a condition failed too: then it was refused for good."""

    def cancelled(*codes):
        return ClientError(
            {
                "Error": {"Code": "TransactionCanceledException"},
                "CancellationReasons": [{"Code": code} for code in codes],
            },
            "TransactWriteItems",
        )

    with pytest.raises(ThrottlingError):
        policy(throttle_retries=0).call(
            "TransactWriteItems", Script(cancelled("None", "ThrottlingError"))
        )
    with pytest.raises(ClientError):
        policy().call(
            "TransactWriteItems",
            Script(cancelled("ThrottlingError", "ConditionalCheckFailed")),
        )


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


def test_operations_and_not_attempts_count_against_the_breaker(dynamo_clock: FakeClock):
    """Three operations of three attempts are three failures."""
    rule = policy(max_retries=2, breaker={"failure_threshold": 3})
    for _ in range(3):
        assert rule.breaker.state is State.CLOSED
        with pytest.raises(StoreUnavailable):
            rule.call("GetItem", Script(no_answer()))
    with pytest.raises(CircuitBreakerOpenError):
        rule.call("GetItem", Script({}))


@pytest.mark.parametrize("error", [no_answer(), throttle()], ids=["no answer", "throttled"])
def test_a_probe_is_one_attempt(dynamo_clock: FakeClock, error):
    """The probe is not retried, however many retries other calls have."""
    rule = policy(breaker={"failure_threshold": 1, "recovery_timeout": 60.0}, max_retries=5)
    with pytest.raises(StoreUnavailable):
        rule.call("GetItem", Script(no_answer()))
    assert rule.breaker.state is State.OPEN
    dynamo_clock.advance(60)
    send = Script(error)
    with pytest.raises(StoreUnavailable):
        rule.call("GetItem", send)
    assert len(send.seconds) == 1


def test_a_failed_probe_opens_the_breaker_again(dynamo_clock: FakeClock):
    """For another RECOVERY_TIMEOUT."""
    rule = policy(breaker={"failure_threshold": 1, "recovery_timeout": 60.0}, max_retries=0)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            rule.call("GetItem", Script(no_answer()))
        assert rule.breaker.state is State.OPEN
        dynamo_clock.advance(60)


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


def test_messages_hold_no_content(dynamo_clock: FakeClock):
    """An error of the store has operation and table, never botocore's text."""
    error = ClientError({"Error": {"Code": "ThrottlingException", "Message": "key secret-7"}}, "X")
    with pytest.raises(ThrottlingError) as e:
        policy(throttle_retries=0).call("PutItem", Script(error))
    assert "secret-7" not in str(e.value)


def test_one_measurement_per_attempt(dynamo_clock: FakeClock):
    """Each attempt is measured with its number, seconds, units and error."""
    answer = {
        "ConsumedCapacity": {
            "TableName": "t",
            "CapacityUnits": 3.0,
            "Table": {"CapacityUnits": 1.0},
            "GlobalSecondaryIndexes": {"GSI1": {"CapacityUnits": 2.0}},
        }
    }
    send = Script(no_answer(), answer, clock=dynamo_clock, takes=0.5)
    with measuring() as measurements:
        policy().call("PutItem", send)
    first, second = measurements
    assert (first.attempt, first.error, first.seconds) == (1, "StoreUnavailable", 0.5)
    assert (second.attempt, second.error) == (2, "")
    assert second.units == {"t": 1.0, "t/GSI1": 2.0}


HOT = {
    "reason": "TableWriteKeyRangeThroughputExceeded",
    "resource": "arn:aws:dynamodb:us-east-1:000000000000:table/t",
}
OF_ANOTHER_TABLE = {
    "reason": "TableWriteProvisionedThroughputExceeded",
    "resource": "arn:aws:dynamodb:us-east-1:000000000000:table/other",
}


@pytest.mark.parametrize(
    ("reason", "partition"), [(HOT, "the key"), (OF_ANOTHER_TABLE, "")], ids=["hot", "table"]
)
def test_only_a_hot_partition_is_measured_with_its_key(dynamo_clock: FakeClock, reason, partition):
    """The key is looked up for a throttle by key range alone."""
    asked = []

    def partition_of():
        asked.append(1)
        return "the key"

    with measuring() as found, pytest.raises(ThrottlingError):
        policy(throttle_retries=0).call(
            "PutItem", Script(throttle(reasons=[reason])), partition_of=partition_of
        )
    (measurement,) = found
    assert (measurement.using, measurement.operation) == ("default", "PutItem")
    assert (measurement.throttled, measurement.partition) == (True, partition)
    assert len(asked) == bool(partition)


def test_a_throttle_of_another_table_counts_against_its_breaker(dynamo_clock: FakeClock):
    """A call on several tables belongs to the table that the throttle names."""
    count = {"failure_threshold": 1, "count_throttles": True}
    rule, other = policy(breaker=count, throttle_retries=0), policy(breaker=count)
    asked = []

    def breaker_of(table):
        asked.append(table)
        return other.breaker

    with measuring() as found, pytest.raises(ThrottlingError):
        rule.call("BatchWriteItem", Script(throttle(reasons=[OF_ANOTHER_TABLE])), breaker_of)
    assert asked == ["other"]
    assert [each.table for each in found] == ["other"]
    assert (rule.breaker.state, other.breaker.state) == (State.CLOSED, State.OPEN)
    own = {**OF_ANOTHER_TABLE, "resource": HOT["resource"]}
    with pytest.raises(ThrottlingError):
        rule.call("BatchWriteItem", Script(throttle(reasons=[own])), breaker_of)
    assert asked == ["other"]
    assert rule.breaker.state is State.OPEN


def test_the_breaker_has_the_error_and_the_duration_of_an_operation(dynamo_clock: FakeClock):
    """The duration includes all attempts and waits; slow operations open it."""
    rule = policy(breaker={"failure_threshold": 1}, max_retries=0)
    with pytest.raises(StoreUnavailable):
        rule.call("GetItem", Script(no_answer()))
    assert rule.breaker.status().error == "EndpointConnectionError"
    slow = {"slow_call_duration": 2.0, "minimum_calls": 1, "slow_call_rate": 1.0}
    for takes, state in ((1.9, State.CLOSED), (2.1, State.OPEN)):
        for outcome in ({}, refused(), throttle()):
            rule = policy(breaker=slow, throttle_retries=0, timeout=60.0)
            dynamo_clock.advance(1000)
            with contextlib.suppress(ClientError, ThrottlingError):
                rule.call("GetItem", Script(outcome, clock=dynamo_clock, takes=takes))
            assert rule.breaker.state is state, (takes, outcome)


def test_throttled_attempts_limit_the_requests_in_flight(dynamo_clock: FakeClock):
    """Other outcomes do not."""
    rule = policy(max_retries=0, throttle_retries=0)
    for outcome in ({}, refused(), no_answer()):
        with contextlib.suppress(ClientError, StoreUnavailable):
            rule.call("GetItem", Script(outcome))
        assert rule.backpressure.limit is None
    with pytest.raises(ThrottlingError):
        rule.call("GetItem", Script(throttle()))
    assert rule.backpressure.limit == 1


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


def test_delays_have_full_jitter_up_to_a_doubling_limit():
    """The n-th delay is uniform between 0 and DELAY · 2ⁿ, at most MAX_DELAY."""
    random.seed(1)
    found = [
        [
            delay
            for delay, _ in zip(
                delays(RetryConfig(delay=1.0, max_delay=4.0)), range(5), strict=False
            )
        ]
        for _ in range(2000)
    ]
    for number, limit in enumerate([1.0, 2.0, 4.0, 4.0, 4.0]):
        column = [row[number] for row in found]
        assert 0 <= min(column) < 0.05 * limit
        assert 0.95 * limit < max(column) <= limit
        assert sum(column) / len(column) == pytest.approx(limit / 2, rel=0.1)


def test_reasons_of_errors_that_pynamodb_copied_are_found(dynamo_clock: FakeClock):
    """They are in botocore's error, which is the cause of PynamoDB's."""
    copy = VerboseClientError({"Error": {"Code": "ThrottlingException"}}, "PutItem")
    copy.__cause__ = throttle(reasons=[OF_ANOTHER_TABLE])
    with pytest.raises(ThrottlingError) as e:
        policy(throttle_retries=0).call("PutItem", Script(copy))
    assert [reason.table for reason in e.value.reasons] == ["other"]
    assert e.value.__cause__ is copy.__cause__
    # An error of the caller's own is not the error that it was caused by.
    own = ValueError()
    own.__cause__ = throttle()
    with pytest.raises(ValueError, match=r"^$") as raised:
        policy().call("PutItem", Script(own))
    assert raised.value is own


def test_a_throttle_without_reasons_is_one_of_the_table(dynamo_clock: FakeClock):
    """No other breaker is looked up for it."""
    rule = policy(throttle_retries=0, breaker={"failure_threshold": 1, "count_throttles": True})
    asked = []
    with measuring() as found, pytest.raises(ThrottlingError):
        rule.call("PutItem", Script(throttle()), asked.append)
    assert [each.table for each in found] == ["t"]
    assert asked == []
    assert rule.breaker.state is State.OPEN
    assert rule.breaker.status().error == "ThrottlingError"


def test_a_throttle_of_another_table_is_an_answer_to_a_probe(dynamo_clock: FakeClock):
    """The probe's own breaker closes."""
    rule = policy(breaker={"failure_threshold": 1}, throttle_retries=0, max_retries=0)
    with pytest.raises(StoreUnavailable):
        rule.call("GetItem", Script(no_answer()))
    dynamo_clock.advance(1000)
    other = policy().breaker
    with pytest.raises(ThrottlingError):
        rule.call(
            "GetItem", Script(throttle(reasons=[OF_ANOTHER_TABLE])), breaker_of=lambda table: other
        )
    assert rule.breaker.state is State.CLOSED


def test_a_slow_throttle_of_another_table_is_slow_for_both(dynamo_clock: FakeClock):
    """Its duration is reported to both breakers."""
    slow = {"slow_call_duration": 2.0, "minimum_calls": 1, "slow_call_rate": 1.0}
    for takes, state in ((1.9, State.CLOSED), (2.1, State.OPEN)):
        rule, other = policy(breaker=slow, throttle_retries=0), policy(breaker=slow)
        send = Script(throttle(reasons=[OF_ANOTHER_TABLE]), clock=dynamo_clock, takes=takes)
        with pytest.raises(ThrottlingError):
            rule.call("GetItem", send, breaker_of=lambda table, other=other: other.breaker)
        assert (rule.breaker.state, other.breaker.state) == (state, state)


def test_a_slow_failure_is_slow(dynamo_clock: FakeClock):
    """The duration of an operation without an answer is reported, too."""
    slow = {"slow_call_duration": 2.0, "minimum_calls": 1, "slow_call_rate": 1.0}
    for takes, state in ((1.9, State.CLOSED), (2.1, State.OPEN)):
        rule = policy(breaker={**slow, "failure_threshold": 9}, max_retries=0)
        with pytest.raises(StoreUnavailable):
            rule.call("GetItem", Script(no_answer(), clock=dynamo_clock, takes=takes))
        assert rule.breaker.state is state


def test_an_answer_is_measured_with_its_operation(dynamo_clock: FakeClock):
    """Without an error, reasons or a partition."""
    with measuring() as found:
        policy().call("GetItem", Script({}, clock=dynamo_clock, takes=0.25))
    (measurement,) = found
    assert (measurement.using, measurement.table, measurement.operation) == (
        "default",
        "t",
        "GetItem",
    )
    assert (measurement.attempt, measurement.seconds) == (1, 0.25)
    assert (measurement.error, measurement.reasons, measurement.partition) == ("", (), "")
    assert measurement.throttled is False


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
    request = rule.backpressure.enter(0.0)
    send = Script({})
    with pytest.raises(ThrottlingError, match="requests are waiting"):
        rule.call("GetItem", send)
    assert send.seconds == []
    rule.backpressure.leave(request, 0.0, throttled=False)


def test_the_expected_wait_follows_the_duration_of_requests(dynamo_clock: FakeClock):
    """Attempts of 8 seconds each; a call that would wait longer than it may fails at once."""
    rule = policy(throttle_retries=0)
    for _ in range(10):
        with pytest.raises(ThrottlingError):
            rule.call("GetItem", Script(throttle()))
        rule.call("GetItem", Script({}, clock=dynamo_clock, takes=8.0))
    assert rule.backpressure.limit == 2
    in_flight = [rule.backpressure.enter(0.0) for _ in range(2)]
    with deadline(1.5), pytest.raises(ThrottlingError) as e:
        rule.call("GetItem", Script({}))
    assert rule.backpressure.in_flight == len(in_flight)
    assert 2 < e.value.retry_after < 4


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


def fill(rule):
    """Return as many requests in flight as the limit allows."""
    return [rule.backpressure.enter(0.0) for _ in range(int(rule.backpressure.limit))]


def test_a_call_that_was_not_sent_is_no_answer():
    """Refused by the limit of requests in flight, it resets no failures."""
    rule = policy(timeout=0.05, throttle_retries=0, max_retries=0, breaker={"failure_threshold": 3})
    with pytest.raises(ThrottlingError):
        rule.call("GetItem", Script(throttle()))
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            rule.call("GetItem", Script(no_answer()))
    in_flight = fill(rule)
    with pytest.raises(ThrottlingError, match="requests are waiting"):
        rule.call("GetItem", Script({}))
    assert rule.breaker.status().failures == 2
    assert rule.backpressure.in_flight == len(in_flight)


def test_a_probe_that_was_not_sent_does_not_close_the_breaker():
    """It has no outcome, and the next call probes."""
    breaker = {"failure_threshold": 1, "recovery_timeout": 1e-9}
    rule = policy(timeout=0.05, throttle_retries=0, max_retries=0, breaker=breaker)
    with pytest.raises(ThrottlingError):
        rule.call("GetItem", Script(throttle()))
    with pytest.raises(StoreUnavailable):
        rule.call("GetItem", Script(no_answer()))
    in_flight = fill(rule)
    with pytest.raises(ThrottlingError, match="requests are waiting"):
        rule.call("GetItem", Script({}))
    assert rule.breaker.state is State.OPEN
    in_flight.clear()
    assert rule.call("GetItem", Script({})) == {}
    assert rule.breaker.state is State.CLOSED


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


class Interrupted(BaseException):
    """As a soft time limit, raised in a thread by another one."""


def interrupt(thread, stop):
    """Raise Interrupted in ``thread`` at random moments, a few thousand times a second."""
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    while not stop.is_set():
        raise_in(ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupted))
        time.sleep(random.uniform(0, 0.0003))


def test_exceptions_from_outside_lose_no_probe_and_no_place():
    """At whatever bytecode they come; every call here is a probe, on a table that throttles."""
    rule = policy(breaker={"failure_threshold": 1, "recovery_timeout": 1000.0}, max_retries=0)
    interrupted, stop = 0, threading.Event()

    def call(outcome):
        # The recovery timeout is over.
        rule.breaker._opened_at = -10_000.0
        with contextlib.suppress(StoreUnavailable):
            rule.call("GetItem", Script(outcome))

    until = time.monotonic() + 2

    def work():
        nonlocal interrupted
        # An interruption may come while another one is handled, too.
        while time.monotonic() < until:
            with contextlib.suppress(Interrupted):
                try:
                    call(no_answer())
                    call(throttle())
                except Interrupted:
                    interrupted += 1

    def guarded():
        while time.monotonic() < until:
            with contextlib.suppress(Interrupted):
                work()

    worker = threading.Thread(target=guarded)
    worker.start()
    injector = threading.Thread(target=interrupt, args=(worker, stop))
    injector.start()
    worker.join(60)
    stop.set()
    injector.join(60)
    assert not worker.is_alive()
    assert interrupted > 50
    # Until then frames live on in tracebacks.
    gc.collect()
    assert rule.backpressure.in_flight == 0
    rule.breaker._opened_at = -10_000.0
    rule.backpressure._limit = None
    assert rule.call("GetItem", Script({})) == {}
    assert rule.breaker.state is State.CLOSED
