"""Operations on all entries of a prefix: clear, cleanup, statistics, keys; page by page, paced."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import clock, keys
from ...calls.background import BackgroundWork, Pace, Write
from ...calls.pages import pages
from ...concurrency.effects import Verb
from ...concurrency.together import together
from ...expressions import equals, exists, missing, to_arguments
from ...item_access import ConditionFailed, Items
from ...keys import ItemKey
from ...models import RawItem
from ..options import CacheOptions
from .items import EXPIRY, LIFE, ORIGINAL, WRITE, CacheEntry, original_of, write_of

# The head of a part is written after it, within the time that a write takes. A part that is older
# than this, and whose head has another write, belongs to no value.
ORPHANED_AFTER = 3600.0
_DELETES_AT_ONCE = 8
# Read units a second for everything but cleanup: about 4 MB.
_UNITS_PER_SECOND = 1000.0

# Returns those of some entries that are live and valid: a verb.
Filter = Callable[[list[RawItem]], Verb[list[RawItem]]]
# Deletes the items with some keys; returns the keys of those that were not, and the reason.
Delete = Write[RawItem]


@dataclass(frozen=True)
class CacheStats:
    """How many entries a prefix has, and how many of them expired but were not deleted yet."""

    total_items: int
    expired_items: int


@dataclass(frozen=True)
class Matches:
    """
    How many live keys matched a pattern, in how many pages; ``is_whole``: whether these were all
    pages, and not only those that could be read in the given time.
    """

    keys: int
    pages: int
    is_whole: bool


@dataclass
class Progress:
    """
    The progress of a cleanup: items ``looked_at`` and ``removed`` (with ``dry_run``: found).

    ``position`` has the key of each segment at which to resume, None if it is done; it is JSON.
    """

    looked_at: int = 0
    removed: int = 0
    position: dict[str, Any] = field(default_factory=dict)


class Sweep:
    """
    Reads and deletes all items of one prefix. Each request has its own operation timeout, and is
    sent again when the table throttles. Its coroutines are verbs.
    """

    def __init__(
        self,
        items: Items[CacheEntry],
        prefix: str,
        options: CacheOptions,
        live_and_valid: Filter,
        delete: Delete,
    ) -> None:
        self._items = items
        self._prefix = prefix
        self._options = options
        self._filter = live_and_valid
        self._delete = delete
        self._work = BackgroundWork()

    async def clear(self) -> int:
        """Delete every item of the prefix; return their number."""
        deleted = 0
        sources = (
            self._index_queries()
            if self._options.clear_by_index
            else [("Scan", self._scan("PK, SK"))]
        )
        for operation, kwargs in sources:
            async for page in self._pages(operation, kwargs, _UNITS_PER_SECOND):
                found = [{"PK": item["PK"], "SK": item["SK"]} for item in page["Items"]]
                for start in range(0, len(found), 25):
                    await self._work.write_all(found[start : start + 25], self._delete)
                deleted += len(found)
        return deleted

    async def stats(self, *, by_index: bool) -> CacheStats:
        """Return the statistics of the prefix."""
        total = expired = 0
        shown = "PK, SK, e, g, t"
        sources = self._index_queries(shown) if by_index else [("Scan", self._scan(shown))]
        for operation, kwargs in sources:
            async for page in self._pages(operation, kwargs, _UNITS_PER_SECOND):
                entries = [item for item in page["Items"] if item["SK"]["S"] == keys.ENTRY]
                total += len(entries)
                expired += len(entries) - len(await self._live_and_valid(entries))
        return CacheStats(total, expired)

    async def keys(
        self, start: str, *, by_index: bool, page_size: int | None
    ) -> AsyncIterator[list[str]]:
        """Yield the live keys that begin with ``start``, and all hashed ones, page by page."""
        shown = ", ".join([*LIFE, ORIGINAL])
        if by_index:
            sources = self._index_queries(shown, since=clock.now_ms())
        else:
            kwargs = self._scan(shown)
            kwargs["FilterExpression"] = (
                "SK = :entry AND (begins_with(PK, :start) OR begins_with(PK, :hashes))"
            )
            kwargs["ExpressionAttributeValues"] = {
                ":entry": {"S": keys.ENTRY},
                ":start": {"S": keys.cache_prefix(self._prefix) + start},
                ":hashes": {"S": keys.cache_hashes(self._prefix)},
            }
            sources = [("Scan", kwargs)]
        for operation, arguments in sources:
            if page_size is not None:
                arguments["Limit"] = page_size
            async for page in self._pages(operation, arguments, _UNITS_PER_SECOND):
                live = await self._live_and_valid(page["Items"])
                yield [
                    keys.cache_key(self._prefix, item["PK"]["S"], original_of(item))
                    for item in live
                ]

    async def cleanup(
        self,
        *,
        dry_run: bool,
        by_index: bool,
        segments: int,
        units_per_second: float,
        page_size: int | None,
        position: Mapping[str, Any] | None,
        progress: Callable[[Progress], None] | None,
    ) -> int:
        """Delete expired items; return their number."""
        shown = ", ".join([*LIFE, WRITE, "#ttl"])
        sources = (
            self._index_queries(shown, until=clock.now_ms())
            if by_index
            else [
                ("Scan", {**self._scan(shown), "Segment": number, "TotalSegments": segments})
                for number in range(segments)
            ]
        )
        done = Progress(position=dict(position or {}))

        async def delete_all(dead: list[RawItem]) -> int:
            pace = Pace(units_per_second)

            async def delete(item: RawItem) -> bool:
                return await self._delete_unchanged(item, pace)

            return sum(await together(dead, delete, max_concurrency=_DELETES_AT_ONCE))

        async def sweep(numbered: tuple[int, tuple[str, dict[str, Any]]]) -> None:
            number, (operation, kwargs) = numbered
            name = str(number)
            if name in done.position:
                if (start := done.position[name]) is None:
                    return
                kwargs = {**kwargs, "ExclusiveStartKey": start}
            if page_size is not None:
                kwargs = {**kwargs, "Limit": page_size}
            async for page in self._pages(operation, kwargs, units_per_second):
                dead = await self._dead(page["Items"])
                removed = len(dead) if dry_run else await delete_all(dead)
                done.looked_at += len(page["Items"])
                done.removed += removed
                done.position[name] = page.get("LastEvaluatedKey")
                if progress is not None:
                    progress(done)

        # Shards of the index are read one after the other: each Query is short.
        await together(list(enumerate(sources)), sweep, max_concurrency=1 if by_index else segments)
        return done.removed

    async def _dead(self, items: list[RawItem]) -> list[RawItem]:
        now = clock.now()
        dead = []
        heads: dict[str, str] = {}
        live = [
            item
            for item in items
            if item["SK"]["S"] == keys.ENTRY and CacheEntry.is_raw_live(item, now)
        ]
        live_and_valid = {item["PK"]["S"] for item in await self._live_and_valid(live)}
        invalid = {pk for item in live if (pk := item["PK"]["S"]) not in live_and_valid}
        for item in items:
            ttl = item.get("TTL")
            if not all(_is_whole(item[name]) for name in ("TTL", EXPIRY) if name in item):
                continue  # not written by this package
            is_due = ttl is not None and int(ttl["N"]) <= now
            if item["SK"]["S"] != keys.PART:
                if is_due or item["PK"]["S"] in invalid:
                    dead.append(item)
                continue
            head, write = keys.head_of_part(item["PK"]["S"])
            if not write[:13].isdecimal() or int(write[:13]) > (now - ORPHANED_AFTER) * 1000:
                continue
            if not is_due and head not in heads:
                heads[head] = await self._write_of(head)
            if is_due or heads[head] != write:
                dead.append(item)
        return dead

    async def _write_of(self, pk: str) -> str:
        key = ItemKey(pk, keys.ENTRY)
        request = {"Key": key.raw(), "ProjectionExpression": WRITE, "ConsistentRead": True}
        return write_of((await self._call("GetItem", request)).get("Item") or {})

    async def _delete_unchanged(self, item: RawItem, pace: Pace) -> bool:
        """Delete ``item`` if it is unchanged since it was read; return whether it was deleted."""
        condition = exists(CacheEntry.pk)
        for attribute, name in ((CacheEntry.ttl, "TTL"), (CacheEntry.expiry, EXPIRY)):
            condition &= (
                equals(attribute, int(item[name]["N"])) if name in item else missing(attribute)
            )
        if write := write_of(item):
            condition &= equals(CacheEntry.write, write)
        request = {
            "Key": {"PK": item["PK"], "SK": item["SK"]},
            "ReturnConsumedCapacity": "INDEXES",
            **to_arguments(condition),
        }
        try:
            answer = await self._call("DeleteItem", request)
        except ConditionFailed:
            return False
        await pace.consumed((answer.get("ConsumedCapacity") or {}).get("CapacityUnits", 1.0))
        return True

    async def _live_and_valid(self, items: list[RawItem]) -> list[RawItem]:
        return await self._work.call(lambda: self._filter(items))

    def _pages(
        self, operation: str, request: dict[str, Any], units_per_second: float
    ) -> AsyncIterator[dict[str, Any]]:
        async def call(arguments: dict[str, Any]) -> dict[str, Any]:
            return await self._call(operation, arguments)

        return pages(call, request, units_per_second=units_per_second)

    async def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        return await self._work.call(lambda: self._items.call(operation, request))

    def _scan(self, shown: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = {
            "FilterExpression": "begins_with(PK, :prefix)",
            "ExpressionAttributeValues": {":prefix": {"S": keys.cache_prefix(self._prefix)}},
            "ProjectionExpression": shown,
            "ConsistentRead": True,
        }
        if "#ttl" in shown:
            kwargs["ExpressionAttributeNames"] = {"#ttl": "TTL"}
        return kwargs

    def _index_queries(
        self, shown: str = "PK, SK", *, until: int | None = None, since: int | None = None
    ) -> list[tuple[str, dict[str, Any]]]:
        kwargs: dict[str, Any] = {
            "IndexName": "GSI1",
            "KeyConditionExpression": "GSI1PK = :shard",
            "ProjectionExpression": shown if shown.startswith("PK") else f"PK, SK, {shown}",
        }
        values: dict[str, Any] = {}
        if until is not None:
            kwargs["KeyConditionExpression"] += " AND GSI1SK < :until"
            values[":until"] = {"S": f"{until:015}"}
        if since is not None:
            kwargs["KeyConditionExpression"] += " AND GSI1SK >= :since"
            values[":since"] = {"S": f"{since:015}"}
        if "#ttl" in shown:
            kwargs["ExpressionAttributeNames"] = {"#ttl": "TTL"}
        return [
            (
                "Query",
                {**kwargs, "ExpressionAttributeValues": {**values, ":shard": {"S": shard}}},
            )
            for shard in keys.expiry_index_shards(self._prefix)
        ]


def _is_whole(value: dict[str, Any]) -> bool:
    return str(value.get("N", "")).isdecimal()
