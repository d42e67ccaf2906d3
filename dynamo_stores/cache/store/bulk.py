"""Reads and writes of many keys: 100 reads or 25 writes in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ... import keys
from ...exceptions import OperationTimeoutError, StoreUnavailable, ThrottlingError
from ...item_access import Items, raw_keys
from ...keys import ItemKey
from ...models import RawItem
from .invalidation import Validity, checked_tags
from .items import CacheEntry
from .near import Entry
from .parts import Parts
from .reader import MISSING, Reader
from .values import Values, Written, new_write
from .writer import Writer, expiry_after


class Bulk:
    """Reads and writes many entries. Its coroutines are verbs."""

    def __init__(
        self,
        items: Items[CacheEntry],
        reader: Reader,
        writer: Writer,
        *,
        values: Values,
        parts: Parts,
        validity: Validity,
    ) -> None:
        self._items = items
        self._reader = reader
        self._writer = writer
        self._values = values
        self._parts = parts
        self._validity = validity

    async def get(self, wanted: Iterable[str]) -> dict[str, Any]:
        """
        Return the live values by key: one call per 100 keys.

        Raises StoreUnavailable; its ``found`` holds the values that were read before.
        """
        by_pk = {self._reader.item_key(key).pk: key for key in wanted}
        try:
            found = await self._reader.find_many(by_pk)
        except StoreUnavailable as exc:
            exc.found = self._values_of(exc.found or {}, by_pk)
            raise
        return self._values_of(found, by_pk)

    def prepare(
        self,
        values: Mapping[str, Any],
        timeout: float | None = None,
        tags: Iterable[str] | None = None,
    ) -> dict[str, Written | None]:
        """Serialise the values for :meth:`commit`; sends nothing."""
        checked = checked_tags(tags)
        if timeout is not None and timeout <= 0:
            return dict.fromkeys(values)
        write, expiry, item_key = self._values.write, expiry_after(timeout), self._reader.item_key
        name = new_write()
        return {
            key: write(item_key(key), value, expiry, checked, name) for key, value in values.items()
        }

    async def commit(self, all_written: Mapping[str, Written | None]) -> list[str]:
        """Write what :meth:`prepare` returned; return the keys that were not written."""
        by_pk = {
            self._reader.item_key(key).pk if written is None else written.head["PK"]["S"]: key
            for key, written in all_written.items()
        }
        with self._writer.writing(list(by_pk)) as kept:
            failed = set(await self._commit(all_written, by_pk, kept))
            for pk, key in by_pk.items():
                if key in failed:
                    kept.pop(pk, None)
        return [key for key in all_written if key in failed]

    async def _commit(
        self,
        all_written: Mapping[str, Written | None],
        by_pk: Mapping[str, str],
        kept: dict[str, Entry],
    ) -> list[str]:
        validity = self._validity
        tags = {tag for written in all_written.values() if written for tag in written.tags}
        stamps = await validity.stamps_for(tags) if tags or validity.has_generation else {}
        requests, failed = [], []
        for pk, key in by_pk.items():
            written = all_written[key]
            if written is None:
                requests.append({"DeleteRequest": {"Key": ItemKey(pk, keys.ENTRY).raw()}})
                continue
            if written.parts:
                try:
                    await self._parts.write(written.parts)
                except (ThrottlingError, OperationTimeoutError):
                    failed.append(key)
                    continue
            head = {**written.head, **stamps} if stamps else written.head
            self._writer.keep_written(kept, head, written)
            requests.append({"PutRequest": {"Item": head}})
        with self._items.in_time():
            left, _ = await self._items.write_many(requests)
        for request in left:
            ((_, content),) = request.items()
            failed.append(by_pk[(content.get("Item") or content["Key"])["PK"]["S"]])
        return failed

    async def delete(self, unwanted: Iterable[str]) -> None:
        """
        Delete all these keys, one call per 25.

        BatchWriteItem returns no deleted items, so parts are left to their TTL and to cleanup.
        Raises StoreUnavailable if a key was not deleted.
        """
        _, error = await self.delete_keys(raw_keys(map(self._reader.item_key, unwanted)))
        if error is not None:
            raise error

    async def delete_keys(
        self, found: list[RawItem]
    ) -> tuple[list[RawItem], StoreUnavailable | None]:
        """Delete the items with these keys; return those that were not, and the reason."""
        with self._writer.writing([key["PK"]["S"] for key in found]), self._items.in_time():
            left, error = await self._items.write_many(
                [{"DeleteRequest": {"Key": key}} for key in found]
            )
        return [request["DeleteRequest"]["Key"] for request in left], error

    def _values_of(self, found: Mapping[str, Any], by_pk: Mapping[str, str]) -> dict[str, Any]:
        value_of = self._reader.value_of
        read = {by_pk[pk]: value_of(each) for pk, each in found.items()}
        return {key: value for key, value in read.items() if value is not MISSING}
