"""A dashboard of CloudWatch: the tables of an alias, and what the library measures there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

from ..calls.account import get_account
from ..calls.environment import is_loopback
from ..conf import DEFAULT_ALIAS, get_config
from ..exceptions import ConfigurationError
from ..infrastructure.tables import TableSpec, wanted_tables
from .cloudwatch_metrics import OPERATIONS, CloudWatchMetric, of_library, of_table

# A dashboard has 24 columns: https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/
# CloudWatch-Dashboard-Body-Structure.html
_COLUMNS, _WIDTH, _HEIGHT = 24, 8, 6
_MINUTE = 60


def dashboard_json(name: str | None = None, *, using: str = DEFAULT_ALIAS) -> str:
    """
    Return the body of a dashboard as JSON, for PutDashboard; sends nothing.

    It shows the tables of the alias ``using``: capacity, throttling, latency and errors by
    DynamoDB's metrics, and what the sinks of ``METRICS`` publish. ``name`` is its title, by default
    the name of the stores' table. Raises ConfigurationError if no region is known.
    """
    specs = [spec for spec in wanted_tables() if spec.using == using]
    title = name or dashboard_name(using)
    return json.dumps(dashboard_body(title, specs, [using], region_of(using)))


def create_dashboard(
    name: str | None = None, *, using: str = DEFAULT_ALIAS, endpoint_url: str | None = None
) -> dict[str, Any]:
    """
    Create the dashboard of :func:`dashboard_json` in CloudWatch, or replace it. Return the answer:
    ``DashboardValidationMessages`` is empty if CloudWatch accepts all of it.

    ``name`` is by default that of the stores' table; it has letters, digits, ``-`` and ``_``. The
    account and the region are those of the alias, and with an ``ENDPOINT_URL`` on this machine so
    is the endpoint. Raises botocore's errors, and ValueError for a name that cannot be one.
    """
    found = name or dashboard_name(using)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,255}", found):
        raise ValueError(
            f"{found!r} cannot be the name of a dashboard; expected 1 to 255 letters, digits, '-' "
            "and '_'."
        )
    body = dashboard_json(found, using=using)
    config = get_config(using)
    url = endpoint_url or local_endpoint(using)
    credentials: dict[str, str] = {}
    if url is not None and is_loopback(url) and not config.names_account:
        credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    client = get_account(using).create_client(
        "cloudwatch", region_name=region_of(using), endpoint_url=url, **credentials
    )
    answer: dict[str, Any] = client.put_dashboard(DashboardName=found, DashboardBody=body)
    return answer


def dashboard_name(using: str) -> str:
    """Return the name of the alias's dashboard, from that of the stores' table."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", get_config(using).store_table)


def region_of(using: str) -> str:
    """Return the region of the alias. Raises ConfigurationError if neither setting has one."""
    config = get_config(using)
    region = config.region or get_account(using).session.get_config_variable("region")
    if region is None and local_endpoint(using) is not None:
        region = "us-east-1"
    if region is None:
        raise ConfigurationError(
            f"The alias {using!r} has no region. Set REGION, or the environment variable "
            "AWS_DEFAULT_REGION."
        )
    return str(region)


def local_endpoint(using: str) -> str | None:
    """Return the endpoint of the alias if it is on this machine, else None."""
    url = get_config(using).endpoint_url
    return url if url is not None and is_loopback(url) else None


def dashboard_body(
    title: str, specs: Sequence[TableSpec], aliases: Iterable[str], region: str
) -> dict[str, Any]:
    """Return the body of a dashboard of the tables ``specs`` and of what ``aliases`` publish."""
    page = _Page(region)
    page.text(f"# {title}")
    for using in aliases:
        page.text(f"## Alias {using}")
        _add_library(page, using, [spec.name for spec in specs if spec.using == using])
    for spec in specs:
        page.text(f"## Table {spec.name}")
        _add_table(page, spec)
    return {"start": "-PT3H", "periodOverride": "inherit", "widgets": page.widgets}


def _add_library(page: _Page, using: str, tables: Sequence[str]) -> None:
    def by_table(name: str, statistic: str) -> list[CloudWatchMetric | None]:
        return [of_library(using, name, statistic, table=table) for table in tables]

    page.graph("Circuit breakers open", by_table("breaker_open", "Maximum"))
    page.graph("Operations", by_table("operations", "Sum"))
    page.graph("Errors", by_table("errors", "Sum"))
    page.graph("Operations with retries, p99, seconds", by_table("operation_seconds", "p99"))
    page.graph("Throttled attempts", by_table("throttles", "Sum"))
    page.graph("Changes of capacity", by_table("capacity_changes", "Sum"))
    page.graph("Cache", [of_library(using, name) for name in ("hits", "misses")])
    page.graph("Refused by rate limits", [of_library(using, "rate_limit_refusals")])
    checks = ("scale_down_checks", "stuck_scale_downs")
    page.graph("Checks of raised tables", [of_library(using, name) for name in checks])


def _add_table(page: _Page, spec: TableSpec) -> None:
    indexes = [None, *(index.name for index in spec.indexes if index.is_global)]
    for kind in ("Read", "Write"):
        found = [
            of_table(f"Consumed{kind}CapacityUnits", spec.name, index=index) for index in indexes
        ]
        page.graph(f"{kind} units in a minute", found)
        if spec.billing_mode == "PROVISIONED":
            found = [
                of_table(f"Provisioned{kind}CapacityUnits", spec.name, "Average", index=index)
                for index in indexes
            ]
            page.graph(f"Provisioned {kind.lower()} units a second", found)
    found = [
        of_table(f"{kind}ThrottleEvents", spec.name, index=index)
        for index in indexes
        for kind in ("Read", "Write")
    ]
    page.graph("Throttle events", found)
    latency = "SuccessfulRequestLatency"
    found = [of_table(latency, spec.name, "Average", operation=each) for each in OPERATIONS]
    page.graph("Latency, milliseconds", found)
    found = [of_table("SystemErrors", spec.name, operation=each) for each in OPERATIONS]
    page.graph("System errors", found)


class _Page:
    """Widgets from the top to the bottom, three beside each other."""

    def __init__(self, region: str) -> None:
        self.widgets: list[dict[str, Any]] = []
        self._region = region
        self._x = self._y = 0

    def text(self, markdown: str) -> None:
        """Add a heading, on a line of its own."""
        if self._x:
            self._x, self._y = 0, self._y + _HEIGHT
        self._add("text", _COLUMNS, 1, {"markdown": markdown})
        self._x, self._y = 0, self._y + 1

    def graph(self, title: str, metrics: Iterable[CloudWatchMetric | None]) -> None:
        """Add a graph of the metrics that there are; without one, nothing."""
        lines = [_line(each) for each in metrics if each is not None]
        if not lines:
            return
        properties = {
            "title": title,
            "region": self._region,
            "view": "timeSeries",
            "stacked": False,
            "period": _MINUTE,
            "metrics": lines,
        }
        self._add("metric", _WIDTH, _HEIGHT, properties)
        self._x += _WIDTH
        if self._x == _COLUMNS:
            self._x, self._y = 0, self._y + _HEIGHT

    def _add(self, kind: str, width: int, height: int, properties: dict[str, Any]) -> None:
        place = {"x": self._x, "y": self._y, "width": width, "height": height}
        self.widgets.append({"type": kind, **place, "properties": properties})


def _line(metric: CloudWatchMetric) -> list[Any]:
    pairs = [each for pair in metric.dimensions for each in pair]
    return [metric.namespace, metric.name, *pairs, {"stat": metric.statistic}]
