"""Reading entries that are live and valid, from the near tier or the table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ... import clock, keys
from ...calls.policy import time_left
from ...concurrency.together import together
from ...exceptions import StoreUnavailable
from ...item_access import Items
from ...keys import ItemKey
from ...models import RawItem
from ..options import CacheOptions
from .codecs import InvalidSignature, UnreadableValue
from .invalidation import Validity, is_live
from .items import LIFE, PARTS, TAGS, WRITE, CacheEntry, tags_of
from .near import Entry, NearStats, NearTier, get_near
from .parts import Parts
from .recent import RecentWrites
from .turns import InTurn, Turns
from .values import Values

logger = logging.getLogger(__name__)

MISSING: Final = object()
# So many values in parts are read side by side.
_JOINED_AT_ONCE = 4
# It is part of the keys of Django's sessions, in the engines cache and cached_db.
_SESSIONS = "django.contrib.sessions."
# What was logged: the alias, the prefix, and the name of the error.
_warned: set[tuple[str, str, str]] = set()


class Reader:
    """Reads entries and checks that they are live and valid. Its coroutines are verbs."""

    def __init__(
        self,
        items: Items[CacheEntry],
        prefix: str,
        options: CacheOptions,
        *,
        values: Values,
        parts: Parts,
        validity: Validity,
        recent: RecentWrites,
    ) -> None:
        self.prefix = prefix
        self.near = get_near(items.using, prefix, options) if options.keeps_near else None
        self._items = items
        self._options = options
        self._values = values
        self._parts = parts
        self._validity = validity
        self._recent = recent
        # What is served stale is no live entry.
        combines = options.combine_reads and not options.stale_timeout
        self._turns = Turns(self._fetch_heads) if combines else None

    def item_key(self, key: str) -> ItemKey:
        """Return the partition and sort key of the entry ``key``, in full as Django makes it."""
        return keys.cache_entry(self.prefix, key)

    async def find(
        self, key: str, *, strongly: bool = False, expired: bool = False
    ) -> Entry | None:
        """
        Return the entry of ``key`` if it is live and valid; with ``expired`` also after its expiry.

        From the near tier if it is on, except with ``strongly``.
        """
        item_key = keys.cache_entry(self.prefix, key)
        near = self.near
        if near is None or strongly or self._is_of_session(item_key.pk):
            found = await self.read(item_key, strongly=strongly)
        else:
            found = self._get_near(near, item_key.pk)
            if found is None:
                found = await self._fetch_near(near, item_key)
        if found is None or expired or not self._options.stale_timeout:
            return found
        return found if is_live(found.head) else None

    def value_of(self, found: Entry | None, default: Any = MISSING) -> Any:
        """
        Return the value of an entry; ``default`` without one, if its signature is invalid, or if it
        cannot be deserialised any more.
        """
        if found is None:
            return default
        try:
            return self._values.read(found)
        except InvalidSignature:
            self._warn_of_invalid_signature()
            return default
        except UnreadableValue as exc:
            self._warn_of_unreadable_value(type(exc.__cause__).__name__)
            return default

    def is_kept(self, head: RawItem | None) -> bool:
        """Return whether the entry may be returned by now: live, or served stale."""
        moment = clock.now() - self._options.stale_timeout
        return head is not None and CacheEntry.is_raw_live(head, moment)

    async def has_key(self, key: str, *, strongly: bool = False) -> bool:
        """Return whether the key exists, without reading its value."""
        return is_live(await self.head(self.item_key(key), LIFE, strongly=strongly))

    async def read(self, key: ItemKey, *, strongly: bool = False) -> Entry | None:
        """Return the entry from the table, also after its expiry if it may be served stale."""
        if self._turns is None or strongly or self._is_read_strongly(key.pk):
            head = await self.head(key, strongly=strongly)
        else:
            seconds = time_left(self._options.operation_timeout)
            head = await InTurn(self._turns, key.pk, seconds, lambda: self.head(key))
        if head is None or not self.is_kept(head):
            return None
        if PARTS not in head:
            return Entry(head)
        found = await self.with_parts(head)
        if found is None and self._parts.keys_of(head):
            # An overwrite may have deleted the parts of this head meanwhile.
            reread = await self.head(key, strongly=True)
            if reread is not None and not is_same_write(reread, head):
                found = await self.with_parts(reread) if self.is_kept(reread) else None
        return found

    async def with_parts(self, head: RawItem) -> Entry | None:
        """Return the entry with its parts, None if one is missing."""
        if PARTS not in head:
            return Entry(head)
        try:
            parts = await self._parts.read(head)
        except InvalidSignature:
            self._warn_of_invalid_signature()
            return None
        return None if parts is None else Entry(head, parts)

    async def head(
        self, key: ItemKey, attributes: Sequence[str] | None = None, *, strongly: bool = False
    ) -> RawItem | None:
        """Return the item under ``key`` unless it is invalid; its expiry is not checked."""
        validity = self._validity
        consistent = strongly or self._is_read_strongly(key.pk)
        if validity.has_generation or validity.numbers.tags_of(key.pk):
            with self._items.in_time():
                return await self._valid_head(key, attributes, consistent=consistent)
        began_at = clock.monotonic()
        head = await self._items.get(key, consistent=consistent, attributes=attributes)
        if head is None or TAGS not in head:
            return head
        with self._items.in_time(began_at):
            return await self._valid_head(key, attributes, consistent=consistent, head=head)

    async def _valid_head(
        self,
        key: ItemKey,
        attributes: Sequence[str] | None,
        *,
        consistent: bool,
        head: RawItem | None = None,
    ) -> RawItem | None:
        """Return the item under ``key``, read with its numbers, unless it is invalid."""
        validity = self._validity
        numbers_read = [] if head is not None else validity.not_fresh(validity.numbers_for(key.pk))
        while True:
            if head is None and numbers_read:
                head = (await validity.read(numbers_read, [key], attributes)).get(key.pk)
            elif head is None:
                head = await self._items.get(key, consistent=consistent, attributes=attributes)
            if head is None:
                return None
            validity.numbers.remember_tags(key.pk, tags_of(head))
            # Tags that this process did not know, or numbers that expired during a slow read.
            more = [
                each
                for each in validity.not_fresh(validity.numbers_of(head))
                if each not in numbers_read
            ]
            if not more:
                return head if validity.is_valid(head) else None
            numbers_read += more
            head = None

    async def find_many(self, pks: Iterable[str]) -> dict[str, Entry]:
        """
        Return the entries that are live and valid, by partition key.

        Raises StoreUnavailable; its ``found`` holds the entries that were read before.
        """
        wanted = list(pks)
        near = self.near
        if near is None:
            return await self._fetch_many(wanted)
        found = {}
        for pk in wanted:
            kept = self._get_near(near, pk)
            if kept is not None:
                found[pk] = kept
        rest = [pk for pk in wanted if pk not in found]
        try:
            read = await near.fetch(
                rest,
                self._fetch_many,
                join=self._joins,
                wait=time_left(self._options.operation_timeout),
            )
            # A read that was joined may have begun before a tag was invalidated here.
            is_valid = self._validity.is_valid
            found |= {pk: entry for pk, entry in read.items() if is_valid(entry.head)}
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

    async def live_and_valid(
        self, heads: Iterable[RawItem], numbers_read: Iterable[ItemKey] = ()
    ) -> list[RawItem]:
        """Return the live and valid ones of ``heads``, which were read with ``numbers_read``."""
        now = clock.now()
        live = [head for head in heads if CacheEntry.is_raw_live(head, now)]
        validity = self._validity
        numbers, has_generation = validity.numbers, validity.has_generation
        if not (has_generation or numbers.knows_tags or any(TAGS in head for head in live)):
            return live
        wanted: list[ItemKey] = []
        for head in live:
            numbers.remember_tags(head["PK"]["S"], tags_of(head))
            if has_generation or TAGS in head:
                wanted += validity.numbers_of(head)
        known = set(numbers_read)
        await validity.read([each for each in validity.not_fresh(wanted) if each not in known])
        return [head for head in live if validity.is_valid(head)]

    async def is_live_and_valid(self, head: RawItem | None) -> bool:
        """Return whether an item that was just read is live and valid."""
        return head is not None and bool(await self.live_and_valid([head]))

    def get_near_stats(self) -> NearStats | None:
        """Return the statistics of this process's near tier, None if it is off."""
        return None if self.near is None else self.near.stats()

    async def _fetch_near(self, near: NearTier, key: ItemKey) -> Entry | None:
        async def fetch(pks: list[str]) -> dict[str, Entry]:
            found = await self.read(key)
            return {} if found is None else {key.pk: found}

        wait = time_left(self._options.operation_timeout)
        try:
            found = await near.fetch([key.pk], fetch, join=self._joins, wait=wait)
        except StoreUnavailable:
            stale = self._get_stale(near, key.pk)
            if stale is None:
                raise
            return stale
        entry = found.get(key.pk)
        # A read that was joined may have begun before a tag was invalidated here.
        return entry if entry is not None and self._validity.is_valid(entry.head) else None

    async def _fetch_many(self, pks: Sequence[str]) -> dict[str, Entry]:
        try:
            heads = await self._fetch_heads(pks)
        except StoreUnavailable as exc:
            exc.found = await self._whole((exc.found or {}).values())
            raise
        return await self._whole(heads.values())

    async def _fetch_heads(self, pks: Sequence[str]) -> dict[str, RawItem]:
        """
        Return the heads of the entries that are live and valid, by partition key.

        Raises StoreUnavailable; its ``found`` holds the heads that were read before.
        """
        validity = self._validity
        numbers_read: list[ItemKey] = []
        if validity.has_generation or validity.numbers.knows_tags:
            numbers_read = validity.not_fresh(
                each for pk in pks for each in validity.numbers_for(pk)
            )
        try:
            with self._items.in_time():
                read: Iterable[RawItem]
                if numbers_read:
                    wanted = [ItemKey(pk, keys.ENTRY) for pk in pks]
                    read = (await validity.read(numbers_read, wanted)).values()
                else:
                    read = await self._items.get_many(
                        [{"PK": {"S": pk}, "SK": {"S": keys.ENTRY}} for pk in pks],
                        consistent=self._is_any_read_strongly(pks),
                    )
                heads = await self.live_and_valid(read, numbers_read)
        except StoreUnavailable as exc:
            read = (exc.responses or {}).get(self._items.table.table_name, [])
            exc.found = {
                head["PK"]["S"]: head
                for head in read
                if head["SK"]["S"] == keys.ENTRY
                and is_live(head)
                and not validity.not_fresh(validity.numbers_of(head))
                and validity.is_valid(head)
            }
            raise
        return {head["PK"]["S"]: head for head in heads}

    async def _whole(self, heads: Iterable[RawItem]) -> dict[str, Entry]:
        whole: dict[str, Entry] = {}
        in_parts = []
        for head in heads:
            if PARTS in head:
                in_parts.append(head)
            else:
                whole[head["PK"]["S"]] = Entry(head)
        joined = await together(in_parts, self.with_parts, max_concurrency=_JOINED_AT_ONCE)
        return whole | {entry.head["PK"]["S"]: entry for entry in joined if entry is not None}

    def _is_near_valid(self, found: Entry) -> bool:
        # Generations are checked as for other reads; invalidated tags only after LOCAL_TIMEOUT.
        validity = self._validity
        if validity.has_generation and validity.not_fresh(validity.generation):
            return False
        return CacheEntry.is_raw_live(found.head, clock.now()) and validity.is_valid(found.head)

    def _get_near(self, near: NearTier, pk: str) -> Entry | None:
        return near.get(
            pk,
            self._options.local_timeout,
            self._is_near_valid,
            kept_for=self._options.local_stale,
        )

    def _get_stale(self, near: NearTier, pk: str) -> Entry | None:
        """Return an entry that is too old for other reads, while DynamoDB does not answer."""
        return near.get(
            pk,
            self._options.local_stale,
            lambda found: is_live(found.head) and self._validity.is_valid(found.head),
            kept_for=self._options.local_stale,
            counts_misses=False,
        )

    def _is_read_strongly(self, pk: str) -> bool:
        return bool(self._options.consistent_read) or pk in self._recent or self._is_of_session(pk)

    def _is_any_read_strongly(self, pks: Iterable[str]) -> bool:
        return bool(self._options.consistent_read) or any(map(self._is_read_strongly, pks))

    def _is_of_session(self, pk: str) -> bool:
        # They are read strongly, unless the option says otherwise.
        return self._options.consistent_read is None and _SESSIONS in pk

    @property
    def _joins(self) -> bool:
        return not self._options.consistent_read

    def _warn_of_invalid_signature(self) -> None:
        self._warn_once(
            InvalidSignature.__name__,
            "A cache entry in alias %s was not signed with SECRET_KEY or one of the "
            "SECRET_KEY_FALLBACKS. It was treated as missing; further ones are not logged.",
            self._items.using,
        )

    def _warn_of_unreadable_value(self, error: str) -> None:
        self._warn_once(
            error,
            "A cache entry in alias %s was treated as missing, because its value cannot be "
            "deserialised (%s): its class may have been moved. Further ones are not logged.",
            self._items.using,
            error,
        )

    def _warn_once(self, error: str, message: str, *args: object) -> None:
        name = self._items.using, self.prefix, error
        if name not in _warned:
            _warned.add(name)
            logger.warning(
                message,
                *args,
                extra={"dynamodb_using": self._items.using, "cache_prefix": self.prefix},
            )


def is_same_write(old: RawItem | None, written: Mapping[str, Any]) -> bool:
    """Return whether ``old`` is the result of the write of ``written``."""
    return old is not None and old.get(WRITE) == written.get(WRITE)
