"""Values in parts: reading, touching and deleting the parts of values over one item's size."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ...concurrency.together import together
from ...exceptions import StoreUnavailable
from ...expressions import exists, put, remove
from ...item_access import ConditionFailed, Items
from ...keys import ItemKey
from ...models import RawItem, ttl_of
from .codecs import InvalidSignature
from .items import CacheEntry, CachePart, data_of
from .values import Values

logger = logging.getLogger(__name__)


class Parts:
    """The parts of values; ``head`` is the entry that has them. Its coroutines are verbs."""

    def __init__(self, items: Items[CacheEntry], values: Values) -> None:
        self._items = items
        self._values = values

    def keys_of(self, head: RawItem) -> list[ItemKey]:
        """Return the keys of the parts in order; none if the value is in the head."""
        try:
            return self._values.part_keys(head)
        except InvalidSignature:
            return []

    async def read(self, head: RawItem) -> list[bytes] | None:
        """Return the parts in order, None if one is missing. Raises InvalidSignature."""
        wanted = self._values.part_keys(head)
        # Strongly consistent: the parts were written before the head, and must not be missed.
        found = {
            item["PK"]["S"]: data
            for item in await self._items.get_large(wanted)
            if (data := data_of(item)) is not None
        }
        if len(found) < len(wanted):
            return None
        return [found[key.pk] for key in wanted]

    async def write(self, parts: Sequence[RawItem]) -> None:
        """Write the parts of a new value. Raises StoreUnavailable if one was not written."""
        if parts:
            await self._items.put_large(parts)

    async def touch(self, head: RawItem, removal: int | None) -> None:
        """Let the parts be deleted at ``removal``, in ms since the epoch (None: never)."""
        ttl = remove(CachePart.ttl) if removal is None else put(CachePart.ttl, ttl_of(removal))

        async def touch(key: ItemKey) -> None:
            try:
                await self._items.update(key, ttl, exists(CachePart.pk))
            except ConditionFailed:
                # The value was overwritten or deleted meanwhile.
                logger.debug("A part of a touched value does not exist any more.")

        await together(self.keys_of(head), touch, max_concurrency=4)

    async def delete(self, head: RawItem) -> None:
        """Delete the parts, as far as DynamoDB does so in time."""
        unwanted = self.keys_of(head)
        if not unwanted:
            return
        try:
            await self._items.delete_large(unwanted)
        except StoreUnavailable as exc:
            # The outcome of the operation is decided; the TTL and a cleanup delete the parts.
            logger.debug("The parts of a value were not deleted: %s", exc)
