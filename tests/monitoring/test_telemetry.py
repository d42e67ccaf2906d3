"""Spans and metrics of OpenTelemetry, and subsegments of X-Ray."""

from __future__ import annotations

import asyncio

import pytest
from aws_xray_sdk.core import xray_recorder
from opentelemetry import metrics as otel_metrics
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dynamo_stores.calls.observer import recording
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.monitoring import Monitor, monitor_operation
from dynamo_stores.monitoring.correlation import correlated
from dynamo_stores.monitoring.meter import get_meter
from dynamo_stores.monitoring.sinks.base import UNITS
from dynamo_stores.stores import CacheStore
from tests.monitoring.test_metrics import metrics  # noqa: F401 - a fixture

OTEL = "dynamo_stores.monitoring.sinks.telemetry.OpenTelemetrySink"
XRAY = "dynamo_stores.monitoring.sinks.xray.XRaySink"


@pytest.fixture
def spans(monkeypatch):
    """The spans that end, in memory."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", provider.get_tracer)
    yield exporter.get_finished_spans
    provider.shutdown()


@pytest.fixture
def exported(monkeypatch):
    """``exported()``: the metrics by their names."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(otel_metrics, "get_meter", provider.get_meter)

    def collect():
        data = reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    yield collect
    provider.shutdown()


@pytest.fixture
def points(exported):
    """``points()``: the data points of each metric."""
    return lambda: {name: list(each.data.data_points) for name, each in exported().items()}


def test_the_first_operation_of_a_process_has_a_span(alias, spans, points):
    """The sinks are made before it is recorded."""
    using = alias(METRICS={"SINKS": [OTEL], "INTERVAL": 3600.0})
    CacheStore(using).get("k")
    assert len(spans()) == 1
    assert sum(each.count for each in points()["db.client.operation.duration"]) == 1


def test_a_span_for_each_operation(metrics, spans, points):  # noqa: F811
    """A child of the present span, with what DynamoDB's conventions name; sync and async."""
    using, _ = metrics(sinks=[OTEL])
    table, store = get_config(using).store_table, CacheStore(using)
    with recording() as found, correlated("abc"), monitor_operation("view", using=using):
        store.set("secret-key", "secret-value")
        asyncio.run(store.aget("secret-key"))
        store.get_many(["secret-key", "other"])
    put, get, batch, view = spans()
    assert [each.name for each in (put, get, batch)] == [
        f"PutItem {table}", f"GetItem {table}", f"BatchGetItem {table}",
    ]  # fmt: skip
    assert view.name == "view"
    for span, operation in zip((put, get, batch), found, strict=True):
        assert span.kind is SpanKind.CLIENT
        assert span.parent.span_id == view.context.span_id
        assert span.end_time - span.start_time == pytest.approx(operation.seconds * 1e9, rel=0.01)
        assert span.attributes["db.system.name"] == "aws.dynamodb"
        assert span.attributes["db.operation.name"] == operation.operation
        assert span.attributes["db.collection.name"] == table
        assert span.attributes["aws.dynamodb.table_names"] == (table,)
        assert span.attributes["dynamo_stores.units"] == sum(operation.units.values())
        assert span.attributes["dynamo_stores.breaker"] == "closed"
        assert span.attributes["correlation_id"] == "abc"
        assert span.status.status_code is StatusCode.UNSET
        assert "secret" not in span.to_json()
    assert get.attributes["aws.dynamodb.consistent_read"] in (True, False)
    assert get.attributes["dynamo_stores.units"] > 0


def test_a_coroutine_function_has_one_span(metrics, spans, points):  # noqa: F811
    """Its call does nothing yet."""
    using, _ = metrics(sinks=[OTEL])

    async def work():
        await asyncio.sleep(0.05)
        return 7

    async def call():
        return await monitor_operation("work", work, using=using)

    assert asyncio.run(call()) == 7
    (span,) = spans()
    assert span.name == "work"
    assert span.end_time - span.start_time >= 20_000_000


def test_a_span_of_correlated_work_has_its_id(metrics, spans, points):  # noqa: F811
    using, _ = metrics(sinks=[OTEL])
    monitor = Monitor(using)
    correlation_id = monitor.start_correlation("order", {"channel": "web"})
    monitor.end_correlation(correlation_id)
    (span,) = spans()
    assert dict(span.attributes) == {"channel": "web", "correlation_id": correlation_id}


def test_a_span_has_its_failed_attempts(metrics, spans, points, dynamo_faults):  # noqa: F811
    using, _ = metrics(
        sinks=[OTEL],
        changes={
            "ENDPOINT_URL": dynamo_faults.url, "RETRY": {"MAX_RETRIES": 0, "DELAY": 0.01},
        },
    )  # fmt: skip
    arn = f"arn:aws:dynamodb:us-east-1:000000000000:table/{get_config(using).store_table}"
    reason = "TableReadProvisionedThroughputExceeded"
    dynamo_faults.throttle("GetItem", times=2, reason=reason, resource=arn)
    CacheStore(using).get("k")
    dynamo_faults.fail("GetItem")
    with pytest.raises(StoreUnavailable):
        CacheStore(using).get("k")
    retried, failed = spans()
    assert [each.name for each in retried.events] == ["attempt failed"] * 2
    assert retried.events[0].attributes["throttling_reasons"] == (reason,)
    assert retried.start_time < retried.events[0].timestamp < retried.events[1].timestamp
    assert retried.attributes["dynamo_stores.throttles"] == 2
    assert retried.attributes["dynamo_stores.throttling_reasons"] == (reason,)
    assert retried.status.status_code is StatusCode.UNSET
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == failed.status.description


def test_a_failed_condition_is_no_error_of_a_span(metrics, spans, points):  # noqa: F811
    using, _ = metrics(sinks=[OTEL])
    assert [CacheStore(using).add("added once", 1) for _ in range(2)] == [True, False]
    refused = spans()[1]
    assert refused.attributes["error.type"] == "ConditionalCheckFailedException"
    assert refused.status.status_code is StatusCode.UNSET


def test_metrics_agree_with_what_was_counted(metrics, spans, points):  # noqa: F811
    """Also those of operations that are not sampled."""
    using, _ = metrics(sinks=[OTEL], rate=0.0)
    table, store = get_config(using).store_table, CacheStore(using)
    store.set("k", 1)
    for _ in range(5):
        store.get("k")
    found = points()
    durations = {
        each.attributes["db.operation.name"]: each for each in found["db.client.operation.duration"]
    }
    assert durations["GetItem"].count == 5
    assert durations["PutItem"].count == 1
    assert durations["GetItem"].attributes["db.collection.name"] == table
    counted = get_meter(using).snapshot()
    for name in ("operations", "consumed_units", "cache_lookups", "attempts"):
        total = sum(each.value for each in found[f"dynamo_stores.{name}"])
        assert total == counted.total(name) > 0
    assert spans() == ()


def test_units_are_those_of_ucum(metrics, exported):  # noqa: F811
    """Each of CloudWatch's has one."""
    using, _ = metrics(sinks=[OTEL])
    for unit in sorted(UNITS):
        Monitor(using).record_metric(f"of_{unit.lower().replace('/', '_per_')}", 1, unit)
    found = {name.removeprefix("of_"): each.unit for name, each in exported().items()}
    assert {found[unit.lower().replace("/", "_per_")] for unit in UNITS} == {
        "", "%", "s", "ms", "us", "{count}", "{count}/s",
        "By", "kBy", "MBy", "GBy", "TBy", "By/s", "kBy/s", "MBy/s", "GBy/s", "TBy/s",
        "bit", "kbit", "Mbit", "Gbit", "Tbit", "bit/s", "kbit/s", "Mbit/s", "Gbit/s", "Tbit/s",
    }  # fmt: skip
    assert found["milliseconds"] == "ms"
    assert found["megabytes_per_second"] == "MBy/s"


def test_without_spans_there_are_metrics(metrics, spans, points):  # noqa: F811
    using, _ = metrics(sinks=[])
    from dynamo_stores.monitoring.sinks.telemetry import OpenTelemetrySink

    sink = OpenTelemetrySink(using, {"SPANS": False})
    with recording() as found:
        CacheStore(using).get("k")
    sink.count(found[0])
    sink.operation(found[0])
    assert spans() == ()
    assert points()["db.client.operation.duration"][0].count == 1


def test_a_subsegment_for_each_operation(metrics, dynamo_faults):  # noqa: F811
    """Within a segment; without one nothing is made."""
    using, sink = metrics(
        sinks=[XRAY], changes={"ENDPOINT_URL": dynamo_faults.url, "RETRY": {"DELAY": 0.01}}
    )
    table, store = get_config(using).store_table, CacheStore(using)
    assert not sink.wants_operations()
    store.get("k")
    xray_recorder.configure(sampling=False, context_missing="RUNTIME_ERROR")
    segment = xray_recorder.begin_segment("request")
    try:
        dynamo_faults.throttle("GetItem", times=1)
        with monitor_operation("view", attributes={"page": "start"}, using=using):
            store.get("k")
        (view,) = segment.subsegments
        (found,) = view.subsegments
    finally:
        xray_recorder.clear_trace_entities()
    assert view.annotations == {"page": "start"}
    assert (found.name, found.namespace) == ("DynamoDB", "aws")
    assert found.aws["operation"] == "GetItem"
    assert found.aws["table_name"] == table
    assert found.aws["retries"] == 1
    assert found.throttle
    assert not getattr(found, "fault", False)
    assert found.end_time > found.start_time
