"""The operations that observers see: one for each call, whatever its outcome."""

from __future__ import annotations

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError

from dynamo_stores.calls import observer
from dynamo_stores.calls.observer import Operation, recording
from dynamo_stores.calls.policy import CallPolicy
from dynamo_stores.concurrency.effects import Wait, arun
from dynamo_stores.exceptions import CircuitBreakerOpenError, StoreUnavailable
from dynamo_stores.stores import CacheStore
from tests.helpers.policy import Script, no_answer, policy, refused, throttle


@pytest.fixture
def others():
    """The operations that no single measurement tells."""
    found: list[Operation] = []

    def append(operation):
        found.append(operation)

    observer.subscribe_operations(append, every=False)
    yield found
    observer.unsubscribe_operations(append)


def test_a_plain_call_is_one_measurement_and_one_operation(dynamo_clock, others):
    """Observers of the others do not hear of it."""
    script = Script({"ok": True}, clock=dynamo_clock, takes=0.02)
    with recording() as found, observer.measuring() as measured:
        policy().call("GetItem", script, request={"TableName": "t"})
    (operation,), (attempt,) = found, measured
    assert operation.attempts == (attempt,)
    assert attempt.is_operation
    assert (operation.table, operation.operation, operation.error) == ("t", "GetItem", "")
    assert operation.seconds == pytest.approx(0.02)
    assert operation.ended == dynamo_clock.now()
    assert (operation.request, operation.answer) == ({"TableName": "t"}, {"ok": True})
    assert others == []


def test_an_operation_has_all_its_attempts_and_the_waits_between_them(dynamo_clock, others):
    script = Script(throttle(), no_answer(), {}, clock=dynamo_clock, takes=1.0)
    policy().call("PutItem", script)
    (operation,) = others
    assert [each.error for each in operation.attempts] == [
        "ThrottlingError",
        "StoreUnavailable",
        "",
    ]
    assert [each.attempt for each in operation.attempts] == [1, 2, 3]
    assert not any(each.is_operation for each in operation.attempts)
    assert operation.throttles == 1
    assert operation.error == ""
    waits = [each.waited for each in operation.attempts]
    assert waits[0] == 0
    assert operation.seconds == pytest.approx(waits[2] + 1.0)
    assert operation.seconds > 3.0


@pytest.mark.parametrize(
    ("outcome", "raised", "name"),
    [
        (no_answer(), StoreUnavailable, "StoreUnavailable"),
        (refused(), ClientError, "ConditionalCheckFailedException"),
    ],
)
def test_a_failed_operation_has_its_error(dynamo_clock, others, outcome, raised, name):
    with pytest.raises(raised):
        policy(max_retries=0).call("PutItem", Script(outcome, clock=dynamo_clock))
    (operation,) = others
    assert operation.answer is None
    assert operation.error in (name, raised.__name__)


def test_an_operation_that_the_breaker_refuses_has_no_attempt(dynamo_clock, others):
    rule = policy(max_retries=0, breaker={"failure_threshold": 1})
    with pytest.raises(StoreUnavailable):
        rule.call("GetItem", Script(no_answer(), clock=dynamo_clock))
    with pytest.raises(CircuitBreakerOpenError):
        rule.call("GetItem", Script({}, clock=dynamo_clock))
    assert others[1].attempts == ()
    assert others[1].error == "CircuitBreakerOpenError"


def test_an_answer_has_no_error_while_the_caller_handles_one(dynamo_clock):
    with recording() as found:
        try:
            raise KeyError("of the caller")
        except KeyError:
            policy().call("GetItem", Script({}, clock=dynamo_clock))
    assert found[0].error == ""


def test_requests_and_answers_are_not_in_the_text_of_an_operation(dynamo_clock):
    with recording() as found:
        policy().call(
            "GetItem", Script({"Item": "secret"}, clock=dynamo_clock), request={"Key": "k1"}
        )
    assert "secret" not in repr(found[0])
    assert "k1" not in repr(found[0])


def test_an_observer_that_raises_stops_nothing(dynamo_clock, caplog):
    def fail(operation):
        raise ValueError("of the observer")

    observer.subscribe_operations(fail)
    try:
        with recording() as found:
            assert policy().call("GetItem", Script({"a": 1}, clock=dynamo_clock)) == {"a": 1}
    finally:
        observer.unsubscribe_operations(fail)
    assert len(found) == 1
    assert "An observer of DynamoDB operations failed." in caplog.text


@pytest.mark.usefixtures("tables")
def test_observers_of_threads_that_subscribe_at_once_all_hear(dynamo_clock):
    """And no change is lost, or fails for a change by another thread."""
    heard: list[list[Operation]] = [[] for _ in range(8)]
    observers = [each.append for each in heard]

    def change(found):
        for _ in range(500):
            observer.subscribe_operations(found)
            observer.unsubscribe_operations(found)
        observer.subscribe_operations(found)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(observers)) as threads:
            list(threads.map(change, observers))
        policy().call("GetItem", Script({}, clock=dynamo_clock))
    finally:
        sys.setswitchinterval(interval)
        for each in observers:
            observer.unsubscribe_operations(each)
    assert [len(each) for each in heard] == [1] * len(heard)


def test_calls_of_stores_are_operations_sync_and_async():
    """A batch too, with the units that it consumed."""
    store = CacheStore()
    with recording() as found:
        store.set_many({"a": 1, "b": 2})
        store.get("a")
        asyncio.run(store.aget("b"))
    assert [each.operation for each in found] == ["BatchWriteItem", "GetItem", "GetItem"]
    assert found[0].units == found[0].attempts[0].units
    assert found[0].units[found[0].table] >= 2.0
    assert [each.kind for each in found] == ["Write", "Read", "Read"]
    assert found[1].request["TableName"] == found[1].table
    assert "RequestItems" in found[0].request


def test_a_cancelled_call_is_an_operation_with_its_error():
    class Hangs:
        async def __call__(self, until):
            return await Wait(30.0)

    async def call():
        task = asyncio.create_task(arun(CallPolicy.call(policy(), "GetItem", Hangs())))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with recording() as found:
        asyncio.run(call())
    assert (found[0].error, found[0].attempts) == ("CancelledError", ())
