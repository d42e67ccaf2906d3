"""
Digests of items and of sets of items.

The digest of an item is the same for all its notations: sets have no order, and 1.0 is 1. The
digest of a set of items is the sum of theirs, so it does not depend on their order, and digests of
parts can be added.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import MAX_EMAX, MIN_EMIN, Context
from typing import Any

from .lines import RawItem

_MODULUS = 2**256
# DynamoDB has 38 digits; an export of other software may have more.
_EXACT = Context(prec=400, Emax=MAX_EMAX, Emin=MIN_EMIN)


@dataclass(frozen=True, slots=True)
class ItemsDigest:
    """The number of some items, and the sum of their digests modulo 2**256."""

    items: int = 0
    total: int = 0

    def __add__(self, other: ItemsDigest) -> ItemsDigest:
        return ItemsDigest(self.items + other.items, (self.total + other.total) % _MODULUS)

    def __str__(self) -> str:
        return f"{self.total:064x}"

    @classmethod
    def of(cls, items: Iterable[RawItem]) -> ItemsDigest:
        """Return the digest of ``items`` (DynamoDB-JSON with bytes)."""
        count = total = 0
        for item in items:
            count += 1
            total += int.from_bytes(item_digest(item))
        return cls(count, total % _MODULUS)

    @classmethod
    def parse(cls, items: int, digest: str) -> ItemsDigest:
        """Return the digest that :meth:`__str__` wrote. Raises ValueError for other text."""
        if len(digest) != 64:
            raise ValueError(digest)
        return cls(items, int(digest, 16))


def item_digest(item: RawItem) -> bytes:
    """Return the SHA-256 of an item or a key, independent of its notation."""
    canonical = {name: _canonical(value) for name, value in item.items()}
    return hashlib.sha256(
        json.dumps(canonical, sort_keys=True, separators=(",", ":")).encode()
    ).digest()


def _canonical(value: dict[str, Any]) -> dict[str, Any]:
    ((kind, content),) = value.items()
    match kind:
        case "N":
            return {"N": number(content)}
        case "B":
            return {"B": _text(content)}
        case "SS":
            return {"SS": sorted(content)}
        case "NS":
            return {"NS": sorted(map(number, content))}
        case "BS":
            return {"BS": sorted(map(_text, content))}
        case "L":
            return {"L": [_canonical(each) for each in content]}
        case "M":
            return {"M": {name: _canonical(each) for name, each in content.items()}}
    return value


def number(digits: str) -> str:
    """Return the same text for all notations of a number: ``"1.0"`` and ``"1"``."""
    if digits.isdecimal() and digits.isascii() and digits[0] != "0" and digits[-1] != "0":
        return digits
    try:
        exact = _EXACT.create_decimal(digits).normalize(_EXACT)
    except ArithmeticError:
        # Not a number; DynamoDB will refuse it, if it is written.
        return digits
    return "0" if exact.is_zero() else str(exact)


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
