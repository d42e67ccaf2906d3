"""Chunks, parallel calls, writers and their arithmetic; no engine needed."""

from __future__ import annotations

import contextvars
import threading
import warnings

import pytest

from dynamo_stores.calls.batches import (
    AdaptiveDelayCalculator,
    BatchWriter,
    calculate_optimal_batch_size,
    chunks,
    execute_in_parallel,
)
from dynamo_stores.calls.item_size import item_size
from dynamo_stores.exceptions import ConfigurationError, ThrottlingError


def test_chunks_by_count_and_by_bytes():
    """Order kept, both limits held, an oversized item alone."""
    assert list(chunks(range(5), 2)) == [[0, 1], [2, 3], [4]]
    sized = list(chunks([3, 3, 3, 9, 1], 25, max_bytes=6, size_of=lambda item: item))
    assert sized == [[3, 3], [3], [9], [1]]
    assert list(chunks([], 2)) == []


def test_parallel_keeps_order_and_bounds_concurrency():
    """Never more than max_concurrency at once; results in the order of the items."""
    running, most, lock = 0, 0, threading.Lock()
    gate = threading.Barrier(3, timeout=10)

    def work(number):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        gate.wait()
        with lock:
            running -= 1
        return number * number

    assert execute_in_parallel(range(12), work, max_concurrency=3) == [n * n for n in range(12)]
    assert most == 3


def test_parallel_copies_context_and_raises_the_first_error():
    """Context variables reach the threads; after an error nothing new starts."""
    variable = contextvars.ContextVar("variable", default="none")
    variable.set("mine")
    assert execute_in_parallel([1, 2], lambda _: variable.get()) == ["mine", "mine"]
    started = []

    def fail(number):
        started.append(number)
        if number == 0:
            raise KeyError(number)
        threading.Event().wait(0.05)
        return number

    with pytest.raises(KeyError):
        execute_in_parallel(range(50), fail, max_concurrency=2)
    assert len(started) < 50
    assert execute_in_parallel([], fail) == []
    assert execute_in_parallel(iter([3]), lambda n: n) == [3]
    with pytest.raises(ConfigurationError, match="max_concurrency is 0"):
        execute_in_parallel([1], fail, max_concurrency=0)


def test_writer_sends_full_batches_and_returns_leftovers():
    """25 at a time; unprocessed items are returned and kept."""
    sent = []

    def write(batch):
        sent.append(len(batch))
        return [item for item in batch if item % 20 == 0]

    writer = BatchWriter(write)
    for number in range(60):
        writer.add(number)
    assert sent == [25, 25]
    assert writer.flush() == [0, 20, 40]
    assert sent == [25, 25, 10]


def test_a_writer_that_is_dropped_warns_of_its_items():
    """Those that were not written; not after a flush."""
    writer = BatchWriter(lambda items: None, batch_size=10)
    writer.add(1)
    with pytest.warns(ResourceWarning, match="dropped with 1 items that it did not write"):
        del writer
    with BatchWriter(lambda items: None) as writer:
        writer.add(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del writer


def test_writer_loses_nothing_when_writing_fails():
    """An error leaves the whole batch in the leftovers; a block that ends well raises for them."""

    def write(batch):
        raise ConnectionResetError

    writer = BatchWriter(write, batch_size=2)
    writer.add("a")
    with pytest.raises(ConnectionResetError):
        writer.add("b")
    assert writer.leftovers == ["a", "b"]
    with pytest.raises(ThrottlingError, match="1 items"), BatchWriter(lambda batch: batch) as one:
        one.add("c")


def test_writer_keeps_the_last_item_of_a_key():
    """DynamoDB takes a key once per batch; the later item wins."""
    sent = []
    writer = BatchWriter(sent.extend, key_of=lambda item: item[0])
    for item in [("a", 1), ("b", 1), ("a", 2)]:
        writer.add(item)
    writer.flush()
    assert sent == [("b", 1), ("a", 2)]


def test_writer_drops_a_leftover_that_was_written_later():
    """Sent again it would replace the newer item of its key."""
    batches = []

    def write(batch):
        batches.append(batch)
        return batch if len(batches) == 1 else None

    writer = BatchWriter(write, batch_size=2, key_of=lambda item: item[0])
    for item in [("a", 1), ("b", 1), ("a", 2), ("c", 1)]:
        writer.add(item)
    assert batches == [[("a", 1), ("b", 1)], [("a", 2), ("c", 1)]]
    assert writer.flush() == [("b", 1)]


def test_writer_keeps_the_newest_leftover_of_a_key():
    """DynamoDB refuses a batch in which a key is twice."""
    writer = BatchWriter(lambda batch: batch, batch_size=1, key_of=lambda item: item[0])
    writer.add(("a", 1))
    writer.add(("a", 2))
    assert writer.leftovers == [("a", 2)]


def test_writer_drops_a_leftover_of_a_batch_that_ended_after_a_later_one():
    """Two threads write one key: the earlier batch ends last, and unprocessed."""
    sent, written = threading.Event(), threading.Event()

    def write(batch):
        if batch != [("a", 1)]:
            return None
        sent.set()
        assert written.wait(30)
        return batch

    writer = BatchWriter(write, batch_size=1, key_of=lambda item: item[0])
    slow = threading.Thread(target=writer.add, args=[("a", 1)])
    slow.start()
    assert sent.wait(30)
    writer.add(("a", 2))
    written.set()
    slow.join()
    assert writer.flush() == []


def test_delay_doubles_when_throttled_and_falls_to_nothing():
    """From the base to the maximum, and back."""
    delay = AdaptiveDelayCalculator(base_delay=0.1, max_delay=1.0)
    assert delay.delay == 0
    assert [delay.throttled() for _ in range(5)] == [0.1, 0.2, 0.4, 0.8, 1.0]
    steps = 0
    while delay.succeeded():
        steps += 1
    assert 15 < steps < 30
    with pytest.raises(ConfigurationError):
        AdaptiveDelayCalculator(base_delay=2, max_delay=1)


def test_optimal_batch_size():
    """As many as fit into the count and the bytes, at least one."""
    assert calculate_optimal_batch_size(1024) == 25
    assert calculate_optimal_batch_size(1024, max_items=100) == 100
    assert calculate_optimal_batch_size(2 * 2**20) == 8
    assert calculate_optimal_batch_size(10**9) == 1
    assert calculate_optimal_batch_size(0) == 25
    with pytest.raises(ConfigurationError):
        calculate_optimal_batch_size(-1)


def test_item_size_as_dynamodb_counts():
    """Names and values in UTF-8; numbers half a byte a digit; containers with overhead."""
    assert item_size({"a": {"S": "é"}}) == 1 + 2
    assert item_size({"a": {"B": b"123"}}) == 1 + 3
    assert item_size({"a": {"BOOL": True}, "b": {"NULL": True}}) == 4
    assert item_size({"a": {"N": "-123"}}) == 1 + 1 + 2 + 1
    assert item_size({"a": {"N": "1000"}}) == 1 + 1 + 1
    assert item_size({"a": {"L": [{"S": "x"}]}}) == 1 + 3 + 1 + 1
    assert item_size({"a": {"M": {"b": {"SS": ["x", "yy"]}}}}) == 1 + 3 + 1 + 1 + 3
