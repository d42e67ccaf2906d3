"""Writing entries: first prepared (serialised), then committed with the present numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from ... import clock
from ...expressions import Change, Condition, equals, exists, missing, put, remove
from ...item_access import ConditionFailed, Items
from ...keys import ItemKey, expiry_index_sort_key
from ...models import RawItem, ttl_of
from .invalidation import Validity, checked_tags, is_live
from .items import TAGS, CacheEntry, data_of, write_of
from .near import Entry, find_near
from .parts import Parts
from .reader import Reader, is_same_write
from .recent import RecentWrites
from .values import Values, Written

# Seconds since the epoch, in the year 5138: what is kept for longer never expires.
_FOREVER = 1e11
_UNTAGGED = missing(CacheEntry.tags)
_ENDLESS = remove(CacheEntry.expiry, CacheEntry.ttl)
_IN_ONE_ITEM = exists(CacheEntry.write) & missing(CacheEntry.parts)


class Writer:
    """
    Writes single entries. Its coroutines are verbs.

    A conditional write of an entry with tags reads their numbers first; its condition is that the
    entry is still of the write that was read.
    """

    def __init__(
        self,
        items: Items[CacheEntry],
        reader: Reader,
        *,
        values: Values,
        parts: Parts,
        validity: Validity,
        recent: RecentWrites,
        indexed: bool,
    ) -> None:
        self._items = items
        self._reader = reader
        self._values = values
        self._parts = parts
        self._validity = validity
        self._recent = recent
        self._is_indexed = indexed

    def prepare(
        self,
        key: str,
        value: Any,
        timeout: float | None = None,
        tags: Iterable[str] | None = None,
    ) -> Written | None:
        """Serialise ``value`` for :meth:`commit`; None for a delete. Sends nothing."""
        checked = checked_tags(tags)
        if timeout is not None and timeout <= 0:
            return None
        return self.prepare_until(key, value, expiry_after(timeout), checked)

    def prepare_until(
        self, key: str, value: Any, expiry: int | None, tags: Sequence[str] = ()
    ) -> Written:
        """Serialise a value that expires at ``expiry``, in ms since the epoch."""
        return self._values.write(self._reader.item_key(key), value, expiry, tags)

    async def commit(
        self, key: str, written: Written | None, stamps: RawItem | None = None
    ) -> None:
        """
        Write what :meth:`prepare` returned: parts first, head last.

        A value in parts deletes the parts of the old value. A small value does not read the old
        one, which may be large. ``stamps`` are the numbers that the entry will carry, by default
        the present ones.
        """
        if written is None:
            await self.delete(key)
            return
        head = await self._begin(written, stamps)
        with self.writing([head["PK"]["S"]]) as kept:
            old = await self._items.put(head, return_old=bool(written.parts))
            self.keep_written(kept, head, written)
        if old is not None and not is_same_write(old, head):
            await self._parts.delete(old)

    async def commit_new(
        self,
        key: str,
        written: Written | None,
        stamps: RawItem | None = None,
        seen: RawItem | None = None,
    ) -> bool:
        """
        Write what :meth:`prepare` returned if no live and valid entry exists, or still the entry
        that was ``seen``; return whether it was written.
        """
        if written is None:
            return not await self._reader.has_key(key, strongly=True)
        if written.parts and seen is None and await self._reader.has_key(key, strongly=True):
            return False
        head = await self._begin(written, stamps)
        with self.writing([head["PK"]["S"]]) as kept:
            replaced = await self._put_new(head, seen)
            if isinstance(replaced, ConditionFailed):
                await self._parts.delete(head)
                return False
            self.keep_written(kept, head, written)
        if replaced is not None:
            await self._parts.delete(replaced)
        return True

    async def touch_until(self, key: str, expiry: int | None) -> bool:
        """
        Give a live value a new expiry, in ms since the epoch (None: never); return whether the key
        existed.
        """
        if expiry is not None and expiry <= clock.now_ms():
            return await self.delete(key)
        item_key = self._reader.item_key(key)
        removal = self._values.removal(expiry)
        if expiry is None or removal is None:
            change = _ENDLESS
        else:
            change = put(CacheEntry.expiry, expiry) + put(CacheEntry.ttl, ttl_of(removal))
        if self._is_indexed:
            change += put(CacheEntry.gsi1sk, expiry_index_sort_key(item_key.pk, removal))
        condition = _IN_ONE_ITEM
        while True:
            try:
                with self.writing([item_key.pk]):
                    await self.update_live(item_key, change, condition)
            except ConditionFailed as refused:
                head = refused.old or {}
                is_in_parts = bool(self._parts.keys_of(head))
                if not is_in_parts or not await self._reader.is_live_and_valid(head):
                    return False
                # The parts first: with a head that is kept for longer, the value would be missing.
                await self._parts.touch(head, removal)
                condition = equals(CacheEntry.write, write_of(head))
            else:
                return True

    async def update_live(
        self, key: ItemKey, change: Change, extra: Condition | None = None
    ) -> RawItem:
        """
        Change a live and valid entry; return the attributes that changed.

        One call for an entry without tags. For one with tags the first condition fails, and the
        update is repeated after its numbers were read.
        Raises ConditionFailed if there is no such entry or ``extra`` does not hold.
        """
        validity = self._validity
        if validity.has_generation:
            await validity.read(validity.not_fresh(validity.generation))
        began_at = clock.monotonic()
        condition = validity.live() & _UNTAGGED
        try:
            return await self._items.update(key, change, condition & extra if extra else condition)
        except ConditionFailed as refused:
            failed = refused
        with self._items.in_time(began_at):
            return await self._update_tagged(key, change, extra, failed)

    async def _update_tagged(
        self, key: ItemKey, change: Change, extra: Condition | None, failed: ConditionFailed
    ) -> RawItem:
        seen: str | None = None
        while True:
            old = failed.old
            if old is None or not write_of(old) or not await self._reader.is_live_and_valid(old):
                raise failed
            write = write_of(old) if TAGS in old else None
            if write == seen:
                raise failed
            seen = write
            # ``extra`` may name another write.
            unchanged = _UNTAGGED if write is None else equals(CacheEntry.write, write, "seen")
            condition = self._validity.live() & unchanged
            try:
                return await self._items.update(
                    key, change, condition & extra if extra else condition
                )
            except ConditionFailed as refused:
                failed = refused

    async def delete(self, key: str) -> bool:
        """Delete the value and its parts; return whether the key existed."""
        item_key = self._reader.item_key(key)
        with self.writing([item_key.pk]):
            old = await self._items.delete(item_key)
        if old is None:
            return False
        await self._parts.delete(old)
        return is_live(old) and await self._reader.is_live_and_valid(old)

    async def delete_write(self, key: ItemKey, write: str) -> bool:
        """Delete the entry if ``write`` made it; return whether it did."""
        try:
            with self.writing([key.pk]):
                old = await self._items.delete(key, equals(CacheEntry.write, write))
        except ConditionFailed:
            return False
        await self._parts.delete(old or {})
        return True

    def writing(self, pks: Sequence[str]) -> Writing:
        """Return a block in which these keys are written."""
        return Writing(self._reader, self._items.using, self._recent, pks)

    def keep_written(self, kept: dict[str, Entry], head: RawItem, written: Written) -> None:
        """Keep what was just written, for the near tier."""
        pk, numbers = head["PK"]["S"], self._validity.numbers
        if written.tags or numbers.knows_tags:
            numbers.remember_tags(pk, written.tags)
        parts = [data_of(part) or b"" for part in written.parts] if written.parts else ()
        kept[pk] = Entry(head, parts)

    async def _put_new(
        self, head: RawItem, seen: RawItem | None
    ) -> RawItem | ConditionFailed | None:
        """Put ``head`` if it may; return the replaced item, if known, or the failed condition."""
        condition = self._validity.free()
        if seen is not None:
            condition = condition | equals(CacheEntry.write, write_of(seen))
        while True:
            try:
                await self._items.put(head, condition)
            except ConditionFailed as refused:
                old = refused.old
                if is_same_write(old, head):
                    # The answer to this call's own put was lost, and the put was repeated.
                    return seen
                if old is None or not write_of(old):
                    return refused
                is_value = await self._reader.is_live_and_valid(old)
                if is_value and self._values.is_readable(old):
                    return refused
                # One of its tags was invalidated, or another key or serializer signed it: a miss.
                condition, seen = equals(CacheEntry.write, write_of(old)), old
            else:
                return seen

    async def _begin(self, written: Written, stamps: RawItem | None) -> RawItem:
        """Write the parts of a value, and return its head with the numbers that it carries."""
        if stamps is None and (written.tags or self._validity.has_generation):
            stamps = await self._validity.stamps_for(written.tags)
        if written.parts:
            await self._parts.write(written.parts)
        return {**written.head, **stamps} if stamps else written.head


class Writing:
    """
    A block in which keys are written: it keeps the near tier correct. The caller puts the new
    entries into the dict that it gets.
    """

    __slots__ = ("_began_at", "_near", "_pks", "_prefix", "_recent", "_using", "_written")

    def __init__(
        self, reader: Reader, using: str, recent: RecentWrites, pks: Sequence[str]
    ) -> None:
        self._using = using
        self._prefix = reader.prefix
        # A cache of this prefix may have a near tier even if this one has none.
        self._near = reader.near or find_near(using, reader.prefix)
        self._recent = recent
        self._pks = pks
        self._written: dict[str, Entry] = {}

    def __enter__(self) -> dict[str, Entry]:
        # At the beginning too: an exception from outside may come before the end is noted.
        self._recent.add(self._pks)
        self._began_at = 0.0 if self._near is None else self._near.begin_write(self._pks)
        return self._written

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recent.add(self._pks)
        if self._near is not None:
            written = self._written if exc is None else {}
            self._near.end_write(self._pks, written, self._began_at)
        elif (near := find_near(self._using, self._prefix)) is not None:
            # It was made during the write.
            near.forget(self._pks)


def as_float(number: Any) -> float:
    """Return ``number`` as a float, infinity for an int that no float can have."""
    try:
        return float(number)
    except OverflowError:
        return math.inf if number > 0 else -math.inf


def expiry_after(timeout: float | None) -> int | None:
    """
    Return the moment ``timeout`` seconds from now, in milliseconds since the epoch; None: never.

    Raises ValueError for NaN.
    """
    if timeout is None:
        return None
    # First, because not every int can be a float.
    if abs(timeout) >= _FOREVER:
        return None if timeout > 0 else 0
    if math.isnan(timeout):
        raise ValueError("timeout is nan; expected seconds, or None for never.")
    return expiry_at(clock.now() + timeout)


def expiry_at(moment: float) -> int | None:
    """
    Return ``moment``, in seconds since the epoch, in milliseconds; None: never, as in
    :func:`expiry_after`.

    Raises ValueError for NaN.
    """
    if abs(moment) >= _FOREVER:
        return None if moment > 0 else 0
    if math.isnan(moment):
        raise ValueError("when is nan; expected a datetime, or seconds since the epoch.")
    return math.ceil(moment * 1000)
