"""The operations of transactions and batches, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .expressions import Change, Condition, Expressions, Projection
from .values import to_raw_item

Item = Mapping[str, Any]
NameOf = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Get:
    """Reads one item; ``projection`` are the attributes that are returned."""

    table: str
    key: Item
    projection: Projection | None = None
    names: Mapping[str, str] | None = None

    kind: ClassVar[str] = "Get"

    def as_request(self, name_of: NameOf) -> dict[str, Any]:
        """Return the parameters of the request; ``name_of`` is the table's name in DynamoDB."""
        expressions = Expressions(self.names, None)
        expressions.add_projection(self.projection)
        return {
            "TableName": name_of(self.table),
            "Key": to_raw_item(self.key, "key"),
            **expressions.arguments(),
        }


@dataclass(frozen=True, slots=True)
class Put:
    """Puts an item, and replaces one with its key."""

    table: str
    item: Item
    condition: Condition | None = None
    names: Mapping[str, str] | None = None
    values: Item | None = None

    kind: ClassVar[str] = "Put"

    def as_request(self, name_of: NameOf) -> dict[str, Any]:
        """Return the parameters of the request."""
        return {
            "TableName": name_of(self.table),
            "Item": to_raw_item(self.item, "item"),
            **_arguments(self.condition, self.names, self.values),
        }


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes an item."""

    table: str
    key: Item
    condition: Condition | None = None
    names: Mapping[str, str] | None = None
    values: Item | None = None

    kind: ClassVar[str] = "Delete"

    def as_request(self, name_of: NameOf) -> dict[str, Any]:
        """Return the parameters of the request."""
        return {
            "TableName": name_of(self.table),
            "Key": to_raw_item(self.key, "key"),
            **_arguments(self.condition, self.names, self.values),
        }


@dataclass(frozen=True, slots=True)
class Update:
    """Changes attributes of an item, or creates it with them."""

    table: str
    key: Item
    change: Change
    condition: Condition | None = None
    names: Mapping[str, str] | None = None
    values: Item | None = None

    kind: ClassVar[str] = "Update"

    def as_request(self, name_of: NameOf) -> dict[str, Any]:
        """Return the parameters of the request."""
        return {
            "TableName": name_of(self.table),
            "Key": to_raw_item(self.key, "key"),
            **_arguments(self.condition, self.names, self.values, self.change),
        }


@dataclass(frozen=True, slots=True)
class Check:
    """Changes nothing; the transaction is cancelled if the condition fails."""

    table: str
    key: Item
    condition: Condition
    names: Mapping[str, str] | None = None
    values: Item | None = None

    kind: ClassVar[str] = "ConditionCheck"

    def as_request(self, name_of: NameOf) -> dict[str, Any]:
        """Return the parameters of the request."""
        return {
            "TableName": name_of(self.table),
            "Key": to_raw_item(self.key, "key"),
            **_arguments(self.condition, self.names, self.values),
        }


Write = Put | Delete | Update | Check
BatchWrite = Put | Delete


def _arguments(
    condition: Condition | None,
    names: Mapping[str, str] | None,
    values: Item | None,
    change: Change | None = None,
) -> dict[str, Any]:
    expressions = Expressions(names, values)
    if change is not None:
        expressions.add_change(change)
    expressions.add_condition("ConditionExpression", condition)
    found = expressions.arguments()
    if condition is not None:
        found["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
    return found
