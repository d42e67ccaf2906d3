"""Reading entries that are live and valid, from the near tier or the table."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from ... import clock, keys
from ...calls.policy import time_left
from ...exceptions import StoreUnavailable
from ...keys import ItemKey
from ...models import RawItem
from .codecs import InvalidSignature, UnreadableValue
from .invalidation import ValidityStore, is_live
from .items import PARTS, TAGS, WRITE, CacheEntry, tags_of
from .near import Entry, NearStats, NearTier, find_near, get_near
from .recent import get_recent_writes
from .statistics import get_lookups

logger = logging.getLogger(__name__)

MISSING: Final = object()
# It is part of the keys of Django's sessions, in the engines cache and cached_db.
_SESSIONS = "django.contrib.sessions."
# What was logged: the alias, the prefix, and the name of the error.
_warned: set[tuple[str, str, str]] = set()


class EntriesStore(ValidityStore):
    """Reads entries and checks that they are live and valid; see :class:`ValidityStore`."""

    def find(self, key: str, *, strongly: bool = False, expired: bool = False) -> Entry | None:
        """
        Return the entry of ``key`` if it is live and valid; with ``expired`` also after its expiry.

        From the near tier if it is on, except with ``strongly``.
        """
        item_key = self.item_key(key)
        near = None if strongly else self._near_of(item_key.pk)
        if near is None:
            found = self._find(item_key, strongly=strongly)
        else:
            found = self._get_near(near, item_key.pk)
            if found is None:
                found = self._fetch_near(near, item_key)
        return found if found is not None and (expired or is_live(found.head)) else None

    def peek(self, key: str) -> Any:
        """
        Return the value in the near tier, ``MISSING`` if it has none; sends nothing.

        A miss is not counted: the read that follows counts it.
        """
        pk = self.item_key(key).pk
        near = self._near_of(pk)
        if near is None:
            return MISSING
        found = self._get_near(near, pk, counts_misses=False)
        value = self.value_of(found)
        if value is not MISSING:
            self.count_lookups(1, 1)
        return value

    def count_lookups(self, total: int, found: int) -> None:
        """Count ``total`` keys that were looked up, of which ``found`` were found."""
        get_lookups(self.using).add(found, total - found)

    def value_of(self, found: Entry | None, default: Any = MISSING) -> Any:
        """
        Return the value of an entry; ``default`` without one, if its signature is invalid, or if it
        cannot be deserialised any more.
        """
        if found is None:
            return default
        try:
            return self._values.read(found.head, found.parts)
        except InvalidSignature:
            self._warn_of_invalid_signature()
            return default
        except UnreadableValue as exc:
            self._warn_of_unreadable_value(type(exc.__cause__).__name__)
            return default

    def is_kept(self, head: RawItem | None) -> bool:
        """Return whether the entry may be returned by now: live, or served stale."""
        moment = clock.now() - self.options.stale_timeout
        return head is not None and CacheEntry.is_raw_live(head, moment)

    def get_near_stats(self) -> NearStats | None:
        """Return the statistics of this process's near tier, None if it is off."""
        near = self._near
        return None if near is None else near.stats()

    def _fetch_near(self, near: NearTier, key: ItemKey) -> Entry | None:
        def fetch(pks: list[str]) -> dict[str, Entry]:
            found = self._find(key)
            return {} if found is None else {key.pk: found}

        try:
            found = near.fetch(
                [key.pk], fetch, join=self._joins, wait=time_left(self.options.operation_timeout)
            )
        except StoreUnavailable:
            stale = self._get_stale(near, key.pk)
            if stale is None:
                raise
            return stale
        entry = found.get(key.pk)
        # A read that was joined may have begun before a tag was invalidated here.
        return entry if entry is not None and self._is_valid(entry.head) else None

    def _find(self, key: ItemKey, *, strongly: bool = False) -> Entry | None:
        """Return the entry from the table, also after its expiry if it may be served stale."""
        head = self._head(key, strongly=strongly)
        if head is None or not self.is_kept(head):
            return None
        found = self._with_parts(head)
        if found is None and self._parts_of(head):
            # An overwrite may have deleted the parts of this head meanwhile.
            reread = self._head(key, strongly=True)
            if reread is not None and not is_same_write(reread, head):
                found = self._with_parts(reread) if self.is_kept(reread) else None
        return found

    def _with_parts(self, head: RawItem) -> Entry | None:
        if PARTS not in head:
            return Entry(head)
        try:
            parts = self._read_parts(head)
        except InvalidSignature:
            self._warn_of_invalid_signature()
            return None
        return None if parts is None else Entry(head, parts)

    def _head(
        self, key: ItemKey, attributes: Sequence[str] | None = None, *, strongly: bool = False
    ) -> RawItem | None:
        """Return the item under ``key`` unless it is invalid; its expiry is not checked."""
        numbers = self._numbers
        consistent = strongly or self._is_read_strongly(key.pk)
        has_generation = self.options.clear == "generation"
        has_numbers = has_generation or bool(numbers.tags_of(key.pk))
        numbers_read = self._not_fresh(self._numbers_for(key.pk)) if has_numbers else []
        with self._in_time():
            while True:
                if numbers_read:
                    head = self._read_numbers(numbers_read, [key], attributes).get(key.pk)
                else:
                    head = self._get(key, consistent=consistent, attributes=attributes)
                if head is None:
                    return None
                if not has_numbers and TAGS not in head:
                    return head
                has_numbers = True
                numbers.remember_tags(key.pk, tags_of(head))
                # Tags that this process did not know, or numbers that expired during a slow read.
                more = [
                    each
                    for each in self._not_fresh(self._numbers_of(head))
                    if each not in numbers_read
                ]
                if not more:
                    return head if self._is_valid(head) else None
                numbers_read += more

    def _find_many(self, pks: Iterable[str]) -> dict[str, Entry]:
        """Return the entries that are live and valid, by partition key."""
        wanted = list(pks)
        near = self._near
        if near is None:
            return self._fetch_many(wanted)
        found = {}
        for pk in wanted:
            kept = self._get_near(near, pk)
            if kept is not None:
                found[pk] = kept
        rest = [pk for pk in wanted if pk not in found]
        try:
            read = near.fetch(
                rest,
                self._fetch_many,
                join=self._joins,
                wait=time_left(self.options.operation_timeout),
            )
            # A read that was joined may have begun before a tag was invalidated here.
            found |= {pk: entry for pk, entry in read.items() if self._is_valid(entry.head)}
            return found
        except StoreUnavailable as exc:
            found |= exc.found or {}
            for pk in rest:
                if pk not in found and (stale := self._get_stale(near, pk)) is not None:
                    found[pk] = stale
            if len(found) == len(wanted):
                return found
            exc.found = found
            raise

    def _fetch_many(self, pks: Iterable[str]) -> dict[str, Entry]:
        wanted = [ItemKey(pk, keys.ENTRY) for pk in pks]
        numbers_read: list[ItemKey] = []
        if self.options.clear == "generation" or self._numbers.knows_tags:
            numbers_read = self._not_fresh(
                each for key in wanted for each in self._numbers_for(key.pk)
            )
        try:
            with self._in_time():
                read: Iterable[RawItem] = (
                    self._read_numbers(numbers_read, wanted).values()
                    if numbers_read
                    else self._get_items(wanted, strongly=self._is_any_read_strongly(wanted))
                )
                heads = self._live_and_valid(read, numbers_read)
        except StoreUnavailable as exc:
            read = (exc.responses or {}).get(self._table.table_name, [])
            exc.found = self._whole(
                head
                for head in read
                if head["SK"]["S"] == keys.ENTRY
                and is_live(head)
                and not self._not_fresh(self._numbers_of(head))
                and self._is_valid(head)
            )
            raise
        return self._whole(heads)

    def _whole(self, heads: Iterable[RawItem]) -> dict[str, Entry]:
        found = {head["PK"]["S"]: self._with_parts(head) for head in heads}
        return {pk: each for pk, each in found.items() if each is not None}

    def _live_and_valid(
        self, heads: Iterable[RawItem], numbers_read: Iterable[ItemKey] = ()
    ) -> list[RawItem]:
        """Return the live and valid ones of ``heads``, which were read with ``numbers_read``."""
        now = clock.now()
        live = [head for head in heads if CacheEntry.is_raw_live(head, now)]
        numbers, has_generation = self._numbers, self.options.clear == "generation"
        if not (has_generation or numbers.knows_tags or any(TAGS in head for head in live)):
            return live
        wanted: list[ItemKey] = []
        for head in live:
            numbers.remember_tags(head["PK"]["S"], tags_of(head))
            if has_generation or TAGS in head:
                wanted += self._numbers_of(head)
        known = set(numbers_read)
        with self._in_time():
            self._read_numbers([each for each in self._not_fresh(wanted) if each not in known])
        return [head for head in live if self._is_valid(head)]

    def _is_live_and_valid(self, head: RawItem | None) -> bool:
        """Return whether an item that was just read is live and valid."""
        return head is not None and bool(self._live_and_valid([head]))

    def _is_near_valid(self, found: Entry) -> bool:
        # Generations are checked as for other reads; invalidated tags only after LOCAL_TIMEOUT.
        return (
            is_live(found.head)
            and not self._not_fresh(self._generation)
            and self._is_valid(found.head)
        )

    @contextlib.contextmanager
    def _writing(self, pks: Sequence[str]) -> Iterator[dict[str, Entry]]:
        """Keep the near tier correct during a write; the caller fills the dict with new entries."""
        recent = get_recent_writes(self.using, self.prefix)
        # At the beginning too: an exception from outside may come before the end is noted.
        recent.add(pks)
        # A cache of this prefix may have a near tier even if this one has none.
        near = self._near or find_near(self.using, self.prefix)
        written: dict[str, Entry] = {}
        began_at = 0.0 if near is None else near.begin_write(pks)
        done = False
        try:
            yield written
            done = True
        finally:
            recent.add(pks)
            if near is not None:
                near.end_write(pks, written if done else {}, began_at)
            elif (near := find_near(self.using, self.prefix)) is not None:
                # It was made during the write.
                near.forget(pks)

    def item_key(self, key: str) -> ItemKey:
        """Return the partition and sort key of the entry ``key``, in full as Django makes it."""
        return keys.cache_entry(self.prefix, key)

    @property
    def _near(self) -> NearTier | None:
        if not self.options.keeps_near:
            return None
        return get_near(self.using, self.prefix, self.options)

    def _near_of(self, pk: str) -> NearTier | None:
        return None if self._is_of_session(pk) else self._near

    def _get_near(self, near: NearTier, pk: str, *, counts_misses: bool = True) -> Entry | None:
        return near.get(
            pk,
            self.options.local_timeout,
            self._is_near_valid,
            kept_for=self.options.local_stale,
            counts_misses=counts_misses,
        )

    def _get_stale(self, near: NearTier, pk: str) -> Entry | None:
        """Return an entry that is too old for other reads, while DynamoDB does not answer."""
        return near.get(
            pk,
            self.options.local_stale,
            lambda found: is_live(found.head) and self._is_valid(found.head),
            kept_for=self.options.local_stale,
            counts_misses=False,
        )

    def _is_read_strongly(self, pk: str) -> bool:
        return (
            bool(self.options.consistent_read)
            or pk in get_recent_writes(self.using, self.prefix)
            or self._is_of_session(pk)
        )

    def _is_any_read_strongly(self, wanted: Iterable[ItemKey]) -> bool:
        if self.options.consistent_read:
            return True
        recent = get_recent_writes(self.using, self.prefix)
        return any(key.pk in recent or self._is_of_session(key.pk) for key in wanted)

    def _is_of_session(self, pk: str) -> bool:
        return self.options.consistent_read is None and _SESSIONS in pk

    @property
    def _joins(self) -> bool:
        return not self.options.consistent_read

    def _warn_of_invalid_signature(self) -> None:
        self._warn_once(
            InvalidSignature.__name__,
            "A cache entry in alias %s was not signed with SECRET_KEY or one of the "
            "SECRET_KEY_FALLBACKS. It was treated as missing; further ones are not logged.",
            self.using,
        )

    def _warn_of_unreadable_value(self, error: str) -> None:
        self._warn_once(
            error,
            "A cache entry in alias %s was treated as missing, because its value cannot be "
            "deserialised (%s): its class may have been moved. Further ones are not logged.",
            self.using,
            error,
        )

    def _warn_once(self, error: str, message: str, *args: object) -> None:
        name = self.using, self.prefix, error
        if name not in _warned:
            _warned.add(name)
            logger.warning(
                message,
                *args,
                extra={"dynamodb_using": self.using, "cache_prefix": self.prefix},
            )


def is_same_write(old: RawItem | None, written: Mapping[str, Any]) -> bool:
    """Return whether ``old`` is the result of the write of ``written``."""
    return old is not None and old.get(WRITE) == written.get(WRITE)
