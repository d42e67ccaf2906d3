"""Long texts are stored compressed, as binary values in place of strings."""

from __future__ import annotations

import zlib
from collections.abc import Container, Mapping
from typing import Any

# Shorter texts hardly shrink.
_FROM_BYTES = 1024
# A damaged value must not fill the memory: an item has 400 KB, and zlib's best ratio is 1,032.
_MAX_BYTES = 4_000_000


def packed(item: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    """Return the item with the long texts among its attributes ``names`` compressed."""
    return {name: _pack(value) if name in names else value for name, value in item.items()}


def unpacked(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return the item with its texts as they were."""
    return {
        name: unpack(value) if isinstance(value, bytes) else value for name, value in item.items()
    }


def compressed(text: str) -> bytes:
    """Return the text compressed."""
    return zlib.compress(text.encode(), 6)


def unpack(data: bytes) -> str:
    """Return a text that was compressed. Raises ValueError for other content."""
    machine = zlib.decompressobj()
    try:
        text = machine.decompress(data, _MAX_BYTES)
    except zlib.error as exc:
        raise ValueError(f"A compressed text is damaged: {exc}.") from exc
    if not machine.eof:
        raise ValueError("A compressed text is incomplete, or larger than any of the forum.")
    return text.decode()


def _pack(value: Any) -> Any:
    if not isinstance(value, str) or len(value) < _FROM_BYTES // 4:
        return value
    data = value.encode()
    if len(data) < _FROM_BYTES:
        return value
    smaller = compressed(value)
    return smaller if len(smaller) < len(data) else value
