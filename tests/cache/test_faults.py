"""Faults between the process and DynamoDB, over a real socket."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynamo_stores import signals
from dynamo_stores.cache.store.items import CacheEntry
from dynamo_stores.calls.breaker import State
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.observer import measuring
from dynamo_stores.exceptions import (
    CircuitBreakerOpenError,
    OperationTimeoutError,
    StoreUnavailable,
    ThrottlingError,
)
from dynamo_stores.testing import EmbeddedEngine
from tests.helpers.faults import QUICK

BRIEF = {"OPERATION_TIMEOUT": 0.5}
# More than any machine should need beyond a deadline, and less than waiting for an answer takes.
MARGIN = 15.0


def seconds(function, *args):
    """Return the duration of ``function``, and its error or result."""
    started = time.monotonic()
    try:
        result = function(*args)
    except Exception as exc:
        result = exc
    return time.monotonic() - started, result


def test_a_connection_that_is_never_answered(faulty, dynamo_faults):
    """The call ends at its deadline with OperationTimeoutError."""
    cache = faulty(BRIEF, READ_TIMEOUT=60.0)
    dynamo_faults.hang("GetItem")
    took, error = seconds(cache.get, "k")
    assert isinstance(error, OperationTimeoutError)
    assert error.__cause__ is not None
    assert 0.4 <= took < 0.5 + MARGIN


def test_a_server_that_does_not_accept(faulty, dynamo_faults):
    """Connecting is cut to the deadline as well: a full backlog does not block the caller."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        cache = faulty(BRIEF, ENDPOINT_URL=f"http://127.0.0.1:{port}", CONNECT_TIMEOUT=60.0)
        took, error = seconds(cache.get, "k")
        for filler in fillers:
            filler.close()
    assert isinstance(error, OperationTimeoutError)
    assert 0.4 <= took < 0.5 + MARGIN


def test_an_answer_reset_in_the_middle_is_read_again(faulty, dynamo_faults):
    """Two resets, then the value."""
    cache = faulty()
    cache.set("k", "v" * 10_000)
    dynamo_faults.reset("GetItem", times=2)
    assert cache.get("k") == "v" * 10_000
    assert dynamo_faults.requests["GetItem"] == 3


def test_an_answer_cut_short_is_no_answer(faulty, dynamo_faults):
    """Half a body with a matching length is neither a miss nor a write that is done."""
    cache = faulty(RETRY={**QUICK, "MAX_RETRIES": 0})
    cache.set("k", "v")
    dynamo_faults.cut("GetItem", times=1)
    with pytest.raises(StoreUnavailable, match="response of DynamoDB is not complete JSON"):
        cache.get("k")
    dynamo_faults.cut("PutItem", times=1)
    with pytest.raises(StoreUnavailable):
        cache.set("k", "w")


def test_no_write_is_reported_done_without_an_answer(faulty, dynamo_faults):
    """Every write method raises when DynamoDB does not answer."""
    cache = faulty(
        RETRY={**QUICK, "MAX_RETRIES": 0}, CIRCUIT_BREAKER={"ENABLED": False}, READ_TIMEOUT=0.2
    )
    dynamo_faults.hang()
    writes = [
        (cache.set, ("k", 1)),
        (cache.add, ("k", 1)),
        (cache.incr, ("k",)),
        (cache.touch, ("k",)),
        (cache.delete, ("k",)),
        (cache.set_many, ({"k": 1},)),
        (cache.delete_many, (["k"],)),
        (cache.clear, ()),
    ]
    for write, args in writes:
        with pytest.raises(StoreUnavailable):
            write(*args)


def test_throttled_for_a_while_the_call_waits_and_gets_through(faulty, dynamo_faults):
    """Throttled calls are retried until the deadline, send a signal, and open no breaker."""
    cache = faulty()
    received = []
    signals.throttled.connect(
        lambda measurement, **_: received.append(measurement), weak=False, dispatch_uid="test"
    )
    arn = "arn:aws:dynamodb:us-east-1:1:table/t/index/GSI1"
    dynamo_faults.throttle(
        "PutItem", 5, reason="IndexWriteProvisionedThroughputExceeded", resource=arn
    )
    try:
        cache.set("k", 1)
    finally:
        signals.throttled.disconnect(dispatch_uid="test")
    assert dynamo_faults.requests["PutItem"] == 6
    assert [each.reasons[0].index for each in received] == ["GSI1"] * 5
    assert cache.store.get_circuit_breaker_status().state is State.CLOSED


def test_throttled_to_the_deadline(faulty, dynamo_faults, dynamo_clock):
    """Then ThrottlingError, with the reasons and botocore's error as its cause."""
    cache = faulty({"OPERATION_TIMEOUT": 60.0}, RETRY={"DELAY": 5.0, "MAX_DELAY": 20.0})
    dynamo_faults.throttle("PutItem", reason="TableWriteKeyRangeThroughputExceeded", resource="x")
    began_at = dynamo_clock.now()
    _, error = seconds(cache.set, "k", 1)
    assert isinstance(error, ThrottlingError)
    assert error.retry_after > 0
    assert error.reasons[0].reason == "TableWriteKeyRangeThroughputExceeded"
    assert error.__cause__.response["Error"]["Code"] == "ProvisionedThroughputExceededException"
    assert 40 < dynamo_clock.now() - began_at <= 60


def test_errors_inside_dynamodb_are_retried(faulty, dynamo_faults):
    """500 and 503 as long as there are retries."""
    cache = faulty()
    dynamo_faults.fail("GetItem", 1, status=500)
    dynamo_faults.fail("GetItem", 1, status=503, code="ServiceUnavailable")
    assert cache.get("k", "missing") == "missing"
    assert dynamo_faults.requests["GetItem"] == 3


def test_a_lost_answer_of_add_is_recognised(faulty, dynamo_faults):
    """The put was done, its answer lost: the second try meets its own write, and has won."""
    cache = faulty()
    dynamo_faults.lose_answer("PutItem", times=1)
    assert cache.add("k", "mine") is True
    assert cache.add("k", "other") is False
    assert cache.get("k") == "mine"


def test_a_transaction_whose_answer_is_lost_is_done_once(faulty, dynamo_faults):
    """It is sent again under the same token."""
    cache = faulty()
    cache.set("n", 1)
    table = cache.store.core.items.table
    key = cache.store.item_key(cache.make_key("n"))
    update = {
        "TableName": table.table_name,
        "Key": {"PK": {"S": key.pk}, "SK": {"S": key.sk}},
        "UpdateExpression": "ADD n :one",
        "ExpressionAttributeValues": {":one": {"N": "1"}},
    }
    dynamo_faults.lose_answer("TransactWriteItems", times=1)
    table.connection.dispatch("TransactWriteItems", {"TransactItems": [{"Update": update}]})
    assert dynamo_faults.requests["TransactWriteItems"] == 2
    assert cache.get("n") == 2


def test_an_open_breaker_fails_fast_and_heals_by_one_probe(faulty, dynamo_faults, dynamo_clock):
    """Three failures open it; refusals send nothing; of many threads one probes, and heals it."""
    cache = faulty(RETRY={**QUICK, "MAX_RETRIES": 0})
    changes = []
    signals.breaker_state_changed.connect(
        lambda old, new, **_: changes.append((old, new)), weak=False, dispatch_uid="test"
    )
    try:
        dynamo_faults.fail("*", 3)
        for _ in range(3):
            with pytest.raises(StoreUnavailable):
                cache.get("k")
        sent = dynamo_faults.requests["GetItem"]
        for _ in range(100):
            with pytest.raises(CircuitBreakerOpenError):
                cache.get("k")
        assert dynamo_faults.requests["GetItem"] == sent == 3
        dynamo_clock.advance(0.35)
        outcomes = Counter()
        barrier, refused = threading.Barrier(20), threading.Semaphore(0)

        def after_all_refusals(handler, request):
            for _ in range(19):
                assert refused.acquire(timeout=20)
            return False

        # The probe is answered when all the others were refused.
        dynamo_faults._add("GetItem", 1, after_all_refusals)

        def call():
            barrier.wait()
            try:
                cache.get("k")
                outcomes["answered"] += 1
            except CircuitBreakerOpenError:
                outcomes["refused"] += 1
                refused.release()

        threads = [threading.Thread(target=call) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        signals.breaker_state_changed.disconnect(dispatch_uid="test")
    assert outcomes == {"answered": 1, "refused": 19}
    assert cache.get("k") is None
    assert changes == [
        (State.CLOSED, State.OPEN),
        (State.OPEN, State.HALF_OPEN),
        (State.HALF_OPEN, State.CLOSED),
    ]


def test_breakers_are_per_table(faulty, dynamo_faults):
    """One table's outage refuses nothing of another's."""
    cache = faulty(RETRY={**QUICK, "MAX_RETRIES": 0})
    dynamo_faults.fail("*", 3)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            cache.get("k")
    connection = get_connection(cache.store.using)
    assert connection.policy_for("another").breaker.state is State.CLOSED
    assert (
        connection.policy_for(cache.store.core.items.table.table_name).breaker.state is State.OPEN
    )


@pytest.mark.parametrize("fault", ["hang", "fail", "reset"])
def test_ignored_exceptions_are_misses(faulty, dynamo_faults, fault):
    """IGNORE_EXCEPTIONS: the right default for every method, with a store that is not there."""
    cache = faulty(
        {"IGNORE_EXCEPTIONS": True, "OPERATION_TIMEOUT": 0.2}, RETRY={**QUICK, "MAX_RETRIES": 0}
    )
    getattr(dynamo_faults, fault)()
    assert cache.get("k", "default") == "default"
    assert cache.set("k", 1) is None
    assert cache.add("k", 1) is False
    assert cache.touch("k") is False
    assert cache.delete("k") is False
    assert cache.has_key("k") is False
    assert cache.get_many(["k"]) == {}
    assert cache.set_many({"k": 1}) == ["k"]
    assert cache.delete_many(["k"]) is None
    assert cache.clear() is None
    with pytest.raises(ValueError, match="unavailable"):
        cache.incr("k")


def test_an_engine_that_is_killed_and_comes_back(alias, make_cache, dynamo_clock):
    """Refused connections, an open breaker, then everything as before, by itself."""
    from django.core.management import call_command

    engine = EmbeddedEngine().start()
    try:
        using = alias(
            ENDPOINT_URL=engine.url,
            RETRY=QUICK,
            CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 2, "RECOVERY_TIMEOUT": 0.2},
        )
        cache = make_cache(using)
        table = CacheEntry.bound_to(using).Meta.table_name
        call_command("dynamo_create_tables", table=[table], verbosity=0)
        cache.set("k", 1)
        engine.kill()
        for _ in range(2):
            took, error = seconds(cache.get, "k")
            assert isinstance(error, StoreUnavailable)
            assert took < 2.0 + MARGIN
        with pytest.raises(CircuitBreakerOpenError):
            cache.get("k")
        engine.start()
        call_command("dynamo_create_tables", table=[table], verbosity=0)
        dynamo_clock.advance(0.25)
        assert cache.get("k", "gone with the engine") == "gone with the engine"
        cache.set("k", 2)
        assert cache.get("k") == 2
    finally:
        engine.stop()


def test_units_are_requested_only_for_observers(faulty, dynamo_faults):
    """Consumed units are requested only if there are observers."""
    cache = faulty()
    cache.get("k")
    with measuring():
        cache.get("k")
    asked = [body["ReturnConsumedCapacity"] for _, body in dynamo_faults.bodies]
    assert asked == ["NONE", "TOTAL"]


def test_a_damaged_refusal_is_no_answer(faulty, dynamo_faults):
    """A refused condition carries the old item: cut short it is retried, and never shown."""
    cache = faulty()
    cache.set("session", "secret", 300)
    dynamo_faults.cut("PutItem", times=1)
    assert cache.add("session", 1) is False
    assert cache.get("session") == "secret"
    dynamo_faults.cut("PutItem")
    with pytest.raises(StoreUnavailable) as caught:
        cache.add("session", 1)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_tidying_does_not_decide_the_answer(faulty, dynamo_faults):
    """Parts that cannot be deleted are left to their TTL; set, add and delete have succeeded."""
    cache = faulty(RETRY={"MAX_RETRIES": 0})
    large = b"x" * 900_000
    cache.set_many({"a": large, "b": large})
    dynamo_faults.fail("BatchWriteItem", times=1)
    assert cache.delete("a") is True
    dynamo_faults.fail("BatchWriteItem", times=1)
    cache.set("b", 1)
    dynamo_faults.clear()
    assert (cache.get("a"), cache.get("b")) == (None, 1)


def test_incr_version_moves_what_was_written_last(faulty, cache, dynamo_faults):
    """A write between its read and its delete is moved, too, and never lost."""
    slow = faulty()
    slow.key_prefix = cache.key_prefix
    cache.set("k", "old")
    dynamo_faults.delay(1.0, "PutItem", times=1)
    with ThreadPoolExecutor(1) as threads:
        moving = threads.submit(slow.incr_version, "k")
        while not dynamo_faults.requests["PutItem"]:
            time.sleep(0.01)
        cache.set("k", "newer")
        assert moving.result() == 2
    assert cache.get("k", version=2) == "newer"
    assert cache.get("k") is None
    with pytest.raises(ValueError, match="not found"):
        cache.incr_version("k")


def test_decisions_read_strongly(faulty, dynamo_faults):
    """The entry that incr_version moves, and the one that a large add would replace."""
    cache = faulty()
    cache.set("k", "v")
    cache.incr_version("k")
    cache.add("large", b"x" * 900_000)
    reads = [body for operation, body in dynamo_faults.bodies if operation == "GetItem"]
    assert [body.get("ConsistentRead") for body in reads] == [True, True]
