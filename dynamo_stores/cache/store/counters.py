"""Counters in the cache. DynamoDB adds itself, so no parallel call is lost."""

from __future__ import annotations

from typing import Any

from ... import clock
from ...expressions import add, at_least, at_most, equals, missing
from ...item_access import ConditionFailed, Items
from ...keys import ItemKey
from ...models import RawItem
from .items import NUMBER, CacheEntry, expiry_of, stamps_of, write_of
from .parts import Parts
from .reader import MISSING, Reader, is_same_write
from .values import MAX_NUMBER, Values
from .writer import Writer

# How often a number may be changed by others during one call.
_RACES = 20


class Counters:
    """Changes numbers in place. Its coroutines are verbs."""

    def __init__(
        self,
        items: Items[CacheEntry],
        reader: Reader,
        writer: Writer,
        *,
        values: Values,
        parts: Parts,
    ) -> None:
        self._items = items
        self._reader = reader
        self._writer = writer
        self._values = values
        self._parts = parts

    async def incr_or_create(self, key: str, delta: int, timeout: float | None) -> Any:
        """Add ``delta``, or store it with ``timeout`` if the key is missing; atomic."""
        for _ in range(_RACES):
            try:
                return await self.incr(key, delta)
            except ValueError:
                written = self._writer.prepare(key, delta, timeout)
                if written is None or await self._writer.commit_new(key, written):
                    return delta
        raise ValueError("The key has a value that cannot be read under the cache's options.")

    async def incr(self, key: str, delta: Any = 1) -> Any:
        """
        Add ``delta`` and return the new value; the expiry stays.

        DynamoDB adds ints itself, so no parallel call is lost. A request whose answer was lost is
        repeated and may then be added twice. Other numbers are compared and set.
        Raises ValueError if the key is missing.
        """
        item_key = self._reader.item_key(key)
        with self._writer.writing([item_key.pk]):
            began_at = clock.monotonic()
            if type(delta) is not int or abs(delta) >= MAX_NUMBER:
                return await self._replace_number(item_key, delta, None, began_at)
            # DynamoDB refuses a sum of over 38 digits; it is then stored as bytes, as by set.
            largest = MAX_NUMBER - 1 - abs(delta)
            fits = at_least(CacheEntry.number, -largest) & at_most(CacheEntry.number, largest)
            try:
                change = add(CacheEntry.number, delta)
                changed = await self._writer.update_live(item_key, change, fits)
            except ConditionFailed as refused:
                return await self._replace_number(item_key, delta, refused.old, began_at)
        return CacheEntry.number.deserialize(changed[NUMBER]["N"])

    async def _replace_number(
        self, key: ItemKey, delta: Any, old: RawItem | None, began_at: float
    ) -> Any:
        with self._items.in_time(began_at):
            for _ in range(_RACES):
                if old is None:
                    old = await self._items.get(key, consistent=True)
                found = None
                if old is not None and await self._reader.is_live_and_valid(old):
                    found = await self._reader.with_parts(old)
                value = self._reader.value_of(found)
                if found is None or value is MISSING:
                    raise ValueError("There is no such key in the cache.")
                new = value + delta
                expiry = expiry_of(found.head)
                written = self._values.write(key, new, expiry)
                # Whatever invalidates the old value must invalidate the new one.
                head = {**written.head, **stamps_of(found.head)}
                unchanged = equals(CacheEntry.write, write_of(found.head))
                if NUMBER in found.head:
                    unchanged &= equals(CacheEntry.number, value)
                unchanged &= (
                    missing(CacheEntry.expiry)
                    if expiry is None
                    else equals(CacheEntry.expiry, expiry)
                )
                await self._parts.write(written.parts)
                try:
                    await self._items.put(head, unchanged)
                except ConditionFailed as refused:
                    old = refused.old
                    if not is_same_write(old, head):
                        await self._parts.delete(head)
                        if old is None:
                            raise ValueError("There is no such key in the cache.") from None
                        continue
                await self._parts.delete(found.head)
                return new
        raise ValueError("The key was changed by others in each of many tries.")
