"""Batches under faults: the unprocessed part is completed or returned."""

from __future__ import annotations

import pytest

from dynamo_stores.cache.store.items import CacheEntry
from dynamo_stores.calls.batches import BatchWriter
from dynamo_stores.calls.policy import deadline
from dynamo_stores.exceptions import OperationTimeoutError, StoreUnavailable, ThrottlingError


def test_a_partially_processed_batch_is_completed(faulty, dynamo_faults):
    """Only the unprocessed part is sent and read again."""
    cache = faulty()
    values = {f"k{number}": number for number in range(25)}
    dynamo_faults.take_in_part("BatchWriteItem", 10, times=2)
    assert cache.set_many(values) == []
    sizes = [
        len(next(iter(body["RequestItems"].values())))
        for operation, body in dynamo_faults.bodies
        if operation == "BatchWriteItem"
    ]
    assert sizes == [25, 15, 5]
    dynamo_faults.take_in_part("BatchGetItem", 10, times=2)
    assert cache.get_many(values) == values


# Retries are far apart, so that the last one before the deadline has time for its answer. The fake
# clock only advances by sleeping, so a deadline of a minute takes no time.
PATIENT = {"RETRY": {"DELAY": 10.0, "MAX_DELAY": 30.0}}


def test_leftovers_of_set_many_are_returned(faulty, dynamo_faults, dynamo_clock):
    """At the deadline the unprocessed keys are returned, and only those."""
    cache = faulty({"OPERATION_TIMEOUT": 60.0}, **PATIENT)
    values = {f"k{number}": number for number in range(25)}
    dynamo_faults.take_in_part("BatchWriteItem", 20, times=1)
    dynamo_faults.take_in_part("BatchWriteItem", 0)
    left = cache.set_many(values)
    dynamo_faults.clear()
    assert left == [f"k{number}" for number in range(20, 25)]
    assert set(cache.get_many(values)) == set(values) - set(left)
    dynamo_faults.take_in_part("BatchWriteItem", 0)
    with pytest.raises(ThrottlingError):
        cache.delete_many(values)


def test_set_many_returns_the_keys_left_at_the_deadline(faulty, dynamo_faults):
    """A slow table processes some batches; the other keys are returned. None in time: an error."""
    # Four batches at once may be too late, and the keys are read afterwards.
    cache = faulty({"OPERATION_TIMEOUT": 6.0}, CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 50})
    values = {f"k{number}": number for number in range(1500)}
    dynamo_faults.delay(0.8, "BatchWriteItem")
    left = cache.set_many(values)
    assert 0 < len(left) < 1500
    dynamo_faults.clear()
    assert set(values) - set(left) <= set(cache.get_many(values))
    dynamo_faults.hang("BatchWriteItem")
    with pytest.raises(OperationTimeoutError) as late:
        faulty({"OPERATION_TIMEOUT": 1.0}).set_many(values)
    ((_, unprocessed),) = late.value.unprocessed.items()
    assert len(unprocessed) == 1500


def test_get_many_of_many_keys_keeps_what_it_read(faulty, dynamo_faults):
    """One batch of three is never answered: the others' values are returned or in the error."""
    values = {f"k{number}": number for number in range(250)}
    for options in ({}, {"IGNORE_EXCEPTIONS": True}):
        cache = faulty({"OPERATION_TIMEOUT": 6.0, **options}, RETRY={"MAX_RETRIES": 0})
        with deadline(60.0):
            cache.set_many(values)
        dynamo_faults.hang("BatchGetItem", times=1)
        if options:
            found = cache.get_many(values)
        else:
            with pytest.raises(StoreUnavailable) as late:
                cache.get_many(values)
            found = late.value.found
        assert 150 <= len(found) <= 200
        dynamo_faults.clear()


def test_get_many_raises_or_returns_what_was_read(faulty, dynamo_faults, dynamo_clock):
    """With IGNORE_EXCEPTIONS the values read before the deadline are returned."""
    values = {f"k{number}": number for number in range(25)}
    for options in ({}, {"IGNORE_EXCEPTIONS": True}):
        cache = faulty({"OPERATION_TIMEOUT": 60.0, **options}, **PATIENT)
        cache.set_many(values)
        dynamo_faults.take_in_part("BatchGetItem", 20, times=1)
        dynamo_faults.take_in_part("BatchGetItem", 0)
        if options:
            assert len(cache.get_many(values)) == 20
        else:
            with pytest.raises(ThrottlingError):
                cache.get_many(values)
        dynamo_faults.clear()


def test_batches_are_written_side_by_side(faulty, dynamo_faults):
    """One after the other, ten batches of a second each would not be in time."""
    cache = faulty({"OPERATION_TIMEOUT": 7.0})
    values = {f"k{number}": number for number in range(250)}
    dynamo_faults.delay(1.0, "BatchWriteItem")
    assert cache.set_many(values) == []
    cache.delete_many(values)
    dynamo_faults.clear()
    assert cache.get_many(values) == {}


def test_writer_for_models_returns_what_was_left(faulty, dynamo_faults, dynamo_clock):
    """BatchWriter keeps the unprocessed requests, and writes them later."""
    cache = faulty(OPERATION_TIMEOUT=60.0, **PATIENT)
    model = CacheEntry.bound_to(cache.store.using)
    dynamo_faults.take_in_part("BatchWriteItem", 20, times=1)
    dynamo_faults.take_in_part("BatchWriteItem", 0)
    writer = BatchWriter.for_model(model)
    for number in range(25):
        writer.put(model(f"{cache.key_prefix}{number}", "ENTRY", number=number))
    left = writer.flush()
    assert len(left) == 5
    dynamo_faults.clear()
    with BatchWriter.for_model(model) as again:
        for request in left:
            again.add(request)
    found = model.batch_get([(f"{cache.key_prefix}{number}", "ENTRY") for number in range(25)])
    assert {entry.number for entry in found} == set(range(25))
