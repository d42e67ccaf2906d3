"""How fast a table is read or written: a share of its capacity, and pages of a fitting size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...calls.item_size import KB, item_size
from ..live import LiveTable
from .lines import RawItem

# A table of one unit needs minutes for an item of 400 KB; nothing else is processed meanwhile.
PATIENCE = 900.0
# A page of a Scan has at most 1 MB.
_PAGE_BYTES = 2**20
_MOST_ITEMS = 2000
_LEAST_UNITS = 4.0
# The first page is small, because what DynamoDB says about sizes is hours old; it doubles.
_FIRST_ITEMS = 2


def read_rate(description: Mapping[str, Any], share: float, units: float | None) -> float | None:
    """
    Return the read units a second: ``units``, or the ``share`` of the provisioned capacity.

    None for an on-demand table without ``units``: not paced.
    """
    if units is not None:
        return units
    if _is_on_demand(description):
        return None
    capacity = _capacity(description, "ReadCapacityUnits")
    return None if capacity is None else share * capacity


def write_rate(description: Mapping[str, Any], share: float, units: float | None) -> float | None:
    """Return the write units a second; the index with the least capacity counts, too."""
    if units is not None:
        return units
    if _is_on_demand(description):
        return None
    indexes = description.get("GlobalSecondaryIndexes") or ()
    found = [_capacity(each, "WriteCapacityUnits") for each in (description, *indexes)]
    capacities = [each for each in found if each is not None]
    return share * min(capacities) if capacities else None


def _is_on_demand(description: Mapping[str, Any]) -> bool:
    # Its indexes may still show capacity that they do not have.
    return LiveTable(description).billing_mode == "PAY_PER_REQUEST"


def _capacity(of: Mapping[str, Any], name: str) -> int | None:
    # A table without capacity has 0.
    return (of.get("ProvisionedThroughput") or {}).get(name) or None


def read_units(size: int, *, consistent: bool) -> float:
    """Return the units for a page of items of ``size`` bytes in all."""
    return max(1, math.ceil(size / (4 * KB))) / (1 if consistent else 2)


def write_units(item: RawItem) -> int:
    """Return the units for a put of ``item`` in the table, without its indexes."""
    return max(1, math.ceil(item_size(item) / KB))


def mean_item_bytes(description: Mapping[str, Any]) -> float | None:
    """Return the mean size of an item by DescribeTable, which is up to six hours old."""
    items, size = description.get("ItemCount") or 0, description.get("TableSizeBytes") or 0
    return size / items if items and size else None


class PageSize:
    """
    The number of items to ask for in one page of a Scan: 1 MB, and about what the rate allows in a
    second, for all ``segments`` together.

    A page that is larger than the capacity of a second is throttled on a small table.
    """

    def __init__(
        self,
        units_per_second: float | None,
        *,
        consistent: bool,
        segments: int = 1,
        mean_bytes: float | None = None,
    ) -> None:
        unit = 4 * KB if consistent else 8 * KB
        self._bytes = float(_PAGE_BYTES)
        if units_per_second is not None:
            # Smaller pages would waste the rounding to whole units.
            self._bytes = min(self._bytes, max(_LEAST_UNITS, units_per_second / segments) * unit)
        self._limit = min(_FIRST_ITEMS, self._fitting(mean_bytes or 1.0))

    @property
    def limit(self) -> int:
        """``Limit`` of the next Scan."""
        return self._limit

    def measured(self, items: int, size: int) -> None:
        """Record a page of ``items`` items with ``size`` bytes in all."""
        if items:
            self._limit = min(self._limit * 2, self._fitting(size / items))

    def _fitting(self, mean_bytes: float) -> int:
        return int(max(1, min(_MOST_ITEMS, self._bytes / max(1.0, mean_bytes))))
