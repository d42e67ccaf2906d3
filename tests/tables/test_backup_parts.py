"""The parts of backups that need no engine: digests, lines, files, journal, pages, progress."""

from __future__ import annotations

import fcntl
import gzip
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.calls.item_size import MAX_ITEM_BYTES, item_size
from dynamo_stores.exceptions import BackupError
from dynamo_stores.infrastructure.backups.digests import ItemsDigest, item_digest, number
from dynamo_stores.infrastructure.backups.files import DataFile, FileWriter
from dynamo_stores.infrastructure.backups.journal import Journal
from dynamo_stores.infrastructure.backups.lines import MAX_LINE_BYTES, dump_item, load_item
from dynamo_stores.infrastructure.backups.pacing import PageSize, read_rate, write_rate
from dynamo_stores.infrastructure.backups.restore import steps
from dynamo_stores.infrastructure.backups.schema import Schema
from dynamo_stores.infrastructure.tables import table_of
from dynamo_stores.management.meter import Meter
from forum.models import Post
from tests.helpers.items import EVERY_TYPE

texts = st.text(st.characters(exclude_categories=()), max_size=20)
numbers = st.decimals(allow_nan=False, allow_infinity=False, places=5).map(str)
scalars = st.one_of(
    st.builds(lambda v: {"S": v}, texts),
    st.builds(lambda v: {"N": v}, numbers),
    st.builds(lambda v: {"B": v}, st.binary(max_size=20)),
    st.builds(lambda v: {"BOOL": v}, st.booleans()),
    st.just({"NULL": True}),
    st.builds(lambda v: {"SS": v}, st.lists(texts, min_size=1, max_size=3, unique=True)),
    st.builds(lambda v: {"NS": v}, st.lists(numbers, min_size=1, max_size=3, unique=True)),
    st.builds(lambda v: {"BS": v}, st.lists(st.binary(max_size=5), min_size=1, unique=True)),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(lambda v: {"L": v}, st.lists(inner, max_size=3)),
        st.builds(lambda v: {"M": v}, st.dictionaries(texts, inner, max_size=3)),
    ),
    max_leaves=8,
)
items = st.dictionaries(texts, values, max_size=5)


@given(items)
def test_an_item_comes_back_from_its_line(item):
    """Of every type, also with lone surrogates and names such as B."""
    line = dump_item(item)
    assert line.count(b"\n") == 1
    assert load_item(line) == item


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{", b"[]", b'{"Item": []}', b'{"Item": {}, "more": 1}', b'{"item": {}}',
        b'{"Item": {"a": "x"}}', b'{"Item": {"a": {"S": 1}}}', b'{"Item": {"a": {"N": 1}}}',
        b'{"Item": {"a": {"S": "x", "N": "1"}}}', b'{"Item": {"a": {"X": "x"}}}',
        b'{"Item": {"a": {"B": "?"}}}', b'{"Item": {"a": {"SS": "x"}}}',
        b'{"Item": {"a": {"L": [{}]}}}', b'{"Item": {"a": {"NULL": false}}}', b"\xff\xfe",
        b'{"Item": {"a": ' + b'{"L": [' * 100_000,
    ],
)  # fmt: skip
def test_a_line_that_is_no_item_is_refused(line):
    """By an error that does not have its content."""
    with pytest.raises(ValueError, match=r"^(is not JSON|is not an item|has a value that is not)"):
        load_item(line)


def test_changes_of_an_incremental_export_are_named():
    """They are no items."""
    with pytest.raises(ValueError, match="is of an incremental export"):
        load_item(b'{"Metadata": {"WriteTimestampMicros": {"N": "1"}}, "Keys": {"id": {"S": "1"}}}')


def test_the_longest_line_of_an_item_is_read():
    """Of numbers with an exponent, of which DynamoDB returns all digits."""
    item = {"id": {"S": "1"}, "x": {"L": [{"N": "1" + "0" * 125}] * 136_000}}
    assert 400_000 < item_size(item) < MAX_ITEM_BYTES
    assert load_item(dump_item(item)) == item


@pytest.mark.parametrize(
    "content",
    [
        b'"x":{"L":[' + b",".join([b'{"L":[]}'] * 500_000) + b"]}",
        b'"x":{"S":"' + b"x" * MAX_LINE_BYTES + b'"}',
    ],
)
def test_a_line_that_is_longer_than_that_of_an_item_is_refused(content):
    """Before it is parsed, which takes much memory for many elements."""
    with pytest.raises(ValueError, match="is longer than the line of an item"):
        load_item(b'{"Item":{"id":{"S":"1"},' + content + b"}}")


@pytest.mark.parametrize(
    "value",
    [
        {"S": "," * 409_000},
        {"S": "\x00" * 409_000},
        {"L": [{"S": ""}] * 409_000},
        {"L": [{"N": f"1{'0' * 125}"}] * 100_000},
        {"NS": [str(n) for n in range(10_000, 90_000)]},
    ],
    ids=["commas", "escapes", "empty strings", "digits", "numbers"],
)
def test_the_longest_lines_of_items_are_read(value):
    """Of items of 400 KB, in the notations that are longest in JSON."""
    item = {"id": {"S": "1"}, "x": value}
    assert item_size(item) <= MAX_ITEM_BYTES
    assert load_item(dump_item(item)) == item


def test_an_item_with_lone_surrogates_has_a_size():
    """In names, strings and sets: three bytes each."""
    one = "\ud800"
    assert item_size({one: {"S": one}}) == 6
    assert item_size({one: {"SS": [one, "a"]}}) == 7
    assert item_size({one: {"M": {one: {"S": one}}}}) == 3 + 3 + 1 + 6


@pytest.mark.parametrize(
    "same",
    [
        ["0", "-0", "0.000", "0E+5"],
        ["1", "1.0", "1e0", "10E-1", "+1", "01"],
        ["-100", "-1E2", "-100.00"],
        ["12345678901234567890123456789012345678", "12345678901234567890123456789012345678.0"],
    ],
)
def test_a_number_has_one_notation(same):
    """Numbers are compared by their value."""
    assert len({number(each) for each in same}) == 1


@given(st.lists(items, max_size=6), st.randoms())
def test_the_digest_of_items_has_no_order_and_can_be_added(found, random):
    """And one changed attribute changes it."""
    whole = ItemsDigest.of(found)
    shuffled = found.copy()
    random.shuffle(shuffled)
    assert sum((ItemsDigest.of([each]) for each in shuffled), ItemsDigest()) == whole
    assert ItemsDigest.parse(whole.items, str(whole)) == whole
    for index, item in enumerate(found):
        changed = [*found[:index], {**item, "?": {"S": "new"}}, *found[index + 1 :]]
        assert ItemsDigest.of(changed) != whole or "?" in item


def test_values_of_different_types_have_different_digests():
    """A string is no number, a set is no list, null is not false."""
    different = [
        {"S": "1"}, {"N": "1"}, {"B": b"1"}, {"SS": ["1"]}, {"NS": ["1"]}, {"BS": [b"1"]},
        {"L": [{"S": "1"}]}, {"M": {"1": {"S": "1"}}}, {"NULL": True}, {"BOOL": True},
        {"BOOL": False}, {"L": []}, {"M": {}}, {"S": ""}, {"B": b""}, {"N": "10"}, {"N": "0.1"},
    ]  # fmt: skip
    assert len({item_digest({"a": each}) for each in different}) == len(different)


def test_a_file_has_its_name_when_it_is_whole(tmp_path):
    """Before, it is <name>.part."""
    writer = FileWriter(tmp_path / "a.json.gz")
    writer.add([EVERY_TYPE])
    assert [each.name for each in tmp_path.iterdir()] == ["a.json.gz.part"]
    record = writer.finish()
    assert [each.name for each in tmp_path.iterdir()] == ["a.json.gz"]
    assert record.size == (tmp_path / "a.json.gz").stat().st_size
    file = DataFile(tmp_path / "a.json.gz", record.items, record.digest, record.size, record.sha256)
    assert list(file.read()) == [EVERY_TYPE]


@pytest.mark.parametrize("position", [0, 5, 12, 40, -9, -5, -1])
def test_every_flipped_byte_is_found_while_reading(tmp_path, position):
    """In the head of the file, in the data, and in the checksum of gzip."""
    writer = FileWriter(tmp_path / "a.json.gz")
    writer.add([{"id": {"S": str(n)}} for n in range(50)])
    record = writer.finish()
    data = bytearray((tmp_path / "a.json.gz").read_bytes())
    data[position] ^= 0x10
    (tmp_path / "a.json.gz").write_bytes(data)
    file = DataFile(tmp_path / "a.json.gz", record.items, record.digest, record.size, record.sha256)
    for look in (file.check, lambda: list(file.read())):
        with pytest.raises(BackupError, match=r"/a\.json\.gz(:| was altered| is truncated)"):
            look()


def test_lines_that_are_missing_are_found_by_their_number(tmp_path):
    """An export has no size, but the number of items."""
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(dump_item(EVERY_TYPE)))
    with pytest.raises(BackupError, match=r"a\.json\.gz is incomplete: it has 1 items, expected 2"):
        list(DataFile(tmp_path / "a.json.gz", 2).read())


def test_a_journal_forgets_the_line_that_a_crash_cut_off(tmp_path):
    """And no other one; a new line is whole."""
    path = tmp_path / "journal"
    with Journal(path) as journal:
        assert journal.work is None
        journal.begin({"table": "t"})
        journal.append({"file": 1})
    with path.open("ab") as file:
        file.write(b'{"file": 2')
    with Journal(path) as journal:
        assert (journal.work, journal.entries) == ({"table": "t"}, [{"file": 1}])
        journal.append({"file": 3})
    with Journal(path) as journal:
        assert journal.entries == [{"file": 1}, {"file": 3}]
        with pytest.raises(BackupError, match="in use by another process"):
            Journal(path)
    head, *_ = path.read_bytes().splitlines()
    path.write_bytes(head + b'\nnonsense\n{"b": 2}\n')
    with pytest.raises(BackupError, match="is damaged at line 2"):
        Journal(path)
    with Journal(tmp_path / "never used"):
        pass
    assert os.listdir(tmp_path) == ["journal"]
    with pytest.raises(BackupError, match="cannot be written: No such file"):
        Journal(tmp_path / "nowhere" / "journal")


@pytest.mark.parametrize("content", [b"SECRET_KEY=abc", b"{}\n", b'{"version": 1}\n', b"\x00\n"])
def test_a_file_that_is_no_journal_is_neither_changed_nor_deleted(tmp_path, content):
    """Such as the wrong one of --state."""
    path = tmp_path / "secrets.env"
    path.write_bytes(content)
    with pytest.raises(BackupError, match="is neither empty nor the progress of a backup"):
        Journal(path)
    assert path.read_bytes() == content


def test_a_journal_that_is_deleted_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    """Its process ended its work; the lock of a deleted file keeps nobody out."""
    path = tmp_path / "journal"
    path.touch()
    lock = fcntl.flock

    def late(file, how):
        monkeypatch.setattr(fcntl, "flock", lock)
        path.unlink()
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with Journal(path) as journal:
        journal.begin({"table": "t"})
        with pytest.raises(BackupError, match="in use by another process"):
            Journal(path)


def test_an_empty_file_that_was_there_is_not_deleted(tmp_path):
    """A journal without work is deleted only by the process that made it."""
    path = tmp_path / "journal"
    path.touch()
    with Journal(path):
        pass
    assert path.exists()


def test_pages_grow_to_a_second_of_the_rate_and_a_megabyte():
    """The first is small; DynamoDB's own sizes are hours old."""
    size = PageSize(20, consistent=True, mean_bytes=10)
    assert size.limit == 2
    for _ in range(10):
        size.measured(size.limit, size.limit * 1024)
    assert size.limit == 80
    size.measured(80, 80 * 400_000)
    assert size.limit == 1
    eventual = PageSize(20, consistent=False, segments=2)
    free = PageSize(None, consistent=True)
    for each in (eventual, free):
        for _ in range(12):
            each.measured(each.limit, each.limit * 1024)
    assert (eventual.limit, free.limit) == (80, 1024)


def test_the_rate_is_a_share_of_the_capacity():
    """An index with less write capacity counts; on-demand tables are not paced."""
    table = {
        "ProvisionedThroughput": {"ReadCapacityUnits": 40, "WriteCapacityUnits": 20},
        "GlobalSecondaryIndexes": [
            {"ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 8}}
        ],
    }
    on_demand = {"ProvisionedThroughput": {"ReadCapacityUnits": 0, "WriteCapacityUnits": 0}}
    assert (read_rate(table, 0.5, None), write_rate(table, 0.5, None)) == (20, 4)
    assert (read_rate(on_demand, 0.5, None), write_rate({}, 0.5, None)) == (None, None)
    # An index may still show what it had before a switch to on-demand capacity.
    switched = {**table, "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"}}
    assert (read_rate(switched, 0.5, None), write_rate(switched, 0.5, None)) == (None, None)
    assert (read_rate(on_demand, 0.5, 7.0), write_rate(table, 0.5, 7.0)) == (7.0, 7.0)


def test_no_step_of_a_restore_has_a_key_twice_or_too_many_units():
    """DynamoDB refuses a whole batch with one key twice."""
    found = [{"id": {"N": text}} for text in ("1", "2", "1.0", "3")]
    assert [len(step) for step in steps(found, ("id",), 1000)] == [2, 2]
    large = [{"id": {"N": str(n)}, "d": {"B": bytes(3_000)}} for n in range(5)]
    assert [len(step) for step in steps(large, ("id",), 7)] == [2, 2, 1]
    assert [len(step) for step in steps(large, ("id",), 1)] == [1] * 5
    assert [len(step) for step in steps(large * 1, ("id",), float("inf"))] == [5]
    with pytest.raises(BackupError, match="An item has no attribute id, which is a key"):
        list(steps([{"x": {"S": "1"}}], ("id",), 1))


def test_a_schema_is_that_of_its_table():
    """By its own JSON, and by differences in keys, types and indexes."""
    schema = Schema.of_spec(table_of(Post))
    assert Schema.from_json(schema.as_json()) == schema
    assert schema.keys == ("postId", "threadId")
    assert schema.indexes == ["ThreadIndex", "UserIndex"]
    fewer = {
        **schema.request,
        "GlobalSecondaryIndexes": schema.request["GlobalSecondaryIndexes"][:1],
    }
    assert schema.differences(Schema(fewer)) == ["its index UserIndex is missing"]
    assert Schema(fewer).differences(schema) == []
    for wrong in ({}, {"table": {}, "ttl": None}, None, {"table": {"KeySchema": 3}, "ttl": None}):
        with pytest.raises(BackupError):
            Schema.from_json(wrong)


@pytest.mark.parametrize(
    "name", ["ResourcePolicy", "StreamSpecification", "Tags", "TableName", "SSESpecification"]
)
def test_a_schema_with_other_arguments_of_create_table_is_refused(name):
    """A manifest that somebody made chooses no policy; the same is true of its indexes."""
    good = Schema.of_spec(table_of(Post)).request
    index = {**good["GlobalSecondaryIndexes"][0], name: {}}
    for request in ({**good, name: {}}, {**good, "GlobalSecondaryIndexes": [index]}):
        with pytest.raises(BackupError, match=f"has '{name}', which no backup keeps"):
            Schema.from_json({"table": request, "ttl": None})


@pytest.mark.parametrize(
    "wrong",
    [
        {"ProvisionedThroughput": {"ReadCapacityUnits": "many"}},
        {"ProvisionedThroughput": 3},
        {"GlobalSecondaryIndexes": [{}]},
        {"GlobalSecondaryIndexes": [3]},
    ],
)
def test_a_schema_with_wrong_values_is_refused(wrong):
    """By a clear error."""
    good = Schema.of_spec(table_of(Post)).request
    with pytest.raises(BackupError, match="is not one of a table"):
        Schema.from_json({"table": {**good, **wrong}, "ttl": None})
    without = {name: value for name, value in good.items() if name != "BillingMode"}
    with pytest.raises(BackupError, match="is not one of a table"):
        Schema.from_json({"table": without, "ttl": None})


def test_a_schema_keeps_the_limits_of_an_on_demand_table():
    """Without them a restored table could cost more; -1 is none."""
    keys = [{"AttributeName": "id", "KeyType": "HASH"}]
    index = {"IndexName": "by", "KeySchema": keys, "Projection": {"ProjectionType": "ALL"}}
    description = {
        "KeySchema": keys,
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
        "OnDemandThroughput": {"MaxReadRequestUnits": -1, "MaxWriteRequestUnits": 1_000},
        "GlobalSecondaryIndexes": [
            {**index, "OnDemandThroughput": {"MaxReadRequestUnits": 50, "MaxWriteRequestUnits": 9}}
        ],
    }
    schema = Schema.of_description(description, None)
    assert schema.request["OnDemandThroughput"] == {"MaxWriteRequestUnits": 1_000}
    assert Schema.from_json(schema.as_json()) == schema
    assert schema.billing == (
        "PAY_PER_REQUEST; 1,000 write units a second at most; index by: 50 read units a second at "
        "most, 9 write units a second at most"
    )
    free = {**description, "OnDemandThroughput": {"MaxReadRequestUnits": -1}}
    assert "OnDemandThroughput" not in Schema.of_description(free, None).request


class Terminal(io.StringIO):
    """A stream with a terminal's answer, and the parameter of Django's."""

    def isatty(self):
        return True

    def write(self, text, ending="\n"):
        super().write(text + ending)


def test_a_progress_bar_has_an_estimate(dynamo_clock):
    """Of the time that the rest takes at the same speed; on a terminal it stays in its line."""
    stream = Terminal()
    meter = Meter(stream, 1000)
    meter.update("Read", 0)
    dynamo_clock.advance(60)
    meter.update("Read", 250)
    assert stream.getvalue() == (
        "\r[#######.......................] 25% Read 250 items, about 3 min 00 s left\x1b[K"
    )
    dynamo_clock.advance(0.1)
    meter.update("Read", 251)
    meter.end()
    assert stream.getvalue().endswith("left\x1b[K\n")
    assert Meter(stream, 0).line(7, 1.0) == " 7 items"
    assert "100%" in Meter(stream, 5).line(9, 1.0)


def test_without_a_terminal_progress_is_lines(dynamo_clock):
    """One in five seconds; a resumed work is estimated by what is new."""
    stream = Terminal()
    stream.isatty = lambda: False
    meter = Meter(stream, 1000)
    meter.update("Handled", 500)
    for _ in range(10):
        dynamo_clock.advance(1)
        meter.update("Handled", 600)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert lines[0].endswith("60% Handled 600 items, about 20 s left")
    silent = Terminal()
    Meter(silent, 10, is_silent=True).update("Read", 5)
    assert silent.getvalue() == ""
