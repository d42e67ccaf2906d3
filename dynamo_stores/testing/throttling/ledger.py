"""The capacity of tables and its consumption in the throttling relay."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .buckets import Bucket, Partitions, TableThroughput
from .costs import Item, Units

# Sends an operation to the engine; returns status and answer.
Send = Callable[[str, Mapping[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]

_TYPE = "com.amazonaws.dynamodb.v20120810#"
_THROTTLED = "ProvisionedThroughputExceededException"
TOO_MUCH = (
    "The level of configured provisioned throughput for the table or for one or more of its global "
    "secondary indexes was exceeded. Consider increasing the provisioning level."
)


class RequestRefused(Exception):
    """The relay refuses a request: status 400 with DynamoDB's error code and message."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.body = {"__type": _TYPE + code, "message": message, **more}


@dataclass
class Table:
    """The keys of a table, and its capacity (None: on demand)."""

    arn: str
    key: tuple[str, ...]
    indexes: dict[str, tuple[str, ...]]
    throughput: TableThroughput | None
    maximum: dict[str, Bucket]


class Ledger:
    """The tables that were used so far, and their buckets."""

    def __init__(
        self,
        send: Send,
        now: Callable[[], float],
        *,
        updating: float,
        burst: float,
        partitions: Partitions | None,
    ) -> None:
        self.tables: dict[str, Table] = {}
        # What was charged, by table, index and kind.
        self.units: dict[tuple[str, str, str], float] = {}
        self._send = send
        self._now = now
        self._updating = updating
        self._burst = burst
        self._partitions = partitions

    async def table(self, name: str) -> Table:
        """Return a table; described once by the engine. Raises RequestRefused if that fails."""
        if (found := self.tables.get(name)) is None:
            status, answer = await self._send("DescribeTable", {"TableName": name})
            if status != 200:
                raise RequestRefused(
                    answer.get("__type", "InternalServerError").rpartition("#")[2],
                    answer.get("message") or answer.get("Message") or "",
                )
            found = self.add(answer["Table"])
        return found

    def add(self, description: Mapping[str, Any]) -> Table:
        """Return the table of a description (``Table`` of DescribeTable), added if it is new."""
        name = description["TableName"]
        if (found := self.tables.get(name)) is not None:
            return found
        now = self._now()
        indexes = {
            index["IndexName"]: _keys(index)
            for index in description.get("GlobalSecondaryIndexes") or ()
        }
        mode = (description.get("BillingModeSummary") or {}).get("BillingMode")
        own = units_of(description.get("ProvisionedThroughput") or {})
        throughput = None
        if mode != "PAY_PER_REQUEST" and own != (0, 0):
            capacities = {"": own}
            for index in description.get("GlobalSecondaryIndexes") or ():
                capacities[index["IndexName"]] = units_of(index["ProvisionedThroughput"])
            throughput = TableThroughput(
                description["TableArn"],
                capacities,
                now,
                updating=self._updating,
                burst=self._burst,
            )
        limits = description.get("OnDemandThroughput") or {}
        maximum = {
            kind: Bucket(float(limits[name_of]), 1.0, now)
            for kind, name_of in (
                ("Read", "MaxReadRequestUnits"),
                ("Write", "MaxWriteRequestUnits"),
            )
            if limits.get(name_of, -1) > 0
        }
        found = Table(description["TableArn"], _keys(description), indexes, throughput, maximum)
        self.tables[name] = found
        return found

    def admit(
        self, name: str, table: Table, kind: str, index: str, partition: str, item: Item | None
    ) -> None:
        """Raise RequestRefused unless every bucket of the request admits it."""
        now = self._now()
        partitions = self._partitions if partition else None
        if partitions is not None and not partitions.admits(name, partition, kind, now):
            raise throttled(table.arn, f"Table{kind}KeyRangeThroughputExceeded")
        throughput = table.throughput
        if throughput is None:
            bucket = table.maximum.get(kind)
            if bucket is not None and not bucket.admits(now):
                bucket.throttled += 1
                reason = {
                    "reason": f"Table{kind}MaxOnDemandThroughputExceeded",
                    "resource": table.arn,
                }
                raise RequestRefused("ThrottlingException", TOO_MUCH, throttlingReasons=[reason])
            return
        names = [index] if kind == "Read" else [""]
        if kind == "Write" and item is not None:
            names += [
                each for each, key in table.indexes.items() if all(part in item for part in key)
            ]
        short = throughput.missing([(each, kind) for each in names], now)
        if short is not None:
            where = "Index" if short[0] else "Table"
            raise throttled(
                throughput.arn_of(short[0]), f"{where}{kind}ProvisionedThroughputExceeded"
            )

    def spend(self, name: str, table: Table, units: Units, partition: str) -> None:
        """Subtract the units of a request from each of its buckets."""
        now = self._now()
        if table.throughput is not None:
            table.throughput.spend(units, now)
        for (index, kind), cost in units.items():
            self.units[name, index, kind] = self.units.get((name, index, kind), 0.0) + cost
            if index == "":
                if kind in table.maximum:
                    table.maximum[kind].spend(cost, now)
                if self._partitions is not None and partition:
                    self._partitions.spend(name, partition, kind, cost, now)

    async def get_item(self, name: str, key: Any) -> Item | None:
        """Return an item of the engine, without consuming capacity."""
        request = {"TableName": name, "Key": key, "ConsistentRead": True}
        _, answer = await self._send("GetItem", request)
        item: Item | None = answer.get("Item")
        return item


def throttled(arn: str, reason: str) -> RequestRefused:
    """Return the throttling error with ``reason`` and the ARN of the table or index."""
    reasons = [{"reason": reason, "resource": arn}]
    return RequestRefused(_THROTTLED, TOO_MUCH, ThrottlingReasons=reasons)


def partition_of(table: Table, item: Any) -> str:
    """Return the partition key of an item or a key as text; ``""`` if it has none."""
    return json.dumps(item.get(table.key[0])) if table.key and item else ""


def _keys(description: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(each["AttributeName"] for each in description["KeySchema"])


def units_of(throughput: Mapping[str, Any]) -> tuple[int, int]:
    """Return read and write units of a ProvisionedThroughput."""
    return int(throughput.get("ReadCapacityUnits", 0)), int(throughput.get("WriteCapacityUnits", 0))


def name_of(table: str) -> str:
    """Return the name of a table from its name or ARN."""
    return table.rpartition("/")[2]
