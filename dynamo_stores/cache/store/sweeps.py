"""Operations on all entries of a prefix: clear, cleanup, statistics, keys; page by page, paced."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import clock, keys
from ...calls.batches import execute_in_parallel
from ...calls.connection import TableConnection
from ...calls.pages import pages
from ...calls.policy import deadline
from ...expressions import equals, exists, missing, to_arguments
from ...item_access import ConditionFailed
from ...keys import ItemKey
from ...models import RawItem
from ..options import CacheOptions
from .background import BackgroundWork, Pace, Write
from .items import EXPIRY, LIFE, ORIGINAL, WRITE, CacheEntry, original_of, write_of

# The head of a part is written after it, within the time that a write takes. A part that is older
# than this, and whose head has another write, belongs to no value.
ORPHANED_AFTER = 3600.0
_DELETES_AT_ONCE = 8
# Read units a second for everything but cleanup: about 4 MB.
_UNITS_PER_SECOND = 1000.0

Call = Callable[[TableConnection, str, dict[str, Any]], Any]
# Returns those of some entries that are live and valid.
Filter = Callable[[list[RawItem]], list[RawItem]]
# Deletes the items with some keys; returns the keys of those that were not, and the reason.
Delete = Write[RawItem]


@dataclass(frozen=True)
class CacheStats:
    """How many entries a prefix has, and how many of them expired but were not deleted yet."""

    total_items: int
    expired_items: int


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
    sent again when the table throttles.
    """

    def __init__(
        self,
        table: TableConnection,
        call: Call,
        prefix: str,
        options: CacheOptions,
        live_and_valid: Filter,
        delete: Delete,
    ) -> None:
        self._table = table
        self._store_call = call
        self._prefix = prefix
        self._options = options
        self._filter = live_and_valid
        self._delete = delete
        self._work = BackgroundWork()

    def clear(self) -> int:
        """Delete every item of the prefix; return their number."""
        deleted = 0
        sources = (
            self._index_queries()
            if self._options.clear_by_index
            else [("Scan", self._scan("PK, SK"))]
        )
        for operation, kwargs in sources:
            for page in self._pages(operation, kwargs, _UNITS_PER_SECOND):
                found = [{"PK": item["PK"], "SK": item["SK"]} for item in page["Items"]]
                for start in range(0, len(found), 25):
                    self._work.write_all(found[start : start + 25], self._delete)
                deleted += len(found)
        return deleted

    def stats(self, *, by_index: bool) -> CacheStats:
        """Return the statistics of the prefix."""
        total = expired = 0
        shown = "PK, SK, e, g, t"
        sources = self._index_queries(shown) if by_index else [("Scan", self._scan(shown))]
        for operation, kwargs in sources:
            for page in self._pages(operation, kwargs, _UNITS_PER_SECOND):
                entries = [item for item in page["Items"] if item["SK"]["S"] == keys.ENTRY]
                total += len(entries)
                expired += len(entries) - len(self._live_and_valid(entries))
        return CacheStats(total, expired)

    def keys(self, start: str, *, by_index: bool, page_size: int | None) -> Iterator[list[str]]:
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
            for page in self._pages(operation, arguments, _UNITS_PER_SECOND):
                yield [
                    keys.cache_key(self._prefix, item["PK"]["S"], original_of(item))
                    for item in self._live_and_valid(page["Items"])
                ]

    def cleanup(
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

        def delete_all(dead: list[RawItem]) -> int:
            pace = Pace(units_per_second)

            def delete(item: RawItem) -> bool:
                return self._delete_unchanged(item, pace)

            return sum(execute_in_parallel(dead, delete, max_concurrency=_DELETES_AT_ONCE))

        def sweep(numbered: tuple[int, tuple[str, dict[str, Any]]]) -> None:
            number, (operation, kwargs) = numbered
            name = str(number)
            if name in done.position:
                if (start := done.position[name]) is None:
                    return
                kwargs = {**kwargs, "ExclusiveStartKey": start}
            if page_size is not None:
                kwargs = {**kwargs, "Limit": page_size}
            for page in self._pages(operation, kwargs, units_per_second):
                dead = list(self._dead(page["Items"]))
                removed = len(dead) if dry_run else delete_all(dead)
                done.looked_at += len(page["Items"])
                done.removed += removed
                done.position[name] = page.get("LastEvaluatedKey")
                if progress is not None:
                    progress(done)

        # Shards of the index are read one after the other: each Query is short.
        execute_in_parallel(
            list(enumerate(sources)), sweep, max_concurrency=1 if by_index else segments
        )
        return done.removed

    def _dead(self, items: list[RawItem]) -> Iterator[RawItem]:
        now = clock.now()
        heads: dict[str, str] = {}
        live = [
            item
            for item in items
            if item["SK"]["S"] == keys.ENTRY and CacheEntry.is_raw_live(item, now)
        ]
        live_and_valid = {item["PK"]["S"] for item in self._live_and_valid(live)}
        invalid = {pk for item in live if (pk := item["PK"]["S"]) not in live_and_valid}
        for item in items:
            ttl = item.get("TTL")
            if not all(_is_whole(item[name]) for name in ("TTL", EXPIRY) if name in item):
                continue  # not written by this package
            is_due = ttl is not None and int(ttl["N"]) <= now
            if item["SK"]["S"] != keys.PART:
                if is_due or item["PK"]["S"] in invalid:
                    yield item
                continue
            head, write = keys.head_of_part(item["PK"]["S"])
            if not write[:13].isdecimal() or int(write[:13]) > (now - ORPHANED_AFTER) * 1000:
                continue
            if not is_due and head not in heads:
                heads[head] = self._write_of(head)
            if is_due or heads[head] != write:
                yield item

    def _write_of(self, pk: str) -> str:
        kwargs = {
            "TableName": self._table.table_name,
            "Key": ItemKey(pk, keys.ENTRY).raw(),
            "ProjectionExpression": WRITE,
            "ConsistentRead": True,
        }
        return write_of(self._call("GetItem", kwargs).get("Item") or {})

    def _delete_unchanged(self, item: RawItem, pace: Pace | None = None) -> bool:
        """Delete ``item`` if it is unchanged since it was read; return whether it was deleted."""
        condition = exists(CacheEntry.pk)
        for attribute, name in ((CacheEntry.ttl, "TTL"), (CacheEntry.expiry, EXPIRY)):
            condition &= (
                equals(attribute, int(item[name]["N"])) if name in item else missing(attribute)
            )
        if write := write_of(item):
            condition &= equals(CacheEntry.write, write)
        kwargs = {
            "TableName": self._table.table_name,
            "Key": {"PK": item["PK"], "SK": item["SK"]},
            "ReturnConsumedCapacity": "INDEXES",
            **to_arguments(condition),
        }
        try:
            answer = self._call("DeleteItem", kwargs)
        except ConditionFailed:
            return False
        if pace is not None:
            pace.consumed((answer.get("ConsumedCapacity") or {}).get("CapacityUnits", 1.0))
        return True

    def _live_and_valid(self, items: list[RawItem]) -> list[RawItem]:
        return self._work.call(lambda: self._filter(items))

    def _pages(
        self, operation: str, kwargs: dict[str, Any], units_per_second: float
    ) -> Iterator[dict[str, Any]]:
        def call(arguments: dict[str, Any]) -> dict[str, Any]:
            return self._call(operation, arguments)

        return pages(call, kwargs, units_per_second=units_per_second)

    def _call(self, operation: str, kwargs: dict[str, Any]) -> dict[str, Any]:
        def send() -> dict[str, Any]:
            with deadline(self._options.operation_timeout):
                answer: dict[str, Any] = self._store_call(self._table, operation, kwargs)
                return answer

        return self._work.call(send)

    def _scan(self, shown: str) -> dict[str, Any]:
        kwargs: dict[str, Any] = {
            "TableName": self._table.table_name,
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
            "TableName": self._table.table_name,
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
