"""A sample of a table's items: how many have no TTL, and how many are just over a unit boundary."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field

from ..calls.control import get_control
from ..calls.item_size import KB, item_size
from ..infrastructure.backups.pacing import read_units
from ..infrastructure.backups.scan import Page, TableScan

# An item is just over a boundary by so many bytes at most.
WRITE_BYTES, READ_BYTES = 50, 200


@dataclass
class Over:
    """How many items are just over a boundary, and the units of all sampled items."""

    bytes: int
    items: int = 0
    units: int = 0


@dataclass
class Sample:
    """
    The first ``items`` of ``table``, which a Scan read for ``units`` read units. ``ttl_attribute``
    is None without TTL; ``without_ttl`` counts the items that do not have it.
    """

    table: str
    ttl_attribute: str | None = None
    items: int = 0
    units: float = 0.0
    without_ttl: int = 0
    just_over_write: Over = field(default_factory=lambda: Over(WRITE_BYTES))
    just_over_read: Over = field(default_factory=lambda: Over(READ_BYTES))

    def count(self, size: int, *, has_ttl: bool) -> None:
        """Count an item of ``size`` bytes."""
        self.items += 1
        self.without_ttl += self.ttl_attribute is not None and not has_ttl
        for over, boundary in ((self.just_over_write, KB), (self.just_over_read, 4 * KB)):
            over.units += max(1, math.ceil(size / boundary))
            over.items += size > boundary and 0 < size % boundary <= over.bytes


class _Enough(Exception):
    """As many items were read as were asked for."""


def sample(using: str, table: str, items: int, units_per_second: float) -> Sample:
    """
    Read at most ``items`` of ``table`` by a Scan of ``units_per_second`` read units, and return
    what they are like. It costs half a read unit for each 4 KB. Raises StoreUnavailable.
    """
    found = Sample(table, get_control(using).ttl_attribute(table))

    def handle(page: Page) -> None:
        found.units += read_units(sum(map(item_size, page.items)), consistent=False)
        for item in page.items:
            if found.items < items:
                found.count(item_size(item), has_ttl=found.ttl_attribute in item)
        if found.items >= items:
            raise _Enough

    scan = TableScan(using, table, segments=1, units_per_second=units_per_second, consistent=False)
    with contextlib.suppress(_Enough):
        scan.run(handle)
    return found
