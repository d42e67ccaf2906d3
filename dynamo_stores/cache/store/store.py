"""The cache store: values with an exact expiry, under signed bytes, one call each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from pynamodb.expressions.update import Action

from ... import clock, keys
from ...calls.batches import MAX_WRITES, chunks, execute_in_parallel
from ...item_access import ConditionFailed
from ...keys import ItemKey
from ...models import ttl_of
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
)
from .patterns import compile_pattern, literal_start
from .sweeps import CacheStats, Progress, Sweep
from .writing import expiry_after

__all__ = ["MISSING", "CacheStore", "expiry_after"]


class CacheStore(CountingStore, ManyStore):
    """
    A cache of one alias and prefix, spoken to with complete keys (Django's key function made
    them). Timeouts are in seconds, None for never; 0 and less mean expired.

    Every verb on one key is one call where the value fits one item and has no tags. Its calls
    share the time of ``operation_timeout``; those for a value in parts, ``clear`` and ``cleanup``
    have it each. All raise StoreUnavailable when DynamoDB cannot answer in it.
    """

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or ``default`` where there is none alive."""
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
        Store ``value``, whatever was there; expired at once, it is deleted instead.

        ``tags`` are those of this value alone: it is gone when one of them is invalidated.
        """
        self.commit(key, self.prepare(key, value, timeout, tags))

    def add(
        self,
        key: str,
        value: Any,
        timeout: float | None = None,
        tags: Iterable[str] | None = None,
    ) -> bool:
        """Store ``value`` if nothing live is there; return whether it was stored."""
        return self.commit_new(key, self.prepare(key, value, timeout, tags))

    def move(self, key: str, new_key: str) -> bool:
        """
        Give the value the name ``new_key``, with its expiry and tags; return whether there is one.

        Three calls that others may see the middle of: read, write, delete.
        """
        found = self._find(self._key(key))
        value = self.value_of(found)
        if found is None or not is_live(found.head) or value is MISSING:
            return False
        written = self.prepare_until(
            new_key, value, expiry_of(found.head), tuple(tags_of(found.head))
        )
        self.commit(new_key, written, stamps_of(found.head))
        self.delete(key)
        return True

    def ttl(self, key: str) -> int | None:
        """Return the milliseconds that the entry has left, None for ever, 0 for none alive."""
        head = self._head(self._key(key), LIFE)
        if head is None or not is_live(head):
            return 0
        expiry = expiry_of(head)
        return None if expiry is None else expiry - clock.now_ms()

    def touch(self, key: str, timeout: float | None = None) -> bool:
        """Give a live value a new timeout; return False, creating nothing, where there is none."""
        return self.touch_until(key, expiry_after(timeout))

    def touch_until(self, key: str, expiry: int | None) -> bool:
        """The same with the moment of expiry, in ms since the epoch; None is for ever."""
        if expiry is not None and expiry <= clock.now_ms():
            return self.delete(key)
        item_key = self._key(key)
        removal = self._values.removal(expiry)
        # Set to what they are, these come back in the answer: a value in parts has more to touch.
        actions: list[Action] = [
            CacheEntry.write.set(CacheEntry.write),
            CacheEntry.parts.set(CacheEntry.parts | 1),
        ]
        if expiry is None or removal is None:
            actions += [CacheEntry.expiry.remove(), CacheEntry.ttl.remove()]
        else:
            actions += [CacheEntry.expiry.set(expiry), CacheEntry.ttl.set(ttl_of(removal))]
        if self._is_indexed:
            actions.append(CacheEntry.gsi1sk.set(keys.expiry_index_sort_key(item_key.pk, removal)))
        try:
            with self._writing([item_key.pk]), self._in_time():
                changed = self._update_live(item_key, actions, CacheEntry.write.exists())
        except ConditionFailed:
            return False
        self._touch_parts({"PK": {"S": item_key.pk}, **changed}, removal)
        return True

    def invalidate_tags(self, tags: Iterable[str]) -> None:
        """
        Let every entry of this prefix that has one of ``tags`` count as missing, in all versions.

        One write per tag, side by side, however many entries there are. The entries leave with
        their TTL or a cleanup.
        """
        asked_at = clock.monotonic()

        def raise_number(tag: str) -> None:
            key = keys.tag(self.prefix, tag)
            self._numbers.learn(key.pk, self._raise_number(key), asked_at)

        execute_in_parallel(checked_tags(tags), raise_number, max_concurrency=8)

    def _raise_number(self, key: ItemKey) -> int:
        with self._in_time():
            changed = self._update(key, [InvalidationNumber.number.add(1)])
        return invalidation_of(changed)

    def iter_keys(self, pattern: str = "*", *, page_size: int | None = None) -> Iterator[str]:
        """
        Yield the live keys that match ``pattern`` (see :mod:`.patterns`), as they come; one that is
        written meanwhile may be missing or come twice.

        A Query with the expiry index, else a Scan of the whole table, in pages of a megabyte or
        of ``page_size`` items.
        """
        matches = compile_pattern(pattern).fullmatch
        pages = self._sweep.keys(
            literal_start(pattern), by_index=self._is_indexed, page_size=page_size
        )
        for page in pages:
            yield from filter(matches, page)

    def delete_pattern(self, pattern: str, *, page_size: int | None = None) -> int:
        """Delete the keys that match ``pattern`` and return how many; costs as iter_keys."""
        deleted = 0
        found = self.iter_keys(pattern, page_size=page_size)
        for group in chunks(found, MAX_WRITES):
            self.delete_many(group)
            deleted += len(group)
        return deleted

    def clear(self) -> int:
        """
        Delete every item of this prefix, in all versions, and return how many there were.

        A Scan of the whole table, paid by its size; with ``clear_by_index`` a Query of what the
        expiry index lists. With ``clear`` "generation" one write, after which the entries count as
        missing, and none is deleted: they leave with their TTL or a cleanup.
        """
        near = self._near
        if self.options.clear == "generation":
            deleted, asked_at = 0, clock.monotonic()
            for key in self._generation:
                self._numbers.learn(key.pk, self._raise_number(key), asked_at)
        else:
            deleted = self._sweep.clear()
        if near is not None:
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
        Delete what has expired, and return how many items that were.

        One conditional delete each, only while the expiry that was seen is still there. With the
        expiry index a Query, without it or with ``scan`` a Scan of the whole table in ``segments``
        side by side, which also finds what was invalidated, and parts older than an hour whose
        entry names another write.
        Reads at most ``units_per_second`` a segment, in pages of a megabyte or of ``page_size``
        items. ``progress`` hears of each page; its ``position`` (JSON) goes on from there.
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
        """Return how many entries there are and how many of them have expired; costs a sweep."""
        return self._sweep.stats(by_index=self._is_indexed)

    @property
    def _sweep(self) -> Sweep:
        return Sweep(self._table, self._call, self.prefix, self.options, self._counting)
