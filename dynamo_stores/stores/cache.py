"""The cache store: values with an exact expiry, under signed bytes, one call each."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from .. import clock, keys
from ..calls.batches import MAX_WRITES, chunks
from ..codecs import Forged
from ..exceptions import OperationTimeoutError, StoreUnavailable, ThrottlingError
from ..keys import ItemKey
from ..models import CacheEntry, RawItem, ttl_of
from ..patterns import compile_pattern, literal_start
from .base import Refused
from .parts import PartsStore
from .sweeps import CacheStats, Progress, Sweep
from .values import MAX_NUMBER, Written

logger = logging.getLogger(__name__)

MISSING: Final = object()
_warned: set[tuple[str, str]] = set()


class CacheStore(PartsStore):
    """
    A cache of one alias and prefix, spoken to with complete keys (Django's key function made
    them). Timeouts are in seconds, None for never; 0 and less mean expired.

    Every verb on one key is one call where the value fits one item. Its calls share the time of
    ``operation_timeout``; those for a value in parts, ``clear`` and ``cleanup`` have it each. All
    raise StoreUnavailable when DynamoDB cannot answer in it.
    """

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or ``default`` where there is none alive."""
        head = self._head(key)
        value = self._value(head, MISSING)
        if value is MISSING and head is not None and _is_live(head) and self._parts_of(head):
            # An overwrite may have taken the parts of this head along meanwhile.
            again = self._head(key, strongly=True)
            if again is not None and not _is_same_write(again, head):
                value = self._value(again, MISSING)
        return default if value is MISSING else value

    def get_with_expiry(self, key: str) -> tuple[Any, int | None]:
        """Return the value (``MISSING``: none) and when it expires, in ms since the epoch."""
        head = self._head(key)
        value = self._value(head, MISSING)
        return value, int(head["e"]["N"]) if head is not None and "e" in head else None

    def has_key(self, key: str) -> bool:
        """Return whether there is a live value, without reading it."""
        return _is_live(self._head(key, attributes=["PK", "SK", "e"]))

    def set(self, key: str, value: Any, timeout: float | None = None) -> None:
        """Store ``value``, whatever was there; expired at once, it is deleted instead."""
        self.commit(key, self.prepare(key, value, timeout))

    def prepare(self, key: str, value: Any, timeout: float | None = None) -> Written | None:
        """Return what :meth:`commit` writes, None for a delete; serialises and sends nothing."""
        if timeout is not None and timeout <= 0:
            return None
        return self.prepare_until(key, value, expiry_after(timeout))

    def prepare_until(self, key: str, value: Any, expiry: int | None) -> Written:
        """Return the same for a value that expires at ``expiry``, in ms since the epoch."""
        return self._values.write(self._key(key), value, expiry)

    def commit(self, key: str, written: Written | None) -> None:
        """
        Write what :meth:`prepare` returned: parts first, head last.

        A value in parts takes those of its predecessor along. A small one does not ask what was
        there: the answer would be as large as that.
        """
        if written is None:
            self.delete(key)
            return
        self._write_parts(written.parts)
        with self._in_time():
            old = self._put(written.head, return_old=bool(written.parts))
        if old is not None and not _is_same_write(old, written.head):
            self._delete_parts(old)

    def add(self, key: str, value: Any, timeout: float | None = None) -> bool:
        """Store ``value`` if nothing live is there; return whether it was stored."""
        return self.commit_new(key, self.prepare(key, value, timeout))

    def commit_new(self, key: str, written: Written | None) -> bool:
        """Write what :meth:`prepare` returned if nothing live is there; return whether it was."""
        if written is None:
            return not self.has_key(key)
        if written.parts and self.has_key(key):
            return False
        self._write_parts(written.parts)
        is_free = CacheEntry.pk.does_not_exist() | (CacheEntry.expiry <= clock.now_ms())
        try:
            with self._in_time():
                self._put(written.head, is_free)
        except Refused as refused:
            if _is_same_write(refused.old, written.head):
                # The answer to our own put was lost, and we met it when we tried again.
                return True
            self._delete_parts(written.head)
            return False
        return True

    def ttl(self, key: str) -> int | None:
        """Return the milliseconds that the entry has left, None for ever, 0 for none alive."""
        head = self._head(key, attributes=["PK", "SK", "e"])
        if head is None or not _is_live(head):
            return 0
        return int(head["e"]["N"]) - clock.now_ms() if "e" in head else None

    def incr_or_create(self, key: str, delta: int, timeout: float | None) -> Any:
        """Add ``delta``, or store it with ``timeout`` where there is nothing live; atomic."""
        while True:
            try:
                return self.incr(key, delta)
            except ValueError:
                if self.add(key, delta, timeout):
                    return delta
                if timeout is not None and timeout <= 0:
                    return delta

    def incr(self, key: str, delta: Any = 1) -> Any:
        """
        Add ``delta`` and return the new value; the expiry stays. Raises ValueError where there is
        nothing live.

        Ints are added by DynamoDB itself, so parallel calls all count. A call whose answer is lost
        is sent again and may then count twice. Other numbers are compared and set.
        """
        item_key = self._key(key)
        with self._in_time():
            if type(delta) is not int or abs(delta) >= MAX_NUMBER:
                return self._replace_number(item_key, delta, None)
            # DynamoDB refuses a sum of over 38 digits; it then becomes bytes, as a set would.
            room = MAX_NUMBER - 1 - abs(delta)
            fits = CacheEntry.number.between(-room, room)
            try:
                changed = self._update(item_key, [CacheEntry.number.add(delta)], _live() & fits)
            except Refused as refused:
                return self._replace_number(item_key, delta, refused.old)
        return CacheEntry.number.deserialize(changed["n"]["N"])

    def touch(self, key: str, timeout: float | None = None) -> bool:
        """Give a live value a new timeout; return False, creating nothing, where there is none."""
        return self.touch_until(key, expiry_after(timeout))

    def touch_until(self, key: str, expiry: int | None) -> bool:
        """The same with the moment of expiry, in ms since the epoch; None is for ever."""
        if expiry is not None and expiry <= clock.now_ms():
            return self.delete(key)
        item_key = self._key(key)
        # Set to what they are, these come back in the answer: a value in parts has more to touch.
        actions: list[Action] = [
            CacheEntry.write.set(CacheEntry.write),
            CacheEntry.parts.set(CacheEntry.parts | 1),
        ]
        if expiry is None:
            actions += [CacheEntry.expiry.remove(), CacheEntry.ttl.remove()]
        else:
            actions += [CacheEntry.expiry.set(expiry), CacheEntry.ttl.set(ttl_of(expiry))]
        if self._is_indexed:
            actions.append(CacheEntry.gsi1sk.set(keys.expiry_index_sort_key(item_key.pk, expiry)))
        try:
            with self._in_time():
                changed = self._update(item_key, actions, _live() & CacheEntry.write.exists())
        except Refused:
            return False
        self._touch_parts({"PK": {"S": item_key.pk}, **changed}, expiry)
        return True

    def delete(self, key: str) -> bool:
        """Delete the value and its parts; return whether it was alive."""
        with self._in_time():
            old = self._delete(self._key(key))
        if old is not None:
            self._delete_parts(old)
        return _is_live(old)

    def get_many(self, wanted: Iterable[str]) -> dict[str, Any]:
        """
        Return the live values by key: one call per 100 keys.

        Raises StoreUnavailable; what had been read by then is in its ``found``.
        """
        by_pk = {self._key(key).pk: key for key in wanted}
        try:
            with self._in_time():
                heads = self._get_items(ItemKey(pk, keys.ENTRY) for pk in by_pk)
        except StoreUnavailable as exc:
            read = (exc.responses or {}).get(self._table.table_name, [])
            exc.found = self._found(read, by_pk)
            raise
        return self._found(heads, by_pk)

    def set_many(self, values: Mapping[str, Any], timeout: float | None = None) -> list[str]:
        """
        Store all values, one call per 25 (and per 16 MB), and return the keys that DynamoDB had
        not taken when the time was up. Raises StoreUnavailable where it did not answer.
        """
        return self.commit_many(self.prepare_many(values, timeout))

    def prepare_many(
        self, values: Mapping[str, Any], timeout: float | None = None
    ) -> dict[str, Written | None]:
        """Return what :meth:`commit_many` writes; serialises and sends nothing."""
        return {key: self.prepare(key, value, timeout) for key, value in values.items()}

    def commit_many(self, all_written: Mapping[str, Written | None]) -> list[str]:
        """Write what :meth:`prepare_many` returned; return the keys that were not taken."""
        failed: list[str] = []
        by_pk = {}
        for key, written in all_written.items():
            try:
                self._write_parts(written.parts if written is not None else ())
            except (ThrottlingError, OperationTimeoutError):
                failed.append(key)
            else:
                by_pk[self._key(key).pk] = key
        requests = [
            {"PutRequest": {"Item": written.head}}
            if (written := all_written[key]) is not None
            else {"DeleteRequest": {"Key": raw_key}}
            for key, raw_key in zip(
                by_pk.values(),
                self._raw_keys(ItemKey(pk, keys.ENTRY) for pk in by_pk),
                strict=True,
            )
        ]
        with self._in_time():
            left, _ = self._write_items(requests)
        for request in left:
            ((_, content),) = request.items()
            failed.append(by_pk[(content.get("Item") or content["Key"])["PK"]["S"]])
        return failed

    def delete_many(self, unwanted: Iterable[str]) -> None:
        """
        Delete all these keys, one call per 25; raises StoreUnavailable if any is left.

        BatchWriteItem does not say what was there, so parts are left to their TTL and to cleanup.
        """
        found = self._raw_keys(map(self._key, unwanted))
        with self._in_time():
            _, why = self._write_items([{"DeleteRequest": {"Key": key}} for key in found])
        if why is not None:
            raise why

    def iter_keys(self, pattern: str = "*", *, page_size: int | None = None) -> Iterator[str]:
        """
        Yield the live keys that match ``pattern`` (see :mod:`dynamo_stores.patterns`), as they
        come; one that is written meanwhile may be missing or come twice.

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
        expiry index lists.
        """
        return self._sweep.clear()

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
        side by side, which also finds parts older than an hour whose entry names another write.
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
        return Sweep(self._table, self._call, self.prefix, self.options)

    def _key(self, key: str) -> ItemKey:
        return keys.cache_entry(self.prefix, key)

    def _head(
        self, key: str, attributes: list[str] | None = None, *, strongly: bool = False
    ) -> RawItem | None:
        consistent = strongly or self.options.consistent_read
        with self._in_time():
            return self._get(self._key(key), consistent=consistent, attributes=attributes)

    def _value(self, head: RawItem | None, default: Any) -> Any:
        if head is None or not _is_live(head):
            return default
        try:
            parts = self._read_parts(head) if "p" in head else ()
            return default if parts is None else self._values.read(head, parts)
        except Forged:
            self._warn_of_forged()
            return default

    def _found(self, heads: Iterable[RawItem], by_pk: Mapping[str, str]) -> dict[str, Any]:
        found = {by_pk[head["PK"]["S"]]: self._value(head, MISSING) for head in heads}
        return {key: value for key, value in found.items() if value is not MISSING}

    def _replace_number(self, key: ItemKey, delta: Any, old: RawItem | None) -> Any:
        while True:
            if old is None:
                old = self._get(key, consistent=True)
            value = self._value(old, MISSING)
            if old is None or value is MISSING:
                raise ValueError("There is no such key in the cache.")
            new = value + delta
            before = self._items.from_raw_data(old)
            expiry = int(before.expiry) if before.expiry is not None else None
            written = self._values.write(key, new, expiry)
            unchanged = CacheEntry.write == before.write
            if before.number is not None:
                unchanged &= CacheEntry.number == before.number
            unchanged &= (
                CacheEntry.expiry.does_not_exist()
                if before.expiry is None
                else CacheEntry.expiry == before.expiry
            )
            try:
                self._put(written.head, unchanged)
            except Refused as refused:
                if _is_same_write(refused.old, written.head):
                    return new
                old = refused.old
                if old is None:
                    raise ValueError("There is no such key in the cache.") from None
            else:
                return new

    def _warn_of_forged(self) -> None:
        if (self.using, self.prefix) not in _warned:
            _warned.add((self.using, self.prefix))
            logger.warning(
                "A cache entry in alias %s was not signed with one of this project's secrets and "
                "was taken for missing; further ones are not logged.",
                self.using,
                extra={"dynamodb_using": self.using, "cache_prefix": self.prefix},
            )


def expiry_after(timeout: float | None) -> int | None:
    """Return the moment ``timeout`` seconds from now, in milliseconds since the epoch."""
    return None if timeout is None else math.ceil((clock.now() + timeout) * 1000)


def _live() -> Condition:
    now = clock.now_ms()
    live: Condition = CacheEntry.pk.exists() & (
        CacheEntry.expiry.does_not_exist() | (CacheEntry.expiry > now)
    )
    return live


def _is_live(head: RawItem | None) -> bool:
    return head is not None and CacheEntry.is_raw_live(head, clock.now())


def _is_same_write(old: RawItem | None, written: RawItem) -> bool:
    return old is not None and old.get("w") == written["w"]
