"""Counters in the cache. DynamoDB adds itself, so no parallel call is lost."""

from __future__ import annotations

from typing import Any

from ...expressions import add, at_least, at_most, equals, missing
from ...item_access import ConditionFailed
from ...keys import ItemKey
from ...models import RawItem
from .entries import MISSING, is_same_write
from .items import NUMBER, CacheEntry, expiry_of, stamps_of, write_of
from .values import MAX_NUMBER
from .writing import WritingStore

# How often a number may be changed by others during one call.
_RACES = 20


class CountingStore(WritingStore):
    """The methods that change a number in place."""

    def incr_or_create(self, key: str, delta: int, timeout: float | None) -> Any:
        """Add ``delta``, or store it with ``timeout`` if the key is missing; atomic."""
        for _ in range(_RACES):
            try:
                return self.incr(key, delta)
            except ValueError:
                written = self.prepare(key, delta, timeout)
                if written is None or self.commit_new(key, written):
                    return delta
        raise ValueError("The key has a value that cannot be read under the cache's options.")

    def incr(self, key: str, delta: Any = 1) -> Any:
        """
        Add ``delta`` and return the new value; the expiry stays.

        DynamoDB adds ints itself, so no parallel call is lost. A request whose answer was lost is
        repeated and may then be added twice. Other numbers are compared and set.
        Raises ValueError if the key is missing.
        """
        item_key = self.item_key(key)
        with self._writing([item_key.pk]), self._in_time():
            if type(delta) is not int or abs(delta) >= MAX_NUMBER:
                return self._replace_number(item_key, delta, None)
            # DynamoDB refuses a sum of over 38 digits; it is then stored as bytes, as by set.
            largest = MAX_NUMBER - 1 - abs(delta)
            fits = at_least(CacheEntry.number, -largest) & at_most(CacheEntry.number, largest)
            try:
                changed = self._update_live(item_key, add(CacheEntry.number, delta), fits)
            except ConditionFailed as refused:
                return self._replace_number(item_key, delta, refused.old)
        return CacheEntry.number.deserialize(changed[NUMBER]["N"])

    def _replace_number(self, key: ItemKey, delta: Any, old: RawItem | None) -> Any:
        for _ in range(_RACES):
            if old is None:
                old = self._get(key, consistent=True)
            found = (
                self._with_parts(old) if old is not None and self._is_live_and_valid(old) else None
            )
            value = self.value_of(found)
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
                missing(CacheEntry.expiry) if expiry is None else equals(CacheEntry.expiry, expiry)
            )
            self._put_in_groups(written.parts)
            try:
                self._put(head, unchanged)
            except ConditionFailed as refused:
                old = refused.old
                if not is_same_write(old, head):
                    self._delete_parts(head)
                    if old is None:
                        raise ValueError("There is no such key in the cache.") from None
                    continue
            self._delete_parts(found.head)
            return new
        raise ValueError("The key was changed by others in each of many tries.")
