"""Metrics of CloudWatch by their exact names and dimensions: DynamoDB's own, and the library's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from django.utils.module_loading import import_string

from ..conf import get_config
from .sinks.cloudwatch import CloudWatchSink
from .sinks.emf import EMFSink
from .sinks.series import ALIAS, DIMENSIONS, as_dimension

# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/metrics-dimensions.html
NAMESPACE = "AWS/DynamoDB"
# Values of the dimension Operation of the metrics SystemErrors and SuccessfulRequestLatency.
OPERATIONS = ("GetItem", "PutItem", "UpdateItem", "Query", "BatchGetItem", "BatchWriteItem")


class CloudWatchMetric(NamedTuple):
    """A metric: its namespace, name and exact dimensions, and a statistic (``Sum``, ``p99``, …)."""

    namespace: str
    name: str
    dimensions: tuple[tuple[str, str], ...]
    statistic: str


def of_table(
    name: str,
    table: str,
    statistic: str = "Sum",
    *,
    index: str | None = None,
    operation: str | None = None,
) -> CloudWatchMetric:
    """Return a metric that DynamoDB publishes for a table, one of its global indexes, or verbs."""
    dimensions = [("TableName", table)]
    if index is not None:
        dimensions.append(("GlobalSecondaryIndexName", index))
    if operation is not None:
        dimensions.append(("Operation", operation))
    return CloudWatchMetric(NAMESPACE, name, tuple(dimensions), statistic)


def of_account(name: str) -> CloudWatchMetric:
    """Return the maximum of a metric that DynamoDB publishes for the account and region."""
    return CloudWatchMetric(NAMESPACE, name, (), "Maximum")


def of_library(
    using: str, name: str, statistic: str = "Sum", **labels: str
) -> CloudWatchMetric | None:
    """
    Return a metric that the sinks of the alias publish, with the dimensions that they give it, by
    the option ``DIMENSIONS``; None if they publish none that these labels choose.
    """
    for options in _options_of_sinks(using):
        sets = {**DIMENSIONS, **options.get("DIMENSIONS", {})}.get(name, ())
        fitting = [each for each in sets if set(each) == set(labels)]
        if fitting:
            chosen = tuple((label, as_dimension(labels[label])) for label in fitting[0])
            dimensions = ((ALIAS, as_dimension(using)), *chosen)
            namespace = get_config(using).metrics.namespace
            return CloudWatchMetric(namespace, name, dimensions, statistic)
    return None


def publishes(using: str) -> bool:
    """Return whether a sink of the alias publishes to CloudWatch."""
    return any(True for _ in _sinks(using))


def _options_of_sinks(using: str) -> list[Mapping[str, Any]]:
    # Without a sink, what one would publish by default.
    return [*_sinks(using)] or [{}]


def _sinks(using: str) -> Iterator[Mapping[str, Any]]:
    metrics = get_config(using).metrics
    for path in metrics.sinks:
        try:
            sink = import_string(path)
        except ImportError:
            continue  # the system check E163 reports it
        if isinstance(sink, type) and issubclass(sink, CloudWatchSink | EMFSink):
            yield metrics.options.get(path, {})
