"""Reads and writes of many keys: 100 reads or 25 writes in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ... import keys
from ...exceptions import OperationTimeoutError, StoreUnavailable, ThrottlingError
from ...keys import ItemKey
from ...models import RawItem
from .entries import MISSING
from .near import Entry
from .values import Written
from .writing import WritingStore


class ManyStore(WritingStore):
    """The methods on many keys."""

    def get_many(self, wanted: Iterable[str]) -> dict[str, Any]:
        """
        Return the live values by key: one call per 100 keys.

        Raises StoreUnavailable; its ``found`` holds the values that were read before.
        """
        by_pk = {self.item_key(key).pk: key for key in wanted}
        try:
            found = self._find_many(by_pk)
        except StoreUnavailable as exc:
            exc.found = self._values_of(exc.found or {}, by_pk)
            raise
        values = self._values_of(found, by_pk)
        self.count_lookups(len(by_pk), len(values))
        return values

    def set_many(
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
        return self.commit_many(self.prepare_many(values, timeout, tags))

    def prepare_many(
        self,
        values: Mapping[str, Any],
        timeout: float | None = None,
        tags: Iterable[str] | None = None,
    ) -> dict[str, Written | None]:
        """Serialise the values for :meth:`commit_many`; sends nothing."""
        all_tags = list(tags) if tags and not isinstance(tags, str) else tags
        return {key: self.prepare(key, value, timeout, all_tags) for key, value in values.items()}

    def commit_many(self, all_written: Mapping[str, Written | None]) -> list[str]:
        """Write what :meth:`prepare_many` returned; return the keys that were not written."""
        by_pk = {self.item_key(key).pk: key for key in all_written}
        with self._writing(list(by_pk)) as kept:
            failed = set(self._commit_many(all_written, by_pk, kept))
            for pk, key in by_pk.items():
                if key in failed:
                    kept.pop(pk, None)
        return [key for key in all_written if key in failed]

    def _commit_many(
        self,
        all_written: Mapping[str, Written | None],
        by_pk: Mapping[str, str],
        kept: dict[str, Entry],
    ) -> Iterable[str]:
        tags = {tag for written in all_written.values() if written for tag in written.tags}
        stamps = self.stamps_for(tags) if tags or self.options.clear == "generation" else {}
        requests = []
        for pk, key in by_pk.items():
            written = all_written[key]
            if written is None:
                requests.append({"DeleteRequest": {"Key": ItemKey(pk, keys.ENTRY).raw()}})
                continue
            try:
                self._put_in_groups(written.parts)
            except (ThrottlingError, OperationTimeoutError):
                yield key
            else:
                head = {**written.head, **stamps}
                self._keep_written(kept, head, written)
                requests.append({"PutRequest": {"Item": head}})
        with self._in_time():
            left, _ = self._write_items(requests)
        for request in left:
            ((_, content),) = request.items()
            yield by_pk[(content.get("Item") or content["Key"])["PK"]["S"]]

    def delete_many(self, unwanted: Iterable[str]) -> None:
        """
        Delete all these keys, one call per 25.

        BatchWriteItem returns no deleted items, so parts are left to their TTL and to cleanup.
        Raises StoreUnavailable if a key was not deleted.
        """
        _, error = self._delete_keys(self._raw_keys(map(self.item_key, unwanted)))
        if error is not None:
            raise error

    def _delete_keys(self, found: list[RawItem]) -> tuple[list[RawItem], StoreUnavailable | None]:
        """Delete the items with these keys; return those that were not, and the reason."""
        with self._writing([key["PK"]["S"] for key in found]), self._in_time():
            left, error = self._write_items([{"DeleteRequest": {"Key": key}} for key in found])
        return [request["DeleteRequest"]["Key"] for request in left], error

    def _values_of(self, found: Mapping[str, Any], by_pk: Mapping[str, str]) -> dict[str, Any]:
        read = {by_pk[pk]: self.value_of(each) for pk, each in found.items()}
        return {key: value for key, value in read.items() if value is not MISSING}
