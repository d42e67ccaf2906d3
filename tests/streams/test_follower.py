"""A follower: every new record in this process, without positions."""

from __future__ import annotations

import base64

import pytest

from dynamo_stores.streams.checkpoints import Checkpoints
from dynamo_stores.streams.follower import StreamFollower


def put(stream, shard, *ids, **options):
    for each in ids:
        stream.put(shard, {"id": {"N": str(each)}}, **options)


@pytest.fixture
def follow(stream, using):
    """``follow(handler)``: a follower whose turns the test makes."""

    def make(handler):
        return StreamFollower(stream.table, handler, using)

    return make


@pytest.fixture
def ids():
    """The keys of what was handled; ``ids.append_all`` is the handler."""

    class Ids(list):
        def append_all(self, records):
            self.extend(record.keys["id"] for record in records)

    return Ids()


def test_it_begins_with_new_records_and_goes_on_in_children(
    stream, follow, drive, ids, dynamo_streams
):
    """Old records are left out; those of children come after their parents'."""
    dynamo_streams.page = 1
    old = stream.open()
    put(stream, old, 1)
    (shard,) = stream.split(old, into=1)
    put(stream, shard, 2)
    follower = follow(ids.append_all)
    follower.turn()
    put(stream, shard, 3)
    one, two = stream.split(shard)
    put(stream, one, 4)
    put(stream, two, 5)
    drive(follower, until=lambda: len(ids) == 3)
    assert ids[0] == 3
    assert sorted(ids) == [3, 4, 5]


def test_two_followers_get_all_records(stream, follow, drive, ids):
    """They share nothing, and leave nothing in the control table."""
    shard = stream.open()
    one, two = follow(ids.append_all), follow(ids.append_all)
    drive(one, two, turns=2)
    put(stream, shard, 1, 2)
    drive(one, two, until=lambda: len(ids) == 4)
    stored = Checkpoints(stream.table, "test", one._client.using, 30).read()
    assert (stored.is_begun, stored.shards, stored.workers) == (False, {}, frozenset())


def test_an_error_of_the_handler_ends_nothing(stream, follow, drive, ids, caplog):
    """It is logged without its message, and the next records are handled."""
    shard = stream.open()

    def handle(records):
        ids.append_all(records)
        if 1 in ids[-1:]:
            raise ValueError("secret value")

    follower = follow(handle)
    follower.turn()
    put(stream, shard, 1)
    drive(follower, until=lambda: ids)
    put(stream, shard, 2)
    drive(follower, until=lambda: len(ids) == 2)
    assert "failed on 1 records (ValueError)" in caplog.text
    assert "secret" not in caplog.text


def test_an_error_of_one_shard_holds_up_no_other(
    stream, follow, drive, ids, dynamo_streams, monkeypatch, caplog
):
    """It waits by itself, longer each time, and then nothing is left out."""
    shards = [stream.open() for _ in range(3)]
    follower = follow(ids.append_all)
    follower.turn()
    throttled = [shards[0]]
    real = dynamo_streams.answer

    def answer(operation, request):
        iterator = base64.b64decode(request.get("ShardIterator", "")).decode()
        if any(shard in iterator for shard in throttled):
            return 400, {"__type": "x#LimitExceededException", "message": "two readers"}
        return real(operation, request)

    monkeypatch.setattr(dynamo_streams, "answer", answer)
    for number, shard in enumerate(shards):
        put(stream, shard, number)
    drive(follower, turns=30)
    assert sorted(ids) == [1, 2]
    assert 2 <= caplog.text.count(f"Shard {shards[0]} of") < 10
    throttled.clear()
    drive(follower, until=lambda: len(ids) == 3)


def test_an_error_at_the_beginning_leaves_nothing_out_of_other_shards(
    stream, follow, drive, ids, dynamo_streams, dynamo_clock, monkeypatch
):
    """They are followed from the first turn on, and not begun again."""
    shards = [stream.open() for _ in range(3)]
    refused = [shards[1]]
    real = dynamo_streams.answer

    def answer(operation, request):
        if operation == "GetShardIterator" and request["ShardId"] in refused:
            return 400, {"__type": "x#LimitExceededException", "message": "two readers"}
        return real(operation, request)

    monkeypatch.setattr(dynamo_streams, "answer", answer)
    put(stream, shards[1], 0)
    follower = follow(ids.append_all)
    follower.turn()
    put(stream, shards[0], 1)
    dynamo_clock.advance(0.01)
    follower.turn()
    put(stream, shards[0], 2)
    put(stream, shards[2], 3)
    refused.clear()
    dynamo_clock.advance(0.6)
    drive(follower, turns=30)
    put(stream, shards[1], 4)
    drive(follower, turns=30)
    assert ids == [1, 2, 3, 4]


def test_an_error_of_the_look_holds_up_no_shard(stream, follow, drive, ids, dynamo_streams):
    """Shards that are known are read on."""
    shard = stream.open()
    follower = follow(ids.append_all)
    follower.turn()
    dynamo_streams.throttle("DescribeStream")
    drive(follower, turns=20)
    put(stream, shard, 1)
    drive(follower, until=lambda: ids)


def test_a_handler_that_handles_nothing_is_told(stream, follow, drive, caplog):
    """It returns a coroutine, which nothing runs."""
    shard = stream.open()

    async def handle(records):
        pytest.fail("It is not awaited.")

    follower = follow(lambda records: handle(records))
    follower.turn()
    put(stream, shard, 1)
    drive(follower, turns=3)
    assert "The handler returned a coroutine, which nothing runs" in caplog.text


def test_the_table_of_the_stores_has_a_follower_by_its_alias(alias):
    """Whatever the settings call it."""
    using = alias(TABLE_NAME="my-project", TABLE_PREFIX="dev-")
    follower = StreamFollower.of_store(list, using)
    assert follower._client.table == "dev-my-project"


def test_what_is_too_old_is_left_out_and_told(stream, follow, drive, ids, dynamo_streams, caplog):
    """It goes on with what is written from then on."""
    shard = stream.open()
    follower = follow(ids.append_all)
    follower.turn()
    put(stream, shard, 1)
    dynamo_streams.expire_iterators()
    follower.turn()
    put(stream, shard, 2)
    drive(follower, until=lambda: ids)
    assert ids == [2]
    assert "were left out" in caplog.text


def test_a_stream_that_is_enabled_again_is_followed(stream, follow, drive, ids, dynamo_streams):
    """The old one ends when its records are trimmed."""
    old = stream.open()
    follower = follow(ids.append_all)
    follower.turn()
    stream.close(old)
    again = dynamo_streams.enable(stream.table)
    put(again, again.open(), 1)
    drive(follower, until=lambda: ids)
