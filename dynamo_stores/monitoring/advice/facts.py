"""What a finding needs to know of an operation: little, where an answer may have megabytes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...calls.item_size import item_size
from ...calls.observer import READS, Operation

# A key that is longer is shown by its begin.
_LONGEST_KEY = 200
_EXPRESSIONS = (
    "KeyConditionExpression",
    "FilterExpression",
    "ProjectionExpression",
    "ConditionExpression",
    "UpdateExpression",
)
# Of a request, what does not change its answer.
_WITHOUT_EFFECT = ("ReturnConsumedCapacity", "ClientRequestToken", "ReturnItemCollectionMetrics")
_EQUALITY = re.compile(r"([\w#.-]+)\s*=\s*(:\w+)")
# The key of an item that is put into a table whose key is not known.
ANY_KEY = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """
    One operation without the content of its request and answer, apart from ``keys``, ``partition``
    and ``shape``, which are not for logs.

    ``shape`` has the expressions without values; reads with an equal ``identity`` are equal, and
    those with an equal ``family`` are pages of one. ``keys`` are those of the items that were asked
    for or written, as text. ``read`` and ``returned`` are items, of a Query or Scan before and
    after its filter; ``size`` are the bytes of the returned items, and ``item_size`` those of the
    one item that was read or put as a whole, 0 without one. ``actions`` is the number of items of
    a batch or transaction. ``is_own``: the table is that of the stores. ``place`` has the lines
    from which it was called, the innermost first.
    """

    using: str
    tables: tuple[str, ...]
    operation: str
    index: str = ""
    shape: str = ""
    identity: str = ""
    family: str = ""
    seconds: float = 0.0
    ended: float = 0.0
    attempts: int = 1
    throttles: int = 0
    errors: tuple[str, ...] = ()
    error: str = ""
    units: Mapping[str, float] = field(default_factory=dict)
    keys: tuple[str, ...] = ()
    partition: str = ""
    read: int = 0
    returned: int = 0
    size: int = 0
    item_size: int = 0
    consistent: bool = False
    projected: bool = False
    limited: bool = False
    conditional: bool = False
    actions: int = 0
    is_own: bool = False
    place: tuple[str, ...] = ()

    @property
    def is_read(self) -> bool:
        """Whether it reads and does not write."""
        return self.operation in READS

    @property
    def total_units(self) -> float:
        """The capacity units of all attempts on all tables and indexes."""
        return sum(self.units.values())

    @property
    def where(self) -> str:
        """The tables, and the index if there is one, as text."""
        name = ", ".join(self.tables)
        return f"{name}, index {self.index}" if self.index else name


def facts_of(
    operation: Operation,
    key_names: Mapping[str, Sequence[str]] | None = None,
    *,
    is_own: bool = False,
    place: tuple[str, ...] = (),
) -> Facts:
    """
    Return the facts of ``operation``. ``key_names`` are the names of the key attributes by table,
    the partition key first; without them less is known.
    """
    request, answer = operation.request, operation.answer or {}
    names = key_names or {}
    items = list(_items_of(answer))
    size = sum(map(item_size, items))
    asked = {name: value for name, value in request.items() if name not in _WITHOUT_EFFECT}
    # A batch of writes has up to 16 MB, and its identity is of no use.
    is_read = operation.operation in READS
    if "RequestItems" in request:
        wanted: list[Mapping[str, Any]] = list(request["RequestItems"].values())
        reads = [each for each in wanted if isinstance(each, Mapping)]
    else:
        reads = [request]
    projected = any("ProjectionExpression" in each or "AttributesToGet" in each for each in reads)
    is_whole = (operation.operation == "GetItem" and not projected) or "Item" in request
    whole = request.get("Item") or answer.get("Item") if is_whole else None
    actions = list(_actions(request))
    return Facts(
        using=operation.using,
        tables=tuple(sorted({table for table, _, _ in actions})) or (_name(operation.table),),
        operation=operation.operation,
        index=str(request.get("IndexName") or ""),
        shape=_shape(request),
        identity=_digest(asked) if is_read else "",
        family=_digest({**asked, "ExclusiveStartKey": None}) if is_read else "",
        seconds=operation.seconds,
        ended=operation.ended,
        attempts=len(operation.attempts),
        throttles=operation.throttles,
        errors=tuple(each.error for each in operation.attempts if each.error),
        error=operation.error,
        units=operation.units,
        keys=tuple(_key(table, names.get(table), key, item) for table, key, item in actions),
        partition=_partition(request, operation.table, names),
        read=int(answer.get("ScannedCount", len(items))),
        returned=int(answer.get("Count", len(items))),
        size=size,
        item_size=item_size(whole) if whole else 0,
        consistent=any(bool(each.get("ConsistentRead")) for each in reads),
        projected=projected or request.get("Select") == "COUNT",
        limited="Limit" in request,
        conditional=bool(
            request.get("ConditionExpression")
            or request.get("Expected")
            or request.get("ReturnValues", "NONE") != "NONE"
        ),
        actions=len(actions),
        is_own=is_own,
        place=place,
    )


def key_names_in(operation: Operation) -> dict[str, tuple[str, ...]]:
    """Return the names of the key attributes by table, as far as the request has keys."""
    return {table: tuple(key) for table, key, _ in _actions(operation.request) if key}


@dataclass(frozen=True, slots=True)
class Group:
    """Operations that are alike: on the same tables, with the same index and expressions."""

    operations: tuple[Facts, ...]

    @property
    def first(self) -> Facts:
        """The first of them, for what they have in common."""
        return self.operations[0]

    @property
    def seconds(self) -> float:
        """The seconds of all of them; those of a batch may have passed at the same time."""
        return sum(each.seconds for each in self.operations)

    @property
    def units(self) -> float:
        """The capacity units of all of them."""
        return sum(each.total_units for each in self.operations)


def group(operations: Iterable[Facts]) -> list[Group]:
    """Return the operations in groups that are alike, in the order of the first of each."""
    found: dict[tuple[object, ...], list[Facts]] = {}
    for each in operations:
        alike = (each.using, each.tables, each.operation, each.index, each.shape)
        found.setdefault(alike, []).append(each)
    return [Group(tuple(each)) for each in found.values()]


def _items_of(answer: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if answer.get("Item"):
        yield answer["Item"]
    yield from answer.get("Items") or ()
    responses = answer.get("Responses") or ()
    if isinstance(responses, Mapping):
        for each in responses.values():
            yield from each
    else:
        yield from (each["Item"] for each in responses if each.get("Item"))


def _actions(
    request: Mapping[str, Any],
) -> Iterator[tuple[str, Mapping[str, Any] | None, Mapping[str, Any] | None]]:
    """Yield the table, and the key or the item, of each item that is asked for or written."""
    for content in _contents(request):
        table = _name(str(content["TableName"]))
        for key in content.get("Keys", ()):
            yield table, key, None
        if "Key" in content or "Item" in content:
            yield table, content.get("Key"), content.get("Item")


def _contents(request: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if "TableName" in request:
        yield request
    for table, wanted in (request.get("RequestItems") or {}).items():
        for each in [wanted] if isinstance(wanted, Mapping) else wanted:
            if "Keys" in each:
                yield {"TableName": table, "Keys": each["Keys"]}
            for content in each.values() if "Keys" not in each else ():
                yield {"TableName": table, **content}
    for action in request.get("TransactItems") or ():
        yield from action.values()


def _name(table: str) -> str:
    # Of an ARN, the name in it.
    return table.rpartition("/")[2]


def _key(
    table: str,
    names: Sequence[str] | None,
    key: Mapping[str, Any] | None,
    item: Mapping[str, Any] | None,
) -> str:
    if key is None:
        if not names or not item or any(name not in item for name in names):
            return f"{table} {ANY_KEY}"
        key = {name: item[name] for name in names}
    text = ", ".join(f"{name}={_value(key[name])}" for name in sorted(key))
    if len(text) > _LONGEST_KEY:
        text = f"{text[:100]}… {_digest(text)}"
    return f"{table} {text}"


def _value(value: Any) -> str:
    if isinstance(value, Mapping) and len(value) == 1:
        ((_, value),) = value.items()
    return str(value)


def _partition(request: Mapping[str, Any], table: str, names: Mapping[str, Sequence[str]]) -> str:
    key = request.get("Key") or request.get("Item")
    if key:
        known = names.get(table, ())
        name = known[0] if known else next(iter(key)) if len(key) == 1 else None
        return _value(key[name]) if name in key else ""
    equal = _EQUALITY.search(str(request.get("KeyConditionExpression") or ""))
    values = request.get("ExpressionAttributeValues") or {}
    return _value(values[equal[2]]) if equal and equal[2] in values else ""


def _shape(request: Mapping[str, Any]) -> str:
    names = request.get("ExpressionAttributeNames") or {}
    found = []
    for name in _EXPRESSIONS:
        if text := str(request.get(name) or ""):
            text = re.sub(r"(\?,\s*)+\?", "?, …", re.sub(r":\w+", "?", text))
            text = re.sub(r"#\w+", lambda each: str(names.get(each[0], each[0])), text)
            found.append(f"{name.removesuffix('Expression')}: {text}")
    kinds = [kind for action in request.get("TransactItems") or () for kind in action]
    return "; ".join(found) or ", ".join(kinds)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=repr)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=12).hexdigest()
