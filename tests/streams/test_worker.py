"""Workers on scripted shards: splits, trimming, faults, poison, fences. Time is the fake clock."""

from __future__ import annotations

import itertools
import logging

import pytest

from dynamo_stores import clock, signals
from dynamo_stores.exceptions import ConfigurationError, StoreUnavailable
from dynamo_stores.streams import each_record
from dynamo_stores.streams.checkpoints import Checkpoints, LeaseLostError
from dynamo_stores.streams.client import StreamsClient
from dynamo_stores.streams.failures import failed_records
from dynamo_stores.streams.reader import HandlerFailedError
from dynamo_stores.streams.shards import ShardId
from dynamo_stores.streams.worker import StreamWorker

from .conftest import LEASE


class Handled(list):
    """A handler that keeps the records; with ``poison`` it fails on those values."""

    def __init__(self, poison=(), error=ValueError):
        super().__init__()
        self.poison, self.error, self.tries = set(poison), error, []

    def __call__(self, records):
        self.tries.append((clock.monotonic(), len(records)))
        if any(record.keys["id"] in self.poison for record in records):
            raise self.error("secret value")
        self.extend(records)

    @property
    def ids(self):
        return [record.keys["id"] for record in self]


def put(stream, shard, *ids, **options):
    return [stream.put(shard, {"id": {"N": str(each)}}, **options) for each in ids]


@pytest.fixture
def received():
    """``received(signal)``: the list of what the signal sends during the test."""
    connected = []

    def listen(signal):
        sent = []

        def receive(**named):
            sent.append(named)

        signal.connect(receive)
        connected.append((signal, receive))
        return sent

    yield listen
    for signal, receive in connected:
        signal.disconnect(receive)


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


def test_a_position_that_is_trimmed_is_told(stream, make_worker, drive, received, caplog):
    """Reading goes on at the oldest record; a warning and a signal say that some may be lost."""
    trimmed = received(signals.stream_trimmed)
    shard = stream.open()
    put(stream, shard, 1)
    first, second = Handled(), Handled()
    worker = make_worker(first)
    drive(worker, until=lambda: first)
    worker.release()
    put(stream, shard, 2, 3)
    stream.trim(shard, 2)
    drive(make_worker(second), until=lambda: second)
    assert second.ids == [3]
    assert [(each["shard"], each["consumer"], each["table"]) for each in trimmed] == [
        (shard, "test", stream.table)
    ]
    assert "may have been trimmed" in caplog.text


def test_trimming_under_a_reader_is_told(stream, make_worker, drive, received):
    """An iterator that points before the oldest record ends no worker."""
    trimmed = received(signals.stream_trimmed)
    shard = stream.open()
    handled = Handled()
    worker = make_worker(handled)
    drive(worker, turns=5)
    put(stream, shard, 1, 2)
    stream.trim(shard, 1)
    drive(worker, until=lambda: handled)
    assert handled.ids == [2]
    assert len(trimmed) == 1


def test_a_shard_that_is_gone_frees_its_children(stream, make_worker, drive, received):
    """All of it was trimmed unread: that is told, and the children are read."""
    trimmed = received(signals.stream_trimmed)
    parent = stream.open()
    put(stream, parent, 1)
    first, second = Handled(), Handled()
    worker = make_worker(first)
    drive(worker, until=lambda: first)
    worker.release()
    put(stream, parent, 2)
    child, _ = stream.split(parent)
    put(stream, child, 3)
    stream.trim(parent)
    drive(make_worker(second), until=lambda: second)
    assert second.ids == [3]
    assert [each["shard"] for each in trimmed] == [parent]


def test_a_shard_that_came_and_went_unseen_is_told(stream, make_worker, drive, received):
    """A child of it is there, and the consumer never saw the shard itself."""
    trimmed = received(signals.stream_trimmed)
    parent = stream.open()
    put(stream, parent, 1)
    first, second = Handled(), Handled()
    worker = make_worker(first)
    drive(worker, until=lambda: first)
    stream.close(parent)
    drive(worker, turns=20)
    worker.release()
    assert not trimmed
    unseen = stream.open(parent)
    put(stream, unseen, 2)
    (child,) = stream.split(unseen, into=1)
    put(stream, child, 3)
    stream.trim(parent)
    stream.trim(unseen)
    worker = make_worker(second)
    drive(worker, until=lambda: second)
    drive(worker, turns=20)
    assert second.ids == [3]
    assert [each["shard"] for each in trimmed] == [child]


def test_trimmed_parents_are_nothing_special_for_a_new_consumer(
    stream, make_worker, drive, received
):
    """What was trimmed before it began was never to be read."""
    trimmed = received(signals.stream_trimmed)
    parent = stream.open()
    (child,) = stream.split(parent, into=1)
    stream.trim(parent)
    put(stream, child, 1)
    handled = Handled()
    drive(make_worker(handled), until=lambda: handled)
    assert not trimmed


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


def test_poison_is_set_aside_and_the_rest_goes_on(
    stream, make_worker, drive, received, caplog, using
):
    """After its tries, with its key, its error and a signal; the others are handled in order."""
    failed = received(signals.stream_record_failed)
    shard = stream.open()
    numbers = put(stream, shard, *range(10), new={"secret": {"S": "secret value"}})
    handled = Handled(poison=[6])
    drive(make_worker(handled, tries=3), until=lambda: len(handled) == 9)
    assert list(dict.fromkeys(handled.ids)) == [0, 1, 2, 3, 4, 5, 7, 8, 9]
    assert [(each["record"].sequence_number, type(each["error"])) for each in failed] == [
        (numbers[6], ValueError)
    ]
    (kept,) = failed_records(stream.table, "test", using)
    assert kept.record.keys == {"id": 6}
    assert (kept.record.new_image, kept.error, kept.shard) == (None, "ValueError", shard)
    assert kept.record.sequence_number == numbers[6]
    assert "was set aside after 3 tries (ValueError)" in caplog.text
    assert "secret" not in "".join(
        each.getMessage() for each in caplog.records if each.levelno > logging.DEBUG
    )


def test_images_are_set_aside_on_demand(stream, make_worker, drive, using):
    """With bytes as they were; images that do not fit an item are left out."""
    shard = stream.open()
    put(stream, shard, 1, new={"id": {"N": "1"}, "b": {"B": b"\x00"}}, old={"id": {"N": "1"}})
    put(stream, shard, 2, new={"b": {"B": b"x" * 300_000}})
    handled = Handled(poison=[1, 2])
    worker = make_worker(handled, tries=1, keeps_images=True)
    drive(worker, until=lambda: len(failed_records(stream.table, "test", using)) == 2)
    small, large = failed_records(stream.table, "test", using)
    assert small.record.new_image == {"id": 1, "b": b"\x00"}
    assert small.record.old_image == {"id": 1}
    assert (large.record.keys, large.record.new_image) == ({"id": 2}, None)


def test_tries_wait_longer_each_time(stream, make_worker, drive, using):
    """Another shard goes on meanwhile."""
    bad, good = stream.open(), stream.open()
    put(stream, bad, 1)
    handled = Handled(poison=[1])
    worker = make_worker(handled, tries=6)
    drive(worker, until=lambda: len(handled.tries) == 3)
    put(stream, good, 2)
    drive(worker, until=lambda: handled)
    drive(worker, until=lambda: failed_records(stream.table, "test", using))
    times = [at for at, _ in handled.tries]
    assert handled.ids == [2]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert sum(waits) > 15


def test_an_unavailable_store_sets_nothing_aside(stream, make_worker, drive, using):
    """It is no fault of the record: the handler is called until the store answers."""
    put(stream, stream.open(), 1)
    handled = Handled(poison=[1], error=StoreUnavailable)
    worker = make_worker(handled, tries=2)
    drive(worker, until=lambda: len(handled.tries) == 12)
    assert not failed_records(stream.table, "test", using)
    handled.poison.clear()
    drive(worker, until=lambda: handled)
    assert handled.ids == [1]


def test_a_handler_of_single_records_repeats_none_before_the_failed_one(stream, make_worker, drive):
    """What it handled before is saved."""
    put(stream, stream.open(), *range(5))
    seen = []

    @each_record
    def handle(record):
        seen.append(record.keys["id"])
        if record.keys["id"] == 3 and seen.count(3) < 3:
            raise ValueError

    drive(make_worker(handle), until=lambda: 4 in seen)
    assert seen == [0, 1, 2, 3, 3, 3, 4]


def test_a_worker_can_stop_on_an_error_instead(stream, make_worker, drive, using):
    """Everything before the record is saved; the next worker begins with it."""
    shard = stream.open()
    numbers = put(stream, shard, *range(6))
    handled, again = Handled(poison=[4]), Handled()
    worker = make_worker(handled, tries=2, stops_on_error=True)
    with pytest.raises(HandlerFailedError, match=f"2 times on the record {numbers[4]}") as stopped:
        drive(worker, until=lambda: False)
    assert isinstance(stopped.value.__cause__, ValueError)
    assert "secret" not in str(stopped.value)
    worker.release()
    drive(make_worker(again), until=lambda: len(again) == 2)
    assert again.ids == [4, 5]
    assert not failed_records(stream.table, "test", using)


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
    dead, alive = Handled(), Handled()
    worker = make_worker(dead)
    drive(worker, until=lambda: dead)
    # It dies before it saves.
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
    from dynamo_stores.testing import FaultProxy

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
