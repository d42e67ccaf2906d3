"""CloudWatch's PutMetricData: the counts of a process, and values of the application."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError

from ... import clock
from ...calls.account import get_account
from ...calls.environment import is_loopback
from ...conf import DEFAULT_ALIAS, get_config
from ...exceptions import code_of
from ..metrics import Snapshot
from .base import Metric, Sink
from .series import Pending, Point

logger = logging.getLogger(__name__)

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutMetricData.html
_MOST_POINTS = 1000
# A request may have 1 MB; sizes are estimates, for the longest of botocore's protocols.
_LARGEST = 900_000
_PER_POINT, _PER_DIMENSION, _PER_VALUE = 300, 120, 130
_TIMEOUT = 3.0
# The whole request is refused for one wrong value.
_INVALID = frozenset(
    [
        "InvalidParameterCombination", "InvalidParameterValue", "MissingParameter",
        "InvalidParameterCombinationException", "InvalidParameterValueException",
        "MissingRequiredParameterException", "ValidationError", "RequestEntityTooLarge",
    ]
)  # fmt: skip


class CloudWatchMetricsPublisher:
    """
    Publishes to CloudWatch by PutMetricData, with the account of the alias ``using``. Thread-safe,
    and safe after a fork: a child begins with nothing.

    ``namespace`` and ``region`` are by default those of ``METRICS``, and the region that of the
    alias. ``timeout`` is that of connecting and of an answer, in seconds. ``dimensions`` is the
    option DIMENSIONS of the sinks for CloudWatch.

    What CloudWatch did not take waits for the next :meth:`publish`: 10,000 values of the
    application at most, by minute, name and dimensions.
    """

    def __init__(
        self,
        using: str = DEFAULT_ALIAS,
        *,
        namespace: str | None = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        timeout: float = _TIMEOUT,
        dimensions: Mapping[str, Any] | None = None,
    ) -> None:
        config = get_config(using)
        self.using = using
        self.namespace = namespace or config.metrics.namespace
        self._region = region or config.metrics.region or config.region
        self._url = endpoint_url
        self._timeout = timeout
        self._dimensions = dimensions
        self._client: Any = None
        self._logged = 0
        self._begin()

    @property
    def dropped(self) -> int:
        """How many values of the application were left out since the process began."""
        return self._pending.dropped

    @property
    def is_filling(self) -> bool:
        """Whether half of the places for values of the application are taken."""
        return self._pending.is_filling

    def record_metric(
        self,
        name: str,
        value: float,
        unit: str = "Count",
        *,
        dimensions: Mapping[str, str] | None = None,
        timestamp: float | None = None,
    ) -> None:
        """
        Keep a value for the next :meth:`publish`; sends nothing. The arguments and errors are those
        of ``Monitor.record_metric``.
        """
        self.record(Metric.of(name, value, unit, dimensions, timestamp))

    def record(self, metric: Metric) -> None:
        """Keep a value for the next :meth:`publish`; sends nothing."""
        self._check_process()
        self._pending.record(metric)

    def collect(self, snapshot: Snapshot) -> None:
        """Keep what was counted since the last snapshot for the next :meth:`publish`."""
        self._check_process()
        with self._publishing:
            self._pending.collect(snapshot)

    def publish(self) -> int:
        """
        Send what waits, and return the number of data points that CloudWatch took. May block for
        some seconds.

        Raises the error of botocore, or of the alias's account, that ended it; the rest waits.
        """
        self._check_process()
        with self._publishing:
            count = 0
            for batch in _batches(self._pending.points(clock.now())):
                count += self._send(batch)
            self._log_dropped()
            return count

    def _send(self, points: Sequence[Point]) -> int:
        """Send one request, and parts of it if CloudWatch finds something wrong in it."""
        if self._client is None:
            self._client = self._make_client()
        try:
            self._client.put_metric_data(
                Namespace=self.namespace, MetricData=[_datum(each) for each in points]
            )
        except (ClientError, ParamValidationError) as exc:
            if isinstance(exc, ClientError) and code_of(exc) not in _INVALID:
                raise
            if len(points) > 1:
                half = len(points) // 2
                return self._send(points[:half]) + self._send(points[half:])
            self._pending.accepted(points)
            self._pending.drop(points[0].values.count)
            logger.warning(
                "CloudWatch refuses the metric %s (%s), which is left out.",
                points[0].series.name, code_of(exc) or type(exc).__name__,
            )  # fmt: skip
            return 0
        self._pending.accepted(points)
        return len(points)

    def _log_dropped(self) -> None:
        dropped, self._logged = self._pending.dropped - self._logged, self._pending.dropped
        if dropped:
            logger.warning(
                "%d values of the application were left out of the metrics for CloudWatch: too "
                "many were waiting, or they cannot be published.", dropped,
                extra={"dynamodb_using": self.using, "dynamodb_dropped": dropped},
            )  # fmt: skip

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            self._begin()

    def _begin(self) -> None:
        # What waits in a parent is published by it.
        self._pending = Pending(self.using, self._dimensions)
        self._publishing = threading.Lock()
        self._client = None
        self._logged = 0
        self._pid = os.getpid()

    def _make_client(self) -> Any:
        config, url = get_config(self.using), self._url
        credentials: dict[str, Any] = {}
        if url is not None and is_loopback(url) and not config.names_account:
            credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        return get_account(self.using).create_client(
            "cloudwatch",
            region_name=self._region or ("us-east-1" if credentials else None),
            endpoint_url=url,
            config=Config(
                connect_timeout=self._timeout,
                read_timeout=self._timeout,
                retries={"total_max_attempts": 1, "mode": "standard"},
            ),
            **credentials,
        )


class CloudWatchSink(Sink):
    """
    Publishes what was counted since the last export, and the values of the application, by
    PutMetricData. What CloudWatch did not take is in the next export.

    Options: ``DIMENSIONS``, see docs/metrics.md; ``TIMEOUT``, seconds for connecting and for an
    answer (3); ``ENDPOINT_URL``, for tests.
    """

    actions = ("cloudwatch:PutMetricData",)
    option_names = ("DIMENSIONS", "TIMEOUT", "ENDPOINT_URL")

    def __init__(self, using: str, options: Mapping[str, Any]) -> None:
        super().__init__(using, options)
        self.publisher = CloudWatchMetricsPublisher(
            using,
            endpoint_url=options.get("ENDPOINT_URL"),
            timeout=float(options.get("TIMEOUT", _TIMEOUT)),
            dimensions=options.get("DIMENSIONS"),
        )

    def metric(self, metric: Metric) -> None:
        self.publisher.record(metric)

    def is_due(self) -> bool:
        return self.publisher.is_filling

    def export(self, snapshot: Snapshot, since: Snapshot) -> None:
        # Not ``since``: of an export that failed, some requests may have been accepted.
        self.publisher.collect(snapshot)
        self.publisher.publish()


def _batches(points: Sequence[Point]) -> Iterator[list[Point]]:
    batch: list[Point] = []
    size = 0
    for point in points:
        added = _size(point)
        if batch and (len(batch) == _MOST_POINTS or size + added > _LARGEST):
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += added
    if batch:
        yield batch


def _size(point: Point) -> int:
    series, values = point.series, point.values.counts or ()
    texts = sum(len(name) + len(text) + _PER_DIMENSION for name, text in series.dimensions)
    return _PER_POINT + len(series.name) + texts + len(values) * _PER_VALUE


def _datum(point: Point) -> dict[str, Any]:
    series, values = point.series, point.values
    found: dict[str, Any] = {
        "MetricName": series.name,
        "Unit": series.unit,
        "Timestamp": datetime.fromtimestamp(point.minute, UTC),
    }
    if series.dimensions:
        found["Dimensions"] = [{"Name": name, "Value": text} for name, text in series.dimensions]
    if values.counts is None:
        found["StatisticValues"] = {
            "SampleCount": values.count,
            "Sum": values.total,
            "Minimum": values.low,
            "Maximum": values.high,
        }
    elif values.count == 1:
        found["Value"] = values.total
    else:
        found["Values"] = list(values.counts)
        found["Counts"] = [float(count) for count in values.counts.values()]
    return found
