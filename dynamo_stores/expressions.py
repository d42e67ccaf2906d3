"""
Conditions and changes in DynamoDB's expression language, for the attributes of models.

They say what PynamoDB's own say, but are written as text at once: PynamoDB takes up to 100 µs of
CPU time to build the expressions of one request.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, Protocol


class Attribute(Protocol):
    """An attribute of a PynamoDB model: its name in the table, and the type of its values."""

    attr_name: str
    attr_type: str

    def serialize(self, value: Any) -> Any:
        """Return a value as DynamoDB writes it."""


# Attributes of ours whose names are words of DynamoDB's expression language.
_RESERVED: Final = {"#TTL": "TTL"}


class Condition(NamedTuple):
    """A condition of a write, with the values in it as DynamoDB writes them, by placeholder."""

    text: str
    values: Mapping[str, Any] = {}

    def __and__(self, other: Condition) -> Condition:
        return Condition(f"{self.text} AND {other.text}", _joined(self.values, other.values))

    def __or__(self, other: Condition) -> Condition:
        return Condition(f"({self.text} OR {other.text})", _joined(self.values, other.values))


class Change(NamedTuple):
    """The changes of an update, by clause; a sum of changes makes all of them."""

    sets: tuple[str, ...] = ()
    removes: tuple[str, ...] = ()
    adds: tuple[str, ...] = ()
    values: Mapping[str, Any] = {}

    def __add__(self, other: Change) -> Change:  # type: ignore[override]
        return Change(
            self.sets + other.sets,
            self.removes + other.removes,
            self.adds + other.adds,
            _joined(self.values, other.values),
        )

    @property
    def text(self) -> str:
        """The update expression."""
        clauses = (("SET", self.sets), ("REMOVE", self.removes), ("ADD", self.adds))
        return " ".join([f"{name} {', '.join(parts)}" for name, parts in clauses if parts])


NO_CHANGE: Final = Change()


def exists(attribute: Attribute) -> Condition:
    """The item has the attribute."""
    return Condition(f"attribute_exists({_name(attribute)})")


def missing(attribute: Attribute) -> Condition:
    """The item does not have the attribute, or does not exist."""
    return Condition(f"attribute_not_exists({_name(attribute)})")


def equals(attribute: Attribute, value: Any, kind: str = "eq") -> Condition:
    """The attribute has this value; another ``kind`` gives it a placeholder of its own."""
    return _compared(attribute, "=", kind, value)


def less(attribute: Attribute, value: Any) -> Condition:
    """The attribute is below the value."""
    return _compared(attribute, "<", "lt", value)


def at_most(attribute: Attribute, value: Any) -> Condition:
    """The attribute is the value or below."""
    return _compared(attribute, "<=", "le", value)


def more(attribute: Attribute, value: Any) -> Condition:
    """The attribute is above the value."""
    return _compared(attribute, ">", "gt", value)


def at_least(attribute: Attribute, value: Any) -> Condition:
    """The attribute is the value or above."""
    return _compared(attribute, ">=", "ge", value)


def put(attribute: Attribute, value: Any) -> Change:
    """Give the attribute a value."""
    name = attribute.attr_name
    return Change(
        sets=(f"{_name(attribute)} = :{name}",), values={f":{name}": _raw(attribute, value)}
    )


def remove(*attributes: Attribute) -> Change:
    """Remove the attributes."""
    return Change(removes=tuple(map(_name, attributes)))


def add(attribute: Attribute, value: Any) -> Change:
    """Add to a number, 0 if it is missing; or add elements to a set."""
    name = attribute.attr_name
    return Change(
        adds=(f"{_name(attribute)} :{name}",), values={f":{name}": _raw(attribute, value)}
    )


def to_arguments(condition: Condition | None, change: Change | None = None) -> dict[str, Any]:
    """Return the arguments of a request for a condition and a change."""
    found: dict[str, Any] = {}
    values: Mapping[str, Any] = {}
    text = ""
    if change is not None:
        found["UpdateExpression"] = text = change.text
        values = change.values
    if condition is not None:
        found["ConditionExpression"] = condition.text
        found["ReturnValuesOnConditionCheckFailure"] = "ALL_OLD"
        values = _joined(values, condition.values)
        text += condition.text
    if values:
        found["ExpressionAttributeValues"] = values
    if "#" in text:
        found["ExpressionAttributeNames"] = _RESERVED
    return found


def _compared(attribute: Attribute, sign: str, kind: str, value: Any) -> Condition:
    at, raw = f":{kind}_{attribute.attr_name}", _raw(attribute, value)
    return Condition(f"{_name(attribute)} {sign} {at}", {at: raw})


def _name(attribute: Attribute) -> str:
    name = attribute.attr_name
    return "#TTL" if name == "TTL" else name


def _raw(attribute: Attribute, value: Any) -> dict[str, Any]:
    kind = attribute.attr_type
    return {kind: str(value) if type(value) is int and kind == "N" else attribute.serialize(value)}


def _joined(some: Mapping[str, Any], others: Mapping[str, Any]) -> Mapping[str, Any]:
    if not some or not others:
        return some or others
    for name in others.keys() & some.keys():
        if some[name] != others[name]:
            raise ValueError(f"The placeholder {name} has two values.")
    return {**some, **others}
