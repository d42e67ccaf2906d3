"""Metrics as log lines: one for each operation, and a summary a minute."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from ...calls.observer import Operation
from ..correlation import current
from ..formatting import count_of, milliseconds
from ..histogram import quantile
from ..metrics import Snapshot
from ..tally import REFUSALS
from .base import Metric, Sink

logger = logging.getLogger("dynamo_stores.operations")


class LoggingSink(Sink):
    """
    Logs each operation at DEBUG and a summary at INFO, which has no line for a minute without
    calls, to the logger ``dynamo_stores.operations``. Figures are in ``extra``.

    Option: ``JSON``, to log one JSON object instead of a sentence. No line has a key or a value.
    """

    option_names = ("JSON",)

    def wants_operations(self) -> bool:
        return logger.isEnabledFor(logging.DEBUG)

    def operation(self, operation: Operation) -> None:
        retries = len(operation.attempts) - 1
        text = f"{operation.operation} on {operation.table} took {milliseconds(operation.seconds)}"
        if retries > 0:
            text += f" with {count_of(retries, 'retry', 'retries')}"
        if operation.error:
            text += f" and ended in {operation.error}"
        fields = {
            "using": operation.using,
            "table": operation.table,
            "operation": operation.operation,
            "seconds": round(operation.seconds, 6),
            "attempts": len(operation.attempts),
            "units": operation.units,
            "error": operation.error,
        }
        self._log(logging.DEBUG, f"{text}.", fields)

    def metric(self, metric: Metric) -> None:
        fields = {"metric": metric.name, "value": metric.value, "unit": metric.unit}
        of = "".join(f", {name} {value}" for name, value in metric.dimensions)
        text = f"{metric.name} is {metric.value:g} ({metric.unit}{of})."
        self._log(logging.INFO, text, {**dict(metric.dimensions), **fields})

    def export(self, snapshot: Snapshot, since: Snapshot) -> None:
        operations = since.counters.get("operations", {})
        if not operations or not logger.isEnabledFor(logging.INFO):
            return
        fields = summary_of(since)
        text = (
            f"{count_of(fields['operations'], 'operation')}, p50 "
            f"{milliseconds(fields['p50'])}, p99 {milliseconds(fields['p99'])}, "
            f"{count_of(fields['errors'], 'error')}, "
            f"{count_of(fields['throttles'], 'throttle')}, "
            f"{count_of(fields['retries'], 'retry', 'retries')}, "
            f"{fields['read_units']:g} read and {fields['write_units']:g} write units, "
            f"{count_of(fields['hits'], 'hit')}, "
            f"{count_of(fields['misses'], 'miss', 'misses')}, "
            f"{count_of(fields['refusals'], 'refusal')} (alias {self.using})."
        )
        self._log(logging.INFO, text, {"using": self.using, **fields})

    def _log(self, level: int, text: str, fields: Mapping[str, Any]) -> None:
        if correlation := current():
            fields = {**fields, "correlation_id": correlation}
        if self.options.get("JSON"):
            # A dimension of the application may have the name of the first field, too.
            named: dict[str, Any] = {"message": text, **fields}
            text = json.dumps({**named, "message": text}, separators=(",", ":"))
        elif not text.isprintable():
            # A line feed in a name would begin a line that nobody logged.
            text = "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)
        extra = {f"dynamodb_{name}": value for name, value in fields.items()}
        logger.log(level, "%s", text, extra=extra)


def summary_of(since: Snapshot) -> dict[str, Any]:
    """
    Return the figures of all tables: counts, units, and seconds of p50, p95 and p99. A failed
    condition is no error.
    """

    def count(name: str, **labels: str) -> int:
        return int(since.total(name, **labels))

    seconds = since.distribution("operation_seconds").buckets
    operations, units = count("operations"), since.total
    return {
        "operations": operations,
        "errors": operations - sum(count("operations", error=each) for each in ("", *REFUSALS)),
        "throttles": count("throttles"),
        "retries": count("retries"),
        "read_units": float(units("consumed_units", index="", kind="read")),
        "write_units": float(units("consumed_units", index="", kind="write")),
        "hits": count("cache_lookups", result="hit"),
        "misses": count("cache_lookups", result="miss"),
        "refusals": count("rate_limit_refusals"),
        "p50": quantile(seconds, 0.5),
        "p95": quantile(seconds, 0.95),
        "p99": quantile(seconds, 0.99),
    }
