"""Workers on scripted shards: splits, faults, leases, memory. Time is the fake clock."""

from __future__ import annotations

import time
from urllib.parse import urlsplit

import pytest

from dynamo_stores import clock
from dynamo_stores.exceptions import ConfigurationError, StoreUnavailable
from dynamo_stores.streams import each_record
from dynamo_stores.streams import worker as worker_module
from dynamo_stores.streams.checkpoints import Checkpoints, LeaseLostError
from dynamo_stores.streams.client import StreamsClient
from dynamo_stores.streams.failures import failed_records
from dynamo_stores.streams.handlers import HandlerFailedError
from dynamo_stores.streams.shards import ShardId
from dynamo_stores.streams.worker import StreamWorker
from dynamo_stores.testing import FaultProxy

from .conftest import LEASE
from .handled import Handled, put


def test_children_are_read_after_their_parent(stream, make_worker, drive, dynamo_streams):
    """Over several generations, with several pages of shards and of records."""
    dynamo_streams.page, dynamo_streams.most = 2, 3
    parent = stream.open()
    put(stream, parent, *range(8))
    one, two = stream.split(parent)
    put(stream, one, 10, 11)
    put(stream, two, 20)
    (three,) = stream.split(one, into=1)
    put(stream, three, 12, 13)
    handled = Handled()
    drive(make_worker(handled), until=lambda: len(handled) == 13)
    assert handled.ids[:8] == list(range(8))
    assert [each for each in handled.ids if 10 <= each < 20] == [10, 11, 12, 13]
    assert sorted(handled.ids) == [*range(8), 10, 11, 12, 13, 20]


def test_a_split_while_reading_loses_nothing(stream, make_worker, drive):
    """Records of a child that appears later are handled."""
    parent = stream.open()
    put(stream, parent, 1, 2)
    handled = Handled()
    worker = make_worker(handled)
    drive(worker, until=lambda: len(handled) == 2)
    put(stream, parent, 3)
    child, _ = stream.split(parent)
    put(stream, child, 4)
    drive(worker, until=lambda: len(handled) == 4)
    assert handled.ids == [1, 2, 3, 4]


def test_another_worker_goes_on_where_one_stopped(stream, make_worker, drive):
    """After release the position is saved: nothing is repeated, nothing left out."""
    shard = stream.open()
    put(stream, shard, 1, 2)
    first, second = Handled(), Handled()
    worker = make_worker(first)
    drive(worker, until=lambda: len(first) == 2)
    worker.release()
    put(stream, shard, 3)
    drive(make_worker(second), until=lambda: second)
    assert second.ids == [3]


def test_a_finished_shard_is_not_read_again(stream, make_worker, drive):
    """Its children go on from their own positions."""
    parent = stream.open()
    put(stream, parent, 1)
    child, _ = stream.split(parent)
    put(stream, child, 2)
    first, second = Handled(), Handled()
    worker = make_worker(first)
    drive(worker, until=lambda: len(first) == 2)
    worker.release()
    put(stream, child, 3)
    drive(make_worker(second), until=lambda: second)
    assert second.ids == [3]


def test_consumers_have_positions_of_their_own(stream, make_worker, drive):
    """Each consumer gets all records."""
    put(stream, stream.open(), 1, 2)
    one, other = Handled(), Handled()
    workers = make_worker(one, consumer="one"), make_worker(other, consumer="other#")
    drive(*workers, until=lambda: len(one) == len(other) == 2)


def test_a_new_consumer_can_begin_at_the_latest_records(stream, make_worker, drive):
    """It leaves out what was there, and no record after its begin, also of children."""
    closed = stream.open()
    put(stream, closed, 1)
    (open_,) = stream.split(closed, into=1)
    put(stream, open_, 2)
    handled = Handled()
    worker = make_worker(handled, from_latest=True)
    worker.turn()
    put(stream, open_, 3)
    (child,) = stream.split(open_, into=1)
    put(stream, child, 4)
    drive(worker, until=lambda: len(handled) == 2)
    assert handled.ids == [3, 4]


def test_beginning_at_the_latest_survives_a_kill_before_the_first_record(
    stream, make_worker, drive, dynamo_streams, dynamo_clock
):
    """
    Another worker takes over before anything was handled, and the iterator is expired: what was
    written after the begin is handled, what is older is not.
    """
    shard = stream.open()
    put(stream, shard, 1, at=clock.now() - 3600)
    make_worker(Handled(), from_latest=True).turn()
    put(stream, shard, 2)
    dynamo_streams.expire_iterators()
    dynamo_clock.advance(LEASE + 1)
    handled = Handled()
    drive(make_worker(handled), until=lambda: handled)
    assert handled.ids == [2]


def test_old_records_alone_are_passed_over_once(
    stream, make_worker, drive, dynamo_streams, dynamo_clock, using
):
    """A page of records from before the begin moves the position on."""
    dynamo_streams.most = 2
    shard = stream.open()
    numbers = put(stream, shard, 1, 2, 3, 4, 5, at=clock.now() - 3600)
    make_worker(Handled(), from_latest=True).turn()
    dynamo_streams.expire_iterators()
    dynamo_clock.advance(LEASE + 1)
    worker = make_worker(Handled())
    drive(worker, turns=20)
    worker.release()
    stored = Checkpoints(stream.table, "test", using, LEASE)
    lease, start = stored.take(ShardId(stream.label, shard), None)
    assert start.position == numbers[-1]
    stored.release(ShardId(stream.label, shard), lease)
    put(stream, shard, 6)
    handled = Handled()
    drive(make_worker(handled), until=lambda: handled)
    assert handled.ids == [6]


def test_expired_iterators_are_renewed(stream, make_worker, drive, dynamo_streams):
    """Reading goes on after the last record that was handled."""
    shard = stream.open()
    put(stream, shard, 1)
    handled = Handled()
    worker = make_worker(handled)
    drive(worker, until=lambda: handled)
    drive(worker, turns=10)
    dynamo_streams.expire_iterators()
    put(stream, shard, 2)
    drive(worker, until=lambda: len(handled) == 2)
    assert handled.ids == [1, 2]


def test_a_stream_that_is_enabled_again_is_read_after_the_old_one(
    stream, make_worker, drive, dynamo_streams
):
    """The rest of the disabled stream comes first."""
    old = stream.open()
    put(stream, old, 1)
    handled = Handled()
    worker = make_worker(handled)
    drive(worker, until=lambda: handled)
    worker.release()
    put(stream, old, 2)
    stream.close(old)
    again = dynamo_streams.enable(stream.table)
    put(again, again.open(), 3)
    rest = Handled()
    drive(make_worker(rest), until=lambda: len(rest) == 2)
    assert rest.ids == [2, 3]


@pytest.mark.parametrize(
    "fault",
    [
        {"code": "LimitExceededException", "status": 400},
        {"code": "ThrottlingException", "status": 400},
        {"code": "InternalServerError", "status": 500},
    ],
    ids=lambda fault: fault["code"],
)
def test_an_api_that_fails_is_asked_again_later(
    stream, make_worker, drive, dynamo_streams, dynamo_clock, fault
):
    """With growing waits, and nothing is left out."""
    shard = stream.open()
    put(stream, shard, 1)
    handled = Handled()
    worker = make_worker(handled)
    drive(worker, until=lambda: handled)
    put(stream, shard, 2)
    dynamo_streams.clear()
    dynamo_streams.fail(times=30, **fault)
    began_at = dynamo_clock.monotonic()
    drive(worker, until=lambda: len(handled) == 2)
    assert dynamo_clock.monotonic() - began_at > 60
    assert handled.ids == [1, 2]


def test_an_idle_shard_is_asked_once_a_second(
    stream, make_worker, drive, dynamo_streams, dynamo_clock
):
    """And never more than five times a second, which DynamoDB would refuse."""
    dynamo_streams.most = 1
    shard = stream.open()
    handled = Handled()
    worker = make_worker(handled)
    drive(worker, turns=20)
    dynamo_streams.clear()
    began_at = dynamo_clock.monotonic()
    drive(worker, until=lambda: dynamo_streams.requests["GetRecords"] == 20)
    assert 15 < dynamo_clock.monotonic() - began_at < 25
    put(stream, shard, *range(20))
    dynamo_streams.clear()
    drive(worker, until=lambda: len(handled) == 1)
    began_at = dynamo_clock.monotonic()
    drive(worker, until=lambda: len(handled) == 20)
    assert 3.5 < dynamo_clock.monotonic() - began_at < 8


def test_workers_share_the_shards(stream, make_worker, drive):
    """A second one gets half of them, without a record twice; all go back when it leaves."""
    shards = [stream.open() for _ in range(4)]
    one, two = Handled(), Handled()
    first, second = make_worker(one), make_worker(two)
    for number, shard in enumerate(shards):
        put(stream, shard, number)
    drive(first, until=lambda: len(one) == 4)
    drive(first, second, turns=150)
    for number, shard in enumerate(shards):
        put(stream, shard, 10 + number)
    drive(first, second, until=lambda: len(one) + len(two) == 8)
    assert len(one) == 6
    assert len(two) == 2
    second.release()
    drive(first, turns=150)
    for number, shard in enumerate(shards):
        put(stream, shard, 20 + number)
    drive(first, until=lambda: len(one) == 10)
    assert sorted(one.ids + two.ids) == [*range(4), *range(10, 14), *range(20, 24)]


def test_the_shards_of_a_dead_worker_are_taken_over(stream, make_worker, drive, dynamo_clock):
    """After its lease, not before; what it had not saved is handled again."""
    shard = stream.open()
    put(stream, shard, 1)
    dead, alive = Handled(poison=[1], error=SystemExit), Handled()
    worker = make_worker(dead)
    with pytest.raises(SystemExit):
        drive(worker, turns=20)
    second = make_worker(alive)
    died_at = dynamo_clock.monotonic()
    drive(second, until=lambda: alive)
    assert alive.ids == [1]
    assert dynamo_clock.monotonic() - died_at > LEASE / 2


def test_a_stale_worker_writes_nothing(stream, make_worker, drive, dynamo_clock, using):
    """Its positions, failed records and ends are refused by the fence; it drops the shard."""
    shard = stream.open()
    put(stream, shard, 1, 2)
    stale, alive = Handled(poison=[1]), Handled()
    worker = make_worker(stale, tries=1)
    drive(worker, until=lambda: stale.tries)
    dynamo_clock.advance(LEASE + 1)
    successor = make_worker(alive)
    drive(successor, until=lambda: len(alive) == 2)
    successor.turn()
    worker.turn()
    assert not failed_records(stream.table, "test", using)
    assert not stale
    assert not worker._readers
    (lease,) = [reader.lease for reader in successor._readers.values()]
    stored = Checkpoints(stream.table, "test", using, LEASE)
    (of_shard,) = stored.read().shards.values()
    assert of_shard.owner == lease.owner


def test_the_lease_is_counted_from_before_it_was_taken(
    stream, make_worker, drive, dynamo_streams, dynamo_engine, dynamo_clock
):
    """An answer that comes late shortens it: no record is handled by two workers."""

    class Slow(FaultProxy):
        def _next(self, operation, request):
            if operation == "GetItem":
                dynamo_clock.advance(4)
            return super()._next(operation, request)

    shard = stream.open()
    make_worker(Handled()).turn()
    dynamo_clock.advance(LEASE + 1)
    slow, successor = Handled(), Handled()
    one, two = make_worker(slow), make_worker(successor)
    engine = dynamo_streams.upstream
    with Slow(dynamo_engine) as relay:
        dynamo_streams.upstream = urlsplit(relay.url)
        one.turn()
        dynamo_streams.upstream = engine
    assert one._readers
    dynamo_clock.advance(LEASE - 3)
    put(stream, shard, 1)
    drive(two, until=lambda: successor)
    drive(one, turns=5)
    assert (slow.ids, successor.ids) == ([], [1])


def test_each_write_of_a_stale_lease_is_refused(stream, using, dynamo_clock, make_worker):
    """Position, failed record, end, extension and release."""
    shard = stream.open()
    number = put(stream, shard, 1)[0]
    stored = Checkpoints(stream.table, "test", using, LEASE)
    client = StreamsClient(stream.table, using)
    (listed,) = client.shards(stream.arn)
    stale, _ = stored.take(listed.id, None)
    assert stored.take(listed.id, None) is None
    dynamo_clock.advance(LEASE + 1)
    fresh, _ = Checkpoints(stream.table, "test", using, LEASE).take(listed.id, None)
    assert fresh.fence > stale.fence
    item = {"PK": {"S": "p"}, "SK": {"S": "s"}}
    for write in (
        lambda: stored.save(listed.id, stale, number),
        lambda: stored.save_failed(listed.id, stale, number, item),
        lambda: stored.finish(listed.id, stale, number),
        lambda: stored.extend(listed.id, stale),
    ):
        with pytest.raises(LeaseLostError):
            write()
    assert not stored.release(listed.id, stale)
    stored.save(listed.id, fresh, number)
    assert stored.release(listed.id, fresh)
    _, start = stored.take(listed.id, None)
    assert start.position == number


def test_few_records_wait_for_their_handler(stream, make_worker, drive, monkeypatch):
    """Shards whose handler fails keep a bounded number in all; others keep one page."""
    monkeypatch.setattr(worker_module, "_MOST_PENDING", 300)
    waiting = []
    is_failing = True

    def handle(records):
        waiting.append(sum(reader.pending for reader in worker._readers.values()))
        if is_failing:
            raise StoreUnavailable("down")

    for _ in range(10):
        put(stream, stream.open(), *range(200))
    worker = make_worker(handle)
    drive(worker, turns=20)
    assert 300 <= max(waiting) <= 300 + 10 * 10
    worker.release()
    is_failing = False
    waiting.clear()
    worker = make_worker(handle)
    drive(worker, turns=20)
    assert max(waiting) == 200


def test_the_end_of_a_worker_has_one_deadline(stream, alias, dynamo_faults, monkeypatch, caplog):
    """However many shards it has, while DynamoDB does not answer."""
    monkeypatch.setattr(worker_module, "_LAST_REQUESTS", 0.5)
    stream._server.upstream = urlsplit(dynamo_faults.url)
    using = alias(ENDPOINT_URL=stream._server.url)
    for _ in range(8):
        stream.open()
    worker = StreamWorker(
        StreamsClient(stream.table, using),
        Checkpoints(stream.table, "test", using, LEASE),
        Handled(),
    )
    worker.turn()
    assert len(worker._readers) == 8
    dynamo_faults.hang("UpdateItem")
    dynamo_faults.hang("DeleteItem")
    began_at = time.monotonic()
    worker.release()
    assert time.monotonic() - began_at < 3
    assert "8 shards" in caplog.text


async def _coroutine():
    pytest.fail("It is not awaited.")


async def _later(records):
    yield records


def _never(records):
    yield records


@pytest.mark.parametrize(
    "handler",
    [lambda records: _coroutine(), _later, _never, each_record(lambda record: _coroutine())],
    ids=["coroutine", "async generator", "generator", "each record"],
)
@pytest.mark.filterwarnings("error")
def test_a_handler_that_handles_nothing_ends_the_worker(stream, make_worker, drive, handler, using):
    """It returns what nothing runs; no record is taken for handled or set aside."""
    put(stream, stream.open(), 1)
    worker = make_worker(handler, tries=1)
    with pytest.raises(HandlerFailedError, match="which nothing runs"):
        drive(worker, turns=5)
    worker.release()
    handled = Handled()
    drive(make_worker(handled), until=lambda: handled)
    assert handled.ids == [1]
    assert not failed_records(stream.table, "test", using)


def test_a_table_without_stream_is_explained(using, dynamo_streams):
    """What is wrong, and how a stream is enabled."""

    def worker(table):
        return StreamWorker(
            StreamsClient(table, using), Checkpoints(table, "test", using, LEASE), Handled()
        )

    table = Checkpoints("", "", using, LEASE)._items.table.table_name
    with pytest.raises(ConfigurationError, match=r"has no stream\. Set STREAM to"):
        worker(table).run()
    with pytest.raises(ConfigurationError, match=r"'missing' of the alias '.*' does not exist"):
        worker("missing").run()


def test_half_an_answer_is_not_the_end_of_a_shard(
    stream, make_worker, drive, alias, dynamo_streams
):
    """botocore takes it for an empty answer; then the shard's records would be left out."""
    put(stream, stream.open(), 1)
    with FaultProxy(dynamo_streams.url) as faults:
        using = alias(ENDPOINT_URL=faults.url)
        handled = Handled()
        worker = StreamWorker(
            StreamsClient(stream.table, using),
            Checkpoints(stream.table, "test", using, LEASE),
            handled,
        )
        faults.cut("GetRecords", times=1)
        drive(worker, until=lambda: handled)
    assert handled.ids == [1]
