"""
Plain Python values and DynamoDB-JSON, exactly in both directions.

Strings, bytes, bools, None, ints and Decimals, lists and dicts of them, and sets of strings, of
numbers or of bytes. DynamoDB's rules are those of "Supported data types and naming rules" in its
Developer Guide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Context, Decimal
from typing import Any

from ..exceptions import InvalidRequestError

_MAX_DIGITS = 38
# Of the first digit: numbers are from 1E-130 to 9.9…E+125.
_LEAST_EXPONENT, _MOST_EXPONENT = -130, 125
_SURE = 10**_MAX_DIGITS
_EXACT = Context(prec=1000)
# Of lists and maps, in an attribute.
_MAX_LEVELS = 32
# DynamoDB-JSON has two levels for each of them, in a request that has some of its own.
RAW_LEVELS = 2 * _MAX_LEVELS + 8

_EXPECTED = (
    "expected a str, bytes, bool, int, Decimal, None, a list or dict of them, or a set of "
    "strings, numbers or bytes"
)


def to_raw(value: Any, path: str) -> dict[str, Any]:
    """
    Return ``value`` as DynamoDB-JSON. ``path`` says where it is, for the message.

    Raises InvalidRequestError for a value that DynamoDB cannot store exactly.
    """
    try:
        return _raw(value, path)
    except RecursionError as exc:
        raise too_deep(exc, value, path) from None


def to_raw_item(item: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the attributes of ``item`` as DynamoDB-JSON; raises as :func:`to_raw`."""
    try:
        return _raw_item(item, path)
    except RecursionError as exc:
        raise too_deep(exc, item, path, _MAX_LEVELS + 1) from None


def too_deep(
    exc: RecursionError, value: Any, path: str, levels: int = _MAX_LEVELS
) -> RecursionError | InvalidRequestError:
    """
    Return what to raise for ``exc``, which came before ``value`` was sent: an InvalidRequestError
    if it has more than ``levels`` levels of lists and dicts, else ``exc`` of a deep caller.

    No level is counted before, because that takes time for every value.
    """
    left = [(value, 1)]
    while left:
        each, level = left.pop()
        match each:
            case Mapping():
                inner: Iterable[Any] = each.values()
            case list() | tuple():
                inner = each
            case _:
                continue
        if level > levels:
            return InvalidRequestError(
                f"{path} is nested too deeply and was not sent; expected lists and dicts of at "
                f"most {_MAX_LEVELS} levels, which is what DynamoDB allows."
            )
        left += [(one, level + 1) for one in inner]
    return exc


def from_raw(value: Mapping[str, Any]) -> Any:
    """Return the plain value of DynamoDB-JSON; a whole number is an int, any other a Decimal."""
    ((kind, content),) = value.items()
    return _READERS[kind](content)


def from_raw_item(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of an item as plain values."""
    return {name: from_raw(value) for name, value in item.items()}


def identity_of(item: Mapping[str, Any], key_names: Iterable[str]) -> tuple[Any, ...]:
    """Return the key of an item in DynamoDB-JSON, equal for equal keys: numbers by their value."""
    found = []
    for name in key_names:
        ((kind, _),) = item[name].items()
        if kind not in ("S", "N", "B"):
            raise InvalidRequestError(
                f"The key attribute {name!r} is of DynamoDB's type {kind}; expected a string, a "
                "number or bytes."
            )
        found.append((kind, from_raw(item[name])))
    return tuple(found)


def utf8(value: str, path: str) -> str:
    """Return ``value``. Raises InvalidRequestError if it is text that UTF-8 cannot encode."""
    try:
        # Most text needs no copy.
        if not value.isascii():
            value.encode()
    except UnicodeEncodeError:
        raise InvalidRequestError(
            f"{path} has half of a character (a lone surrogate), which is not UTF-8; expected "
            "text, or bytes."
        ) from None
    return value


def _raw(value: Any, path: str) -> dict[str, Any]:
    match value:
        case str():
            return {"S": utf8(value, path)}
        case bool():
            return {"BOOL": value}
        case int() | Decimal():
            return {"N": _number(value, path)}
        case None:
            return {"NULL": True}
        case bytes() | bytearray() | memoryview():
            return {"B": bytes(value)}
        case Mapping():
            return {"M": _raw_item(value, path)}
        case list() | tuple():
            return {"L": [_raw(each, f"{path}[{at}]") for at, each in enumerate(value)]}
        case set() | frozenset():
            return _set(value, path)
        case float():
            raise InvalidRequestError(
                f"{path} is a float, which DynamoDB does not store exactly; expected an int or a "
                "Decimal, such as Decimal(str(number))."
            )
    raise InvalidRequestError(f"{path} is of the type {type(value).__name__}; {_EXPECTED}.")


def _raw_item(item: Mapping[str, Any], path: str) -> dict[str, Any]:
    if not isinstance(item, Mapping):
        raise InvalidRequestError(
            f"{path} is of the type {type(item).__name__}; expected a dict of attributes."
        )
    found = {}
    for name, value in item.items():
        if not isinstance(name, str):
            raise InvalidRequestError(
                f"{path} has a name of the type {type(name).__name__}; expected strings."
            )
        if not name:
            raise InvalidRequestError(f"{path} has an empty name; expected names with content.")
        found[utf8(name, f"A name of {path}")] = _raw(value, f"{path}[{name!r}]")
    return found


def _number(value: int | Decimal, path: str) -> str:
    if isinstance(value, int):
        if -_SURE < value < _SURE:
            return str(int(value))
        exact = _EXACT.create_decimal(value)
    else:
        exact = value
    if not exact.is_finite():
        raise InvalidRequestError(f"{path} is {exact}; expected a finite number.")
    if not exact:
        return "0"
    digits = len("".join(map(str, exact.as_tuple().digits)).strip("0"))
    if digits > _MAX_DIGITS or not _LEAST_EXPONENT <= exact.adjusted() <= _MOST_EXPONENT:
        raise InvalidRequestError(
            f"{path} is a number with {digits} significant digits, the first of them at 10 to the "
            f"power of {exact.adjusted()}; expected at most {_MAX_DIGITS} digits and a power from "
            f"{_LEAST_EXPONENT} to {_MOST_EXPONENT}."
        )
    # As DynamoDB returns it, so that engines which keep the text find it by any notation.
    least = exact.normalize(_EXACT)
    is_short_int = exact.adjusted() < _MAX_DIGITS and least == least.to_integral_value()
    return str(int(least) if is_short_int else least)


def _set(values: set[Any] | frozenset[Any], path: str) -> dict[str, Any]:
    members = [_raw(each, f"a member of {path}") for each in values]
    kinds = {kind for member in members for kind in member}
    if len(kinds) != 1 or not kinds <= {"S", "N", "B"}:
        found = ", ".join(sorted({type(each).__name__ for each in values})) or "nothing"
        raise InvalidRequestError(
            f"{path} is a set of {found}; expected a set of strings, of numbers or of bytes that "
            "is not empty."
        )
    (kind,) = kinds
    return {f"{kind}S": [member[kind] for member in members]}


def _to_number(text: str) -> int | Decimal:
    if text.lstrip("-").isdecimal():
        return int(text)
    number = Decimal(text)
    return int(number) if number == number.to_integral_value() else number


def _same(content: Any) -> Any:
    return content


_READERS: dict[str, Callable[[Any], Any]] = {
    "S": _same,
    "N": _to_number,
    "B": bytes,
    "BOOL": _same,
    "NULL": lambda content: None,
    "M": from_raw_item,
    "L": lambda content: [from_raw(each) for each in content],
    "SS": set,
    "NS": lambda content: set(map(_to_number, content)),
    "BS": lambda content: set(map(bytes, content)),
}
