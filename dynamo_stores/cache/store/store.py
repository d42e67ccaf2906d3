"""The cache store: signed values with an exact expiry, one call per operation."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from ... import clock, keys
from ...calls.background import BackgroundWork
from ...calls.batches import MAX_WRITES
from ...concurrency.effects import PLAIN_TYPES, Prepare, Verb, arun, run, twins
from ...concurrency.per_process import PerProcess
from ...concurrency.together import together
from ...conf import DEFAULT_ALIAS, get_config
from ...item_access import Items, Store, raw_keys
from ...keys import ItemKey
from ...models import RawItem
from ..options import CacheOptions, check_prefix
from .bulk import Bulk
from .counters import Counters
from .invalidation import Validity, checked_tags, is_live
from .items import LIFE, CacheEntry, expiry_of, stamps_of, tags_of, write_of
from .near import NearStats, find_near
from .parts import Parts
from .patterns import compile_pattern, literal_start
from .reader import MISSING, Reader
from .recent import get_recent_writes
from .statistics import get_lookups
from .values import Values
from .writer import Writer, expiry_after

if TYPE_CHECKING:
    from .description import EntryDescription
    from .sweeps import CacheStats, Matches, Progress, Sweep

__all__ = ["MISSING", "CacheStore", "expiry_after"]

_DEFAULT_OPTIONS = CacheOptions()


class _Core:
    """The collaborators of all cache stores of one process, alias, prefix and options."""

    def __init__(self, using: str, prefix: str, options: CacheOptions) -> None:
        config = get_config(using)
        indexed = config.cache.expiry_index
        items = _items(using, options, fails_over=True)
        self.values = values = Values(config.store_table, prefix, options, indexed=indexed)
        self.parts = parts = Parts(items, values)
        self.validity = validity = Validity(items, prefix, options)
        recent = get_recent_writes(using, prefix)
        self.reader = reader = Reader(
            items, prefix, options, values=values, parts=parts, validity=validity, recent=recent
        )
        self.writer = writer = Writer(
            items,
            reader,
            values=values,
            parts=parts,
            validity=validity,
            recent=recent,
            indexed=indexed,
        )
        self.counters = Counters(items, reader, writer, values=values, parts=parts)
        self.bulk = Bulk(items, reader, writer, values=values, parts=parts, validity=validity)
        self.items = self.own_items = items
        self.own_reader = reader
        if config.failover is not None:
            # What decides about a write, or is deleted, is read in the own region.
            self.own_items = own = _items(using, options, fails_over=False)
            self.own_reader = Reader(
                own,
                prefix,
                options,
                values=values,
                parts=Parts(own, values),
                validity=Validity(own, prefix, options),
                recent=recent,
            )
        self.is_indexed = indexed
        self.lookups = get_lookups(using)


def _items(using: str, options: CacheOptions, *, fails_over: bool) -> Items[CacheEntry]:
    return Items(
        CacheEntry,
        using,
        timeout=options.operation_timeout,
        keeps_table=True,
        fails_over=fails_over,
    )


def _make(using: str) -> dict[tuple[str, CacheOptions], _Core]:
    return {}


_cores = PerProcess(_make)


class CacheStore(Store):
    """
    A cache of one alias and prefix. Its keys are full keys, as Django's key function makes them.
    Timeouts are in seconds, None for never; 0 and less mean expired.

    Each method on one key is one call if the value fits one item and has no tags. Its calls share
    one ``operation_timeout``; for values in parts, ``clear`` and ``cleanup`` each call has its own.
    All methods raise StoreUnavailable if DynamoDB does not answer in that time. Each method that
    sends something has an async twin with an ``a`` before its name.
    """

    def __init__(
        self,
        using: str = DEFAULT_ALIAS,
        *,
        prefix: str = "",
        options: CacheOptions = _DEFAULT_OPTIONS,
    ) -> None:
        check_prefix(prefix)
        super().__init__(Items(CacheEntry, using))
        self.prefix = prefix
        self.options = options
        self._known: tuple[object, _Core] | None = None

    @property
    def core(self) -> _Core:
        """The collaborators in this process. Raises ConfigurationError for an unknown alias."""
        cores, known = _cores.get(self.using), self._known
        # They are others after a fork, and when the settings change.
        if known is not None and known[0] is cores:
            return known[1]
        name = self.prefix, self.options
        core = cores.get(name) or cores.setdefault(name, _Core(self.using, *name))
        self._known = cores, core
        return core

    def item_key(self, key: str) -> ItemKey:
        """Return the partition and sort key of the entry ``key``, in full as Django makes it."""
        return keys.cache_entry(self.prefix, key)

    async def _get(self, key: str, default: Any = None) -> Any:
        """Return the value, or ``default`` if the key is missing."""
        core = self.core
        value = core.reader.value_of(await core.reader.find(key))
        if value is MISSING:
            core.lookups.add(0, 1)
            return default
        core.lookups.add(1, 0)
        return value

    async def _set(
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
        writer = self.core.writer
        written = await Prepare(lambda: writer.prepare(key, value, timeout, tags), value)
        await writer.commit(key, written)

    async def _add(
        self,
        key: str,
        value: Any,
        timeout: float | None = None,
        tags: Iterable[str] | None = None,
    ) -> bool:
        """Store ``value`` if the key is missing; return whether it was stored."""
        writer = self.core.writer
        written = await Prepare(lambda: writer.prepare(key, value, timeout, tags), value)
        return await writer.commit_new(key, written)

    async def _delete(self, key: str) -> bool:
        """Delete the value and its parts; return whether the key existed."""
        return await self.core.writer.delete(key)

    async def _has_key(self, key: str) -> bool:
        """Return whether the key exists, without reading its value."""
        return await self.core.reader.has_key(key)

    async def _move(self, key: str, new_key: str) -> bool:
        """
        Move the value to ``new_key``, with its expiry and tags; return whether the key existed.

        Not atomic: three calls, a read, a write and a delete.
        """
        core, item_key, moved = self.core, self.item_key(key), False
        while True:
            # Strongly, because an older value would be moved, and the newest deleted.
            found = await core.own_reader.read(item_key, strongly=True)
            value = core.own_reader.value_of(found)
            if found is None or not is_live(found.head) or value is MISSING:
                return moved
            # A value from the cache can be serialised in any thread.
            written = core.writer.prepare_until(
                new_key, value, expiry_of(found.head), tuple(tags_of(found.head))
            )
            await core.writer.commit(new_key, written, stamps_of(found.head))
            moved = True
            if await core.writer.delete_write(item_key, write_of(found.head)):
                return True
            # Another write came between the read and the delete: it is moved as well.

    async def _ttl(self, key: str) -> int | None:
        """Return the milliseconds until the entry expires; None for never, 0 if it is missing."""
        head = await self.core.reader.head(self.item_key(key), LIFE)
        if head is None or not is_live(head):
            return 0
        expiry = expiry_of(head)
        # Moments are rounded up to milliseconds: so what is left never exceeds the timeout.
        return None if expiry is None else max(1, expiry - math.ceil(clock.now() * 1000))

    async def _describe(self, key: str) -> EntryDescription | None:
        """
        Return what the table has under ``key``, without the value, also of an entry that the cache
        does not return any more; None if there is none. Neither the near tier nor ``FAILOVER``
        answers.

        One strongly consistent read of the entry, and one each for its tags and its parts.
        """
        from .description import describe

        core = self.core
        return await describe(
            core.own_items, core.own_reader, core.values, core.parts, self.item_key(key)
        )

    async def _touch(self, key: str, timeout: float | None = None) -> bool:
        """
        Give a live value a new timeout; return whether the key existed. For a value in parts these
        are two calls, and one for each part.
        """
        return await self.core.writer.touch_until(key, expiry_after(timeout))

    async def _touch_until(self, key: str, expiry: int | None) -> bool:
        """Give a live value a new expiry, in ms since the epoch (None: never); see touch."""
        return await self.core.writer.touch_until(key, expiry)

    async def _incr(self, key: str, delta: Any = 1) -> Any:
        """
        Add ``delta`` and return the new value; the expiry stays.

        DynamoDB adds ints itself, so no parallel call is lost. A request whose answer was lost is
        repeated and may then be added twice. Other numbers are compared and set.
        Raises ValueError if the key is missing.
        """
        return await self.core.counters.incr(key, delta)

    async def _incr_or_create(self, key: str, delta: int, timeout: float | None) -> Any:
        """Add ``delta``, or store it with ``timeout`` if the key is missing; atomic."""
        return await self.core.counters.incr_or_create(key, delta, timeout)

    async def _get_many(self, wanted: Iterable[str]) -> dict[str, Any]:
        """
        Return the live values by key: one call per 100 keys.

        Raises StoreUnavailable; its ``found`` holds the values that were read before.
        """
        core, keys_looked_up = self.core, list(wanted)
        values = await core.bulk.get(keys_looked_up)
        core.lookups.add(len(values), len(keys_looked_up) - len(values))
        return values

    async def _set_many(
        self,
        values: Mapping[str, Any],
        timeout: float | None = None,
        tags: Iterable[str] | None = None,
    ) -> list[str]:
        """
        Store all values, one call per 25 (and per 16 MB); return the keys that DynamoDB had not
        written at the deadline.

        Raises StoreUnavailable if DynamoDB did not answer.
        """
        bulk = self.core.bulk
        are_plain = all(type(value) in PLAIN_TYPES for value in values.values())
        prepare = Prepare(
            lambda: bulk.prepare(values, timeout, tags), None if are_plain else values
        )
        return await bulk.commit(await prepare)

    async def _delete_many(self, unwanted: Iterable[str]) -> None:
        """
        Delete all these keys, one call per 25.

        BatchWriteItem returns no deleted items, so parts are left to their TTL and to cleanup.
        Raises StoreUnavailable if a key was not deleted.
        """
        await self.core.bulk.delete(unwanted)

    async def _invalidate_tags(self, tags: Iterable[str]) -> None:
        """
        Make every entry of this prefix with one of ``tags`` invalid, in all versions.

        One write per tag, in parallel, however many entries there are. The entries are deleted
        later, by their TTL or a cleanup.
        """
        validity = self.core.validity

        def invalidate(tag: str) -> Verb[None]:
            return validity.invalidate(keys.tag(self.prefix, tag))

        await together(checked_tags(tags), invalidate, max_concurrency=8)

    def iter_keys(self, pattern: str = "*", *, page_size: int | None = None) -> Iterator[str]:
        """
        Yield the live keys that match ``pattern`` (see :mod:`.patterns`), in no order. A key
        that is written meanwhile may be missing or be yielded twice.

        A Query of the expiry index if there is one, else a Scan of the whole table, in pages of a
        megabyte or of ``page_size`` items.
        """
        pages = self._key_pages(pattern, page_size)
        while (page := run(_next(pages))) is not None:
            yield from page

    async def aiter_keys(
        self, pattern: str = "*", *, page_size: int | None = None
    ) -> AsyncIterator[str]:
        """See :meth:`iter_keys`."""
        pages = self._key_pages(pattern, page_size)
        while (page := await arun(_next(pages))) is not None:
            for key in page:
                yield key

    async def _delete_pattern(self, pattern: str, *, page_size: int | None = None) -> int:
        """
        Delete the keys that match ``pattern``; return their number. Reads like iter_keys, and like
        clear goes on when the table throttles.
        """
        return (await self._delete_matches(pattern, page_size, math.inf)).keys

    async def _delete_some(self, pattern: str, *, seconds: float) -> Matches:
        """
        Delete keys that match ``pattern``, as delete_pattern does; no further page is read, and no
        further 25 keys are deleted, after so many seconds.
        """
        return await self._delete_matches(pattern, None, seconds)

    async def _count_keys(self, pattern: str = "*", *, seconds: float) -> Matches:
        """
        Count the live keys that match ``pattern``. Reads like iter_keys; no further page is read
        after so many seconds.
        """
        from .sweeps import Matches

        until, counted, pages = clock.monotonic() + seconds, 0, 0
        async with aclosing(self._key_pages(pattern, None)) as found:
            async for page in found:
                counted, pages = counted + len(page), pages + 1
                if clock.monotonic() >= until:
                    return Matches(counted, pages, is_whole=False)
        return Matches(counted, pages, is_whole=True)

    async def _clear(self) -> int:
        """
        Delete every item of this prefix, in all versions; return their number. Requests that are
        throttled are sent again, until nothing was processed for a minute.

        A Scan of the whole table, billed by its size; with ``clear_by_index`` a Query of the expiry
        index. With ``clear`` "generation" one write, which makes all entries invalid and returns 0:
        they are deleted later, by their TTL or a cleanup.
        """
        deleted, validity = 0, self.core.validity
        try:
            if validity.has_generation:
                for key in validity.generation:
                    await validity.invalidate(key)
            else:
                deleted = await self._sweep().clear()
        finally:
            # What was deleted before an error must not be served either.
            if (near := find_near(self.using, self.prefix)) is not None:
                near.clear()
        return deleted

    async def _cleanup(
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
        return await self._sweep().cleanup(
            dry_run=dry_run,
            by_index=self.core.is_indexed and not scan,
            segments=segments,
            units_per_second=units_per_second,
            page_size=page_size,
            position=position,
            progress=progress,
        )

    async def _get_stats(self) -> CacheStats:
        """Return the numbers of entries and of expired ones; reads every entry of the prefix."""
        return await self._sweep().stats(by_index=self.core.is_indexed)

    def get_near_stats(self) -> NearStats | None:
        """Return the statistics of this process's near tier, None if it is off."""
        return self.core.reader.get_near_stats()

    get, aget = twins(_get)
    set, aset = twins(_set)
    add, aadd = twins(_add)
    delete, adelete = twins(_delete)
    has_key, ahas_key = twins(_has_key)
    move, amove = twins(_move)
    ttl, attl = twins(_ttl)
    describe, adescribe = twins(_describe)
    touch, atouch = twins(_touch)
    touch_until, atouch_until = twins(_touch_until)
    incr, aincr = twins(_incr)
    incr_or_create, aincr_or_create = twins(_incr_or_create)
    get_many, aget_many = twins(_get_many)
    set_many, aset_many = twins(_set_many)
    delete_many, adelete_many = twins(_delete_many)
    invalidate_tags, ainvalidate_tags = twins(_invalidate_tags)
    delete_pattern, adelete_pattern = twins(_delete_pattern)
    delete_some, adelete_some = twins(_delete_some)
    count_keys, acount_keys = twins(_count_keys)
    clear, aclear = twins(_clear)
    cleanup, acleanup = twins(_cleanup)
    get_stats, aget_stats = twins(_get_stats)

    async def _key_pages(self, pattern: str, page_size: int | None) -> AsyncGenerator[list[str]]:
        matches = compile_pattern(pattern).fullmatch
        pages = self._sweep().keys(
            literal_start(pattern), by_index=self.core.is_indexed, page_size=page_size
        )
        async for page in pages:
            yield list(filter(matches, page))

    async def _delete_matches(self, pattern: str, page_size: int | None, seconds: float) -> Matches:
        from .sweeps import Matches

        until, work, bulk = clock.monotonic() + seconds, BackgroundWork(), self.core.bulk
        deleted = pages = 0
        waiting: list[RawItem] = []
        async with aclosing(self._key_pages(pattern, page_size)) as found:
            async for page in found:
                pages += 1
                waiting += raw_keys(map(self.item_key, page))
                while len(waiting) >= MAX_WRITES and clock.monotonic() < until:
                    group, waiting = waiting[:MAX_WRITES], waiting[MAX_WRITES:]
                    await work.write_all(group, bulk.delete_keys)
                    deleted += len(group)
                if clock.monotonic() >= until:
                    return Matches(deleted, pages, is_whole=False)
        await work.write_all(waiting, bulk.delete_keys)
        return Matches(deleted + len(waiting), pages, is_whole=True)

    def _sweep(self) -> Sweep:
        from .sweeps import Sweep

        core = self.core
        return Sweep(
            core.own_items,
            self.prefix,
            self.options,
            core.own_reader.live_and_valid,
            core.bulk.delete_keys,
        )


async def _next(pages: AsyncIterator[list[str]]) -> list[str] | None:
    return await anext(pages, None)
