"""
The handling of a request under provisioned capacity: it is admitted or refused, forwarded to an
engine without limits, and its cost is computed from the sizes of its items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .buckets import RefusedUpdate
from .costs import Units, consumed, read_cost, read_units, wire_size, with_consumed, write_cost
from .ledger import TOO_MUCH, Ledger, RequestRefused, Send, name_of, partition_of, units_of

_READS = frozenset(["GetItem", "Query", "Scan"])
_WRITES = frozenset(["PutItem", "UpdateItem", "DeleteItem"])


class CapacityRules:
    """Answers requests as DynamoDB does, by an engine and its own limits."""

    def __init__(
        self,
        send: Send,
        now: Callable[[], float],
        ledger: Ledger,
    ) -> None:
        self._send = send
        self._now = now
        self._ledger = ledger
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
            return await self._send(operation, body)
        except RequestRefused as refused:
            return 400, refused.body

    def status(self) -> dict[str, Any]:
        """Return the buckets of the tables that were used so far."""
        now = self._now()
        return {
            name: table.throughput.status(now) if table.throughput else "on demand"
            for name, table in self._ledger.tables.items()
        }

    # The control plane.

    async def _describe_table(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, answer = await self._send("DescribeTable", body)
        if status == 200:
            table = self._ledger.add(answer["Table"])
            if table.throughput is not None:
                answer["Table"] = table.throughput.describe(answer["Table"], self._now())
        return status, answer

    async def _delete_table(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        self._ledger.tables.pop(name_of(body["TableName"]), None)
        return await self._send("DeleteTable", body)

    async def _update_table(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = name_of(body["TableName"])
        table = await self._ledger.table(name)
        wanted: dict[str, tuple[int, int]] = {}
        if "ProvisionedThroughput" in body:
            wanted[""] = units_of(body["ProvisionedThroughput"])
        for change in body.get("GlobalSecondaryIndexUpdates") or ():
            if "Update" in change:
                update = change["Update"]
                wanted[update["IndexName"]] = units_of(update["ProvisionedThroughput"])
        throughput = table.throughput
        if throughput is None or not wanted or "BillingMode" in body:
            self._ledger.tables.pop(name, None)
            return await self._send("UpdateTable", body)
        now = self._now()
        try:
            throughput.update(wanted, now)
        except RefusedUpdate as refused:
            raise RequestRefused(refused.code, str(refused)) from refused
        # Stored in the engine too, so that a new relay finds it.
        await self._send("UpdateTable", body)
        status, answer = await self._send("DescribeTable", {"TableName": name})
        description = throughput.describe(answer["Table"], now)
        return status, {"TableDescription": description}

    # The data plane.

    async def _single(self, operation: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        name = name_of(body["TableName"])
        table = await self._ledger.table(name)
        kind = "Read" if operation in _READS else "Write"
        index = body.get("IndexName", "")
        key = partition_of(table, body.get("Key") or body.get("Item") or {})
        old = None
        if operation == "UpdateItem" and table.indexes and table.throughput is not None:
            old = await self._ledger.get_item(name, body["Key"])
        self._ledger.admit(name, table, kind, index, key, body.get("Item") or old)
        level, request = body.get("ReturnConsumedCapacity", "NONE"), dict(body)
        wanted = body.get("ReturnValues", "NONE")
        if operation in ("PutItem", "DeleteItem"):
            request["ReturnValues"] = "ALL_OLD"
        elif operation == "UpdateItem" and wanted == "NONE":
            request["ReturnValues"] = "ALL_NEW"
        request["ReturnConsumedCapacity"] = "INDEXES"
        status, answer = await self._send(operation, request)
        if operation in _READS:
            units = read_cost(operation, body, answer, index)
        else:
            seen = answer.get("Attributes")
            if operation == "UpdateItem":
                new = seen if request.get("ReturnValues") == "ALL_NEW" else None
                if new is None and table.throughput is not None:
                    new = await self._ledger.get_item(name, body["Key"])
            else:
                old, new = seen, body.get("Item")
            units = write_cost(table.indexes, old, new if status == 200 else old)
            if wanted == "NONE":
                answer.pop("Attributes", None)
        self._ledger.spend(name, table, units, key)
        answer.pop("ConsumedCapacity", None)
        if level != "NONE" and status == 200:
            answer["ConsumedCapacity"] = consumed(name, units, level)
        return status, answer

    async def _batch_get(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        taken: dict[str, Any] = {}
        left: dict[str, Any] = {}
        first: RequestRefused | None = None
        for name, request in body["RequestItems"].items():
            table = await self._ledger.table(name_of(name))
            consistent = bool(request.get("ConsistentRead"))
            cost: Units = {("", "Read"): read_units([0], consistent=consistent)}
            for key in request["Keys"]:
                partition = partition_of(table, key)
                try:
                    self._ledger.admit(name_of(name), table, "Read", "", partition, None)
                except RequestRefused as refused:
                    first = first or refused
                    left.setdefault(name, {**request, "Keys": []})["Keys"].append(key)
                else:
                    self._ledger.spend(name_of(name), table, cost, partition)
                    taken.setdefault(name, {**request, "Keys": []})["Keys"].append(key)
        if first is not None and not taken:
            raise first
        status, answer = await self._send(
            "BatchGetItem", {"RequestItems": taken, "ReturnConsumedCapacity": "NONE"}
        )
        if status != 200:
            return status, answer
        spent = []
        for name, request in taken.items():
            table = await self._ledger.table(name_of(name))
            consistent = bool(request.get("ConsistentRead"))
            sizes = [wire_size(item) for item in answer["Responses"].get(name, ())]
            sizes += [0] * (len(request["Keys"]) - len(sizes))
            units = read_units(sizes, consistent=consistent)
            paid = len(sizes) * read_units([0], consistent=consistent)
            self._ledger.spend(name_of(name), table, {("", "Read"): units - paid}, "")
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
        first: RequestRefused | None = None
        for name, requests in body["RequestItems"].items():
            table = await self._ledger.table(name_of(name))
            total: Units = {}
            for request in requests:
                ((_, content),) = request.items()
                item = content.get("Item")
                partition = partition_of(table, item or content["Key"])
                try:
                    self._ledger.admit(name_of(name), table, "Write", "", partition, item)
                except RequestRefused as refused:
                    first = first or refused
                    left.setdefault(name, []).append(request)
                    continue
                units = write_cost(table.indexes, None, item)
                self._ledger.spend(name_of(name), table, units, partition)
                taken.setdefault(name, []).append(request)
                for each, cost in units.items():
                    total[each] = total.get(each, 0.0) + cost
            spent.append((name, total))
        if first is not None and not taken:
            raise first
        status, answer = await self._send(
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
            name = name_of(content["TableName"])
            table = await self._ledger.table(name)
            item = content.get("Item")
            partition = partition_of(table, item or content["Key"])
            try:
                self._ledger.admit(name, table, kind, "", partition, item)
            except RequestRefused as refused:
                named = refused.body.get("ThrottlingReasons") or refused.body["throttlingReasons"]
                reasons.append(
                    {"Code": "ThrottlingError", "Message": TOO_MUCH, "ThrottlingReasons": named}
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
            raise RequestRefused(
                "TransactionCanceledException",
                f"Transaction cancelled, please refer cancellation reasons for specific reasons "
                f"[{codes}]",
                CancellationReasons=reasons,
            )
        status, answer = await self._send(operation, {**body, "ReturnConsumedCapacity": "NONE"})
        for name, table, partition, units in costs:
            self._ledger.spend(name, table, units, partition)
        spent = [(name, units) for name, _, _, units in costs]
        return status, with_consumed(answer, spent, body) if status == 200 else answer
