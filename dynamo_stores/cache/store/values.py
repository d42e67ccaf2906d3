"""Values as items: an int as a number, all others as signed bytes, in parts if large."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from ... import clock, keys
from ...calls.item_size import MAX_ITEM_BYTES, item_size
from ...exceptions import ItemTooLargeError
from ...keys import ItemKey
from ...models import RawItem
from ..options import CacheOptions
from .codecs import Codec, InvalidSignature, get_codec, joined
from .items import NUMBER, PARTS, SEALED, WRITE, CacheEntry, CachePart, write_of
from .near import Entry

# DynamoDB's numbers have 38 digits; larger ints are stored as bytes.
MAX_NUMBER = 10**38
# Bytes of an item that are left for its keys, attribute names and numbers.
_OTHER_BYTES = 4 * 1024
PART_BYTES = MAX_ITEM_BYTES - _OTHER_BYTES
# The largest size of a number in DynamoDB, with its overhead in a map.
_NUMBER_BYTES = 25
# Bytes that an item grows by when it gets an expiry, and the time that its value took.
_LATER_BYTES = 100


class Written(NamedTuple):
    """The items of one value, not written yet: parts (if any) are written first, then the head."""

    head: RawItem
    parts: Sequence[RawItem] = ()
    tags: Sequence[str] = ()


def is_number(value: object) -> bool:
    """Return whether ``value`` is stored as a number: an int (not a bool) of up to 38 digits."""
    return type(value) is int and -MAX_NUMBER < value < MAX_NUMBER


def new_write() -> str:
    """Return an id for a write: its time in milliseconds, and a random part."""
    return f"{clock.now_ms():013}{os.urandom(5).hex()}"


class Values:
    """Converts values to items of ``table`` and back, for one prefix and its options."""

    def __init__(self, table: str, prefix: str, options: CacheOptions, *, indexed: bool) -> None:
        self._signed_table = joined(table.encode())
        self._prefix = prefix
        self._options = options
        self._indexed = indexed

    @functools.cached_property
    def _codec(self) -> Codec:
        options = self._options
        return get_codec(options.serializer, options.compressor, options.compress_over)

    def write(
        self,
        key: ItemKey,
        value: Any,
        expiry: int | None,
        tags: Sequence[str] = (),
        write: str = "",
    ) -> Written:
        """
        Return the items of ``value``, expiring at ``expiry`` (milliseconds since the epoch), made
        by ``write`` (a new one by default).

        The head stays small enough for the stamps of the generation and of ``tags``, and for what
        ``touch`` and an early refresh add.
        Raises ItemTooLargeError over ``MAX_VALUE_BYTES``, and the errors of the serializer.
        """
        write = write or new_write()
        shard = keys.expiry_index_shard(self._prefix, key.pk) if self._indexed else None
        removal = self.removal(expiry)
        if is_number(value):
            return Written(
                CacheEntry.make_raw(
                    key,
                    write=write,
                    expiry=expiry,
                    removal=removal,
                    number=value,
                    index_shard=shard,
                ),
                tags=tags,
            )
        codec = self._codec
        encoded = codec.encode(value)
        self._check_size(key, len(encoded.data))

        def head(count: int) -> RawItem:
            seal = codec.sign(encoded, self._context(key.pk, write, count))
            return CacheEntry.make_raw(
                key,
                write=write,
                expiry=expiry,
                removal=removal,
                sealed=seal + encoded.data if count == 1 else seal,
                parts=count,
                index_shard=shard,
            )

        whole = head(1)
        stamps = _LATER_BYTES
        stamps += _NUMBER_BYTES if self._options.clear == "generation" else 0
        stamps += sum(len(tag.encode()) + _NUMBER_BYTES for tag in tags)
        size = len(encoded.data) + len(key.original or b"") + stamps
        if size <= PART_BYTES or item_size(whole) + stamps <= MAX_ITEM_BYTES:
            return Written(whole, tags=tags)
        # At least two parts, so that a value in parts never looks like one in a single item.
        length = min(PART_BYTES, -(-len(encoded.data) // 2))
        parts = [
            encoded.data[start : start + length] for start in range(0, len(encoded.data), length)
        ]
        return Written(
            head(len(parts)),
            [
                CachePart.make_raw(
                    keys.cache_part(key.pk, write, number), data=part, removal=removal
                )
                for number, part in enumerate(parts)
            ],
            tags,
        )

    def removal(self, expiry: int | None) -> int | None:
        """Return when an entry that expires at ``expiry`` may be deleted, in ms since the epoch."""
        return None if expiry is None else expiry + math.ceil(self._options.stale_timeout * 1000)

    def read(self, found: Entry) -> Any:
        """
        Return the value of a live entry.

        Raises InvalidSignature if it is not signed for its table, its key and its write, which is
        verified once for an entry of the near tier.
        """
        head, codec = found.head, self._codec
        try:
            write = head[WRITE]["S"]
            if NUMBER in head:
                return CacheEntry.number.deserialize(head[NUMBER]["N"])
            sealed, pk = head[SEALED]["B"], head["PK"]["S"]
        except (KeyError, ArithmeticError):
            raise InvalidSignature from None
        count = self.count_parts(head) if PARTS in head else 1
        if count > 1:
            sealed = b"".join((sealed, *found.parts))
        if found.verified_by is codec:
            return codec.load(sealed)
        value = codec.open(sealed, self._context(pk, write, count))
        found.verified_by = codec
        return value

    def is_readable(self, head: RawItem) -> bool:
        """
        Return whether the value of ``head`` was signed for its table, its key and its write, under
        these options. Of a value in parts, which is not read here, only the form is checked.
        """
        try:
            write = head[WRITE]["S"]
            if NUMBER in head:
                return CacheEntry.number.deserialize(head[NUMBER]["N"]) is not None
            count = self.count_parts(head)
            sealed, context = head[SEALED]["B"], self._context(head["PK"]["S"], write, count)
            return count > 1 or self._codec.verify(sealed, context)
        except (InvalidSignature, KeyError, ArithmeticError):
            return False

    def count_parts(self, head: RawItem) -> int:
        """
        Return the number of parts of the value of ``head``; 1: it is in the head.

        Raises InvalidSignature if this is no number, or more than ``MAX_VALUE_BYTES`` need.
        """
        if PARTS not in head:
            return 1
        digits = head[PARTS].get("N", "")
        if not digits.isdecimal() or int(digits) > self._options.max_value_bytes // PART_BYTES + 2:
            raise InvalidSignature
        return int(digits)

    def part_keys(self, head: RawItem) -> list[ItemKey]:
        """Return the keys of the parts of ``head`` in order, none if the value is in the head."""
        count = self.count_parts(head)
        write = write_of(head)
        if count == 1 or not write:
            return []
        pk = head["PK"]["S"]
        return [keys.cache_part(pk, write, number) for number in range(count)]

    def _check_size(self, key: ItemKey, size: int) -> None:
        if size > self._options.max_value_bytes:
            raise ItemTooLargeError(
                f"The value has {size:,} bytes; MAX_VALUE_BYTES allows "
                f"{self._options.max_value_bytes:,}. Store less under one key, set a COMPRESSOR "
                "or raise MAX_VALUE_BYTES."
            )
        if len(key.original or b"") > PART_BYTES:
            raise ItemTooLargeError(
                f"The key has {len(key.original or b''):,} bytes; expected at most {PART_BYTES:,}."
            )

    def _context(self, pk: str, write: str, count: int) -> bytes:
        key, by, parts = pk.encode(), write.encode(), b"%d" % count
        # What joined() returns, but in one step.
        return b"%b%d:%b%d:%b%d:%b" % (
            self._signed_table, len(key), key, len(by), by, len(parts), parts,
        )  # fmt: skip
