"""
OpenTelemetry: a span for each operation, and metrics; needs the package ``opentelemetry-api``.

Names are those of OpenTelemetry's conventions for database clients and for DynamoDB:
https://opentelemetry.io/docs/specs/semconv/database/dynamodb/
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind, Status, StatusCode

from ... import __version__, clock
from ...calls.connection import get_connection, table_of
from ...calls.observer import Measurement, Operation
from ..correlation import current
from ..meter import get_meter
from ..metrics import FAMILIES, Snapshot
from ..tally import REFUSALS
from .base import Metric, Sink

_SYSTEM = "aws.dynamodb"
_NAME = "dynamo_stores"
# One snapshot serves all instruments of a collection.
_SNAPSHOT_SECONDS = 1.0
# Requests' members that are attributes of spans.
_OF_REQUEST = {
    "ConsistentRead": "aws.dynamodb.consistent_read",
    "IndexName": "aws.dynamodb.index_name",
    "Limit": "aws.dynamodb.limit",
    "Segment": "aws.dynamodb.segment",
    "Select": "aws.dynamodb.select",
    "TotalSegments": "aws.dynamodb.total_segments",
}
# Units of CloudWatch in UCUM, which OpenTelemetry's conventions ask for:
# https://opentelemetry.io/docs/specs/semconv/general/metrics/#instrument-units
_SIZES = {"": "", "Kilo": "k", "Mega": "M", "Giga": "G", "Tera": "T"}
_UCUM = {
    "Count": "{count}",
    "Count/Second": "{count}/s",
    "Microseconds": "us",
    "Milliseconds": "ms",
    "None": "",
    "Percent": "%",
    "Seconds": "s",
    **{
        f"{size}{what}".capitalize() + per: f"{prefix}{symbol}{per and '/s'}"
        for size, prefix in _SIZES.items()
        for what, symbol in (("bytes", "By"), ("bits", "bit"))
        for per in ("", "/Second")
    },
}
_OF_ANSWER = {"Count": "aws.dynamodb.count", "ScannedCount": "aws.dynamodb.scanned_count"}


class OpenTelemetrySink(Sink):
    """
    Makes a span for each sampled operation, a child of the present span, with an event for each
    retried attempt; records the histogram ``db.client.operation.duration``; and exposes the other
    counters as ``dynamo_stores.…``. Blocks of ``monitor_operation`` are spans.

    Option: ``SPANS``, False for metrics alone. Exporters are those of the application's
    OpenTelemetry. No attribute has a key or a value of an item.
    """

    option_names = ("SPANS",)

    def __init__(self, using: str, options: Mapping[str, Any]) -> None:
        super().__init__(using, options)
        self._tracer = trace.get_tracer(_NAME, __version__)
        meter = metrics.get_meter(_NAME, __version__)
        self._duration = meter.create_histogram(
            "db.client.operation.duration", "s", "Duration of database client operations."
        )
        self._gauge = meter.create_gauge
        self._gauges: dict[tuple[str, str], Any] = {}
        self._snapshot = Snapshot(using, 0.0)
        for family in FAMILIES.values():
            name, text = f"{_NAME}.{family.name}", family.text
            callbacks = [self._observer(family.name)]
            if family.kind == "counter":
                meter.create_observable_counter(name, callbacks, "", text)
            elif family.kind == "gauge":
                meter.create_observable_gauge(name, callbacks, "", text)

    def wants_operations(self) -> bool:
        return True

    def count(self, operation: Operation) -> None:
        self._duration.record(operation.seconds, _labels(operation))

    def operation(self, operation: Operation) -> None:
        if not self.options.get("SPANS", True):
            return
        end = int(operation.ended * 1e9)
        start = end - int(operation.seconds * 1e9)
        span = self._tracer.start_span(
            f"{operation.operation} {operation.table}",
            kind=SpanKind.CLIENT,
            attributes=self._attributes(operation),
            start_time=start,
        )
        if span.is_recording():
            for attempt in operation.attempts:
                if attempt.error:
                    span.add_event("attempt failed", _of_attempt(attempt), _end(attempt, start))
        if operation.error and operation.error not in REFUSALS:
            span.set_status(Status(StatusCode.ERROR, operation.error))
        span.end(end)

    def metric(self, metric: Metric) -> None:
        key = metric.name, metric.unit
        if key not in self._gauges:
            self._gauges[key] = self._gauge(metric.name, _UCUM[metric.unit])
        self._gauges[key].set(metric.value, dict(metric.dimensions))

    def block(
        self, name: str, attributes: Mapping[str, str]
    ) -> AbstractContextManager[object] | None:
        if not self.options.get("SPANS", True):
            return None
        return self._tracer.start_as_current_span(
            name, attributes={**attributes, "correlation_id": current()}
        )

    def _attributes(self, operation: Operation) -> dict[str, Any]:
        request, answer = operation.request, operation.answer or {}
        found: dict[str, Any] = {
            **_labels(operation),
            "aws.dynamodb.table_names": _tables(request) or [operation.table],
            "rpc.system": "aws-api",
            "dynamo_stores.using": operation.using,
            "dynamo_stores.attempts": len(operation.attempts),
            "dynamo_stores.throttles": operation.throttles,
            "dynamo_stores.units": sum(operation.units.values()),
            "dynamo_stores.breaker": str(
                get_connection(operation.using).policy_for(operation.table).breaker.status().state
            ),
        }
        found |= {name: request[each] for each, name in _OF_REQUEST.items() if each in request}
        found |= {name: answer[each] for each, name in _OF_ANSWER.items() if each in answer}
        if consumed := answer.get("ConsumedCapacity"):
            each = consumed if isinstance(consumed, list) else [consumed]
            found["aws.dynamodb.consumed_capacity"] = [json.dumps(one) for one in each]
        reasons = {reason.reason for one in operation.attempts for reason in one.reasons}
        if reasons:
            found["dynamo_stores.throttling_reasons"] = sorted(reasons)
        if correlation := current():
            found["correlation_id"] = correlation
        return found

    def _observer(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        labels = FAMILIES[name].labels

        def observe(options: CallbackOptions) -> Iterable[Observation]:
            if clock.now() - self._snapshot.at > _SNAPSHOT_SECONDS:
                self._snapshot = get_meter(self.using).snapshot()
            found = {**self._snapshot.counters, **self._snapshot.gauges}.get(name, {})
            return [
                Observation(value, {"using": self.using, **dict(zip(labels, values, strict=True))})
                for values, value in found.items()
            ]

        return observe


def _labels(operation: Operation) -> dict[str, str]:
    found = {
        "db.system.name": _SYSTEM,
        "db.operation.name": operation.operation,
        "db.collection.name": operation.table,
    }
    if operation.error:
        found["error.type"] = operation.error
    return found


def _of_attempt(attempt: Measurement) -> dict[str, Any]:
    return {
        "attempt": attempt.attempt,
        "error.type": attempt.error,
        "seconds": attempt.seconds,
        "throttling_reasons": sorted({reason.reason for reason in attempt.reasons}),
    }


def _end(attempt: Measurement, start: int) -> int:
    return start + int((attempt.waited + attempt.seconds) * 1e9)


def _tables(request: Mapping[str, Any]) -> list[str]:
    if "RequestItems" in request:
        return sorted(request["RequestItems"])
    names = {
        content["TableName"]
        for action in request.get("TransactItems", ())
        for content in action.values()
    }
    return sorted(names) or [table_of(dict(request))]
