"""The items of the cache: entries, parts of large values, locks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pynamodb.attributes import (
    BinaryAttribute,
    MapAttribute,
    UnicodeAttribute,
)

from ...keys import ItemKey, expiry_index_sort_key
from ...models import IntegerAttribute, RawItem, StoreItem, binary_of, integer_of, string_of, ttl_of

# Of the latest expiry: see expiry_at.
_EXPIRY_DIGITS = 15


class CacheEntry(StoreItem):
    """
    A cached value: ``number`` for an int, ``sealed`` bytes for everything else.

    ``expiry`` is in milliseconds since the epoch, exact; without it the entry never expires. The
    entry may be kept longer, until its removal time, from which ``ttl`` and the index are made.
    ``write`` identifies the write that made it and begins with its time. With ``parts`` over 1 the
    value is in so many :class:`CachePart`, and ``sealed`` holds only its signature.
    ``generation`` and ``tags`` are the numbers (:class:`InvalidationNumber`) at the time of the
    write, absent for 0 and for no tags. ``took`` is how many ms the computation of the value took,
    if known. Names are short because DynamoDB bills them.
    """

    expiry = IntegerAttribute(null=True, attr_name="e")
    number = IntegerAttribute(null=True, attr_name="n")
    sealed = BinaryAttribute(null=True, attr_name="v", legacy_encoding=False)
    write = UnicodeAttribute(null=True, attr_name="w")
    parts = IntegerAttribute(null=True, attr_name="p")
    original = BinaryAttribute(null=True, attr_name="k", legacy_encoding=False)
    generation = IntegerAttribute(null=True, attr_name="g")
    tags: MapAttribute[str, Any] = MapAttribute(  # type: ignore[no-untyped-call]
        null=True, attr_name="t"
    )
    took = IntegerAttribute(null=True, attr_name="d")

    def is_live(self, now: float) -> bool:
        return self.expiry is None or self.expiry > now * 1000

    @staticmethod
    def is_raw_live(item: RawItem, now: float) -> bool:
        """Return :meth:`is_live` of an item as DynamoDB writes it: reads create no models."""
        expiry = item.get(EXPIRY)
        if expiry is None:
            return True
        digits = expiry.get("N", "")
        # What is not a whole number of so many digits was not written by this package.
        return digits.isdecimal() and len(digits) <= _EXPIRY_DIGITS and int(digits) > now * 1000

    @staticmethod
    def make_raw(
        key: ItemKey,
        *,
        write: str,
        expiry: int | None,
        removal: int | None,
        number: int | None = None,
        sealed: bytes | None = None,
        parts: int = 1,
        index_shard: str | None = None,
    ) -> RawItem:
        """Return an entry as DynamoDB writes it: writes create no models."""
        item: RawItem = {"PK": {"S": key.pk}, "SK": {"S": key.sk}, WRITE: {"S": write}}
        if number is not None:
            item[NUMBER] = {"N": str(number)}
        else:
            item[SEALED] = {"B": sealed}
        if expiry is not None:
            item[EXPIRY] = {"N": str(expiry)}
        if removal is not None:
            item["TTL"] = {"N": str(ttl_of(removal))}
        if key.original is not None:
            item[ORIGINAL] = {"B": key.original}
        if parts > 1:
            item[PARTS] = {"N": str(parts)}
        if index_shard is not None:
            item["GSI1PK"] = {"S": index_shard}
            item["GSI1SK"] = {"S": expiry_index_sort_key(key.pk, removal)}
        return item


# The names of an entry's attributes in the table, for code that reads many entries as DynamoDB
# writes them.
EXPIRY = CacheEntry.expiry.attr_name
NUMBER = CacheEntry.number.attr_name
SEALED = CacheEntry.sealed.attr_name
WRITE = CacheEntry.write.attr_name
PARTS = CacheEntry.parts.attr_name
ORIGINAL = CacheEntry.original.attr_name
GENERATION = CacheEntry.generation.attr_name
TAGS = CacheEntry.tags.attr_name
TOOK = CacheEntry.took.attr_name
# The attributes that decide whether an entry is live and valid, without its value.
LIFE = ["PK", "SK", EXPIRY, GENERATION, TAGS]


def expiry_of(item: RawItem) -> int | None:
    """Return when a live entry expires, in ms since the epoch, None for never."""
    return int(item[EXPIRY]["N"]) if EXPIRY in item else None


def write_of(item: RawItem) -> str:
    """Return the id of the write that made the entry, ``""`` without one."""
    return string_of(item, CacheEntry.write)


def original_of(item: RawItem) -> bytes | None:
    """Return the key of an entry whose partition key is a hash, None for others."""
    return binary_of(item, CacheEntry.original)


def took_of(item: RawItem) -> int | None:
    """Return how many ms the computation of the value took, None if not known."""
    took = whole_number(item[TOOK]) if TOOK in item else -1
    return took if took >= 0 else None


def stamps_of(item: RawItem) -> RawItem:
    """Return the numbers of generation and tags that the entry carries, as DynamoDB writes them."""
    return {name: item[name] for name in (GENERATION, TAGS) if name in item}


def generation_of(item: RawItem) -> int:
    """Return the generation that the entry carries: 0 without one, -1 for no whole number."""
    return whole_number(item[GENERATION]) if GENERATION in item else 0


def tags_of(item: RawItem) -> dict[str, Any]:
    """Return the tags of an entry with their numbers, as DynamoDB writes them."""
    tags: dict[str, Any] = item.get(TAGS, _NO_TAGS).get("M", {})
    return tags


def whole_number(held: Mapping[str, Any]) -> int:
    """Return a number as DynamoDB writes it, -1 if it is negative or not whole."""
    digits = str(held.get("N", ""))
    return int(digits) if digits.isdecimal() else -1


_NO_TAGS: dict[str, Any] = {}


class CachePart(StoreItem):
    """One part of a value that is too large for one item; it belongs to one write."""

    data = BinaryAttribute(attr_name="v", legacy_encoding=False)

    @staticmethod
    def make_raw(key: ItemKey, *, data: bytes, removal: int | None) -> RawItem:
        """Return a part as DynamoDB writes it."""
        item: RawItem = {**key.raw(), "v": {"B": data}}
        if removal is not None:
            item["TTL"] = {"N": str(ttl_of(removal))}
        return item


def data_of(part: RawItem) -> bytes | None:
    """Return the data of a part, None for an item that is not a part."""
    return binary_of(part, CachePart.data)


class InvalidationNumber(StoreItem):
    """
    A number that only rises, of a prefix (its generation) or of a tag. An entry that carries a
    lower number is invalid. The item has no TTL: without it, such entries would be valid again.
    """

    number = IntegerAttribute(null=True, attr_name="g")


def invalidation_of(item: RawItem) -> int:
    """Return the number of a generation or tag, 0 without one."""
    return integer_of(item, InvalidationNumber.number)


class LockItem(StoreItem):
    """
    A lock, or the lease of a computation: its owner until ``lease_end``, in ms since the epoch
    (0: free), and the fence of the last owner.
    """

    owner = UnicodeAttribute(null=True, attr_name="o")
    fence = IntegerAttribute(null=True, attr_name="f")
    lease_end = IntegerAttribute(null=True, attr_name="l")
