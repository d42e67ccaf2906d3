"""Records that are set aside, and handlers that fail. Time is the fake clock."""

from __future__ import annotations

import asyncio
import itertools
import logging

import pytest

from dynamo_stores import signals
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.streams import each_record
from dynamo_stores.streams.failures import afailed_records, failed_records
from dynamo_stores.streams.handlers import HandlerFailedError

from .handled import Handled, put


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
    assert "Its images are not kept: --keep-images is not set." in caplog.text
    assert "traceback: logger dynamo_stores.streams.reader, level DEBUG" in caplog.text
    assert "secret" not in "".join(
        each.getMessage() for each in caplog.records if each.levelno > logging.DEBUG
    )


def test_images_are_set_aside_on_demand(stream, make_worker, drive, using, caplog):
    """With bytes as they were; images that do not fit an item are left out."""
    shard = stream.open()
    put(stream, shard, 1, new={"id": {"N": "1"}, "b": {"B": b"\x00"}}, old={"id": {"N": "1"}})
    (number,) = put(stream, shard, 2, new={"b": {"B": b"x" * 300_000}})
    handled = Handled(poison=[1, 2])
    worker = make_worker(handled, tries=1, keeps_images=True)
    drive(worker, until=lambda: len(failed_records(stream.table, "test", using)) == 2)
    small, large = failed_records(stream.table, "test", using)
    assert small.record.new_image == {"id": 1, "b": b"\x00"}
    assert small.record.old_image == {"id": 1}
    assert (large.record.keys, large.record.new_image) == ({"id": 2}, None)
    assert (small.lacks_images, large.lacks_images) == (False, True)
    (told,) = [line for line in caplog.messages if "images are not kept" in line]
    assert f": {number} of shard" in told
    assert "they are too large" in told


def test_records_are_listed_in_the_order_in_which_they_were_set_aside(
    stream, make_worker, drive, using, dynamo_clock
):
    """Whatever their shards are called; a deleted one is not listed any more."""
    shards = [stream.open() for _ in range(3)]
    handled = Handled(poison=[1, 2, 3])
    worker = make_worker(handled, tries=1)
    for number, shard in enumerate(reversed(shards), 1):
        put(stream, shard, number)
        drive(
            worker,
            until=lambda count=number: len(failed_records(stream.table, "test", using)) == count,
        )
        dynamo_clock.advance(1)
    first, second, third = failed_records(stream.table, "test", using)
    assert [each.record.keys["id"] for each in (first, second, third)] == [1, 2, 3]
    second.delete()
    second.delete()
    asyncio.run(third.adelete())
    assert asyncio.run(afailed_records(stream.table, "test", using)) == [first]


def test_failed_records_of_a_shard_keep_its_order(
    stream, make_worker, using, dynamo_clock, dynamo_streams
):
    """Also those of one millisecond, with numbers of different lengths."""
    shard = stream.open()
    put(stream, shard, 1, 2, 3)
    numbers = ("900000000000000000001", "999999999999999999999", "1000000000000000000000000")
    for record, number in zip(stream._shards[shard].records, numbers, strict=True):
        record["dynamodb"]["SequenceNumber"] = number
    worker = make_worker(Handled(poison=[1, 2, 3]), tries=1)
    for _ in range(20):
        worker.turn()
    found = failed_records(stream.table, "test", using)
    assert len({each.at for each in found}) == 1
    assert [each.record.sequence_number for each in found] == list(numbers)


def test_an_expiry_is_still_one_after_it_was_set_aside(stream, make_worker, drive, using):
    """A handler that is given the record again can tell that DynamoDB deleted the item."""
    put(stream, stream.open(), 1, event="REMOVE", by_ttl=True)
    worker = make_worker(Handled(poison=[1]), tries=1)
    drive(worker, until=lambda: failed_records(stream.table, "test", using))
    (failed,) = failed_records(stream.table, "test", using)
    assert failed.record.is_expiry


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


def test_a_single_record_begins_with_short_waits(stream, make_worker, drive, using):
    """The tries of its batch were others."""
    put(stream, stream.open(), 1, 2)
    handled = Handled(poison=[1])
    drive(make_worker(handled, tries=5), until=lambda: handled)
    # The last one is of the record after it.
    times = [at for at, _ in handled.tries[:-1]]
    waits = [later - earlier for earlier, later in itertools.pairwise(times)]
    # It is tried right after its batch.
    for longest, wait in zip([1, 2, 4, 8, 0, 1, 2, 4, 8], waits, strict=True):
        assert longest / 2 <= wait < longest + 0.4
    assert handled.ids == [2]


def test_a_first_wait_of_more_than_a_minute_stays(stream, make_worker, drive, using):
    """Later waits are not shorter."""
    put(stream, stream.open(), 1)
    handled = Handled(poison=[1])
    worker = make_worker(handled, tries=5, first_wait=300.0)
    drive(worker, until=lambda: len(handled.tries) == 5, turns=2000)
    times = [at for at, _ in handled.tries]
    for earlier, later in itertools.pairwise(times):
        assert 150 <= later - earlier < 310


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
