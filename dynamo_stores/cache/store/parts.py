"""Values in parts: reading, touching and deleting the parts of values over one item's size."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterable

from ...calls.batches import batch_get, batch_write, execute_in_parallel
from ...conf import get_config
from ...exceptions import StoreUnavailable
from ...expressions import exists, put, remove
from ...item_access import ConditionFailed
from ...keys import ItemKey
from ...models import RawItem, ttl_of
from .codecs import InvalidSignature
from .items import CacheEntry, CachePart, data_of
from .prefixed import PrefixedStore
from .values import Values

logger = logging.getLogger(__name__)


class PartsStore(PrefixedStore[CacheEntry]):
    """Reads and changes the parts of values; ``head`` is the entry to which parts belong."""

    kind = CacheEntry

    @functools.cached_property
    def _values(self) -> Values:
        table = get_config(self.using).store_table
        return Values(table, self.prefix, self.options, indexed=self._is_indexed)

    @property
    def _is_indexed(self) -> bool:
        return get_config(self.using).cache.expiry_index

    def _get_items(self, wanted: Iterable[ItemKey], *, strongly: bool = False) -> list[RawItem]:
        table = self._table
        return batch_get(
            table.connection,
            table.table_name,
            self._raw_keys(wanted),
            consistent=strongly,
        )

    def _write_items(
        self, requests: Iterable[RawItem]
    ) -> tuple[list[RawItem], StoreUnavailable | None]:
        table = self._table
        return batch_write(table.connection, table.table_name, requests)

    def _read_parts(self, head: RawItem) -> list[bytes] | None:
        """Return the parts of ``head`` in order, None if one is missing."""
        wanted = self._values.part_keys(head)
        # Strongly consistent: the parts were written before the head, and must not be missed.
        found = {
            item["PK"]["S"]: data
            for item in self._get_in_groups(wanted)
            if (data := data_of(item)) is not None
        }
        if len(found) < len(wanted):
            return None
        return [found[key.pk] for key in wanted]

    def _touch_parts(self, head: RawItem, removal: int | None) -> None:
        ttl = remove(CachePart.ttl) if removal is None else put(CachePart.ttl, ttl_of(removal))

        def touch(key: ItemKey) -> None:
            try:
                with self._in_time():
                    self._update(key, ttl, exists(CachePart.pk))
            except ConditionFailed:
                # The value was overwritten or deleted meanwhile.
                logger.debug("A part of a touched value does not exist any more.")

        execute_in_parallel(self._parts_of(head), touch, max_concurrency=4)

    def _delete_parts(self, head: RawItem) -> None:
        try:
            self._delete_in_groups(self._parts_of(head))
        except StoreUnavailable as exc:
            # The outcome of the operation is decided; the TTL and a cleanup delete the parts.
            logger.debug("The parts of a value were not deleted: %s", exc)

    def _parts_of(self, head: RawItem) -> list[ItemKey]:
        try:
            return self._values.part_keys(head)
        except InvalidSignature:
            return []
