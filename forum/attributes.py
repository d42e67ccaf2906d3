"""Attributes of the forum's models."""

from __future__ import annotations

from typing import Any

from pynamodb.attributes import Attribute
from pynamodb.constants import BINARY, STRING

from .compression import compressed, unpack


class CompressedTextAttribute(Attribute[str]):
    """Text that is stored compressed, as a binary value, where that is shorter."""

    attr_type = BINARY

    def serialize(self, value: str) -> bytes:
        """Return the compressed text."""
        return compressed(value)

    def deserialize(self, value: bytes | str) -> str:
        """Return the text of a stored value, which may be the text itself."""
        return value if isinstance(value, str) else unpack(value)

    def get_value(self, value: dict[str, Any]) -> Any:
        """Return the content of a stored value: binary, or the text itself."""
        return value[STRING] if STRING in value else super().get_value(value)
