"""Records that are trimmed, and shards that are not there. Time is the fake clock."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest

from dynamo_stores import signals
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.streams.checkpoints import Checkpoints
from dynamo_stores.streams.client import StreamsClient
from dynamo_stores.streams.failures import failed_records
from dynamo_stores.streams.reader import Options
from dynamo_stores.streams.worker import StreamWorker
from dynamo_stores.testing import FaultProxy, StreamServer

from .conftest import LEASE
from .handled import DAY, Handled, put


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


def test_a_shard_that_is_gone_frees_its_children(
    stream, make_worker, drive, received, dynamo_clock
):
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
    dynamo_clock.advance(DAY)
    stream.trim(parent)
    drive(make_worker(second), until=lambda: second)
    assert second.ids == [3]
    assert parent in [each["shard"] for each in trimmed]


def test_a_shard_that_cannot_be_trimmed_yet_is_not_finished(
    stream, make_worker, drive, received, caplog, dynamo_clock
):
    """It is missing, and was open an hour ago: its children wait, and that is told."""
    trimmed = received(signals.stream_trimmed)
    parent = stream.open()
    first, second = Handled(), Handled()
    worker = make_worker(first)
    drive(worker, turns=5)
    worker.release()
    (child,) = stream.split(parent, into=1)
    put(stream, child, 1)
    dynamo_clock.advance(3600)
    stream.trim(parent)
    worker = make_worker(second)
    drive(worker, turns=20)
    assert (second, trimmed) == ([], [])
    assert "so it cannot be trimmed" in caplog.text
    dynamo_clock.advance(DAY - 3600)
    drive(worker, until=lambda: second)
    assert parent in [each["shard"] for each in trimmed]


@pytest.fixture
def elsewhere(stream, dynamo_engine):
    """The stream of the same table at another endpoint; it was enabled later."""
    with StreamServer(dynamo_engine) as server:
        server.enable(f"{stream.table}-other")
        yield server, server.enable(stream.table)


def test_a_wrong_endpoint_finishes_no_shards(
    stream, elsewhere, make_worker, drive, using, dynamo_clock
):
    """It is told, and nothing is read there; then reading goes on where it stopped."""
    server, other = elsewhere
    shard = stream.open()
    put(stream, shard, 1)
    put(other, other.open(), 2)
    first, wrong, second = Handled(), Handled(), Handled()
    worker = make_worker(first)
    drive(worker, until=lambda: first)
    worker.release()
    stranger = StreamWorker(
        StreamsClient(stream.table, using, server.url),
        Checkpoints(stream.table, "test", using, LEASE),
        wrong,
    )
    dynamo_clock.advance(3600)
    with pytest.raises(StoreUnavailable, match=r"The stream .* Correct --stream-endpoint"):
        stranger.run()
    put(stream, shard, 3)
    drive(make_worker(second), until=lambda: second)
    assert (first.ids, wrong.ids, second.ids) == ([1], [], [3])


class OneCopy(FaultProxy):
    """An engine whose tables are the same in each region, as those with replicas nearly are."""

    def _next(self, operation, request):
        return super()._next(operation, request) or self._act

    @staticmethod
    def _act(handler, request):
        signed = handler.headers["Authorization"]
        del handler.headers["Authorization"]
        handler.headers["Authorization"] = signed.replace("/eu-west-1/", "/us-east-1/")
        status, headers, answer = handler.forward(request)
        handler.answer(status, answer, headers)
        return True


def test_two_regions_share_no_positions(stream, elsewhere, make_worker, drive, alias, using):
    """The control table is replicated; the records of both streams are handled in each region."""
    server, other = elsewhere
    with OneCopy(server.upstream.geturl()) as relay:
        server.upstream = urlsplit(relay.url)
        west = alias(ENDPOINT_URL=server.url, REGION="eu-west-1")
        here, there, again = Handled(), Handled(poison=[13]), Handled()
        one = make_worker(here)
        two = StreamWorker(
            StreamsClient(stream.table, west),
            Checkpoints(stream.table, "test", west, LEASE),
            there,
            Options(tries=1),
        )
        shard = stream.open()
        put(stream, shard, 1, 2)
        put(other, other.open(), 11, 12, 13)
        drive(one, turns=10)
        drive(one, two, turns=60)
        one.release()
        drive(two, turns=60)
        put(stream, shard, 3)
        drive(make_worker(again), two, turns=60)
        assert (here.ids, there.ids, again.ids) == ([1, 2], [11, 12], [3])
        assert len(failed_records(stream.table, "test", west)) == 1
        assert failed_records(stream.table, "test", using) == []


def test_records_that_were_trimmed_before_the_first_position_are_told(
    stream, make_worker, drive, received, dynamo_clock
):
    """The oldest record that there is says nothing about those before it."""
    trimmed = received(signals.stream_trimmed)
    shard = stream.open()
    worker = make_worker(Handled(poison=range(10), error=StoreUnavailable))
    put(stream, shard, *range(10))
    drive(worker, turns=5)
    worker.release()
    dynamo_clock.advance(DAY)
    stream.trim(shard, 6)
    handled = Handled()
    drive(make_worker(handled), until=lambda: len(handled) == 4)
    assert [each["shard"] for each in trimmed] == [shard]


def test_a_shard_that_was_opened_while_nobody_looked_is_told(
    stream, make_worker, drive, received, dynamo_clock
):
    """Its first records may be trimmed; its parent was read to the end."""
    trimmed = received(signals.stream_trimmed)
    parent = stream.open()
    put(stream, parent, 1)
    first, second = Handled(), Handled()
    worker = make_worker(first)
    drive(worker, until=lambda: first)
    (child,) = stream.split(parent, into=1)
    for reader in list(worker._readers.values()):
        while not reader.is_finished:
            reader.step()
            dynamo_clock.advance(0.5)
    put(stream, child, 2, 3)
    dynamo_clock.advance(DAY)
    stream.trim(child, 1)
    drive(make_worker(second), until=lambda: second)
    assert second.ids == [3]
    assert [each["shard"] for each in trimmed] == [child]


def test_a_kill_while_shards_are_registered_hides_nothing(
    stream, make_worker, drive, received, dynamo_clock, using
):
    """The shards that are left were opened after the same moment as those that are registered."""
    trimmed = received(signals.stream_trimmed)
    shard = stream.open()
    worker = make_worker(Handled())
    drive(worker, turns=5)
    worker.release()
    children = stream.split(shard)
    for child in children:
        put(stream, child, 1, 2)
    dynamo_clock.advance(DAY)
    for child in children:
        stream.trim(child, 1)
    stored = Checkpoints(stream.table, "test", using, LEASE)
    first = next(
        each
        for each in StreamsClient(stream.table, using).shards(stream.arn)
        if each.id.name == children[0]
    )
    stored.register([first], stored.read().seen)
    handled = Handled()
    drive(make_worker(handled), until=lambda: len(handled) == 2)
    assert {each["shard"] for each in trimmed} >= set(children)


def test_a_consumer_that_starts_again_within_a_day_is_told_nothing(
    stream, make_worker, drive, received, dynamo_clock
):
    """Nothing can be trimmed, neither in a shard without a position nor in a new one."""
    trimmed = received(signals.stream_trimmed)
    shard = stream.open()
    worker = make_worker(Handled())
    drive(worker, turns=5)
    worker.release()
    put(stream, shard, 1)
    (child,) = stream.split(shard, into=1)
    put(stream, child, 2)
    dynamo_clock.advance(DAY - 7200)
    handled = Handled()
    drive(make_worker(handled), until=lambda: len(handled) == 2)
    assert not trimmed


def test_a_shard_that_came_and_went_unseen_is_told(
    stream, make_worker, drive, received, dynamo_clock
):
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
    dynamo_clock.advance(DAY)
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
