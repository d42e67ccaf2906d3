"""
What becomes of a request under provisioned capacity: it is admitted or refused, forwarded to an
engine that knows no limits, and charged by the sizes of its items.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .costs import (
    Item,
    Units,
    consumed,
    read_cost,
    read_units,
    wire_size,
    with_consumed,
    write_cost,
)
from .throughput import Bucket, Partitions, RefusedUpdate, TableThroughput

# Sends an operation to the engine; returns status and answer.
Ask = Callable[[str, Mapping[str, Any]], Awaitable[tuple[int, dict[str, Any]]]]

_TYPE = "com.amazonaws.dynamodb.v20120810#"
_THROTTLED = "ProvisionedThroughputExceededException"
_TOO_MUCH = (
    "The level of configured provisioned throughput for the table or for one or more of its global "
    "secondary indexes was exceeded. Consider increasing the provisioning level."
)
_READS = frozenset(["GetItem", "Query", "Scan"])
_WRITES = frozenset(["PutItem", "UpdateItem", "DeleteItem"])


class Refused(Exception):
    """The relay answers for itself: status 400, DynamoDB's code, a message, and more."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.body = {"__type": _TYPE + code, "message": message, **more}


@dataclass
class _Table:
    """What the relay knows of a table: its keys, and its capacity (None: on demand)."""

    arn: str
    key: tuple[str, ...]
    indexes: dict[str, tuple[str, ...]]
    throughput: TableThroughput | None
    maximum: dict[str, Bucket]


class CapacityRules:
    """Answers requests as DynamoDB would, with the help of an engine."""

    def __init__(
        self,
        ask: Ask,
        now: Callable[[], float],
        *,
        updating: float,
        burst: float,
        partitions: Partitions | None,
    ) -> None:
        self._ask = ask
        self._now = now
        self._updating = updating
        self._burst = burst
        self._partitions = partitions
        self._tables: dict[str, _Table] = {}
        self._handlers = {
            "DescribeTable": self._describe_table,
            "DeleteTable": self._delete_table,
            "UpdateTable": self._update_table,
            "BatchGetItem": self._batch_get,
            "BatchWriteItem": self._batch_write,
            "TransactWriteItems": self._transact_write,
            "TransactGetItems": self._transact_get,
        }

    async def answer(self, operation: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return status and answer of a request."""
        try:
            if (handle := self._handlers.get(operation)) is not None:
                return await handle(body)
            if operation in _READS | _WRITES:
                return await self._single(operation, body)
            return await self._ask(operation, body)
        except Refused as refused:
            return 400, refused.body

    def status(self) -> dict[str, Any]:
        """Return the buckets of the tables that were asked for so far."""
        now = self._now()
        return {
            name: table.throughput.status(now) if table.throughput else "on demand"
            for name, table in self._tables.items()
        }

    # The control plane.

    async def _describe_table(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, answer = await self._ask("DescribeTable", body)
        if status == 200:
            table = self._learn(answer["Table"])
            if table.throughput is not None:
                answer["Table"] = table.throughput.describe(answer["Table"], self._now())
        return status, answer

    async def _delete_table(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self._tables.pop(_name(body["TableName"]), None)
        return await self._ask("DeleteTable", body)

    async def _update_table(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = _name(body["TableName"])
        table = await self._table(name)
        wanted: dict[str, tuple[int, int]] = {}
        if "ProvisionedThroughput" in body:
            wanted[""] = _units_of(body["ProvisionedThroughput"])
        for change in body.get("GlobalSecondaryIndexUpdates") or ():
            if "Update" in change:
                update = change["Update"]
                wanted[update["IndexName"]] = _units_of(update["ProvisionedThroughput"])
        throughput = table.throughput
        if throughput is None or not wanted or "BillingMode" in body:
            self._tables.pop(name, None)
            return await self._ask("UpdateTable", body)
        now = self._now()
        try:
            throughput.update(wanted, now)
        except RefusedUpdate as refused:
            raise Refused(refused.code, str(refused)) from refused
        # Kept by the engine too, so that a new relay finds it.
        await self._ask("UpdateTable", body)
        status, answer = await self._ask("DescribeTable", {"TableName": name})
        description = throughput.describe(answer["Table"], now)
        return status, {"TableDescription": description}

    # The data plane.

    async def _single(self, operation: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = _name(body["TableName"])
        table = await self._table(name)
        kind = "Read" if operation in _READS else "Write"
        index = body.get("IndexName", "")
        key = _partition(table, body.get("Key") or body.get("Item") or {})
        old = None
        if operation == "UpdateItem" and table.indexes and table.throughput is not None:
            old = await self._get(name, body["Key"])
        self._admit(name, table, kind, index, key, body.get("Item") or old)
        asked, request = body.get("ReturnConsumedCapacity", "NONE"), dict(body)
        wanted = body.get("ReturnValues", "NONE")
        if operation in ("PutItem", "DeleteItem"):
            request["ReturnValues"] = "ALL_OLD"
        elif operation == "UpdateItem" and wanted == "NONE":
            request["ReturnValues"] = "ALL_NEW"
        request["ReturnConsumedCapacity"] = "INDEXES"
        status, answer = await self._ask(operation, request)
        if operation in _READS:
            units = read_cost(operation, body, answer, index)
        else:
            seen = answer.get("Attributes")
            if operation == "UpdateItem":
                new = seen if request.get("ReturnValues") == "ALL_NEW" else None
                if new is None and table.throughput is not None:
                    new = await self._get(name, body["Key"])
            else:
                old, new = seen, body.get("Item")
            units = write_cost(table.indexes, old, new if status == 200 else old)
            if wanted == "NONE":
                answer.pop("Attributes", None)
        self._spend(name, table, units, key)
        answer.pop("ConsumedCapacity", None)
        if asked != "NONE" and status == 200:
            answer["ConsumedCapacity"] = consumed(name, units, asked)
        return status, answer

    async def _batch_get(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        taken: dict[str, Any] = {}
        left: dict[str, Any] = {}
        first: Refused | None = None
        for name, request in body["RequestItems"].items():
            table = await self._table(_name(name))
            consistent = bool(request.get("ConsistentRead"))
            cost: Units = {("", "Read"): read_units([0], consistent=consistent)}
            for key in request["Keys"]:
                partition = _partition(table, key)
                try:
                    self._admit(_name(name), table, "Read", "", partition, None)
                except Refused as refused:
                    first = first or refused
                    left.setdefault(name, {**request, "Keys": []})["Keys"].append(key)
                else:
                    self._spend(_name(name), table, cost, partition)
                    taken.setdefault(name, {**request, "Keys": []})["Keys"].append(key)
        if first is not None and not taken:
            raise first
        status, answer = await self._ask(
            "BatchGetItem", {"RequestItems": taken, "ReturnConsumedCapacity": "NONE"}
        )
        if status != 200:
            return status, answer
        spent = []
        for name, request in taken.items():
            table = await self._table(_name(name))
            consistent = bool(request.get("ConsistentRead"))
            sizes = [wire_size(item) for item in answer["Responses"].get(name, ())]
            sizes += [0] * (len(request["Keys"]) - len(sizes))
            units = read_units(sizes, consistent=consistent)
            paid = len(sizes) * read_units([0], consistent=consistent)
            self._spend(_name(name), table, {("", "Read"): units - paid}, "")
            spent.append((name, {("", "Read"): units}))
        for name, more in left.items():
            unprocessed = answer.setdefault("UnprocessedKeys", {})
            known = unprocessed.setdefault(name, {**more, "Keys": []})
            known["Keys"] += more["Keys"]
        return status, with_consumed(answer, spent, body)

    async def _batch_write(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        taken: dict[str, list[Any]] = {}
        left: dict[str, list[Any]] = {}
        spent = []
        first: Refused | None = None
        for name, requests in body["RequestItems"].items():
            table = await self._table(_name(name))
            total: Units = {}
            for request in requests:
                ((_, content),) = request.items()
                item = content.get("Item")
                partition = _partition(table, item or content["Key"])
                try:
                    self._admit(_name(name), table, "Write", "", partition, item)
                except Refused as refused:
                    first = first or refused
                    left.setdefault(name, []).append(request)
                    continue
                units = write_cost(table.indexes, None, item)
                self._spend(_name(name), table, units, partition)
                taken.setdefault(name, []).append(request)
                for each, cost in units.items():
                    total[each] = total.get(each, 0.0) + cost
            spent.append((name, total))
        if first is not None and not taken:
            raise first
        status, answer = await self._ask(
            "BatchWriteItem", {"RequestItems": taken, "ReturnConsumedCapacity": "NONE"}
        )
        if status != 200:
            return status, answer
        for name, more in left.items():
            answer.setdefault("UnprocessedItems", {}).setdefault(name, []).extend(more)
        return status, with_consumed(answer, spent, body)

    async def _transact_write(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return await self._transact("TransactWriteItems", body, "Write")

    async def _transact_get(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        return await self._transact("TransactGetItems", body, "Read")

    async def _transact(
        self, operation: str, body: dict[str, Any], kind: str
    ) -> tuple[int, dict[str, Any]]:
        reasons: list[dict[str, Any]] = []
        costs = []
        for action in body["TransactItems"]:
            ((_, content),) = action.items()
            name = _name(content["TableName"])
            table = await self._table(name)
            item = content.get("Item")
            partition = _partition(table, item or content["Key"])
            try:
                self._admit(name, table, kind, "", partition, item)
            except Refused as refused:
                named = refused.body.get("ThrottlingReasons") or refused.body["throttlingReasons"]
                reasons.append(
                    {"Code": "ThrottlingError", "Message": _TOO_MUCH, "ThrottlingReasons": named}
                )
            else:
                reasons.append({"Code": "None"})
            single = (
                write_cost(table.indexes, None, item) if kind == "Write" else {("", "Read"): 1.0}
            )
            # Each action is prepared and committed.
            costs.append((name, table, partition, {each: 2 * n for each, n in single.items()}))
        if any(reason["Code"] != "None" for reason in reasons):
            codes = ", ".join(reason["Code"] for reason in reasons)
            raise Refused(
                "TransactionCanceledException",
                f"Transaction cancelled, please refer cancellation reasons for specific reasons "
                f"[{codes}]",
                CancellationReasons=reasons,
            )
        status, answer = await self._ask(operation, {**body, "ReturnConsumedCapacity": "NONE"})
        for name, table, partition, units in costs:
            self._spend(name, table, units, partition)
        spent = [(name, units) for name, _, _, units in costs]
        return status, with_consumed(answer, spent, body) if status == 200 else answer

    async def _table(self, name: str) -> _Table:
        if (found := self._tables.get(name)) is None:
            status, answer = await self._ask("DescribeTable", {"TableName": name})
            if status != 200:
                raise Refused(
                    answer.get("__type", "InternalServerError").rpartition("#")[2],
                    answer.get("message") or answer.get("Message") or "",
                )
            found = self._learn(answer["Table"])
        return found

    def _learn(self, description: Mapping[str, Any]) -> _Table:
        name = description["TableName"]
        if (found := self._tables.get(name)) is not None:
            return found
        now = self._now()
        indexes = {
            index["IndexName"]: _keys(index)
            for index in description.get("GlobalSecondaryIndexes") or ()
        }
        mode = (description.get("BillingModeSummary") or {}).get("BillingMode")
        own = _units_of(description.get("ProvisionedThroughput") or {})
        throughput = None
        if mode != "PAY_PER_REQUEST" and own != (0, 0):
            capacities = {"": own}
            for index in description.get("GlobalSecondaryIndexes") or ():
                capacities[index["IndexName"]] = _units_of(index["ProvisionedThroughput"])
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
        found = _Table(description["TableArn"], _keys(description), indexes, throughput, maximum)
        self._tables[name] = found
        return found

    def _admit(
        self, name: str, table: _Table, kind: str, index: str, partition: str, item: Item | None
    ) -> None:
        """Raise Refused unless every bucket that the request would spend from admits it."""
        now = self._now()
        partitions = self._partitions if partition else None
        if partitions is not None and not partitions.admits(name, partition, kind, now):
            raise _throttled(table.arn, f"Table{kind}KeyRangeThroughputExceeded")
        throughput = table.throughput
        if throughput is None:
            bucket = table.maximum.get(kind)
            if bucket is not None and not bucket.admits(now):
                bucket.throttled += 1
                reason = {
                    "reason": f"Table{kind}MaxOnDemandThroughputExceeded",
                    "resource": table.arn,
                }
                raise Refused("ThrottlingException", _TOO_MUCH, throttlingReasons=[reason])
            return
        names = [index] if kind == "Read" else [""]
        if kind == "Write" and item is not None:
            names += [
                each for each, key in table.indexes.items() if all(part in item for part in key)
            ]
        short = throughput.missing([(each, kind) for each in names], now)
        if short is not None:
            where = "Index" if short[0] else "Table"
            raise _throttled(
                throughput.arn_of(short[0]), f"{where}{kind}ProvisionedThroughputExceeded"
            )

    def _spend(self, name: str, table: _Table, units: Units, partition: str) -> None:
        now = self._now()
        if table.throughput is not None:
            table.throughput.spend(units, now)
        for (index, kind), cost in units.items():
            if index == "":
                if kind in table.maximum:
                    table.maximum[kind].spend(cost, now)
                if self._partitions is not None and partition:
                    self._partitions.spend(name, partition, kind, cost, now)

    async def _get(self, name: str, key: Any) -> Item | None:
        request = {"TableName": name, "Key": key, "ConsistentRead": True}
        _, answer = await self._ask("GetItem", request)
        item: Item | None = answer.get("Item")
        return item


def _throttled(arn: str, reason: str) -> Refused:
    reasons = [{"reason": reason, "resource": arn}]
    return Refused(_THROTTLED, _TOO_MUCH, ThrottlingReasons=reasons)


def _partition(table: _Table, item: Any) -> str:
    return json.dumps(item.get(table.key[0])) if table.key and item else ""


def _keys(description: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(each["AttributeName"] for each in description["KeySchema"])


def _units_of(throughput: Mapping[str, Any]) -> tuple[int, int]:
    return int(throughput.get("ReadCapacityUnits", 0)), int(throughput.get("WriteCapacityUnits", 0))


def _name(table: str) -> str:
    return table.rpartition("/")[2]
