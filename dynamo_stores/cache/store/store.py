"""The cache store: signed values with an exact expiry, one call per operation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ... import clock, keys
from ...calls.batches import MAX_WRITES, chunks, execute_in_parallel
from ...expressions import add, equals, exists, missing, put, remove
from ...item_access import ConditionFailed
from ...keys import ItemKey
from ...models import ttl_of
from .background import BackgroundWork
from .bulk import ManyStore
from .counters import CountingStore
from .entries import MISSING
from .invalidation import checked_tags, is_live
from .items import (
    LIFE,
    CacheEntry,
    InvalidationNumber,
    expiry_of,
    invalidation_of,
    stamps_of,
    tags_of,
    write_of,
)
from .near import find_near
from .patterns import compile_pattern, literal_start
from .sweeps import CacheStats, Progress, Sweep
from .writing import expiry_after

__all__ = ["MISSING", "CacheStore", "expiry_after"]

_ENDLESS = remove(CacheEntry.expiry, CacheEntry.ttl)
_IN_ONE_ITEM = exists(CacheEntry.write) & missing(CacheEntry.parts)


class CacheStore(CountingStore, ManyStore):
    """
    A cache of one alias and prefix. Its keys are full keys, as Django's key function makes them.
    Timeouts are in seconds, None for never; 0 and less mean expired.

    Each method on one key is one call if the value fits one item and has no tags. Its calls share
    one ``operation_timeout``; for values in parts, ``clear`` and ``cleanup`` each call has its own.
    All methods raise StoreUnavailable if DynamoDB does not answer in that time.
    """

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or ``default`` if the key is missing."""
        value = self.value_of(self.find(key))
        self.count_lookups(1, value is not MISSING)
        return default if value is MISSING else value

    def set(
        self,
        key: str,
        value: Any,
        timeout: float | None = None,
        tags: Iterable[str] | None = None,
    ) -> None:
        """
        Store ``value``; with a timeout of 0 or less, delete the key instead.

        ``tags`` replace those of the old value. Invalidating one of them invalidates the value.
        """
        self.commit(key, self.prepare(key, value, timeout, tags))

    def add(
        self,
        key: str,
        value: Any,
        timeout: float | None = None,
        tags: Iterable[str] | None = None,
    ) -> bool:
        """Store ``value`` if the key is missing; return whether it was stored."""
        return self.commit_new(key, self.prepare(key, value, timeout, tags))

    def move(self, key: str, new_key: str) -> bool:
        """
        Move the value to ``new_key``, with its expiry and tags; return whether the key existed.

        Not atomic: three calls, a read, a write and a delete.
        """
        item_key, moved = self.item_key(key), False
        while True:
            # Strongly, because an older value would be moved, and the newest deleted.
            found = self._find(item_key, strongly=True)
            value = self.value_of(found)
            if found is None or not is_live(found.head) or value is MISSING:
                return moved
            written = self.prepare_until(
                new_key, value, expiry_of(found.head), tuple(tags_of(found.head))
            )
            self.commit(new_key, written, stamps_of(found.head))
            moved = True
            if self._delete_write(item_key, write_of(found.head)):
                return True
            # Another write came between the read and the delete: it is moved as well.

    def ttl(self, key: str) -> int | None:
        """Return the milliseconds until the entry expires; None for never, 0 if it is missing."""
        head = self._head(self.item_key(key), LIFE)
        if head is None or not is_live(head):
            return 0
        expiry = expiry_of(head)
        return None if expiry is None else expiry - clock.now_ms()

    def touch(self, key: str, timeout: float | None = None) -> bool:
        """
        Give a live value a new timeout; return whether the key existed. For a value in parts these
        are two calls, and one for each part.
        """
        return self.touch_until(key, expiry_after(timeout))

    def touch_until(self, key: str, expiry: int | None) -> bool:
        """Give a live value a new expiry, in ms since the epoch (None: never); see touch."""
        if expiry is not None and expiry <= clock.now_ms():
            return self.delete(key)
        item_key = self.item_key(key)
        removal = self._values.removal(expiry)
        if expiry is None or removal is None:
            change = _ENDLESS
        else:
            change = put(CacheEntry.expiry, expiry) + put(CacheEntry.ttl, ttl_of(removal))
        if self._is_indexed:
            change += put(CacheEntry.gsi1sk, keys.expiry_index_sort_key(item_key.pk, removal))
        condition = _IN_ONE_ITEM
        while True:
            try:
                with self._writing([item_key.pk]), self._in_time():
                    self._update_live(item_key, change, condition)
            except ConditionFailed as refused:
                head = refused.old or {}
                if not self._parts_of(head) or not self._is_live_and_valid(head):
                    return False
                # The parts first: with a head that is kept for longer, the value would be missing.
                self._touch_parts(head, removal)
                condition = equals(CacheEntry.write, write_of(head))
            else:
                return True

    def invalidate_tags(self, tags: Iterable[str]) -> None:
        """
        Make every entry of this prefix with one of ``tags`` invalid, in all versions.

        One write per tag, in parallel, however many entries there are. The entries are deleted
        later, by their TTL or a cleanup.
        """
        requested_at = clock.monotonic()

        def raise_number(tag: str) -> None:
            key = keys.tag(self.prefix, tag)
            self._numbers.record(key.pk, self._raise_number(key), requested_at)

        execute_in_parallel(checked_tags(tags), raise_number, max_concurrency=8)

    def _raise_number(self, key: ItemKey) -> int:
        with self._in_time():
            changed = self._update(key, add(InvalidationNumber.number, 1))
        return invalidation_of(changed)

    def iter_keys(self, pattern: str = "*", *, page_size: int | None = None) -> Iterator[str]:
        """
        Yield the live keys that match ``pattern`` (see :mod:`.patterns`), in no order. A key
        that is written meanwhile may be missing or be yielded twice.

        A Query of the expiry index if there is one, else a Scan of the whole table, in pages of a
        megabyte or of ``page_size`` items.
        """
        matches = compile_pattern(pattern).fullmatch
        pages = self._sweep.keys(
            literal_start(pattern), by_index=self._is_indexed, page_size=page_size
        )
        for page in pages:
            yield from filter(matches, page)

    def delete_pattern(self, pattern: str, *, page_size: int | None = None) -> int:
        """
        Delete the keys that match ``pattern``; return their number. Reads like iter_keys, and like
        clear goes on when the table throttles.
        """
        deleted, work = 0, BackgroundWork()
        found = self.iter_keys(pattern, page_size=page_size)
        for group in chunks(found, MAX_WRITES):
            work.write_all(self._raw_keys(map(self.item_key, group)), self._delete_keys)
            deleted += len(group)
        return deleted

    def clear(self) -> int:
        """
        Delete every item of this prefix, in all versions; return their number. Requests that are
        throttled are sent again, until nothing was processed for a minute.

        A Scan of the whole table, billed by its size; with ``clear_by_index`` a Query of the expiry
        index. With ``clear`` "generation" one write, which makes all entries invalid and returns 0:
        they are deleted later, by their TTL or a cleanup.
        """
        deleted = 0
        try:
            if self.options.clear == "generation":
                requested_at = clock.monotonic()
                for key in self._generation:
                    self._numbers.record(key.pk, self._raise_number(key), requested_at)
            else:
                deleted = self._sweep.clear()
        finally:
            # What was deleted before an error must not be served either.
            if (near := find_near(self.using, self.prefix)) is not None:
                near.clear()
        return deleted

    def cleanup(
        self,
        *,
        dry_run: bool = False,
        scan: bool = False,
        segments: int = 1,
        units_per_second: float = 100.0,
        page_size: int | None = None,
        position: Mapping[str, Any] | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> int:
        """
        Delete expired items; return their number.

        One conditional delete each, which fails if the expiry has changed since the read. Costs a
        Query of the expiry index. Without the index, or with ``scan``, a Scan of the whole table in
        parallel ``segments``, which also finds invalid entries, and parts older than an hour whose
        entry has another write.
        Reads and deletes at most ``units_per_second`` each per segment, in pages of a megabyte or
        of ``page_size`` items, and goes on when the table throttles, as clear does. ``progress`` is
        called after each page; the ``position`` (JSON) of its argument resumes the cleanup there.
        """
        return self._sweep.cleanup(
            dry_run=dry_run,
            by_index=self._is_indexed and not scan,
            segments=segments,
            units_per_second=units_per_second,
            page_size=page_size,
            position=position,
            progress=progress,
        )

    def get_stats(self) -> CacheStats:
        """Return the numbers of entries and of expired ones; reads every entry of the prefix."""
        return self._sweep.stats(by_index=self._is_indexed)

    @property
    def _sweep(self) -> Sweep:
        return Sweep(
            self._table,
            self._call,
            self.prefix,
            self.options,
            self._live_and_valid,
            self._delete_keys,
        )
