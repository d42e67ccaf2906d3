"""Lines of CloudWatch's Embedded Metric Format."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import sys
import threading
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.calls.observer import measuring
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import ConfigurationError, StoreUnavailable
from dynamo_stores.monitoring import Monitor, flush_metrics, monitor_operation
from dynamo_stores.monitoring.exporter import get_exporters
from dynamo_stores.monitoring.histogram import bucket_of
from dynamo_stores.monitoring.metrics import Distribution
from dynamo_stores.monitoring.sinks.base import UNITS, Metric
from dynamo_stores.monitoring.sinks.emf import EMFSink, lines
from dynamo_stores.monitoring.sinks.series import Pending, Point, Series, Values
from dynamo_stores.stores import CacheStore, RateLimitStore
from tests.helpers.forking import in_processes

EMF = "dynamo_stores.monitoring.sinks.emf.EMFSink"
SCHEMA = json.loads(Path(__file__).with_name("emf_schema.json").read_text())
NOW = 2_000_000_000.0


@pytest.fixture
def written(alias):
    """``written(**options)``: an alias with the sink, which publishes only when it is flushed."""

    def make(**options):
        changes = options.pop("changes", {})
        wanted = {
            "SINKS": [EMF],
            "INTERVAL": 3600.0,
            "NAMESPACE": "Shop",
            "OPTIONS": {EMF: options},
        }
        return alias(METRICS=wanted, **changes)

    return make


def checked(text):
    """The objects of all lines; each is what the format allows."""
    found = []
    for line in text.splitlines():
        names = []
        read = json.loads(line, object_pairs_hook=lambda pairs: _unique(pairs))
        jsonschema.validate(read, SCHEMA)
        (directive,) = read["_aws"]["CloudWatchMetrics"]
        (dimensions,) = directive["Dimensions"]
        assert all(isinstance(read[name], str) for name in dimensions)
        assert all(1 <= len(read[name]) <= 1024 for name in dimensions)
        for metric in directive["Metrics"]:
            names.append(metric["Name"])
            assert metric["Name"] not in dimensions
            assert all(len(each) <= 100 for each in _lists(read[metric["Name"]]))
        assert len(set(names)) == len(names)
        # With the end of the line, what a pipe takes in one piece.
        assert len(line) < 4096 or len(names) == 1
        found.append(read)
    return found


def _unique(pairs):
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


def _lists(target):
    if isinstance(target, dict):
        return [target["Values"], target["Counts"]]
    return [target if isinstance(target, list) else [target]]


def totals(found):
    """The count and the sum of each metric, by name and the values of its dimensions."""
    counts, sums = Counter(), Counter()
    for line in found:
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        (dimensions,) = directive["Dimensions"]
        for metric in directive["Metrics"]:
            name, target = metric["Name"], line[metric["Name"]]
            key = (name, *(line[each] for each in dimensions))
            if isinstance(target, dict):
                counts[key] += target["Count"]
                sums[key] += target["Sum"]
                assert target["Count"] == sum(target["Counts"])
            else:
                counts[key] += len(_lists(target)[0])
                sums[key] += sum(_lists(target)[0])
    return counts, sums


def test_lines_agree_with_what_was_counted(written, capsys, dynamo_faults):
    """Every count since the last export, and latencies by number and sum."""
    using = written(
        changes={"ENDPOINT_URL": dynamo_faults.url, "RETRY": {"MAX_RETRIES": 0, "DELAY": 0.01}}
    )
    table, store = get_config(using).store_table, CacheStore(using)
    dynamo_faults.throttle("GetItem", times=1)
    with measuring() as attempts:
        store.set("secret-key", "secret-value")
        for _ in range(150):
            store.get("secret-key")
        store.get("absent")
        dynamo_faults.fail("GetItem", times=1)
        with pytest.raises(StoreUnavailable):
            store.get("secret-key")
        assert RateLimitStore(using).acquire("reports", rate="0/h").allowed is False
    attempts = [each for each in attempts if each.using == using]
    assert flush_metrics(using, seconds=60)
    text = capsys.readouterr().out
    counts, sums = totals(checked(text))
    assert sums["operations", using, table] == len(attempts) - 1
    assert counts["operation_seconds", using, table] == len(attempts) - 1
    assert sums["errors", using, table] == sums["throttles", using, table] == 1
    assert sums["retries", using, table] == 1
    assert sums["hits", using] == 150
    assert sums["misses", using] == 1
    assert sums["rate_limit_refusals", using] == 1
    for kind in ("Read", "Write"):
        units = sum(sum(each.units.values()) for each in attempts if each.kind == kind)
        assert sums[f"{kind.lower()}_units", using, table] == pytest.approx(units)
    seconds = sum(each.waited + each.seconds for each in attempts if not each.throttled)
    assert sums["operation_seconds", using, table] == pytest.approx(seconds, rel=1e-2)
    assert "secret" not in text
    assert flush_metrics(using, seconds=60)
    assert capsys.readouterr().out == ""


def test_values_and_blocks_of_the_application(written, capsys):
    """Also in a process that makes no call."""
    using = written()
    monitor = Monitor(using)
    for value in (1.5, 2.5, 2.5):
        monitor.record_metric("basket", value, "None", dimensions={"Shop": "Köln"})
    with pytest.raises(LookupError), monitor_operation("import", using=using):
        raise LookupError
    assert get_exporters(using).has_started
    assert flush_metrics(using, seconds=60)
    counts, sums = totals(checked(capsys.readouterr().out))
    assert counts["basket", "K?ln"] == 3
    assert sums["basket", "K?ln"] == 6.5
    assert counts["monitored_seconds", using, "import"] == 1


def test_dimensions_are_chosen(written, capsys):
    """Each metric by its sets of labels; none leaves it out; a family that is not sent is."""
    chosen = {
        "operations": [["table", "operation"], []],
        "operation_seconds": [],
        "attempts": [["error"]],
    }
    using = written(DIMENSIONS=chosen)
    table, store = get_config(using).store_table, CacheStore(using)
    store.set("k", 1)
    store.get("missing")
    store.get("missing")
    assert flush_metrics(using, seconds=60)
    _, sums = totals(checked(capsys.readouterr().out))
    assert sums["operations", using, table, "GetItem"] == 2
    assert sums["operations", using, table, "PutItem"] == 1
    assert sums["operations", using] == 3
    assert sums["attempts", using, "(none)"] == 3
    assert not [key for key in sums if key[0] == "operation_seconds"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"DIMENSIONS": ["table"]}, "expected a dict of metrics"),
        ({"DIMENSIONS": {"operation": []}}, "did you mean 'operations'?"),
        ({"DIMENSIONS": {"errors": [["tabel"]]}}, "its labels: table, operation, error"),
        ({"DIMENSIONS": {"errors": ["table"]}}, "a list of lists"),
        ({"STREAM": "file"}, "expected 'stdout' or 'stderr'"),
    ],
)
def test_a_wrong_option_is_named(written, options, message):
    using = written()
    with pytest.raises(ConfigurationError, match=message.replace("?", r"\?")):
        EMFSink(using, options)


def test_lines_go_to_a_logger_or_to_standard_error(written, caplog, capsys):
    using = written(LOGGER="shop.metrics")
    with caplog.at_level(logging.INFO, "shop.metrics"):
        Monitor(using).record_metric("orders", 2)
        assert flush_metrics(using, seconds=60)
    (line,) = [each.getMessage() for each in caplog.records if each.name == "shop.metrics"]
    assert totals(checked(line))[1] == {("orders",): 2}
    using = written(STREAM="stderr")
    Monitor(using).record_metric("orders", 3)
    assert flush_metrics(using, seconds=60)
    out, err = capsys.readouterr()
    assert out == ""
    assert totals(checked(err))[1] == {("orders",): 3}


TEXTS = st.text(max_size=300)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e60, max_value=1e60)


@given(
    st.lists(
        st.builds(
            Metric,
            st.one_of(st.sampled_from(["_aws", "a", "b", "a_"]), TEXTS),
            NUMBERS,
            st.sampled_from(sorted(each[0].upper() + each[1:] for each in UNITS)),
            st.lists(
                st.tuples(st.one_of(st.sampled_from(["_aws", "a", "b"]), TEXTS), TEXTS), max_size=32
            ).map(tuple),
            st.sampled_from([NOW, NOW - 60, NOW - 30 * 86_400]),
        ),
        max_size=20,
    ),
    st.booleans(),
)
def test_whatever_an_application_records_is_a_valid_line(metrics, counts):
    """Nothing is lost but what is too old or has too many dimensions, which is counted."""
    pending = Pending("default")
    for metric in metrics:
        pending.record(metric)
    points = pending.points(NOW)
    found = checked("\n".join(lines("Shop", points, counts=counts)))
    assert sum(totals(found)[0].values()) + pending.dropped == len(metrics)


@given(
    st.lists(st.floats(min_value=0, max_value=100), min_size=1, max_size=400),
    st.integers(1, 7),
    st.booleans(),
)
def test_latencies_are_exact_in_count_and_sum(seconds, repeats, counts):
    """Lists of a hundred values at most, on as many lines as needed."""
    buckets = Counter(bucket_of(each) for each in seconds for _ in range(repeats))
    total = sum(seconds) * repeats
    found = Values.of(Distribution(len(seconds) * repeats, total, buckets))
    point = Point(Series("operation_seconds", "Seconds", (("table", "t"),)), int(NOW), found)
    read = checked("\n".join(lines("Shop", [point], counts=counts)))
    key = ("operation_seconds", "t")
    assert totals(read)[0][key] == len(seconds) * repeats
    assert totals(read)[1][key] == pytest.approx(total, rel=1e-6, abs=1e-9)


def test_many_different_values_are_exact_in_count_sum_and_bounds():
    values = Values({1.0: 1})
    for number in range(2, 1001):
        values.add(Values({float(number): 1}))
    assert values.counts is None
    point = Point(Series("size", "Bytes", ()), int(NOW), values)
    read = checked("\n".join(lines("Shop", [point])))
    found = [value for line in read for value in _lists(line["size"])[0]]
    assert (len(found), min(found), max(found)) == (1000, 1, 1000)
    assert math.isclose(sum(found), 500_500)


def test_more_than_a_hundred_metrics_take_several_lines():
    points = [
        Point(Series(f"m{number}", "Count", ()), 60, Values({1.0: 1})) for number in range(250)
    ]
    read = checked("\n".join(lines("Shop", points)))
    assert len(read) > 2
    assert len(totals(read)[0]) == 250


def test_a_broken_pipe_is_logged_once(written, monkeypatch, caplog):
    """And hinders no call."""
    using = written()
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    for _ in range(3):
        CacheStore(using).set("k", 1)
        assert flush_metrics(using, seconds=60)
    assert caplog.text.count("Metrics cannot be written to stdout: BrokenPipeError.") == 1
    with contextlib.suppress(BrokenPipeError):
        stream.close()
    for found in (stream, None):
        monkeypatch.setattr(sys, "stdout", found)
        Monitor(using).record_metric("orders", 1)
        assert flush_metrics(using, seconds=60)
    assert caplog.text.count("Metrics cannot be written") == 1


def test_a_full_pipe_delays_no_call(written, monkeypatch):
    """The lines come when somebody reads; other threads can use the stream meanwhile."""
    using = written()
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(writing, b" " * 1024)
    os.set_blocking(writing, True)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    Monitor(using).record_metric("orders", 2)
    assert not flush_metrics(using, seconds=0.3)
    CacheStore(using).get("missing")
    flush = threading.Thread(target=sys.stdout.flush, daemon=True)
    flush.start()
    flush.join(30)
    assert not flush.is_alive()
    with os.fdopen(reading) as reader:
        reader.read(filled)
        line = reader.readline()
    assert totals(checked(line))[1] == {("orders",): 2}
    sys.stdout.close()


def test_processes_that_share_a_pipe_do_not_mix_their_lines(written, monkeypatch):
    using = written()
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    read = []

    def collect():
        with os.fdopen(reading) as reader:
            read.append(reader.read())

    reader = threading.Thread(target=collect)
    reader.start()

    def in_child(number):
        monitor = Monitor(using)
        for each in range(3000):
            monitor.record_metric(f"{each}" + "x" * 100, 1, dimensions={"Process": str(number)})
        return flush_metrics(using, seconds=60)

    assert in_processes(3, in_child) == [True] * 3
    sys.stdout.close()
    reader.join(60)
    assert sum(totals(checked(read[0]))[1].values()) == 9000
