"""The alarms: one description of each, for all formats."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..conf import provisioned_aliases
from ..infrastructure.tables import TableSpec
from ..monitoring.cloudwatch_metrics import (
    OPERATIONS,
    CloudWatchMetric,
    of_account,
    of_library,
    of_table,
    publishes,
)
from .names import alarm_name

# What reads or writes many items takes longer, and says less.
_TIMED = ("GetItem", "PutItem", "UpdateItem", "Query")
AT_LEAST, BELOW = "GreaterThanOrEqualToThreshold", "LessThanThreshold"
_MINUTE = 60


@dataclass(frozen=True)
class Alarm:
    """
    An alarm: ``datapoints`` of the last ``periods``, of ``period`` seconds each, compared with the
    ``threshold``, which is a number or the name of a parameter. ``missing`` is what periods without
    data are: ``notBreaching`` or ``breaching``.
    """

    name: str
    text: str
    metric: CloudWatchMetric
    threshold: str | int
    period: int = _MINUTE
    periods: int = 5
    datapoints: int = 3
    comparison: str = AT_LEAST
    missing: str = "notBreaching"

    def as_request(self, threshold: Any, topic: Any) -> dict[str, Any]:
        """Return the arguments of PutMetricAlarm, which CloudFormation has by the same names."""
        return {
            "AlarmName": self.name,
            "AlarmDescription": self.text,
            "Namespace": self.metric.namespace,
            "MetricName": self.metric.name,
            "Statistic": self.metric.statistic,
            "Period": self.period,
            "EvaluationPeriods": self.periods,
            "DatapointsToAlarm": self.datapoints,
            "Threshold": threshold,
            "ComparisonOperator": self.comparison,
            "TreatMissingData": self.missing,
            "ActionsEnabled": True,
            "AlarmActions": [topic],
            "OKActions": [topic],
            "Dimensions": [
                {"Name": name, "Value": value} for name, value in self.metric.dimensions
            ],
        }


def alarms_of_table(spec: TableSpec) -> list[Alarm]:
    """Return the alarms of a table and its indexes."""
    return [*_throttles(spec), *_errors_and_latency(spec), *_breaker(spec)]


def alarms_of_aliases(aliases: Iterable[str], base: str) -> list[Alarm]:
    """Return the alarms of aliases and of the account; their names begin with ``base``."""
    found = [alarm for using in aliases for alarm in _scale_downs(using, base)]
    return [*found, *_account(base)]


def notes_of(aliases: Iterable[str]) -> Iterator[str]:
    """Yield sentences about alarms that cannot go off with the settings as they are."""
    for using in aliases:
        if not publishes(using):
            yield (
                f"No sink of the alias {using!r} publishes to CloudWatch, so the alarms for "
                "circuit breakers and stuck scale-downs have no data. Add CloudWatchSink or "
                "EMFSink to METRICS['SINKS']."
            )


def _throttles(spec: TableSpec) -> Iterator[Alarm]:
    indexes = [None, *(index.name for index in spec.indexes if index.is_global)]
    for index in indexes:
        where = f"the index {index} of {spec.name}" if index else spec.name
        for kind in ("Read", "Write"):
            yield Alarm(
                # At the end: orders-items may be a table, and an index of the table orders.
                alarm_name(spec.name, f"{kind.lower()}-throttles", *([index] if index else [])),
                f"DynamoDB throttles {kind.lower()}s of {where}.",
                of_table(f"{kind}ThrottleEvents", spec.name, index=index),
                "ThrottleEvents",
            )


def _errors_and_latency(spec: TableSpec) -> Iterator[Alarm]:
    # Both metrics exist by table and operation, and by nothing less.
    for operation in OPERATIONS:
        yield Alarm(
            alarm_name(spec.name, operation, "system-errors"),
            f"{operation} on {spec.name} ends in errors inside DynamoDB.",
            of_table("SystemErrors", spec.name, operation=operation),
            "SystemErrors",
        )
    for operation in _TIMED:
        yield Alarm(
            alarm_name(spec.name, operation, "latency"),
            f"{operation} on {spec.name} is slow inside DynamoDB.",
            of_table("SuccessfulRequestLatency", spec.name, "Average", operation=operation),
            "LatencyMilliseconds",
        )


def _breaker(spec: TableSpec) -> Iterator[Alarm]:
    metric = of_library(spec.using, "breaker_open", "Maximum", table=spec.name)
    if metric is not None:
        yield Alarm(
            alarm_name(spec.name, "breaker-open"),
            f"A process calls {spec.name} no more, because its calls failed.",
            metric,
            1,
            periods=1,
            datapoints=1,
        )


def _scale_downs(using: str, base: str) -> Iterator[Alarm]:
    stuck = of_library(using, "stuck_scale_downs")
    if stuck is not None:
        yield Alarm(
            alarm_name(base, using, "stuck-scale-down"),
            "A table is billed at its raised capacity: it should have been lowered and was not.",
            stuck,
            1,
            period=5 * _MINUTE,
            periods=2,
            datapoints=2,
        )
    checks = of_library(using, "scale_down_checks")
    if checks is not None and publishes(using) and using in provisioned_aliases():
        yield Alarm(
            alarm_name(base, using, "no-scale-down-checks"),
            "Nothing looks for raised tables: neither beat nor dynamo_reconcile runs.",
            checks,
            1,
            period=5 * _MINUTE,
            periods=3,
            datapoints=3,
            comparison=BELOW,
            missing="breaching",
        )


def _account(base: str) -> Iterator[Alarm]:
    for kind in ("Read", "Write"):
        yield Alarm(
            alarm_name(base, f"account-{kind.lower()}-capacity"),
            f"The tables of the account have nearly all {kind.lower()} units of its quota.",
            of_account(f"AccountProvisioned{kind}CapacityUtilization"),
            "AccountUsePercent",
            period=5 * _MINUTE,
            periods=2,
            datapoints=2,
        )
        yield Alarm(
            alarm_name(base, f"largest-table-{kind.lower()}-capacity"),
            f"A table or index has nearly all {kind.lower()} units of the quota of one.",
            of_account(f"MaxProvisionedTable{kind}CapacityUtilization"),
            "AccountUsePercent",
            period=5 * _MINUTE,
            periods=2,
            datapoints=2,
        )
