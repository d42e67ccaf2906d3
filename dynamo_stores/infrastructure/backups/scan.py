"""A paced parallel Scan of a whole table, page by page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ... import clock
from ...calls.background import BackgroundWork, Pace
from ...calls.connection import get_connection
from ...calls.item_size import item_size
from ...calls.pages import pages
from ...concurrency.effects import Verb
from .lines import RawItem
from .pacing import PATIENCE, PageSize, read_units
from .together import Together


@dataclass(frozen=True)
class Page:
    """A page of one segment; ``next_key`` is None if it is the last."""

    segment: int
    items: list[RawItem]
    next_key: RawItem | None


@dataclass(frozen=True)
class TableScan:
    """
    A Scan of ``table`` in so many segments, at most ``units_per_second`` read units in all.

    ``attributes`` are the parameters of a projection. ``mean_bytes`` is the mean size of an item,
    if it is known.
    """

    using: str
    table: str
    segments: int = 4
    units_per_second: float | None = None
    consistent: bool = True
    mean_bytes: float | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def run(
        self,
        handle: Callable[[Page], None],
        positions: Mapping[int, RawItem | None] | None = None,
    ) -> None:
        """
        Call ``handle`` with each page, in one thread for each segment.

        A segment in ``positions`` begins after that key, and is left out if it is None. Raises the
        first error of a segment; the others end after their page.
        """
        starts = positions or {}
        todo = [each for each in range(self.segments) if starts.get(each, {}) is not None]
        if not todo:
            return
        all_segments = Together()
        work = BackgroundWork(PATIENCE)
        pace = None if self.units_per_second is None else Pace(self.units_per_second)
        connection = get_connection(self.using).here

        async def scan(segment: int) -> None:
            size = PageSize(
                self.units_per_second,
                consistent=self.consistent,
                segments=len(todo),
                mean_bytes=self.mean_bytes,
            )

            next_at = clock.monotonic()

            async def call(request: dict[str, Any]) -> dict[str, Any]:
                nonlocal next_at
                # Before the request and not after it, so that each page is handled at once.
                await all_segments.wait(next_at - clock.monotonic())
                request["Limit"] = size.limit

                def send() -> Verb[dict[str, Any]]:
                    # Also before each repetition of a throttled request.
                    all_segments.check()
                    return connection.call("Scan", dict(request))

                answer = await work.call(send)
                found = sum(map(item_size, answer["Items"]))
                size.measured(len(answer["Items"]), found)
                if pace is not None:
                    consumed = (answer.get("ConsumedCapacity") or {}).get("CapacityUnits", 0.0)
                    needed = read_units(found, consistent=self.consistent)
                    seconds = pace.seconds_for(max(consumed, needed))
                    next_at = clock.monotonic() + seconds
                return answer

            request: dict[str, Any] = {
                "TableName": self.table,
                "ConsistentRead": self.consistent,
                **self.attributes,
            }
            if self.segments > 1:
                request |= {"Segment": segment, "TotalSegments": self.segments}
            if starts.get(segment):
                request["ExclusiveStartKey"] = starts[segment]
            async for answer in pages(call, request):
                handle(Page(segment, answer["Items"], answer.get("LastEvaluatedKey") or None))

        all_segments.run(todo, scan)
