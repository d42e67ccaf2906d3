"""Conditions, changes and projections of requests: DynamoDB's own language, or PynamoDB's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pynamodb.attributes import Attribute
from pynamodb.expressions.condition import Condition as PynamoCondition
from pynamodb.expressions.operand import Path
from pynamodb.expressions.projection import create_projection_expression
from pynamodb.expressions.update import Action, Update

from ..exceptions import InvalidRequestError
from .values import to_raw, utf8

Condition = str | PynamoCondition
Change = str | Action | Sequence[Action]
Projection = str | Attribute[Any] | Path | Iterable[str | Attribute[Any] | Path]


class Expressions:
    """
    The expressions of one request, with their names and values. Expressions of PynamoDB bring
    their own; ``names`` and ``values`` are those of expressions as text.
    """

    def __init__(self, names: Mapping[str, str] | None, values: Mapping[str, Any] | None) -> None:
        self._names = {
            placeholder: _name(name, f"names[{placeholder!r}]")
            for placeholder, name in _checked(names, "names", "#").items()
        }
        self._values = {
            name: to_raw(value, f"values[{name!r}]")
            for name, value in _checked(values, "values", ":").items()
        }
        # PynamoDB numbers its placeholders by the lengths of these.
        self._names_of_pynamodb: dict[str, str] = {}
        self._values_of_pynamodb: dict[str, Any] = {}
        self._found: dict[str, str] = {}

    def add_condition(self, name: str, condition: Condition | None) -> None:
        """Add a condition as the request's parameter ``name``."""
        if isinstance(condition, PynamoCondition):
            self._found[name] = condition.serialize(
                self._names_of_pynamodb, self._values_of_pynamodb
            )
        elif condition is not None:
            self._found[name] = _text(condition, name)

    def add_change(self, change: Change) -> None:
        """Add the changes of an update."""
        if isinstance(change, str):
            self._found["UpdateExpression"] = _text(change, "UpdateExpression")
            return
        actions = [change] if isinstance(change, Action) else change
        is_list = isinstance(actions, Sequence) and len(actions) > 0
        if not is_list or not all(isinstance(each, Action) for each in actions):
            raise InvalidRequestError(
                "The change of an update is neither text nor actions of PynamoDB; expected "
                '"SET a = :a" or [Model.a.set(1)].'
            )
        text = Update(*actions).serialize(self._names_of_pynamodb, self._values_of_pynamodb)
        self._found["UpdateExpression"] = text or ""

    def add_projection(self, projection: Projection | None) -> None:
        """Add the attributes that are returned: as text, or their names or attributes."""
        if isinstance(projection, str):
            self._found["ProjectionExpression"] = _text(projection, "ProjectionExpression")
        elif projection is not None:
            # PynamoDB's own have an __iter__ that raises.
            is_one = isinstance(projection, Attribute | Path)
            given: Any = [projection] if is_one else projection
            names = list(given) if isinstance(given, Iterable) else []
            if not names or not all(isinstance(each, str | Attribute | Path) for each in names):
                raise InvalidRequestError(
                    f"projection is {projection!r}; expected an expression, or a list of names and "
                    "attributes that is not empty."
                )
            for each in names:
                if isinstance(each, str):
                    utf8(each, "A name of projection")
            try:
                text = create_projection_expression(names, self._names_of_pynamodb)
            except (TypeError, ValueError) as exc:
                # A TypeError for an attribute without a name.
                raise InvalidRequestError(
                    f"projection is {names!r}; expected names and paths such as 'a.b[0]': {exc}."
                ) from exc
            self._found["ProjectionExpression"] = text

    def arguments(self) -> dict[str, Any]:
        """Return the parameters of the request."""
        found: dict[str, Any] = dict(self._found)
        theirs = {placeholder: name for name, placeholder in self._names_of_pynamodb.items()}
        for name, ours, others in (
            ("ExpressionAttributeNames", self._names, theirs),
            ("ExpressionAttributeValues", self._values, self._values_of_pynamodb),
        ):
            if both := ours.keys() & others.keys():
                raise InvalidRequestError(
                    f"The placeholder {min(both)} is used by an expression of PynamoDB, too; "
                    "expected one that is not a number."
                )
            if ours or others:
                found[name] = {**ours, **others}
        return found


def _checked(found: Mapping[str, Any] | None, what: str, sign: str) -> dict[str, Any]:
    for name in found or ():
        if not isinstance(name, str) or not name.startswith(sign) or len(name) < 2:
            raise InvalidRequestError(
                f"{what} has the placeholder {name!r}; expected one that begins with {sign!r}, "
                f"such as '{sign}a'."
            )
        utf8(name, f"A placeholder of {what}")
    return dict(found or {})


def _name(name: object, what: str) -> str:
    if not isinstance(name, str) or not name:
        raise InvalidRequestError(f"{what} is {name!r}; expected the name of an attribute.")
    return utf8(name, what)


def _text(expression: object, name: str) -> str:
    if not isinstance(expression, str) or not expression.strip():
        raise InvalidRequestError(
            f"{name} is {'empty' if expression == '' else type(expression).__name__}; expected an "
            "expression of DynamoDB as text, or one of PynamoDB."
        )
    return utf8(expression, name)
