"""The cache store: values with an exact expiry, under signed bytes, one call each."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from .. import clock, keys
from ..calls.batches import batch_get, batch_write
from ..calls.policy import deadline
from ..codecs import Codec, Forged, get_codec
from ..conf import DEFAULT_ALIAS, CacheOptions, wrong_prefix
from ..exceptions import ConfigurationError, ThrottlingError
from ..keys import ItemKey
from ..models import CacheEntry
from .base import RawItem, Refused, Store

logger = logging.getLogger(__name__)

MISSING: Final = object()
_DEFAULT_OPTIONS = CacheOptions()
# DynamoDB's numbers have 38 digits; larger ints are stored as bytes.
_MAX_NUMBER = 10**38
_warned: set[tuple[str, str]] = set()


class CacheStore(Store[CacheEntry]):
    """
    A cache of one alias and prefix, spoken to with complete keys (Django's key function made
    them). Timeouts are in seconds, None for never; 0 and less mean expired.

    Every verb on one key is one call. All share the time of ``operation_timeout`` and raise
    StoreUnavailable when DynamoDB cannot answer in it.
    """

    kind = CacheEntry

    def __init__(
        self,
        using: str = DEFAULT_ALIAS,
        *,
        prefix: str = "",
        options: CacheOptions = _DEFAULT_OPTIONS,
    ) -> None:
        super().__init__(using)
        if wrong := wrong_prefix(prefix):
            raise ConfigurationError(f"The cache's KEY_PREFIX {wrong}.")
        self.prefix = prefix
        self.options = options

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value, or ``default`` where there is none alive."""
        item_key = self._key(key)
        with self._in_time():
            entry = self._get(item_key, consistent=self.options.consistent_read)
        return self._value(entry, default)

    def has_key(self, key: str) -> bool:
        """Return whether there is a live value, without reading it."""
        with self._in_time():
            entry = self._get(
                self._key(key),
                consistent=self.options.consistent_read,
                attributes=["PK", "SK", "e"],
            )
        return entry is not None and CacheEntry.is_raw_live(entry, clock.now())

    def set(self, key: str, value: Any, timeout: float | None = None) -> None:
        """Store ``value``, whatever was there; expired at once, it is deleted instead."""
        if _is_over(timeout):
            self.delete(key)
            return
        entry = self._entry(self._key(key), value, timeout)
        with self._in_time():
            self._put(entry)

    def add(self, key: str, value: Any, timeout: float | None = None) -> bool:
        """Store ``value`` if nothing live is there; return whether it was stored."""
        if _is_over(timeout):
            return not self.has_key(key)
        entry = self._entry(self._key(key), value, timeout)
        now_ms = clock.now_ms()
        is_free = CacheEntry.pk.does_not_exist() | (CacheEntry.expiry <= now_ms)
        try:
            with self._in_time():
                self._put(entry, is_free)
        except Refused as refused:
            # The answer to our own put was lost, and we met it when we tried again.
            return _is_write(refused.old, entry.write)
        return True

    def incr(self, key: str, delta: Any = 1) -> Any:
        """
        Add ``delta`` and return the new value; the expiry stays. Raises ValueError where there is
        nothing live.

        Ints are added by DynamoDB itself, so parallel calls all count. A call whose answer is lost
        is sent again and may then count twice. Other numbers are compared and set.
        """
        item_key = self._key(key)
        with self._in_time():
            if type(delta) is not int:
                return self._replace_number(item_key, delta, None)
            live = self._is_live() & CacheEntry.number.exists()
            try:
                changed = self._update(item_key, [CacheEntry.number.add(delta)], live)
            except Refused as refused:
                return self._replace_number(item_key, delta, refused.old)
        return CacheEntry.number.deserialize(changed["n"]["N"])

    def touch(self, key: str, timeout: float | None = None) -> bool:
        """Give a live value a new timeout; return False, creating nothing, where there is none."""
        if _is_over(timeout):
            return self.delete(key)
        expiry = _expiry(timeout)
        if expiry is None:
            actions: list[Action] = [CacheEntry.expiry.remove(), CacheEntry.ttl.remove()]
        else:
            actions = [CacheEntry.expiry.set(expiry), CacheEntry.ttl.set(_ttl(expiry))]
        try:
            with self._in_time():
                self._update(self._key(key), actions, self._is_live())
        except Refused:
            return False
        return True

    def delete(self, key: str) -> bool:
        """Delete the value; return whether it was alive. Dead ones are left to DynamoDB's TTL."""
        try:
            with self._in_time():
                self._delete(self._key(key), self._is_live())
        except Refused:
            return False
        return True

    def get_many(self, wanted: Iterable[str]) -> dict[str, Any]:
        """
        Return the live values by key: one call per 100 keys.

        Raises StoreUnavailable; what had been read by then is in its ``found``.
        """
        by_pk = {self._key(key).pk: key for key in wanted}
        try:
            with self._in_time():
                items = self._read_many(by_pk)
        except ThrottlingError as exc:
            read = (exc.responses or {}).get(self._table.table_name, [])
            exc.found = self._values(read, by_pk)  # type: ignore[attr-defined]
            raise
        return self._values(items, by_pk)

    def set_many(self, values: Mapping[str, Any], timeout: float | None = None) -> list[str]:
        """
        Store all values, one call per 25 (and per 16 MB), and return the keys that DynamoDB had
        not taken when the time was up. Raises StoreUnavailable where it did not answer.
        """
        if _is_over(timeout):
            self.delete_many(values)
            return []
        by_pk = {self._key(key).pk: key for key in values}
        requests = [
            {"PutRequest": {"Item": self._serialize(self._entry(self._key(key), value, timeout))}}
            for key, value in values.items()
        ]
        with self._in_time():
            left, _ = self._write_many(requests)
        return [by_pk[request["PutRequest"]["Item"]["PK"]["S"]] for request in left]

    def delete_many(self, unwanted: Iterable[str]) -> None:
        """Delete all these keys, one call per 25; raises StoreUnavailable if any is left."""
        requests = [
            {"DeleteRequest": {"Key": key}} for key in self._dedupe(map(self._key, unwanted))
        ]
        with self._in_time():
            _, throttled = self._write_many(requests)
        if throttled is not None:
            raise throttled

    def clear(self) -> int:
        """
        Delete every entry of this prefix, in all versions, and return how many there were.

        A Scan of the whole table, paid by the table's size, page by page; each request has the
        store's whole time for itself.
        """
        deleted = 0
        for page in self._pages():
            requests = [{"DeleteRequest": {"Key": key}} for key in page]
            for start in range(0, len(requests), 25):
                with self._in_time():
                    _, throttled = self._write_many(requests[start : start + 25])
                if throttled is not None:
                    raise throttled
            deleted += len(requests)
        return deleted

    def _pages(self) -> Iterator[list[RawItem]]:
        table = self._table
        kwargs = {
            "TableName": table.table_name,
            "FilterExpression": "begins_with(PK, :prefix)",
            "ExpressionAttributeValues": {":prefix": {"S": keys.cache_prefix(self.prefix)}},
            "ProjectionExpression": "PK, SK",
            "ConsistentRead": True,
        }
        while True:
            with self._in_time():
                page = self._call(table, "Scan", dict(kwargs))
            yield page["Items"]
            if not page.get("LastEvaluatedKey"):
                return
            kwargs["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _read_many(self, pks: Iterable[str]) -> list[RawItem]:
        table = self._table
        wanted = [{"PK": {"S": pk}, "SK": {"S": keys.ENTRY}} for pk in pks]
        consistent = self.options.consistent_read
        return batch_get(table.connection, table.table_name, wanted, consistent=consistent)

    def _write_many(self, requests: list[RawItem]) -> tuple[list[RawItem], ThrottlingError | None]:
        table = self._table
        return batch_write(table.connection, table.table_name, requests)

    def _replace_number(self, key: ItemKey, delta: Any, old: RawItem | None) -> Any:
        while True:
            if old is None:
                old = self._get(key, consistent=True)
            value = self._value(old, MISSING)
            if old is None or value is MISSING:
                raise ValueError("There is no such key in the cache.")
            new = value + delta
            entry = self._entry(key, new, None)
            before = self._items.from_raw_data(old)
            entry.expiry, entry.ttl = before.expiry, before.ttl
            unchanged = CacheEntry.write == before.write
            if before.number is not None:
                unchanged &= CacheEntry.number == before.number
            try:
                self._put(entry, unchanged)
            except Refused as refused:
                if _is_write(refused.old, entry.write):
                    return new
                old = refused.old
                if old is None:
                    raise ValueError("There is no such key in the cache.") from None
            else:
                return new

    def _key(self, key: str) -> ItemKey:
        return keys.cache_entry(self.prefix, key)

    def _in_time(self) -> Any:
        return deadline(self.options.operation_timeout)

    @staticmethod
    def _is_live() -> Condition:
        alive: Condition = CacheEntry.pk.exists() & (
            CacheEntry.expiry.does_not_exist() | (CacheEntry.expiry > clock.now_ms())
        )
        return alive

    @property
    def _codec(self) -> Codec:
        options = self.options
        return get_codec(options.serializer, options.compressor, options.compress_over)

    def _entry(self, key: ItemKey, value: Any, timeout: float | None) -> CacheEntry:
        expiry = _expiry(timeout)
        entry: CacheEntry = self._items(
            key.pk,
            key.sk,
            write=f"{clock.now_ms():013}{os.urandom(5).hex()}",
            original=key.original,
            expiry=expiry,
            ttl=None if expiry is None else _ttl(expiry),
        )
        if type(value) is int and -_MAX_NUMBER < value < _MAX_NUMBER:
            entry.number = value
        else:
            entry.sealed = self._codec.seal(value, key.pk.encode(), entry.write.encode())
        return entry

    def _value(self, item: RawItem | None, default: Any) -> Any:
        if item is None or not CacheEntry.is_raw_live(item, clock.now()):
            return default
        if "n" in item:
            return CacheEntry.number.deserialize(item["n"]["N"])
        try:
            sealed, write = item["v"]["B"], item["w"]["S"]
            return self._codec.open(sealed, item["PK"]["S"].encode(), write.encode())
        except (Forged, KeyError):
            self._warn_of_forged()
            return default

    def _values(self, items: Iterable[RawItem], by_pk: Mapping[str, str]) -> dict[str, Any]:
        found = {by_pk[item["PK"]["S"]]: self._value(item, MISSING) for item in items}
        return {key: value for key, value in found.items() if value is not MISSING}

    def _warn_of_forged(self) -> None:
        if (self.using, self.prefix) not in _warned:
            _warned.add((self.using, self.prefix))
            logger.warning(
                "A cache entry in alias %s was not signed with one of this project's secrets and "
                "was taken for missing; further ones are not logged.",
                self.using,
                extra={"dynamodb_using": self.using, "cache_prefix": self.prefix},
            )


def _is_write(item: RawItem | None, write: str) -> bool:
    return item is not None and item.get("w") == {"S": write}


def _is_over(timeout: float | None) -> bool:
    return timeout is not None and timeout <= 0


def _expiry(timeout: float | None) -> int | None:
    """Return the moment of expiry in milliseconds since the epoch."""
    return None if timeout is None else math.ceil((clock.now() + timeout) * 1000)


def _ttl(expiry: int) -> int:
    """Return the first whole second at which ``expiry``, in milliseconds, has passed."""
    return -(-expiry // 1000)
