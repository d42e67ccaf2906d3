"""The capacity of a table, read from DescribeTable and DescribeLimits; pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from .. import clock

KINDS = ("Read", "Write")
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
FREE_DECREASES, MAX_DECREASES, QUIET_HOUR = 4, 27, 3600.0
DEFAULT_QUOTA = 40_000


class Units(NamedTuple):
    """Provisioned read and write units a second."""

    read: int
    write: int

    def of(self, kind: str) -> int:
        """Return the units of ``"Read"`` or ``"Write"``."""
        return self.read if kind == "Read" else self.write

    def with_kind(self, kind: str, units: int) -> Units:
        """Return a copy with other units of one kind."""
        return self._replace(read=units) if kind == "Read" else self._replace(write=units)


@dataclass(frozen=True)
class Resource:
    """
    A table (``name`` is ``""``) or one of its indexes; times in seconds since the epoch. ``size``
    in bytes and ``items`` are up to six hours old at AWS.
    """

    name: str
    units: Units
    decreases_today: int = 0
    last_increase: float | None = None
    last_decrease: float | None = None
    size: int = 0
    items: int = 0

    def decreases_left(self, now: float) -> int:
        """
        Return how many decreases are allowed now: those left of the four of a UTC day, else one
        after an hour without a decrease, up to 27 a day.
        """
        used = self._used(now)
        if used < FREE_DECREASES:
            return FREE_DECREASES - used
        return 1 if self._is_quiet(now) and used < MAX_DECREASES else 0

    def may_decrease(self, now: float, reserve: int = 0) -> bool:
        """
        Return whether to use a decrease now, keeping ``reserve`` of the four for other changes.
        An hour after the last decrease the reserve does not apply, because one is allowed anyway.
        """
        left = self.decreases_left(now)
        return left > reserve or (left > 0 and self._is_quiet(now))

    def _used(self, now: float) -> int:
        if self.last_decrease is not None and _day(self.last_decrease) != _day(now):
            # DynamoDB's number is that of the day of the last decrease.
            return 0
        return self.decreases_today

    def _is_quiet(self, now: float) -> bool:
        return self.last_decrease is None or now - self.last_decrease >= QUIET_HOUR


@dataclass(frozen=True)
class TableCapacity:
    """
    The state of a table; ``resources`` are the table (``""``) and its indexes, by name.

    ``table_id`` tells it from a table of this name that was deleted before. ``replicas`` are the
    other regions that it is in. ``created_at`` is in seconds since the epoch, 0 if unknown.
    """

    table: str
    arn: str
    status: str
    is_on_demand: bool
    has_replicas: bool
    resources: Mapping[str, Resource] = field(default_factory=dict)
    table_id: str = ""
    replicas: int = 0
    has_stream: bool = False
    table_class: str = "STANDARD"
    created_at: float = 0.0

    @property
    def is_active(self) -> bool:
        """Whether the table can be changed now."""
        return self.status == "ACTIVE"


class Quota(NamedTuple):
    """The most units that a table or index may have."""

    read: int = DEFAULT_QUOTA
    write: int = DEFAULT_QUOTA

    def of(self, kind: str) -> int:
        """Return the quota of ``"Read"`` or ``"Write"``."""
        return self.read if kind == "Read" else self.write


def read_description(description: Mapping[str, Any]) -> TableCapacity:
    """Return the capacity from ``Table`` of a DescribeTable response."""
    mode = (description.get("BillingModeSummary") or {}).get("BillingMode", "PROVISIONED")
    resources = {"": _resource("", description, "Table")}
    status = str(description["TableStatus"])
    for index in description.get("GlobalSecondaryIndexes") or ():
        name = index["IndexName"]
        resources[name] = _resource(name, index, "Index")
        if index.get("IndexStatus", "ACTIVE") != "ACTIVE":
            status = "UPDATING"
    arn = str(description.get("TableArn", ""))
    is_on_demand = mode == "PAY_PER_REQUEST" or resources[""].units == (0, 0)
    return TableCapacity(
        table=str(description["TableName"]),
        arn=arn,
        status=status,
        is_on_demand=is_on_demand,
        has_replicas=bool(description.get("Replicas")),
        table_id=str(description.get("TableId", "")),
        resources=resources,
        replicas=sum(
            f":{replica.get('RegionName')}:" not in arn
            for replica in description.get("Replicas") or ()
        ),
        has_stream=bool((description.get("StreamSpecification") or {}).get("StreamEnabled")),
        table_class=str((description.get("TableClassSummary") or {}).get("TableClass", "STANDARD")),
        created_at=clock.as_seconds(description.get("CreationDateTime", 0.0)),
    )


def read_limits(limits: Mapping[str, Any]) -> Quota:
    """Return the quota of one table from a DescribeLimits response."""
    return Quota(
        int(limits.get("TableMaxReadCapacityUnits", DEFAULT_QUOTA)),
        int(limits.get("TableMaxWriteCapacityUnits", DEFAULT_QUOTA)),
    )


def as_request(table: str, changes: Mapping[str, Units]) -> dict[str, Any]:
    """Return UpdateTable's arguments for ``changes`` (by resource), all in one request."""
    request: dict[str, Any] = {"TableName": table}
    updates = []
    for name, units in changes.items():
        throughput = {"ReadCapacityUnits": units.read, "WriteCapacityUnits": units.write}
        if name:
            update = {"IndexName": name, "ProvisionedThroughput": throughput}
            updates.append({"Update": update})
        else:
            request["ProvisionedThroughput"] = throughput
    if updates:
        request["GlobalSecondaryIndexUpdates"] = updates
    return request


def _resource(name: str, description: Mapping[str, Any], kind: str) -> Resource:
    throughput = description.get("ProvisionedThroughput") or {}
    return Resource(
        name=name,
        units=Units(
            int(throughput.get("ReadCapacityUnits", 0)),
            int(throughput.get("WriteCapacityUnits", 0)),
        ),
        decreases_today=int(throughput.get("NumberOfDecreasesToday", 0)),
        last_increase=_moment(throughput.get("LastIncreaseDateTime")),
        last_decrease=_moment(throughput.get("LastDecreaseDateTime")),
        size=int(description.get(f"{kind}SizeBytes") or 0),
        items=int(description.get("ItemCount") or 0),
    )


def _moment(value: Any) -> float | None:
    if value is None:
        return None
    return value.timestamp() if isinstance(value, datetime) else float(value)


def _day(moment: float) -> object:
    return datetime.fromtimestamp(moment, UTC).date()
