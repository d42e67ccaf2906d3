"""What sinks, log handlers, garbage collection and signals do to calls: nothing."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from dynamo_stores.calls import observer
from dynamo_stores.calls.direct import DIRECT_SECONDS
from dynamo_stores.calls.policy import deadline
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.monitoring import correlation, ending, monitor_operation
from dynamo_stores.monitoring.exporter import (
    close_sinks,
    flush_due_metrics,
    flush_metrics,
    get_exporters,
)
from dynamo_stores.monitoring.meter import get_meter
from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.monitoring.reporter import get_reporter, publish_last_reports
from dynamo_stores.stores import CacheStore
from tests.monitoring.test_metrics import KEEPS, Keeps, metrics  # noqa: F401 - a fixture


class Broken(Keeps):
    """Raises where a sink should not."""

    def wants_operations(self):
        raise ValueError("of wants_operations")

    def is_due(self):
        raise ValueError("of is_due")

    def block(self, name, attributes):
        return BrokenContext()


class BrokenContext:
    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        raise ValueError("of the context")


class Stops(Keeps):
    """Raises what ends a thread, once."""

    def export(self, snapshot, since):
        self.exports.append((snapshot, since))
        if len(self.exports) == 1:
            raise SystemExit


BROKEN, STOPS = f"{__name__}.Broken", f"{__name__}.Stops"


def test_a_sink_that_raises_when_asked_whether_it_wants_operations(metrics, caplog):  # noqa: F811
    using, _ = metrics(sinks=[BROKEN, KEEPS], OPERATIONS=True)
    kept = get_exporters(using).all[1].sink
    store = CacheStore(using)
    store.set("k", 1)
    assert store.get("k") == 1
    assert [each.operation for each in kept.counted] == ["PutItem", "GetItem"]
    lines = [each.levelname for each in caplog.records if "The sink Broken" in each.getMessage()]
    assert lines == ["WARNING"]


def test_an_observer_that_raises_when_asked_is_left_out(metrics):  # noqa: F811
    """What others count, and what they want, is not lost by it."""
    using, _ = metrics()

    def broken():
        raise ValueError

    observer.subscribe_operations(print, every=broken)
    try:
        assert CacheStore(using).get("missing") is None
        with observer.recording() as found:
            assert CacheStore(using).get("missing") is None
    finally:
        observer.unsubscribe_operations(print)
    assert len(found) == 1
    assert get_meter(using).snapshot().total("operations") == 2


def test_a_recorder_that_was_being_made_is_forgotten(dynamo_clock):
    """As where settings change meanwhile: the counts of the old meter are published no more."""
    made, kept = [], []

    def recorder_of(using):
        if not made:
            # What another thread may do at this moment.
            observer.forget_recorders()
        made.append(kept if made else [])
        return lambda *call: made[-1].append(call)

    def each(measurement):
        raise AssertionError(measurement)

    others = dict(observer._observers)
    observer._observers.clear()
    observer.subscribe(each, recorder_of=recorder_of)
    try:
        for _ in range(2):
            assert observer.record("default", "t", "GetItem", 0.1, None)
    finally:
        observer.unsubscribe(each)
        for other, of in others.items():
            observer.subscribe(other, recorder_of=of)
    assert len(made) == 2
    assert len(kept) == 1


def test_the_context_of_a_sink_raises_at_the_end_of_a_block(metrics):  # noqa: F811
    using, _ = metrics(sinks=[BROKEN, KEEPS])
    assert monitor_operation("block", lambda: 7, using=using) == 7
    with pytest.raises(KeyError), monitor_operation("block", using=using):
        raise KeyError
    assert correlation.current() == ""


def test_a_sink_that_raises_when_asked_whether_it_is_due(metrics, caplog):  # noqa: F811
    metrics(sinks=[BROKEN])
    flush_due_metrics()
    assert [each.levelname for each in caplog.records] == ["WARNING"]


def test_a_sink_that_stops_its_thread_is_asked_again(metrics):  # noqa: F811
    using, sink = metrics(sinks=[STOPS])
    CacheStore(using).get("k")
    assert not flush_metrics(using)
    assert flush_metrics(using)
    assert sink.exports[-1][1].total("operations") == 1


def test_sinks_are_closed_once(metrics, monkeypatch):  # noqa: F811
    """Celery's signals come before the exit handlers, which have nothing to wait for then."""
    using, sink = metrics()
    CacheStore(using).get("k")
    close_sinks()
    assert sink.closed == 1
    waited = []
    monkeypatch.setattr(
        threading.Event, "wait", lambda self, timeout=None: waited.append(self.is_set())
    )
    close_sinks()
    assert all(waited)
    assert sink.closed == 1


def test_a_call_while_the_meter_counts_in_the_same_thread(metrics):  # noqa: F811
    """As of a signal handler, or of a coroutine that garbage collection ends."""
    using, _ = metrics()
    store, meter = CacheStore(using), get_meter(using)
    store.get("k")

    def handle():
        for _ in range(200):
            store.get("k")
        with monitor_operation("handler", using=using):
            pass

    done = threading.Event()

    def in_thread():
        with meter.lock:
            handle()
        done.set()

    threading.Thread(target=in_thread, daemon=True).start()
    assert done.wait(10)
    counted = meter.snapshot()
    assert counted.total("operations") == 201
    assert counted.distribution("monitored_seconds").count == 1


def test_a_log_handler_that_calls_the_cache(metrics):  # noqa: F811
    using, _ = metrics(sinks=["dynamo_stores.monitoring.sinks.LoggingSink"])
    store, lines = CacheStore(using), []

    class Handler(logging.Handler):
        def emit(self, record):
            lines.append(record.getMessage())
            store.get("k")

    logger, handler = logging.getLogger("dynamo_stores.operations"), Handler()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        store.get("k")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    assert len(lines) == 1
    assert get_meter(using).snapshot().total("operations") == 2


def test_an_answer_before_an_error_is_not_taken_for_a_later_one(metrics, dynamo_faults):  # noqa: F811
    using, _ = metrics(
        changes={
            "ENDPOINT_URL": dynamo_faults.url,
            "RETRY": {"MAX_RETRIES": 0},
            "CIRCUIT_BREAKER": {"ENABLED": False},
        }
    )
    store, meter = CacheStore(using), get_meter(using)
    store.get("k")
    store.get("k")
    dynamo_faults.fail("GetItem", times=1)
    with pytest.raises(StoreUnavailable):
        store.get("k")
    assert meter.unanswered_since is not None
    assert meter.answered_at < meter.unanswered_since


@pytest.mark.parametrize("table", ["table\nERROR forged", "a\u2028b\x1b[31m"])
def test_names_do_not_begin_log_lines(metrics, caplog, table):  # noqa: F811
    using, _ = metrics(sinks=["dynamo_stores.monitoring.sinks.LoggingSink"])
    operation = observer.Operation(using, table, "GetItem", 0.1, 0.0, (), "", {}, None)
    with caplog.at_level(logging.DEBUG, "dynamo_stores.operations"):
        get_exporters(using).operation(operation)
    (record,) = caplog.records
    assert record.getMessage().isprintable()
    assert get_config(using).metrics.sinks


def test_the_end_of_a_process_has_one_time_for_all(dynamo_clock, monkeypatch):
    begun = []
    monkeypatch.setattr(ending, "_when_ending", [lambda: begun.append(1)])
    monkeypatch.setattr(ending, "_until", None)
    assert ending.time_left() == 1.5
    dynamo_clock.advance(1.0)
    assert ending.time_left() == pytest.approx(0.5)
    dynamo_clock.advance(1.0)
    assert ending.time_left() == 0.0
    assert len(begun) == 1
    dynamo_clock.advance(20.0)
    assert ending.time_left() == 1.5
    assert len(begun) == 2


def test_last_reports_of_all_aliases_share_the_time_of_the_end(alias, dynamo_faults, monkeypatch):
    """An alias whose DynamoDB hangs takes what is left of it; the next one sends nothing then."""
    monkeypatch.setattr(ending, "_until", None)
    settings = {"ENDPOINT_URL": dynamo_faults.url, "REPORTS": {"INTERVAL": 3600.0}}
    names = [alias(**settings) for _ in range(2)]
    for using in names:
        CacheStore(using).get("k")
        get_reporter(using).publish()
        assert get_reporter(using).has_published()
    dynamo_faults.clear()
    dynamo_faults.hang("UpdateItem")
    started = time.monotonic()
    publish_last_reports()
    # Not those of the threads.
    last = [body for _, body in dynamo_faults.bodies if '"has_ended":true' in str(body)]
    assert len(last) == 1
    # Two seconds for each of them otherwise.
    assert time.monotonic() - started < DIRECT_SECONDS


def test_the_direct_connection_ends_with_a_deadline(alias, dynamo_faults):
    """A shorter one than its own time."""
    using = alias(ENDPOINT_URL=dynamo_faults.url)
    store = ReportStore(using)
    store.all()
    dynamo_faults.clear()
    dynamo_faults.hang("Query")
    with deadline(0.2), pytest.raises(StoreUnavailable):
        store.all()
    with deadline(0.0), pytest.raises(StoreUnavailable):
        store.all()
    assert dynamo_faults.requests["Query"] == 1
