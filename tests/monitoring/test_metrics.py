"""What the meter counts, and how it reaches the sinks."""

from __future__ import annotations

import json
import logging
import secrets
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import ClientError
from django.conf import settings

from dynamo_stores.cache.locks import Lock, LockStore
from dynamo_stores.cache.options import CacheOptions
from dynamo_stores.cache.stampede import get_or_compute
from dynamo_stores.calls import observer
from dynamo_stores.concurrency.effects import Computation, run
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import CircuitBreakerOpenError, StoreUnavailable
from dynamo_stores.monitoring.correlation import correlated
from dynamo_stores.monitoring.exporter import flush_metrics, get_exporters
from dynamo_stores.monitoring.meter import get_meter
from dynamo_stores.monitoring.metrics import FAMILIES, Distribution, Snapshot
from dynamo_stores.monitoring.monitor import Monitor
from dynamo_stores.monitoring.sinks import Sink
from dynamo_stores.stores import CacheStore, DedupeStore, RateLimitStore
from tests.helpers.forking import in_processes


class Keeps(Sink):
    """Keeps what it gets."""

    made: list[Keeps] = []  # noqa: RUF012 - read by the tests

    def __init__(self, using, options):
        super().__init__(using, options)
        self.operations, self.counted, self.exports, self.closed = [], [], [], 0
        self.made.append(self)

    def wants_operations(self):
        return self.options.get("OPERATIONS", False)

    def operation(self, operation):
        self.operations.append(operation)

    def count(self, operation):
        self.counted.append(operation)

    def export(self, snapshot, since):
        if self.options.get("RAISES"):
            raise ValueError("of the sink")
        if "HANGS" in self.options:
            time.sleep(self.options["HANGS"])
        self.exports.append((snapshot, since))

    def close(self):
        self.closed += 1


KEEPS = f"{__name__}.Keeps"


@pytest.fixture
def metrics(alias):
    """``metrics(**options)``: an alias with the sink Keeps, and the sink."""

    def make(*, sinks=(KEEPS,), interval=3600.0, rate=1.0, changes=(), **options):
        wanted = {
            "SINKS": list(sinks),
            "INTERVAL": interval,
            "SAMPLING_RATE": rate,
            "OPTIONS": {KEEPS: options},
        }
        using = alias(METRICS=wanted, **dict(changes))
        found = [each.sink for each in get_exporters(using).all]
        return using, found[0] if found else None

    return make


def test_attempts_operations_units_and_latency_are_counted(metrics):
    using, _ = metrics()
    table, store = get_config(using).store_table, CacheStore(using)
    with observer.recording() as found:
        store.set("k", 1)
        store.get("k")
        store.get("missing")
        store.get_many(["k", "l"])
    counted = get_meter(using).snapshot()
    operations = counted.counters["operations"]
    assert operations[table, "GetItem", ""] == 2
    assert operations[table, "BatchGetItem", ""] == 1
    assert counted.counters["attempts"] == operations
    assert counted.total("consumed_units", kind="read") == sum(
        sum(each.units.values()) for each in found if each.kind == "Read"
    )
    assert counted.counters["cache_lookups"] == {("hit",): 2.0, ("miss",): 2.0}
    latency = counted.histograms["operation_seconds"][table, "GetItem"]
    assert latency.count == sum(latency.buckets.values()) == 2
    gets = [each.attempts[0] for each in found if each.operation == "GetItem"]
    assert latency.total == pytest.approx(sum(each.seconds + each.waited for each in gets))
    assert counted.gauges == {"breaker_open": {(table,): 0.0}}
    assert "retries" not in counted.counters


def test_retries_throttles_and_failures_are_counted(metrics, dynamo_faults):
    using, _ = metrics(
        changes={
            "ENDPOINT_URL": dynamo_faults.url,
            "RETRY": {"MAX_RETRIES": 1, "DELAY": 0.01},
            "CIRCUIT_BREAKER": {"FAILURE_THRESHOLD": 1},
        }
    )
    table, store = get_config(using).store_table, CacheStore(using)
    arn = f"arn:aws:dynamodb:us-east-1:000000000000:table/{table}"
    reason = "TableReadProvisionedThroughputExceeded"
    dynamo_faults.throttle("GetItem", times=2, reason=reason, resource=arn)
    store.get("k")
    dynamo_faults.fail("GetItem", times=2)
    with pytest.raises(StoreUnavailable):
        store.get("k")
    with pytest.raises(CircuitBreakerOpenError):
        store.get("k")
    counted = get_meter(using).snapshot()
    (failure,) = {
        error for _, _, error in counted.counters["operations"]
    } - {"", "CircuitBreakerOpenError"}  # fmt: skip
    assert counted.counters["operations"] == {
        (table, "GetItem", ""): 1.0,
        (table, "GetItem", failure): 1.0,
        (table, "GetItem", "CircuitBreakerOpenError"): 1.0,
    }
    assert counted.total("attempts") == 5
    assert counted.total("attempts", error="ThrottlingError") == 2
    assert counted.total("retries") == 3
    assert counted.counters["throttles"] == {(table, "", "GetItem", reason): 2.0}
    assert counted.counters["breaker_transitions"] == {(table, "open"): 1.0}
    assert counted.gauges["breaker_open"] == {(table,): 1.0}
    assert counted.histograms["operation_seconds"][table, "GetItem"].count == 3


def test_stores_count_refusals_jobs_and_waits(metrics, until):
    using, _ = metrics()
    assert RateLimitStore(using).acquire("reports", rate="0/h").allowed is False
    jobs = DedupeStore(using)
    jobs.run("a", lambda: 1)
    with pytest.raises(ZeroDivisionError):
        jobs.run("b", lambda: 1 / 0)
    fence = jobs.register("c")
    waiting = threading.Thread(target=jobs.wait_for, args=["c"])
    waiting.start()
    until(lambda: get_meter(using).snapshot().total("waits"))
    jobs.complete("c", 1, fence=fence)
    waiting.join()
    counted = get_meter(using).snapshot().counters
    assert counted["rate_limit_refusals"] == {("reports",): 1.0}
    assert counted["jobs"] == {("begun",): 3.0, ("completed",): 2.0, ("failed",): 1.0}
    assert counted["waits"] == {("job",): 1.0}


def test_callers_that_wait_for_another_are_counted_once(metrics, until):
    """For a lock, and for the computation of a value; however often they read meanwhile."""
    using, key = metrics()[0], secrets.token_hex(8)
    counted = get_meter(using).snapshot
    locks = LockStore(using)
    with Lock(locks, key):
        waiting = threading.Thread(target=Lock(locks, key).acquire, args=[True, 1.5])
        waiting.start()
        until(lambda: counted().total("waits"))
        waiting.join()
    store = CacheStore(using, options=CacheOptions(stampede_lease=10))
    begun, may_end = threading.Event(), threading.Event()

    def compute():
        begun.set()
        may_end.wait(10)
        return 1

    def get():
        return run(get_or_compute(store, Computation(compute), key, 60, ()))

    with ThreadPoolExecutor(2) as threads:
        found = [threads.submit(get)]
        begun.wait(10)
        found.append(threads.submit(get))
        until(lambda: counted().total("waits") == 2)
        may_end.set()
        assert [each.result() for each in found] == [1, 1]
    assert counted().counters["waits"] == {("lock",): 1.0, ("computation",): 1.0}


def test_every_metric_belongs_to_a_family(metrics, dynamo_faults):
    """With a value for each of its labels."""
    using, _ = metrics(changes={"ENDPOINT_URL": dynamo_faults.url})
    dynamo_faults.throttle("GetItem", times=1)
    CacheStore(using).get("k")
    RateLimitStore(using).acquire("reports", rate="0/h")
    get_meter(using).record_block("block", "", 0.1)
    counted = get_meter(using).snapshot()
    for found in (counted.counters, counted.gauges, counted.histograms):
        for name, values in found.items():
            assert all(len(labels) == len(FAMILIES[name].labels) for labels in values), name


def test_labels_of_an_application_are_bounded(metrics):
    """The further ones are counted together; none is lost."""
    using, _ = metrics()
    for number in range(700):
        get_meter(using).record_block(f"b{number}", "", 0.1)
    found = get_meter(using).snapshot().histograms["monitored_seconds"]
    assert len(found) == 501
    assert found["(other)", "(other)"].count == 200


def test_the_difference_of_two_snapshots():
    """Without what did not change."""
    earlier = Snapshot(
        "default", 1.0, {"attempts": {("t", "G", ""): 2.0, ("t", "P", ""): 1.0}}, {},
        {"operation_seconds": {("t", "G"): Distribution(2, 0.5, {3: 2})}},
    )  # fmt: skip
    later = Snapshot(
        "default", 2.0, {"attempts": {("t", "G", ""): 5.0, ("t", "P", ""): 1.0}}, {},
        {"operation_seconds": {
            ("t", "G"): Distribution(5, 1.0, {3: 3, 4: 2}), ("t", "P"): Distribution(1, 0.1, {1: 1})
        }},
    )  # fmt: skip
    since = later.since(earlier)
    assert since.counters == {"attempts": {("t", "G", ""): 3.0}}
    assert since.histograms == {
        "operation_seconds": {
            ("t", "G"): Distribution(3, 0.5, {3: 1, 4: 2}),
            ("t", "P"): Distribution(1, 0.1, {1: 1}),
        }
    }
    assert since.distribution("operation_seconds").buckets == {1: 1, 3: 1, 4: 2}


def test_an_export_has_what_was_counted_since_the_last_one(metrics):
    using, sink = metrics()
    store = CacheStore(using)
    store.get("k")
    assert flush_metrics(using, seconds=60)
    store.get("k")
    store.get("k")
    assert flush_metrics(using, seconds=60)
    assert [since.total("operations") for _, since in sink.exports] == [1, 2]
    assert [found.total("operations") for found, _ in sink.exports] == [1, 3]


def test_what_a_failed_export_had_is_in_the_next_one(metrics, caplog):
    """One warning, however often it fails."""
    using, sink = metrics(RAISES=True)
    store = CacheStore(using)
    for _ in range(3):
        store.get("k")
        assert not flush_metrics(using, seconds=60)
    assert caplog.text.count("The sink Keeps failed in export.") == 1
    sink.options["RAISES"] = False
    assert flush_metrics(using, seconds=60)
    assert sink.exports[0][1].total("operations") == 3


def test_exports_come_at_the_interval(metrics, until):
    using, sink = metrics(interval=0.2)
    CacheStore(using).get("k")
    until(lambda: len(sink.exports) >= 3)
    assert sink.exports[0][1].total("operations") == 1
    assert sink.exports[1][1].total("operations") == 0


def test_a_sink_that_hangs_delays_nothing(metrics):
    """Neither calls, nor other sinks, nor an export at once that has a time limit."""
    using, sink = metrics(sinks=[KEEPS, KEEPS], HANGS=30.0)
    other = get_exporters(using).all[1].sink
    other.options = {}
    started = time.monotonic()
    CacheStore(using).get("k")
    assert not flush_metrics(using, seconds=0.5)
    assert time.monotonic() - started < 20
    assert len(other.exports) == 1
    assert sink.exports == []


def test_operations_reach_a_sink_that_wants_them(metrics, dynamo_faults):
    using, sink = metrics(OPERATIONS=True, changes={"ENDPOINT_URL": dynamo_faults.url})
    dynamo_faults.throttle("GetItem", times=1)
    CacheStore(using).get("k")
    CacheStore(using).get("k")
    assert [len(each.attempts) for each in sink.operations] == [2, 1]
    sink.options["OPERATIONS"] = False
    CacheStore(using).get("k")
    assert len(sink.operations) == 2


@pytest.mark.parametrize("rate", [0.0, 0.5, 1.0])
def test_sampling_thins_operations_and_no_figure(metrics, rate):
    using, sink = metrics(OPERATIONS=True, rate=rate)
    store = CacheStore(using)
    for _ in range(200):
        store.get("k")
    assert len(sink.counted) == 200
    assert get_meter(using).snapshot().total("operations") == 200
    low, high = {0.0: (0, 0), 0.5: (50, 150), 1.0: (200, 200)}[rate]
    assert low <= len(sink.operations) <= high


def test_a_sink_that_cannot_be_made_is_left_out(metrics, caplog):
    using, sink = metrics(sinks=["no.such.Sink", KEEPS])
    assert isinstance(sink, Keeps)
    assert "The sink no.such.Sink of METRICS cannot be made" in caplog.text
    CacheStore(using).get("k")


def test_without_sinks_and_reports_nothing_is_observed(alias):
    using = alias(METRICS={"SINKS": []})
    assert not observer.is_observed()
    CacheStore(using).get("k")
    assert "operations" not in get_meter(using).snapshot().counters


def test_a_child_counts_and_publishes_for_itself(metrics):
    """It begins at zero, with threads of its own."""
    using, sink = metrics()
    CacheStore(using).get("k")
    assert flush_metrics(using, seconds=60)

    def in_child(number):
        CacheStore(using).get("k")
        assert flush_metrics(using, seconds=60)
        (own,) = [each.sink for each in get_exporters(using).all]
        return own is not sink, own.exports[0][1].total("operations")

    assert in_processes(2, in_child) == [(True, 1.0)] * 2


def test_log_lines_of_operations_and_their_summary(metrics, caplog, dynamo_faults):
    using, _ = metrics(
        sinks=["dynamo_stores.monitoring.sinks.LoggingSink"],
        changes={"ENDPOINT_URL": dynamo_faults.url},
    )
    table = get_config(using).store_table
    dynamo_faults.throttle("GetItem", times=1)
    with caplog.at_level(logging.DEBUG, "dynamo_stores.operations"):
        CacheStore(using).set("secret-key", "secret-value")
        CacheStore(using).get("secret-key")
        assert flush_metrics(using, seconds=60)
        assert flush_metrics(using, seconds=60)
    lines = [each for each in caplog.records if each.name == "dynamo_stores.operations"]
    assert [each.levelname for each in lines] == ["DEBUG", "DEBUG", "INFO"]
    assert lines[1].getMessage().startswith(f"GetItem on {table} took ")
    assert lines[1].getMessage().endswith(" ms with 1 retry.")
    assert lines[1].dynamodb_attempts == 2
    assert lines[2].getMessage().startswith("2 operations, p50 ")
    assert "0 errors, 1 throttle, 1 retry" in lines[2].getMessage()
    assert lines[2].getMessage().endswith(f"0 refusals (alias {using}).")
    assert lines[2].dynamodb_hits == 1
    assert "secret" not in caplog.text


def test_log_lines_as_json(metrics, caplog):
    path = "dynamo_stores.monitoring.sinks.LoggingSink"
    using, _ = metrics(sinks=[path])
    get_exporters(using).all[0].sink.options = {"JSON": True}
    with caplog.at_level(logging.DEBUG, "dynamo_stores.operations"):
        CacheStore(using).add("k", 1)
        CacheStore(using).add("k", 1)
        flush_metrics(using, seconds=60)
    lines = [
        json.loads(each.getMessage())
        for each in caplog.records
        if each.name == "dynamo_stores.operations"
    ]
    assert [each.get("operation") for each in lines] == ["PutItem", "PutItem", None]
    assert lines[1]["error"] == "ConditionalCheckFailedException"
    assert (lines[2]["operations"], lines[2]["errors"]) == (2, 0)
    counts = ("operations", "errors", "throttles", "retries", "hits", "misses", "refusals")
    assert {type(lines[2][name]) for name in counts} == {int}
    assert "correlation_id" not in lines[0]


def test_log_lines_have_the_id_of_their_request(metrics, caplog):
    """As a field of JSON, and in ``extra``."""
    using, _ = metrics(sinks=["dynamo_stores.monitoring.sinks.LoggingSink"])
    get_exporters(using).all[0].sink.options = {"JSON": True}
    with caplog.at_level(logging.DEBUG, "dynamo_stores.operations"), correlated("abc"):
        CacheStore(using).get("k")
    (line,) = caplog.records
    assert json.loads(line.getMessage())["correlation_id"] == line.dynamodb_correlation_id == "abc"


def test_log_lines_of_values_of_the_application(metrics, caplog):
    """A dimension with the name of a figure does not replace it."""
    using, _ = metrics(sinks=["dynamo_stores.monitoring.sinks.LoggingSink"])
    with caplog.at_level(logging.INFO, "dynamo_stores.operations"):
        Monitor(using).record_metric("size", 7, dimensions={"Shop": "Berlin", "value": "high"})
    (line,) = caplog.records
    assert line.getMessage() == "size is 7 (Count, Shop Berlin, value high)."
    assert (line.dynamodb_value, line.dynamodb_Shop) == (7, "Berlin")


def test_the_rest_is_published_when_the_process_ends(alias, tmp_path):
    """In time, although another sink hangs."""
    sinks = tmp_path / "ending_sinks.py"
    sinks.write_text(
        "import time\n"
        "from dynamo_stores.monitoring.sinks import Sink\n"
        "class Prints(Sink):\n"
        "    def export(self, snapshot, since):\n"
        "        print('exported', since.total('operations'), flush=True)\n"
        "    def close(self):\n"
        "        print('closed', flush=True)\n"
        "class Hangs(Sink):\n"
        "    def export(self, snapshot, since):\n"
        "        time.sleep(60)\n"
    )
    default = {**settings.DYNAMO_STORES["default"]}
    default["METRICS"] = {"SINKS": ["ending_sinks.Hangs", "ending_sinks.Prints"]}
    default["REPORTS"] = {"ENABLED": False}
    code = (
        "import time, django\nfrom django.conf import settings\n"
        f"settings.configure(DYNAMO_STORES={{'default': {default!r}}},"
        " INSTALLED_APPS=['dynamo_stores'], SECRET_KEY='x')\n"
        "django.setup()\n"
        "from dynamo_stores.stores import CacheStore\n"
        "CacheStore().get('k')\nCacheStore().get('k')\n"
        "print('ends', time.time(), flush=True)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True,
        cwd=tmp_path, env={"PYTHONPATH": f"{tmp_path}:{settings.BASE_DIR}"},
    )  # fmt: skip
    took = time.time() - float(ended.stdout.split("ends ")[1].split()[0])
    assert "exported 2.0\nclosed\n" in ended.stdout
    assert took < 20, ended.stdout


def test_a_refused_condition_raises_and_is_counted_by_its_name(metrics):
    using, _ = metrics()
    from dynamo_stores.calls.connection import get_connection

    table = get_config(using).store_table
    put = {"TableName": table, "Item": {"PK": {"S": "never put"}, "SK": {"S": "s"}}}
    put["ConditionExpression"] = "attribute_exists(PK)"
    with pytest.raises(ClientError):
        get_connection(using).dispatch("PutItem", put)
    found = get_meter(using).snapshot().counters["operations"]
    assert found == {(table, "PutItem", "ConditionalCheckFailedException"): 1.0}
