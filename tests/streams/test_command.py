"""``dynamo_stream`` in processes of its own: kills, signals, several workers, a real engine."""

from __future__ import annotations

import io
import json
import os
import random
import secrets
import signal
import threading
import time

import pytest
from django.core.management import CommandError, call_command

from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.control import get_control
from dynamo_stores.concurrency.effects import run
from dynamo_stores.streams.checkpoints import Checkpoints
from tests.helpers import stream_handlers

HANDLERS = "tests.helpers.stream_handlers"


@pytest.fixture
def handled(tmp_path):
    """``handled()``: worker, key and sequence number of each record, in their order."""

    def read():
        path = tmp_path / "handled"
        lines = path.read_text().splitlines() if path.exists() else []
        return [tuple(map(int, line.split())) for line in lines]

    return read


@pytest.fixture
def start(interruptible, start_process, dynamo_streams, stream, tmp_path):
    """``start("--lease", "2", SECONDS_EACH="0.01")``: a worker of the stream."""

    def make(*options, handler="handle", table=None, **environment):
        environment.setdefault("DYNAMODB_ENDPOINT", dynamo_streams.url)
        return start_process(
            "manage",
            "dynamo_stream",
            table or stream.table,
            *("--handler", f"{HANDLERS}.{handler}", "--consumer", "test", *options),
            HANDLED=str(tmp_path / "handled"),
            **environment,
        )

    return make


def put(stream, shard, *ids, images=False):
    keys = [{"id": {"N": str(each)}} for each in ids]
    return [int(stream.put(shard, key, new=key if images else None)) for key in keys]


def assert_order_of_each_key(handled):
    """No record is handled for the first time after a later one of its key."""
    highest, seen = {}, set()
    for _, key, number in handled:
        if number not in seen:
            assert number > highest.get(key, 0), "A record was handled too late."
            seen.add(number)
            highest[key] = number


def test_a_signal_ends_a_worker_after_its_batch(stream, start, handled, until):
    """
    The batch is handled and saved, the shards are released, the status is 0: the next worker
    repeats nothing, and does not wait for the end of a lease.
    """
    shard = stream.open()
    written = put(stream, shard, *range(10))
    worker = start("--lease", "600", SECONDS_EACH="0.1")
    until(handled)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert [number for _, _, number in handled()] == written
    written += put(stream, shard, 10)
    second = start("--lease", "600")
    until(lambda: len(handled()) > 10)
    second.send_signal(signal.SIGINT)
    assert second.wait(30) == 0
    assert [number for _, _, number in handled()] == written


def test_killed_workers_lose_nothing_and_keep_the_order(
    stream, start, handled, until, dynamo_streams, tmp_path
):
    """
    Three workers share shards that are split while records are written, and one after the other is
    killed: every record is handled, and for each key in its order.
    """
    dynamo_streams.most = 20
    chance = random.Random(5)
    written, open_shards = [], [stream.open() for _ in range(3)]
    # A key stays in its shard, and goes on in one of the shard's children.
    places = {key: open_shards[key % 3] for key in range(12)}
    stop = threading.Event()

    def write():
        for number in range(600):
            if number % 120 == 119:
                parent = chance.choice(open_shards)
                open_shards.remove(parent)
                children = stream.split(parent)
                open_shards.extend(children)
                for key, shard in places.items():
                    if shard == parent:
                        places[key] = chance.choice(children)
            key = chance.randrange(12)
            written.extend(put(stream, places[key], key))
            stop.wait(0.01)

    options = ("--lease", "2")
    workers = [start(*options, SECONDS_EACH="0.005") for _ in range(3)]
    writer = threading.Thread(target=write)
    writer.start()
    try:
        until(lambda: len({worker for worker, _, _ in handled()}) == 3)
        for _ in range(3):
            time.sleep(1.0)
            os.kill(workers.pop(0).pid, signal.SIGKILL)
            workers.append(start(*options, SECONDS_EACH="0.005"))
        writer.join()
        until(lambda: {number for _, _, number in handled()} >= set(written))
        # The last one may not have begun.
        log = tmp_path / "process.log"
        until(lambda: log.read_text().count("Reads the stream of") == 6)
    finally:
        stop.set()
        writer.join()
    for worker in workers:
        worker.terminate()
        assert worker.wait(30) == 0
    assert_order_of_each_key(handled())
    assert len(handled()) < 2 * len(written)


@pytest.fixture
def work(using, monkeypatch, tmp_path, db):
    """``work(table, last=3)``: run the command here until so many records are handled."""

    def run_command(table, handler="handle", last=None, **options):
        monkeypatch.setenv("HANDLED", str(tmp_path / "handled"))
        monkeypatch.setattr(stream_handlers, "last", last)
        out = io.StringIO()
        options = {"using": using, "consumer": "test", "stdout": out, **options}
        path = handler and f"{HANDLERS}.{handler}"
        call_command("dynamo_stream", table, handler=path, **options)
        return out.getvalue()

    return run_command


def test_poison_is_listed_by_the_command(stream, work, handled, caplog):
    """With its key and the name of the error; the log names neither key nor message."""
    put(stream, stream.open(), 12, 13, 14)
    work(stream.table, "refuse_poison", last=14, tries=2, retry_wait=0.05)
    assert [key for _, key, _ in handled()] == [12, 14]
    found = json.loads(work(stream.table, failed=True))
    assert (found["error"], found["record"]["dynamodb"]["Keys"]) == (
        "ValueError",
        {"id": {"N": "13"}},
    )
    assert "was set aside after 2 tries (ValueError)" in caplog.text
    assert "secret" not in caplog.text


def test_records_that_were_set_aside_are_retried(stream, work, handled):
    """One by one; what is handled is deleted, and a second run repeats nothing."""
    put(stream, stream.open(), 13, 14, images=True)
    work(stream.table, "refuse_poison", last=14, tries=1, keep_images=True)
    with pytest.raises(CommandError, match="1 records are still set aside"):
        work(stream.table, "refuse_poison", retry_failed=True)
    assert [key for _, key, _ in handled()] == [14]
    assert "Handled and deleted: 1 of 1 records." in work(stream.table, retry_failed=True)
    assert [key for _, key, _ in handled()] == [14, 13]
    assert "Handled and deleted: 0 of 0 records." in work(stream.table, retry_failed=True)
    assert work(stream.table, failed=True) == ""


def test_a_record_without_its_images_is_retried_on_demand_only(stream, work, handled):
    """A handler of images would take None for them, and the record would be deleted."""
    put(stream, stream.open(), 13, 14, images=True)
    work(stream.table, "refuse_poison", last=14, tries=1)
    with pytest.raises(CommandError, match="1 records are still set aside"):
        work(stream.table, retry_failed=True)
    assert [key for _, key, _ in handled()] == [14]
    work(stream.table, retry_failed=True, without_images=True)
    assert [key for _, key, _ in handled()] == [14, 13]


def test_a_retry_ends_when_a_store_does_not_answer(stream, work):
    """The record is not at fault, and the next ones would fail, too."""
    put(stream, stream.open(), 13, 13, 14, images=True)
    work(stream.table, "refuse_poison", last=14, tries=1, keep_images=True)
    with pytest.raises(CommandError, match="No answer for the handler"):
        work(stream.table, "miss_store", retry_failed=True)
    assert len(work(stream.table, failed=True).splitlines()) == 2


def test_failed_records_are_listed_by_the_consumer_alone(stream, work):
    """Its handler may not exist any more; a consumer that never began is an error."""
    put(stream, stream.open(), 1)
    work(stream.table, last=1)
    assert work(stream.table, handler=None, failed=True) == ""
    for option in ("failed", "retry_failed"):
        with pytest.raises(CommandError, match="The consumer 'tset' has never read the stream"):
            work(stream.table, consumer="tset", **{option: True})


def test_the_first_line_says_where_reading_begins(stream, work):
    """A new consumer may get the records of a whole day."""
    shard = stream.open()
    put(stream, shard, 1)
    first = work(stream.table, last=1).splitlines()[0]
    assert "'test', which is new and begins at the oldest records, up to 24 hours back." in first
    put(stream, shard, 2)
    assert "which goes on where it stopped." in work(stream.table, last=2).splitlines()[0]


def test_a_consumer_of_the_latest_records_says_when_it_has_begun(
    stream, start, tmp_path, until, handled
):
    """What is written after that is handled, and no record from before the first line."""
    shard = stream.open()
    put(stream, shard, 1)
    log = tmp_path / "process.log"
    worker = start("--from", "latest")
    until(lambda: "The consumer 'test' has begun." in log.read_text())
    put(stream, shard, 2)
    until(handled)
    worker.terminate()
    assert worker.wait(30) == 0
    assert [key for _, key, _ in handled()] == [2]
    assert "'test', which is new and begins at the latest records." in log.read_text()


def test_stopping_on_an_error_is_an_error(stream, work):
    """The sentence names shard and record."""
    shard = stream.open()
    (number,) = put(stream, shard, 13)
    sentence = rf"failed 1 times on the record {number} of shard {shard} \(ValueError\)"
    with pytest.raises(CommandError, match=sentence):
        work(stream.table, "refuse_poison", tries=1, stop_on_error=True)


def test_a_coroutine_function_is_awaited(stream, work, handled):
    """Each record, before its position is saved."""
    put(stream, stream.open(), 1, 2)
    work(stream.table, "handle_async", last=2)
    assert [key for _, key, _ in handled()] == [1, 2]


def test_a_table_of_the_engine_is_read(work, handled, default_alias):
    """Real writes: inserts, changes and deletions, from the oldest record on."""
    control, connection = get_control("default"), get_connection("default")
    table = f"{default_alias['TABLE_PREFIX']}streamed-{secrets.token_hex(4)}"
    control.call(
        "CreateTable",
        {
            "TableName": table,
            "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "N"}],
            "BillingMode": "PAY_PER_REQUEST",
            "StreamSpecification": {
                "StreamEnabled": True,
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
        },
    )
    try:
        for key in (1, 2, 1, 3):
            item = {"id": {"N": str(key)}, "v": {"S": secrets.token_hex(4)}}
            run(connection.call("PutItem", {"TableName": table, "Item": item}))
        work(table, last=3, using="default")
        run(connection.call("DeleteItem", {"TableName": table, "Key": {"id": {"N": "2"}}}))
        work(table, last=2, using="default")
        assert [key for _, key, _ in handled()] == [1, 2, 1, 3, 2]
        (shard,) = Checkpoints(table, "test", "default", 30).read().shards.values()
        assert not shard.owner
    finally:
        control.call("DeleteTable", {"TableName": table})


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"tries": 0}, "--tries is 0; expected a whole number from 1 to 1,000."),
        ({"lease": 0.5}, "--lease is 0.5; expected a number from 1 to 3,600."),
        ({"retry_wait": -1}, "--retry-wait is -1; expected"),
        ({"stream_endpoint": "engine:1"}, "--stream-endpoint is engine:1; expected a URL"),
        ({"handler": "tests.missing"}, "'tests.missing' cannot be imported"),
        ({"handler": f"{HANDLERS}.NOT_CALLABLE"}, "which is a int; expected a function"),
        ({"handler": None}, "--handler is missing; expected"),
        ({"without_images": True}, "--without-images is set; expected --retry-failed"),
        ({"using": "missing"}, "has no alias 'missing'"),
        ({"using": ["default", "missing"]}, "has no alias 'missing'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_wrong_options_are_explained(options, sentence):
    """Before any request."""
    with pytest.raises(CommandError, match=sentence.replace(".", r"\.").replace("(", r"\(")):
        call_command("dynamo_stream", "orders", **{"handler": f"{HANDLERS}.handle", **options})


def test_a_worker_reads_the_stream_of_one_alias(alias):
    """Others are not left out in silence."""
    with pytest.raises(CommandError, match="--using names several aliases; expected one"):
        call_command(
            "dynamo_stream", "orders", handler=f"{HANDLERS}.handle", using=["default", alias()]
        )


def test_a_table_without_stream_is_explained(tables, default_alias):
    """The command says how to enable one."""
    with pytest.raises(CommandError, match=r"has no stream\. Set STREAM"):
        call_command("dynamo_stream", "dynamo-stores", handler=f"{HANDLERS}.handle")
