"""Batches of any size on several tables."""

from __future__ import annotations

import random
import threading
from collections import Counter
from decimal import Decimal

import pytest

from dynamo_stores.calls.observer import measuring, recording
from dynamo_stores.calls.policy import deadline
from dynamo_stores.client import Delete, Put, get_dynamodb_client
from dynamo_stores.exceptions import (
    BatchIncompleteError,
    InvalidRequestError,
    ItemTooLargeError,
    OperationTimeoutError,
    StoreUnavailable,
    ThrottlingError,
)


def node(number, **attributes):
    return Put("posts", {"id": str(number), **attributes})


def nested(levels):
    """Return lists and dicts in each other, so many levels deep."""
    value = 1
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


def ids(client):
    """Return the ids of all nodes."""
    return {each["id"] for each in client.scan("posts")}


@pytest.fixture
def relayed(client, alias, dynamo_faults):
    """A client through the relay, which gives up soon; ``client`` reads without it."""
    return get_dynamodb_client(
        alias(
            ENDPOINT_URL=dynamo_faults.url,
            RETRY={"DELAY": 0.01, "MAX_DELAY": 0.05, "MAX_RETRIES": 0, "THROTTLE_RETRIES": 5},
            CIRCUIT_BREAKER={"ENABLED": False},
        )
    )


def test_writes_of_an_index_are_counted_for_it(client):
    """Not for the table. A total has both in one figure."""
    with recording() as found:
        client.batch_operations([Put("posts", {"id": "a", "parent": "b", "at": 1})])
    assert [each.request["ReturnConsumedCapacity"] for each in found] == ["INDEXES"]


def test_thousands_of_operations_on_two_tables(client):
    """25 a call, for each table; the last operation of a key counts."""
    operations = [node(n % 1200, n=n) for n in range(1500)]
    operations += [Put("lines", {"order": "a", "line": n}) for n in range(500)]
    operations += [Delete("posts", {"id": str(n)}) for n in range(0, 1200, 2)]
    with measuring() as found:
        written = client.batch_operations(iter(operations))
    calls = Counter(each.operation for each in found)
    # The first thousand; then 200 new keys, 300 again and the lines; then the deletions.
    assert calls == {"BatchWriteItem": 1000 // 25 + 500 // 25 + 500 // 25 + 600 // 25}
    assert written == 1000 + 500 + 500 + 600
    expected = {str(n): n + 1200 if n < 300 else n for n in range(1, 1200, 2)}
    assert {each["id"]: each["n"] for each in client.scan("posts")} == expected
    assert len(client.scan("lines").all()) == 500


def test_numbers_of_one_value_are_one_key(client):
    """DynamoDB refuses two operations on one item in a batch."""
    puts = [{"order": "a", "line": line, "n": n} for n, line in enumerate([1, Decimal("1.0"), 1])]
    assert client.batch_write("lines", puts=puts) == 1
    assert client.get("lines", {"order": "a", "line": 1})["n"] == 2


def test_large_items_are_split_by_bytes(client):
    """25 items of 400 KB fit into the 16 MB of a request; the count alone decides below that."""
    with measuring() as found:
        client.batch_write("posts", puts=[{"id": str(n), "b": b"x" * 390_000} for n in range(26)])
    assert len(found) == 2
    assert len(ids(client)) == 26


@pytest.mark.parametrize(
    ("operation", "error", "words"),
    [
        (
            Delete("lines", {"order": "a"}),
            InvalidRequestError,
            "Operation 3 lacks line, of",
        ),
        (Put("posts", {"n": 1}), InvalidRequestError, "Operation 3 lacks id"),
        (
            Put("posts", {"id": "x"}, "a"),
            InvalidRequestError,
            "Operation 3 is Put with",
        ),
        ({"id": "x"}, InvalidRequestError, "Operation 3 is dict; expected Put or Delete"),
        (Put("posts", {"id": ["x"]}), InvalidRequestError, "'id' is of DynamoDB's type L"),
        (node("x", n=1.5), InvalidRequestError, r"item\['n'\] is a float"),
        (node("x", t="x" * 410_000), ItemTooLargeError, "Operation 3 puts an item of 410"),
    ],
)
def test_a_wrong_operation_is_found_before_anything_is_written(client, operation, error, words):
    """Its number is in the message."""
    with pytest.raises(error, match=words):
        client.batch_operations([node(1), node(2), node(3), operation])
    assert not ids(client)


def test_a_wrong_operation_after_the_first_thousand(client):
    """The error has all that was taken from the iterator and not written, with the wrong one."""
    wrong = node("wrong", n=0.5)
    operations = iter([*map(node, range(1500)), wrong, *map(node, range(1500, 2200))])
    with pytest.raises(
        BatchIncompleteError, match=r"^501 of the 1501 .* Operation 1500: .*float"
    ) as caught:
        client.batch_operations(operations)
    error = caught.value
    assert (error.read, error.written, len(error.leftovers)) == (1501, 1000, 501)
    assert error.leftovers[-1] is wrong
    assert isinstance(error.__cause__, InvalidRequestError)
    assert client.batch_operations([*error.leftovers[:-1], *operations]) == 1200
    assert len(ids(client)) == 2200


def test_an_item_that_the_iterable_uses_again(client, relayed, dynamo_faults):
    """Each operation is taken as it is at that moment, in leftovers, too."""

    def operations():
        item = {}
        for number in range(5):
            item["id"] = str(number)
            yield Put("posts", item)

    assert client.batch_operations(operations()) == 5
    assert ids(client) == {"0", "1", "2", "3", "4"}
    dynamo_faults.reset("BatchWriteItem")
    with pytest.raises(BatchIncompleteError) as caught:
        relayed.batch_operations(operations())
    assert [each.item["id"] for each in caught.value.leftovers] == ["0", "1", "2", "3", "4"]


def test_a_deadline_ends_the_pace(client, dynamo_clock):
    """What is not written then is a leftover."""
    with deadline(3.0), pytest.raises(BatchIncompleteError) as caught:
        client.batch_operations(map(node, range(100)), units_per_second=1, max_concurrency=1)
    assert isinstance(caught.value.__cause__, OperationTimeoutError)
    assert len(caught.value.leftovers) == 100 - len(ids(client))


def test_an_iterable_that_fails_after_the_first_thousand(client):
    """What was written before is not lost from sight."""

    def operations():
        yield from map(node, range(1003))
        raise LookupError("source")

    with pytest.raises(BatchIncompleteError, match="LookupError") as caught:
        client.batch_operations(operations())
    assert (caught.value.read, caught.value.written) == (1003, 1000)
    assert [each.item["id"] for each in caught.value.leftovers] == ["1000", "1001", "1002"]
    assert isinstance(caught.value.__cause__, LookupError)


@pytest.mark.parametrize("arguments", [{"batch_size": 26}, {"batch_size": 0}, {"batch_size": 1.5}])
def test_wrong_batch_sizes(client, arguments):
    """DynamoDB takes 25."""
    with pytest.raises(InvalidRequestError, match=r"batch_size is .*; expected 1 to 25"):
        client.batch_operations([node(1)], **arguments)


@pytest.mark.parametrize("number", [0, -1, 1.5, None])
def test_wrong_numbers_of_batches_at_once(client, number):
    """An error of the same class as that of a batch size, before anything is sent."""
    with pytest.raises(InvalidRequestError, match=r"max_concurrency is .*; expected 1 or more"):
        client.batch_operations([node(1)], max_concurrency=number)
    assert not ids(client)


@pytest.mark.parametrize("levels", [5000, 50_000])
def test_an_item_that_is_nested_too_deeply(client, levels):
    """The operation is named. Nothing is written, also not the operation before it."""
    words = "Operation 1: item is nested too deeply and was not sent.*at most 32 levels"
    with pytest.raises(InvalidRequestError, match=words):
        client.batch_operations([node(1), node(2, value=nested(levels))])
    assert not ids(client)


def test_an_item_at_the_limit_of_recursion(client):
    """Whether it is sent and refused, or not sent. The leftovers have it."""
    for levels in range(300, 481, 10):
        with pytest.raises((BatchIncompleteError, InvalidRequestError)) as caught:
            client.batch_operations([node(1, value=nested(levels))])
        if isinstance(caught.value, BatchIncompleteError):
            assert isinstance(caught.value.__cause__, InvalidRequestError)
            assert [each.item["id"] for each in caught.value.leftovers] == ["1"]
    assert not ids(client)


def test_what_is_throttled_is_sent_again(client, relayed, dynamo_faults):
    """A batch that DynamoDB takes in part is complete at the end."""
    dynamo_faults.take_in_part("BatchWriteItem", 10, times=4)
    assert relayed.batch_operations(map(node, range(100))) == 100
    assert len(ids(client)) == 100


def test_leftovers_are_what_is_not_in_the_table(client, relayed, dynamo_faults):
    """Whatever is throttled to the deadline, and they can be written later."""
    dynamo_faults.take_in_part("BatchWriteItem", 0)
    operations = [*map(node, range(60)), Put("lines", {"order": "a", "line": 1, "s": {"x", "y"}})]
    with pytest.raises(BatchIncompleteError, match="61 of the 61 operations that were") as caught:
        relayed.batch_operations(operations, max_concurrency=8)
    assert isinstance(caught.value.__cause__, ThrottlingError)
    dynamo_faults.clear()
    dynamo_faults.take_in_part("BatchWriteItem", 5, times=3)
    dynamo_faults.throttle("BatchWriteItem", reason="TableWriteProvisionedThroughputExceeded")
    with pytest.raises(BatchIncompleteError) as caught:
        relayed.batch_operations(operations, max_concurrency=8)
    error = caught.value
    left = {each.item["id"] for each in error.leftovers if each.table == "posts"}
    assert left == {str(n) for n in range(60)} - ids(client)
    assert error.written == 61 - len(error.leftovers) > 0
    assert error.read == 61
    dynamo_faults.clear()
    assert client.batch_operations(error.leftovers) == len(error.leftovers)
    assert len(ids(client)) == 60


def test_without_an_answer_no_further_batch_is_sent(client, relayed, dynamo_faults):
    """All that was not written is a leftover, or was not read."""
    dynamo_faults.reset("BatchWriteItem")
    with pytest.raises(BatchIncompleteError) as caught:
        relayed.batch_operations(map(node, range(5000)), max_concurrency=1)
    error = caught.value
    assert (error.read, len(error.leftovers), error.written) == (1000, 1000, 0)
    assert type(error.__cause__) is StoreUnavailable
    assert dynamo_faults.requests["BatchWriteItem"] == 1


def test_an_earlier_write_never_overtakes_a_later_one(client, relayed, dynamo_faults):
    """Also where earlier ones are throttled: of a key that was written later nothing is left."""
    operations = [node(n % 700, n=n) for n in range(2400)]
    rng = random.Random(7)
    last = {}
    for operation in operations:
        last[operation.item["id"]] = operation.item["n"]
    stop = threading.Event()

    def disturb():
        while not stop.wait(0.02):
            dynamo_faults.take_in_part("BatchWriteItem", rng.randrange(20), times=2)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        relayed.batch_operations(operations)
        left = []
    except BatchIncompleteError as exc:
        left = exc.leftovers
    finally:
        stop.set()
        thread.join()
    assert all(last[each.item["id"]] == each.item["n"] for each in left)
    stored = {each["id"]: each["n"] for each in client.scan("posts")}
    outdated = {key for key, n in stored.items() if n != last[key]}
    assert outdated <= {each.item["id"] for each in left}


def test_leftovers_that_a_later_window_replaces(client, relayed, dynamo_faults):
    """A key of the first thousand that is written with the second is no leftover."""
    dynamo_faults.throttle("BatchWriteItem", times=400)
    first = [node(n, n=1) for n in range(1000)]
    second = [node(n, n=2) for n in range(1000)]

    def operations():
        yield from first
        dynamo_faults.clear()
        yield from second

    try:
        relayed.batch_operations(operations(), max_concurrency=40)
        left = {}
    except BatchIncompleteError as exc:
        left = {each.item["id"]: each.item["n"] for each in exc.leftovers}
    assert set(left.values()) <= {2}
    stored = {each["id"]: each["n"] for each in client.scan("posts")}
    assert {key for key in map(str, range(1000)) if stored.get(key) != 2} == set(left)


def test_the_pace_is_kept(client, dynamo_clock):
    """All batches but the last have had their seconds when the call ends."""
    before = dynamo_clock.now()
    with measuring() as found:
        client.batch_operations(
            [node(n, t="x" * 900) for n in range(100)], units_per_second=5, max_concurrency=1
        )
    units = [sum(each.units.values()) for each in found]
    assert len(units) == 4
    assert dynamo_clock.now() - before == pytest.approx(sum(units[:-1]) / 5)
    with pytest.raises(InvalidRequestError, match="units_per_second is 0; expected a number above"):
        client.batch_operations([node(1)], units_per_second=0)
