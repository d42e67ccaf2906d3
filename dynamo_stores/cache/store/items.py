"""The items of the cache: entries, parts of large values, locks."""

from __future__ import annotations

from typing import Any

from pynamodb.attributes import (
    BinaryAttribute,
    MapAttribute,
    UnicodeAttribute,
)

from ...keys import ItemKey, expiry_index_sort_key
from ...models import IntegerAttribute, RawItem, StoreItem, ttl_of


class CacheEntry(StoreItem):
    """
    A cached value: ``number`` for an int, ``sealed`` bytes for everything else.

    ``expiry`` is in milliseconds since the epoch, exact; absent, the entry never expires. It may
    be kept longer, until its removal time, by which ``ttl`` and the index go.
    ``write`` names the write that made it and begins with its time. With ``parts`` over 1 the
    value is in so many :class:`CachePart`, and ``sealed`` holds its signature alone.
    ``generation`` and ``tags`` are the numbers (:class:`InvalidationNumber`) at the time of the
    write, absent for 0 and for none. ``took`` is how many ms it took to compute the value, where
    that is known. Names are short because DynamoDB bills them.
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
        """Return the same of an item as DynamoDB wrote it: reads make no model of each."""
        expiry = item.get("e")
        if expiry is None:
            return True
        digits = expiry.get("N", "")
        # What is no whole number was not written by us.
        return digits.isdecimal() and int(digits) > now * 1000

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
        """Return an entry as DynamoDB writes it: writes make no model of each."""
        item: RawItem = {"PK": {"S": key.pk}, "SK": {"S": key.sk}, "w": {"S": write}}
        if number is not None:
            item["n"] = {"N": str(number)}
        else:
            item["v"] = {"B": sealed}
        if expiry is not None:
            item["e"] = {"N": str(expiry)}
        if removal is not None:
            item["TTL"] = {"N": str(ttl_of(removal))}
        if key.original is not None:
            item["k"] = {"B": key.original}
        if parts > 1:
            item["p"] = {"N": str(parts)}
        if index_shard is not None:
            item["GSI1PK"] = {"S": index_shard}
            item["GSI1SK"] = {"S": expiry_index_sort_key(key.pk, removal)}
        return item


class CachePart(StoreItem):
    """One part of a value that is too large for one item; it belongs to one write."""

    data = BinaryAttribute(attr_name="v", legacy_encoding=False)

    @staticmethod
    def make_raw(key: ItemKey, *, data: bytes, removal: int | None) -> RawItem:
        """Return a part as DynamoDB writes it."""
        item: RawItem = {"PK": {"S": key.pk}, "SK": {"S": key.sk}, "v": {"B": data}}
        if removal is not None:
            item["TTL"] = {"N": str(ttl_of(removal))}
        return item


class LockItem(StoreItem):
    """
    A lock: its owner until ``lease_end``, in ms since the epoch (0: it is free), and the fence of
    the last owner.
    """

    owner = UnicodeAttribute(null=True, attr_name="o")
    fence = IntegerAttribute(null=True, attr_name="f")
    lease_end = IntegerAttribute(null=True, attr_name="l")
