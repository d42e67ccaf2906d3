"""The call policy, with the fake clock and prepared answers: retries, breakers, measurements."""

from __future__ import annotations

import contextlib
import pickle
import random

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from dynamo_stores.calls.breaker import State
from dynamo_stores.calls.observer import measuring
from dynamo_stores.calls.policy import deadline
from dynamo_stores.calls.retry import delays
from dynamo_stores.concurrency.effects import run
from dynamo_stores.conf.groups import RetryConfig
from dynamo_stores.exceptions import (
    THROTTLING_CODES,
    CircuitBreakerOpenError,
    OperationTimeoutError,
    StoreUnavailable,
    ThrottlingError,
)
from dynamo_stores.testing import FakeClock
from tests.helpers.policy import Script, fill, no_answer, policy, refused, throttle

HOT = {
    "reason": "TableWriteKeyRangeThroughputExceeded",
    "resource": "arn:aws:dynamodb:us-east-1:000000000000:table/t",
}
OF_ANOTHER_TABLE = {
    "reason": "TableWriteProvisionedThroughputExceeded",
    "resource": "arn:aws:dynamodb:us-east-1:000000000000:table/other",
}


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
    # A receiver may send it to another process.
    assert pickle.loads(pickle.dumps(measurement)) == measurement


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


def test_an_error_of_the_caller_is_not_the_error_that_it_was_caused_by():
    """It is raised unchanged."""
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


def test_the_expected_wait_follows_the_duration_of_requests(dynamo_clock: FakeClock):
    """Attempts of 8 seconds each; a call that would wait longer than it may fails at once."""
    rule = policy(throttle_retries=0)
    for _ in range(10):
        with pytest.raises(ThrottlingError):
            rule.call("GetItem", Script(throttle()))
        rule.call("GetItem", Script({}, clock=dynamo_clock, takes=8.0))
    assert rule.backpressure.limit == 2
    in_flight = [run(rule.backpressure.enter(0.0)) for _ in range(2)]
    with deadline(1.5), pytest.raises(ThrottlingError) as e:
        rule.call("GetItem", Script({}))
    assert rule.backpressure.in_flight == len(in_flight)
    assert 2 < e.value.retry_after < 4


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
