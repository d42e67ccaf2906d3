"""The load that CloudWatch measured: ConsumedReadCapacityUnits and ConsumedWriteCapacityUnits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .. import clock
from ..calls.account import get_account
from ..calls.environment import is_loopback
from ..capacity.description import TableCapacity
from ..capacity.update import describe
from ..conf import get_config
from ..exceptions import StoreError, code_of
from ..infrastructure.tables import wanted_tables
from ..monitoring.dashboard import local_endpoint
from ..monitoring.formatting import count_of
from .load import SECONDS_PER_HOUR, HourUse, Load
from .measured import Measured, backups_of, load_of

# "GetMetricData" of the Amazon CloudWatch API Reference, and its list price for 1,000 metrics.
MOST_QUERIES, PRICE_PER_METRIC = 500, Decimal("0.00001")
_METRICS = ("ConsumedReadCapacityUnits", "ConsumedWriteCapacityUnits")
# Seconds between two calls: CloudWatch allows 50 a second.
_PAUSE = 0.2
_TIMEOUT = 10.0
_HOURS = (
    "CloudWatch's figures are those of whole hours: peaks within an hour are not seen, so that "
    "provisioned capacity may have to be larger."
)


def cloudwatch_load(
    using: str,
    *,
    tables: Iterable[str] | None = None,
    days: int = 14,
    endpoint_url: str | None = None,
) -> Load:
    """
    Return the load of the alias's tables in the last ``days``, by CloudWatch; it counts the calls
    of every client. One GetMetricData for 500 metrics and some tables, each charged. It is sent to
    ``endpoint_url``; by default to the endpoint of the alias if that is on this machine, else AWS.

    Raises StoreError if CloudWatch refuses or does not answer.
    """
    measured, capacities = read_cloudwatch(
        using, tables=tables, days=days, endpoint_url=endpoint_url
    )
    return load_of(
        using,
        measured,
        capacities.get,
        source="cloudwatch",
        tables=tables,
        backups=backups_of(using),
    )


def read_cloudwatch(
    using: str,
    *,
    tables: Iterable[str] | None = None,
    days: int = 14,
    endpoint_url: str | None = None,
) -> tuple[Measured, dict[str, TableCapacity]]:
    """Return the units by hour, and the tables that exist."""
    names = (
        [spec.name for spec in wanted_tables() if spec.using == using]
        if tables is None
        else list(tables)
    )
    found = {name: capacity for name in names if (capacity := describe(using, name)) is not None}
    resources = [
        f"{name}/{index}" if index else name
        for name, capacity in found.items()
        for index in capacity.resources
    ]
    last = int(clock.now()) // SECONDS_PER_HOUR
    hours: dict[int, dict[str, list[Decimal]]] = {}
    # What AWS has of tables of these names is not the load of an engine on this machine.
    client = _client(using, endpoint_url or local_endpoint(using))
    for begin in range(0, len(resources), MOST_QUERIES // 2):
        if begin:
            clock.sleep(_PAUSE)
        part = resources[begin : begin + MOST_QUERIES // 2]
        for name, place, hour, units in _answers(client, using, part, last - days * 24, last):
            hours.setdefault(hour, {}).setdefault(name, [Decimal(0), Decimal(0)])[place] += units
    measured = {
        hour: {name: _hour_use(*units) for name, units in by_name.items()}
        for hour, by_name in hours.items()
    }
    first = min(measured, default=None)
    if first is None:
        note = f"CloudWatch has no figures of these tables for the last {count_of(days, 'day')}."
        return Measured(notes=(note,)), found
    # CloudWatch has no figure for an hour without use, also before the first one that has some.
    created = min(each.created_at for each in found.values()) // SECONDS_PER_HOUR
    first = min(first, max(last - days * 24, int(created)))
    cost = 2 * len(resources) * PRICE_PER_METRIC
    return (
        Measured(
            measured,
            Decimal(last - first),
            first * 3600.0,
            last * 3600.0,
            (_HOURS, f"CloudWatch charges about ${cost} for these {2 * len(resources)} metrics."),
        ),
        found,
    )


def _hour_use(read: Decimal, write: Decimal) -> HourUse:
    return (read, write, read / SECONDS_PER_HOUR, write / SECONDS_PER_HOUR)


def _answers(
    client: Any, using: str, resources: list[str], first: int, last: int
) -> Iterator[tuple[str, int, int, Decimal]]:
    queries = {
        f"q{number}": (name, place)
        for number, (name, place) in enumerate(
            (name, place) for name in resources for place in range(len(_METRICS))
        )
    }
    request: dict[str, Any] = {
        "MetricDataQueries": [
            {"Id": each, "ReturnData": True, "MetricStat": _statistic(name, _METRICS[place])}
            for each, (name, place) in queries.items()
        ],
        "StartTime": datetime.fromtimestamp(first * SECONDS_PER_HOUR, UTC),
        "EndTime": datetime.fromtimestamp(last * SECONDS_PER_HOUR, UTC),
    }
    while True:
        try:
            answer = client.get_metric_data(**request)
        except ClientError as exc:
            if code_of(exc).isdigit():
                # A refusal of AWS has a name.
                raise StoreError(
                    f"The endpoint {client.meta.endpoint_url} of alias {using!r} does not answer "
                    "as CloudWatch does. Name another one by --cloudwatch-endpoint-url."
                ) from exc
            raise StoreError(
                f"CloudWatch refused GetMetricData for alias {using!r} ({code_of(exc)}); the "
                "permission cloudwatch:GetMetricData is required."
            ) from exc
        except BotoCoreError as exc:
            raise StoreError(
                f"CloudWatch did not answer for alias {using!r} ({type(exc).__name__})."
            ) from exc
        for result in answer["MetricDataResults"]:
            name, place = queries[result["Id"]]
            for at, value in zip(result["Timestamps"], result["Values"], strict=True):
                hour = int(at.timestamp()) // SECONDS_PER_HOUR
                yield name, place, hour, Decimal(str(value))
        if not answer.get("NextToken"):
            return
        request["NextToken"] = answer["NextToken"]
        clock.sleep(_PAUSE)


def _statistic(resource: str, metric: str) -> dict[str, Any]:
    table, _, index = resource.partition("/")
    dimensions = [{"Name": "TableName", "Value": table}]
    if index:
        dimensions.append({"Name": "GlobalSecondaryIndexName", "Value": index})
    return {
        "Metric": {"Namespace": "AWS/DynamoDB", "MetricName": metric, "Dimensions": dimensions},
        "Period": SECONDS_PER_HOUR,
        "Stat": "Sum",
    }


def _client(using: str, endpoint_url: str | None) -> Any:
    config = get_config(using)
    credentials: dict[str, Any] = {}
    if endpoint_url is not None and is_loopback(endpoint_url) and not config.names_account:
        credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return get_account(using).create_client(
        "cloudwatch",
        region_name=config.region or ("us-east-1" if credentials else None),
        endpoint_url=endpoint_url,
        config=Config(
            connect_timeout=_TIMEOUT,
            read_timeout=_TIMEOUT,
            retries={"total_max_attempts": 3, "mode": "standard"},
        ),
        **credentials,
    )
