"""Writing entries: first prepared (serialised), then committed with the present numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from ... import clock
from ...expressions import Change, Condition, equals, missing
from ...item_access import ConditionFailed
from ...keys import ItemKey
from ...models import RawItem
from .entries import EntriesStore, is_same_write
from .invalidation import checked_tags, is_live
from .items import LIFE, TAGS, CacheEntry, data_of, write_of
from .near import Entry
from .values import Written

# Seconds since the epoch, in the year 5138: what is kept for longer never expires.
_FOREVER = 1e11
_UNTAGGED = missing(CacheEntry.tags)


class WritingStore(EntriesStore):
    """
    Writes single entries. A conditional write of an entry with tags reads their numbers first; its
    condition is that the entry is still of the write that was read.
    """

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
        return self._values.write(self.item_key(key), value, expiry, tags)

    def commit(self, key: str, written: Written | None, stamps: RawItem | None = None) -> None:
        """
        Write what :meth:`prepare` returned: parts first, head last.

        A value in parts deletes the parts of the old value. A small value does not read the old
        one, which may be large. ``stamps`` are the numbers that the entry will carry, by default
        the present ones.
        """
        if written is None:
            self.delete(key)
            return
        head = self._stamped(written, stamps)
        self._put_in_groups(written.parts)
        with self._writing([head["PK"]["S"]]) as kept, self._in_time():
            old = self._put(head, return_old=bool(written.parts))
            self._keep_written(kept, head, written)
        if old is not None and not is_same_write(old, head):
            self._delete_parts(old)

    def commit_new(
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
            return not self.has_key(key, strongly=True)
        if written.parts and seen is None and self.has_key(key, strongly=True):
            return False
        head = self._stamped(written, stamps)
        self._put_in_groups(written.parts)
        with self._writing([head["PK"]["S"]]) as kept:
            replaced = self._put_new(head, seen)
            if isinstance(replaced, ConditionFailed):
                self._delete_parts(head)
                return False
            self._keep_written(kept, head, written)
        if replaced is not None:
            self._delete_parts(replaced)
        return True

    def has_key(self, key: str, *, strongly: bool = False) -> bool:
        """Return whether the key exists, without reading its value."""
        return is_live(self._head(self.item_key(key), LIFE, strongly=strongly))

    def _put_new(self, head: RawItem, seen: RawItem | None) -> RawItem | ConditionFailed | None:
        """Put ``head`` if it may; return the replaced item, if known, or the failed condition."""
        condition = self._free()
        if seen is not None:
            condition = condition | equals(CacheEntry.write, write_of(seen))
        while True:
            try:
                with self._in_time():
                    self._put(head, condition)
            except ConditionFailed as refused:
                old = refused.old
                if is_same_write(old, head):
                    # The answer to this call's own put was lost, and the put was repeated.
                    return seen
                if old is None or not write_of(old):
                    return refused
                if self._is_live_and_valid(old) and self._values.is_readable(old):
                    return refused
                # One of its tags was invalidated, or another key or serializer signed it: a miss.
                condition, seen = equals(CacheEntry.write, write_of(old)), old
            else:
                return seen

    def _stamped(self, written: Written, stamps: RawItem | None) -> RawItem:
        if stamps is None:
            if not written.tags and self.options.clear != "generation":
                return written.head
            stamps = self.stamps_for(written.tags)
        return {**written.head, **stamps}

    def _keep_written(self, kept: dict[str, Entry], head: RawItem, written: Written) -> None:
        pk = head["PK"]["S"]
        self._numbers.remember_tags(pk, written.tags)
        kept[pk] = Entry(head, [data_of(part) or b"" for part in written.parts])

    def _update_live(self, key: ItemKey, change: Change, extra: Condition | None = None) -> RawItem:
        """
        Change a live and valid entry; return the attributes that changed.

        One call for an entry without tags. For one with tags the first condition fails, and the
        update is repeated after its numbers were read.
        Raises ConditionFailed if there is no such entry or ``extra`` does not hold.
        """
        if generation := self._not_fresh(self._generation):
            with self._in_time():
                self._read_numbers(generation)
        unchanged = _UNTAGGED
        seen: str | None = None
        while True:
            condition = self._live() & unchanged
            try:
                return self._update(key, change, condition if extra is None else condition & extra)
            except ConditionFailed as refused:
                old = refused.old
                if old is None or not write_of(old) or not self._is_live_and_valid(old):
                    raise
                write = write_of(old) if TAGS in old else None
                if write == seen:
                    raise
                seen = write
                # ``extra`` may name another write.
                unchanged = _UNTAGGED if write is None else equals(CacheEntry.write, write, "seen")

    def delete(self, key: str) -> bool:
        """Delete the value and its parts; return whether the key existed."""
        item_key = self.item_key(key)
        with self._writing([item_key.pk]), self._in_time():
            old = self._delete(item_key)
        if old is None:
            return False
        self._delete_parts(old)
        return is_live(old) and self._is_live_and_valid(old)

    def _delete_write(self, key: ItemKey, write: str) -> bool:
        """Delete the entry if ``write`` made it; return whether it did."""
        try:
            with self._writing([key.pk]), self._in_time():
                old = self._delete(key, equals(CacheEntry.write, write))
        except ConditionFailed:
            return False
        self._delete_parts(old or {})
        return True


def expiry_after(timeout: float | None) -> int | None:
    """
    Return the moment ``timeout`` seconds from now, in milliseconds since the epoch; None: never.

    Raises ValueError for NaN.
    """
    if timeout is None:
        return None
    if math.isnan(timeout):
        raise ValueError("timeout is nan; expected seconds, or None for never.")
    return expiry_at(clock.now() + timeout)


def expiry_at(moment: float) -> int | None:
    """
    Return ``moment``, in seconds since the epoch, in milliseconds; None: never, as in
    :func:`expiry_after`.

    Raises ValueError for NaN.
    """
    if math.isnan(moment):
        raise ValueError("when is nan; expected a datetime, or seconds since the epoch.")
    if abs(moment) >= _FOREVER:
        return None if moment > 0 else 0
    return math.ceil(moment * 1000)
