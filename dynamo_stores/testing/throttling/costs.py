"""
The cost of a request in capacity units, by the sizes of its items.

https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
"""

from __future__ import annotations

import base64
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from ...calls.item_size import item_size

Item = Mapping[str, Any]
# Units by (index name, "" for the table; "Read" or "Write").
Units = dict[tuple[str, str], float]


def wire_size(item: Item) -> int:
    """Return the size in bytes of an item in JSON, where binary values are base64."""
    return item_size({name: _decoded(value) for name, value in item.items()})


def _decoded(value: Any) -> Any:
    ((kind, content),) = value.items()
    match kind:
        case "B":
            return {"B": content if isinstance(content, bytes) else base64.b64decode(content)}
        case "BS":
            return {"BS": [_decoded({"B": each})["B"] for each in content]}
        case "L":
            return {"L": [_decoded(each) for each in content]}
        case "M":
            return {"M": {name: _decoded(each) for name, each in content.items()}}
    return value


def read_units(sizes: Iterable[int], *, consistent: bool) -> float:
    """Return the units for single reads of items of these sizes; 0 for an absent item."""
    units = sum(max(1, math.ceil(size / 4096)) for size in sizes)
    return float(units) if consistent else units / 2


def page_units(items: Iterable[Item], *, consistent: bool) -> float:
    """Return the units for a page of a Query or Scan, whose items are counted together."""
    size = sum(map(wire_size, items))
    units = max(1, math.ceil(size / 4096))
    return float(units) if consistent else units / 2


def write_units(*versions: Item | None) -> float:
    """Return the units for a write, by the larger of the item before and after."""
    size = max((wire_size(each) for each in versions if each), default=0)
    return float(max(1, math.ceil(size / 1024)))


def index_units(
    indexes: Mapping[str, tuple[str, ...]], old: Item | None, new: Item | None
) -> dict[str, float]:
    """
    Return the units for a write in each index; ``indexes`` has their key attributes.

    An item that is added, removed or changed in an index is one write there; a changed key is two
    writes; an item that is not in the index, or did not change, costs nothing.
    """
    units: dict[str, float] = defaultdict(float)
    for name, key in indexes.items():
        before, after = _entry(key, old), _entry(key, new)
        if before == after:
            continue
        moved = (
            before is not None
            and after is not None
            and any(before.get(each) != after.get(each) for each in key)
        )
        if moved:
            units[name] += write_units(before) + write_units(after)
        else:
            units[name] += write_units(before, after)
    return dict(units)


def _entry(key: tuple[str, ...], item: Item | None) -> Item | None:
    return item if item is not None and all(each in item for each in key) else None


def read_cost(operation: str, body: Any, answer: Any, index: str) -> Units:
    """Return the cost of a read, by its request and its answer."""
    consistent = bool(body.get("ConsistentRead"))
    if operation == "GetItem":
        size = wire_size(answer["Item"]) if answer.get("Item") else 0
        return {("", "Read"): read_units([size], consistent=consistent)}
    items = answer.get("Items") or ()
    units = page_units(items, consistent=consistent)
    # Items that a filter removed were read too; they are assumed to be of the average size.
    if items and answer.get("ScannedCount", 0) > len(items):
        units *= answer["ScannedCount"] / len(items)
    return {(index, "Read"): units}


def write_cost(indexes: Mapping[str, tuple[str, ...]], old: Item | None, new: Item | None) -> Units:
    """Return the cost of a write, by the item before and after."""
    units: Units = {("", "Write"): write_units(old, new)}
    for name, cost in index_units(indexes, old, new).items():
        units[name, "Write"] = cost
    return units


def with_consumed(
    answer: dict[str, Any], spent: list[tuple[str, Units]], body: Any
) -> dict[str, Any]:
    """Return the answer with ``ConsumedCapacity`` as the request specifies."""
    answer.pop("ConsumedCapacity", None)
    level = body.get("ReturnConsumedCapacity", "NONE")
    if level != "NONE":
        answer["ConsumedCapacity"] = [consumed(name, units, level) for name, units in spent]
    return answer


def consumed(name: str, units: Units, level: str) -> dict[str, Any]:
    """Return one ``ConsumedCapacity``; ``level`` is the request's ReturnConsumedCapacity."""
    found: dict[str, Any] = {"TableName": name, "CapacityUnits": sum(units.values())}
    if level == "INDEXES":
        found["Table"] = {"CapacityUnits": sum(n for (each, _), n in units.items() if not each)}
        indexes = {each: {"CapacityUnits": n} for (each, _), n in units.items() if each}
        if indexes:
            found["GlobalSecondaryIndexes"] = indexes
    return found
