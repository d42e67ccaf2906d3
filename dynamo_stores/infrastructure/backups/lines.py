"""
Items as lines of JSON, as DynamoDB's export to S3 writes them.

A line is ``{"Item": {…}}`` in DynamoDB-JSON: numbers are strings, binary values are base64.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from ...calls.item_size import MAX_ITEM_BYTES
from ...exceptions import BackupError

RawItem = dict[str, Any]

# An item has at most 400 KB. In JSON a byte of text may become six characters, an empty string in a
# list nine, and a number in a list, which has three bytes, 135.
MAX_LINE_BYTES = 20 * 2**20
# Every comma is a character of a value, or comes before an element, which counts one byte at least.
# Elements take far more memory than their characters.
_MAX_COMMAS = MAX_ITEM_BYTES
_INCREMENTAL = frozenset(["Keys", "NewImage", "OldImage", "Metadata"])


def dump_item(item: RawItem) -> bytes:
    """Return the line of ``item`` (DynamoDB-JSON with bytes), with its line break."""
    try:
        text = json.dumps(
            {"Item": item}, default=_base64, ensure_ascii=False, separators=(",", ":")
        )
        return text.encode() + b"\n"
    except UnicodeEncodeError:
        # A lone surrogate, which UTF-8 does not have, but JSON's escapes do.
        return json.dumps({"Item": item}, default=_base64, separators=(",", ":")).encode() + b"\n"


def load_item(line: bytes) -> RawItem:
    """
    Return the item of a line, with bytes for base64.

    Raises ValueError if the line is not an item; its message goes after the number of the line.
    """
    if len(line) >= MAX_LINE_BYTES or line.count(b",") > _MAX_COMMAS:
        raise ValueError("is longer than the line of an item, which has at most 400 KB")
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    item = found.get("Item") if isinstance(found, dict) else None
    if isinstance(found, dict) and item is None and _INCREMENTAL & found.keys():
        raise ValueError(
            "is of an incremental export, which has changes and no items; expected a full export"
        )
    if not isinstance(item, dict) or len(found) != 1:
        raise ValueError('is not an item; expected {"Item": {…}}')
    try:
        return {name: _value(value) for name, value in item.items()}
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        raise ValueError("has a value that is not DynamoDB-JSON") from None


def _base64(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode()
    if isinstance(value, set | frozenset):
        return list(value)
    raise TypeError(f"An item has a {type(value).__name__}; expected DynamoDB-JSON.")


def _value(value: Any) -> dict[str, Any]:
    ((kind, content),) = value.items()
    match kind, content:
        case ("S" | "N", str()) | ("BOOL", bool()) | ("NULL", True):
            pass
        case "B", str():
            value["B"] = base64.b64decode(content, validate=True)
        case "BS", list():
            value["BS"] = [base64.b64decode(each, validate=True) for each in content]
        case ("SS" | "NS", list()) if all(isinstance(each, str) for each in content):
            pass
        case "L", list():
            value["L"] = [_value(each) for each in content]
        case "M", dict():
            value["M"] = {name: _value(each) for name, each in content.items()}
        case _:
            raise ValueError(kind)
    return value  # type: ignore[no-any-return]


def key_of(item: Mapping[str, Any], names: tuple[str, ...]) -> RawItem:
    """Return the primary key of ``item``. Raises BackupError if a key attribute is missing."""
    try:
        return {name: item[name] for name in names}
    except KeyError as exc:
        raise BackupError(
            f"An item has no attribute {exc.args[0]}, which is a key of the table."
        ) from None
