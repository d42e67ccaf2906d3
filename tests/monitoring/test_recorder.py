"""Which operations a recorder gets: those of its own context, wherever they run."""

from __future__ import annotations

import asyncio
import contextvars
import secrets
import threading
from collections import Counter

import pytest
from asgiref.sync import async_to_sync, sync_to_async

from dynamo_stores.calls import observer
from dynamo_stores.conf import get_config
from dynamo_stores.monitoring.advice import Recorder, recorded
from dynamo_stores.stores import CacheStore

pytestmark = pytest.mark.usefixtures("tables")


def names(recorder):
    return [each.operation for each in recorder.operations]


def test_the_operations_of_a_block():
    """With where they were called from, and that the table is one of the stores'."""
    store = CacheStore(prefix=secrets.token_hex(6))
    store.get("before")
    with recorded() as recorder:
        store.get("new")
        store.set("new", 1)
    store.get("after")
    assert names(recorder) == ["GetItem", "PutItem"]
    first = recorder.operations[0]
    assert first.tables == (get_config().store_table,)
    assert first.is_own
    assert first.place[0].startswith("tests/monitoring/test_recorder.py:")
    assert first.place[0].endswith(" in test_the_operations_of_a_block")
    assert first.total_units == 0.5
    assert recorder.operations[1].keys == (first.keys[0],)


def test_a_block_in_a_block_is_recorded_for_both():
    store = CacheStore()
    with recorded() as outer:
        store.get("a")
        with recorded() as inner:
            store.get("b")
        store.get("c")
    assert (len(outer.operations), len(inner.operations)) == (3, 1)


def test_other_threads_and_tasks_are_not_recorded():
    """Those without the context, at the same time."""
    store, ready = CacheStore(), threading.Barrier(2, timeout=60)

    def other():
        ready.wait()
        with recorded() as found:
            store.get("theirs")
            ready.wait()
        counts.append(found.total)
        ready.wait()

    counts: list[int] = []
    thread = threading.Thread(target=other)
    thread.start()
    with recorded() as recorder:
        ready.wait()
        store.get("ours")
        ready.wait()
        ready.wait()
    thread.join()
    assert (recorder.total, counts) == (1, [1])


def test_tasks_of_other_requests_are_not_recorded():
    """On one loop, between each other's operations."""
    store = CacheStore()

    async def request(number):
        with recorded() as recorder:
            for _ in range(number):
                await store.aget("k")
                await asyncio.sleep(0)
        return recorder.total

    async def serve():
        return await asyncio.gather(*map(request, (1, 2, 3)))

    assert asyncio.run(serve()) == [1, 2, 3]


def test_the_context_is_followed_to_threads_and_loops():
    store = CacheStore()

    async def work():
        await store.aget("a")
        await sync_to_async(store.get)("b")
        await asyncio.gather(store.aget("c"), store.aget("d"))

    with recorded() as recorder:
        async_to_sync(work)()
        thread = threading.Thread(target=contextvars.copy_context().run, args=(store.get, "e"))
        thread.start()
        thread.join()
    assert names(recorder) == ["GetItem"] * 5


def test_work_that_stores_do_side_by_side_is_recorded():
    """In threads, and on a loop."""
    store, values = CacheStore(), {f"key-{number}": number for number in range(130)}
    with recorded() as recorder:
        store.set_many(values)
    assert names(recorder) == ["BatchWriteItem"] * 6
    with recorded() as recorder:
        asyncio.run(store.aset_many(values))
    assert names(recorder) == ["BatchWriteItem"] * 6


def test_what_goes_on_after_the_block_is_not_recorded():
    store, ended = CacheStore(), asyncio.Event()

    async def later():
        await ended.wait()
        await store.aget("k")

    async def request():
        with recorded() as recorder:
            task = asyncio.create_task(later())
            await asyncio.sleep(0)
        ended.set()
        await task
        return recorder.total

    assert asyncio.run(request()) == 0


def test_memory_is_bounded():
    """The first are kept, the others counted; none of their content is."""
    store = CacheStore()
    store.set("k", "v" * 2000)
    with recorded(most=2) as recorder:
        for _ in range(5):
            store.get("k")
    assert (len(recorder.operations), recorder.total, recorder.dropped) == (2, 5, 3)
    assert recorder.operations[0].size > 2000
    assert "vvvv" not in repr(recorder.operations)


def test_nothing_is_observed_without_a_recorder():
    """Also after two that overlapped."""
    assert not observer.is_every_operation_observed()
    one, other = Recorder(), Recorder()
    one.start()
    other.start()
    one.stop()
    assert observer.is_every_operation_observed()
    other.stop()
    other.stop()
    assert not observer.is_every_operation_observed()


def test_a_recorder_begins_once():
    recorder = Recorder()
    recorder.start()
    recorder.start()
    CacheStore().get("k")
    recorder.stop()
    CacheStore().get("k")
    assert recorder.total == 1


def test_an_error_in_the_block_ends_the_recording():
    with pytest.raises(KeyError), recorded() as recorder:
        raise KeyError
    CacheStore().get("k")
    assert recorder.total == 0


def test_a_recorder_chooses():
    store = CacheStore()
    with recorded(lambda operation: operation.kind == "Write") as recorder:
        store.get("k")
        store.set("k", 1)
    assert names(recorder) == ["PutItem"]


def consumed(table, units, **others):
    return {"TableName": table, "CapacityUnits": units, **others}


@pytest.mark.parametrize(
    "answers",
    [
        [],
        [None, None],
        [consumed("t", 0.5), consumed("t", 1.0)],
        [consumed("t", 0.5), None, consumed("t", 1.0)],
        [consumed("t", 0.5), consumed("u", 1.0)],
        [consumed("arn:aws:dynamodb:us-east-1:1:table/t", 2.0)] * 3,
        [{"TableName": "t", "ReadCapacityUnits": 1.0}] * 2,
        [[consumed("t", 0.5), consumed("u", 3.0)], consumed("t", 1.0)],
        [consumed("t", 2.0, Table={"CapacityUnits": 1.5},
                  GlobalSecondaryIndexes={"G": {"CapacityUnits": 0.5}})] * 2,
    ],
)  # fmt: skip
def test_units_of_many_answers_are_those_of_each(answers):
    """Whichever way they are added up."""
    expected: Counter[str] = Counter()
    for each in answers:
        expected.update(observer.units_in(each))
    assert Counter(observer.units_in_all(answers)) == expected
