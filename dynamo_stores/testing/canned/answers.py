"""The answers of the canned server: items in a dict, by table and primary key."""

from __future__ import annotations

import bisect
import itertools
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ..throttling.costs import page_units, read_units, wire_size, write_units

Request = dict[str, Any]
Item = dict[str, Any]

_CLAUSE = re.compile(r"\b(SET|ADD|REMOVE|DELETE)\b", re.IGNORECASE)
# Commas within brackets separate the arguments of a function.
_COMMA = re.compile(r",(?![^(]*\))")
_FUNCTION = re.compile(r"if_not_exists\s*\(\s*([^,\s]+)\s*,\s*([^)\s]+)\s*\)", re.IGNORECASE)
_SUM = re.compile(r"(.+?)\s+([+-])\s+(.+)")
_ZERO = {"N": "0"}


class Refusal(Exception):
    """A request that is answered with an error of this code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# A page of a Scan has at most so many bytes.
_PAGE_BYTES = 2**20


@dataclass
class _Table:
    description: dict[str, Any]
    keys: tuple[str, ...]
    items: dict[tuple[str, ...], Item] = field(default_factory=dict)
    # The keys of a segment in their order, by segment and number of segments.
    _segments: dict[tuple[int, int], list[tuple[str, ...]]] = field(default_factory=dict)

    def key_of(self, item: Item) -> tuple[str, ...]:
        return tuple(next(iter(item[name].values())) for name in self.keys)

    def put(self, key: tuple[str, ...], item: Item) -> Item | None:
        """Put ``item``; return the one that it replaced."""
        old = self.items.get(key)
        if old is None:
            self._segments.clear()
        self.items[key] = item
        return old

    def delete(self, key: tuple[str, ...]) -> Item | None:
        """Delete the item with ``key`` and return it."""
        self._segments.clear()
        return self.items.pop(key, None)

    def in_segment(self, segment: int, of: int) -> list[tuple[str, ...]]:
        """Return the sorted keys of a segment, as they are until items are added or deleted."""
        if (segment, of) not in self._segments:
            self._segments[segment, of] = sorted(
                key for key in self.items if zlib.crc32(key[0].encode()) % of == segment
            )
        return self._segments[segment, of]


class Answers:
    """
    Answers requests from a dict. It is no DynamoDB: a condition always holds.

    A Query returns every item of the partition at once.
    ``UpdateItem`` knows sums and ``if_not_exists``; it takes any other value as it is given.
    """

    def __init__(self) -> None:
        self._tables: dict[str, _Table] = {}
        self._operations: dict[str, Callable[[Request], dict[str, Any]]] = {
            "BatchGetItem": self._batch_get,
            "BatchWriteItem": self._batch_write,
            "CreateTable": self._create_table,
            "DeleteItem": self._delete,
            "DeleteTable": self._delete_table,
            "DescribeTable": lambda request: {"Table": self._table(request).description},
            "DescribeTimeToLive": lambda _: {
                "TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}
            },
            "GetItem": self._get,
            "ListTables": lambda _: {"TableNames": sorted(self._tables)},
            "PutItem": self._put,
            "Query": self._query,
            "Scan": self._scan,
            "UpdateItem": self._update,
            "UpdateTimeToLive": lambda request: {
                "TimeToLiveSpecification": request["TimeToLiveSpecification"]
            },
        }

    def answer(self, operation: str, request: Request) -> dict[str, Any]:
        """Return the answer to one request. Raises Refusal."""
        find = self._operations.get(operation)
        if find is None:
            raise Refusal(
                "UnknownOperationException", f"The canned server has no answer to {operation}."
            )
        return find(request)

    def _table(self, request: Request) -> _Table:
        return self._named(request["TableName"])

    def _named(self, name: str) -> _Table:
        try:
            return self._tables[name]
        except KeyError:
            raise Refusal("ResourceNotFoundException", f"There is no table {name}.") from None

    def _create_table(self, request: Request) -> dict[str, Any]:
        name = request["TableName"]
        if name in self._tables:
            raise Refusal("ResourceInUseException", f"The table {name} exists.")
        throughput = {"NumberOfDecreasesToday": 0, "ReadCapacityUnits": 0, "WriteCapacityUnits": 0}
        indexes = [
            {**index, "IndexStatus": "ACTIVE", "ProvisionedThroughput": throughput}
            for index in request.get("GlobalSecondaryIndexes", ())
        ]
        description = {
            "TableName": name,
            "TableStatus": "ACTIVE",
            "TableArn": f"arn:aws:dynamodb:us-east-1:000000000000:table/{name}",
            "CreationDateTime": 0,
            "ItemCount": 0,
            "KeySchema": request["KeySchema"],
            "AttributeDefinitions": request["AttributeDefinitions"],
            "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
            "ProvisionedThroughput": throughput,
            **({"GlobalSecondaryIndexes": indexes} if indexes else {}),
        }
        keys = tuple(each["AttributeName"] for each in request["KeySchema"])
        self._tables[name] = _Table(description, keys)
        return {"TableDescription": description}

    def _delete_table(self, request: Request) -> dict[str, Any]:
        description = self._table(request).description
        del self._tables[request["TableName"]]
        return {"TableDescription": {**description, "TableStatus": "DELETING"}}

    def _get(self, request: Request) -> dict[str, Any]:
        table = self._table(request)
        item = table.items.get(table.key_of(request["Key"]))
        answer: dict[str, Any] = {} if item is None else {"Item": item}
        if wants_units(request):
            sizes = [0 if item is None else wire_size(item)]
            consistent = bool(request.get("ConsistentRead"))
            answer |= _consumed(request, read_units(sizes, consistent=consistent))
        return answer

    def _put(self, request: Request) -> dict[str, Any]:
        table, item = self._table(request), request["Item"]
        return _written(request, table.put(table.key_of(item), item), item)

    def _delete(self, request: Request) -> dict[str, Any]:
        table = self._table(request)
        return _written(request, table.delete(table.key_of(request["Key"])), None)

    def _update(self, request: Request) -> dict[str, Any]:
        table = self._table(request)
        key = table.key_of(request["Key"])
        old = table.items.get(key)
        new, changed = updated(old or request["Key"], request)
        table.put(key, new)
        return _written(request, old, new, changed)

    def _batch_get(self, request: Request) -> dict[str, Any]:
        found: dict[str, list[Item]] = {}
        units: dict[str, float] = {}
        for name, wanted in request["RequestItems"].items():
            table = self._named(name)
            items = [table.items.get(table.key_of(key)) for key in wanted["Keys"]]
            found[name] = [item for item in items if item is not None]
            if wants_units(request):
                sizes = [0 if item is None else wire_size(item) for item in items]
                units[name] = read_units(sizes, consistent=bool(wanted.get("ConsistentRead")))
        return {"Responses": found, "UnprocessedKeys": {}, **_consumed_of_all(request, units)}

    def _batch_write(self, request: Request) -> dict[str, Any]:
        units: dict[str, float] = {}
        for name, writes in request["RequestItems"].items():
            table = self._named(name)
            for write in writes:
                if "PutRequest" in write:
                    new = write["PutRequest"]["Item"]
                    old = table.put(table.key_of(new), new)
                else:
                    new = None
                    old = table.delete(table.key_of(write["DeleteRequest"]["Key"]))
                if wants_units(request):
                    units[name] = units.get(name, 0.0) + write_units(old, new)
        return {"UnprocessedItems": {}, **_consumed_of_all(request, units)}

    def _query(self, request: Request) -> dict[str, Any]:
        table = self._table(request)
        condition = _named_in_full(request["KeyConditionExpression"], request)
        found = re.search(rf"\b{re.escape(table.keys[0])}\s*=\s*(:\w+)", condition)
        if found is None:
            raise Refusal("ValidationException", "The canned server queries tables, not indexes.")
        value = next(iter(request["ExpressionAttributeValues"][found[1]].values()))
        items = [item for key, item in table.items.items() if key[0] == value]
        return self._page(request, items)

    def _scan(self, request: Request) -> dict[str, Any]:
        table = self._table(request)
        keys = table.in_segment(request.get("Segment", 0), request.get("TotalSegments", 1))
        after = request.get("ExclusiveStartKey")
        start = bisect.bisect_right(keys, table.key_of(after)) if after else 0
        most, items, size, last = request.get("Limit", len(keys)), [], 0, None
        for key in itertools.islice(keys, start, None):
            item = table.items.get(key)
            if item is None:
                continue
            items.append(item)
            size += wire_size(item)
            if len(items) >= most or size >= _PAGE_BYTES:
                last = {name: item[name] for name in table.keys}
                break
        answer = self._page(request, items)
        return {**answer, "LastEvaluatedKey": last} if last is not None else answer

    @staticmethod
    def _page(request: Request, items: list[Item]) -> dict[str, Any]:
        answer: dict[str, Any] = {"Count": len(items), "ScannedCount": len(items)}
        if request.get("Select") != "COUNT":
            answer["Items"] = items
        if wants_units(request):
            consistent = bool(request.get("ConsistentRead"))
            answer |= _consumed(request, page_units(items, consistent=consistent))
        return answer


def updated(item: Item, request: Request) -> tuple[Item, dict[str, Any]]:
    """Return the item after an UpdateItem, and the attributes that it set, with their values."""
    new, changed = dict(item), {}
    values = request.get("ExpressionAttributeValues", {})
    _, *pieces = _CLAUSE.split(request.get("UpdateExpression", ""))
    for clause, actions in zip(pieces[::2], pieces[1::2], strict=True):
        for action in map(str.strip, _COMMA.split(_named_in_full(actions, request))):
            match clause.upper():
                case "SET":
                    name, _, operand = (part.strip() for part in action.partition("="))
                    changed[name] = new[name] = _value(operand, item, values)
                case "ADD":
                    name, operand = action.split()
                    changed[name] = new[name] = _added(item.get(name), values[operand])
                case _:
                    new.pop(action.split()[0], None)
    return new, changed


def wants_units(request: Request) -> bool:
    """Return whether the answer must have ``ConsumedCapacity``."""
    return bool(request.get("ReturnConsumedCapacity", "NONE") != "NONE")


def _named_in_full(expression: str, request: Request) -> str:
    names: Mapping[str, str] = request.get("ExpressionAttributeNames") or {}
    return re.sub(r"#\w+", lambda found: names[found[0]], expression)


def _value(operand: str, item: Item, values: Mapping[str, Any]) -> dict[str, Any]:
    if parts := _SUM.fullmatch(operand):
        left, sign, right = parts.groups()
        return _added(_value(left, item, values), _value(right, item, values), sign)
    if parts := _FUNCTION.fullmatch(operand):
        name, otherwise = parts.groups()
        found: dict[str, Any] = item.get(name) or _value(otherwise, item, values)
        return found
    given: dict[str, Any] = values[operand] if operand.startswith(":") else item.get(operand, _ZERO)
    return given


def _added(old: dict[str, Any] | None, new: dict[str, Any], sign: str = "+") -> dict[str, Any]:
    if "N" not in new:
        ((kind, members),) = new.items()
        return {kind: sorted({*(old or {}).get(kind, ()), *members})}
    change = Decimal(new["N"])
    total = Decimal((old or _ZERO)["N"]) + (change if sign == "+" else -change)
    return {"N": f"{total:f}"}


def _written(
    request: Request, old: Item | None, new: Item | None, changed: dict[str, Any] | None = None
) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    match request.get("ReturnValues", "NONE"):
        case "ALL_OLD":
            returned = old
        case "ALL_NEW":
            returned = new
        case "UPDATED_NEW":
            returned = changed
        case "UPDATED_OLD":
            returned = {name: old[name] for name in changed or () if name in (old or {}) and old}
        case _:
            returned = None
    if returned:
        answer["Attributes"] = returned
    if wants_units(request):
        answer |= _consumed(request, write_units(old, new))
    return answer


def _consumed(request: Request, units: float) -> dict[str, Any]:
    found = _of_table(request, request["TableName"], units)
    return {"ConsumedCapacity": found}


def _consumed_of_all(request: Request, units: Mapping[str, float]) -> dict[str, Any]:
    if not wants_units(request):
        return {}
    return {"ConsumedCapacity": [_of_table(request, name, each) for name, each in units.items()]}


def _of_table(request: Request, name: str, units: float) -> dict[str, Any]:
    found: dict[str, Any] = {"TableName": name, "CapacityUnits": units}
    if request["ReturnConsumedCapacity"] == "INDEXES":
        found["Table"] = {"CapacityUnits": units}
    return found
