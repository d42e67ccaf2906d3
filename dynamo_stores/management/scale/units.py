"""What DynamoDB documents of its limits, in units a second; ``docs/scale.md`` has the sources."""

from __future__ import annotations

import math
from typing import NamedTuple


class Units(NamedTuple):
    """Something for reads and for writes: read units and write units, or a share of each."""

    read: float
    write: float


# What one partition carries in a second, and so one key. bp-partition-key-design
PARTITION = Units(3_000, 1_000)
# What a new on-demand table carries in a second. on-demand-capacity-mode, warm-throughput-scenarios
NEW_TABLE = Units(12_000, 4_000)
# Units in a second for one table unless AWS raises the quota. ServiceQuotas
TABLE_QUOTA = 40_000
# Seconds of unused capacity that a provisioned table keeps. burst-adaptive-capacity
BURST_SECONDS = 300
# Seconds within which more than twice the previous peak may throttle. on-demand-capacity-mode
GROWTH_SECONDS = 1_800
# Bytes of a partition; AWS names the figure in its blog, not in the guide.
PARTITION_BYTES = 10 * 1024**3

_READ_BYTES, _WRITE_BYTES = 4_096, 1_024


def units_of_request(item_bytes: int, *, strong: bool) -> Units:
    """
    Return the units of one read and of one write of an item: one for each 4 KB that is read
    strongly, half as much eventually, and one for each KB that is written.
    """
    reads = math.ceil(item_bytes / _READ_BYTES)
    return Units(reads if strong else reads / 2, math.ceil(item_bytes / _WRITE_BYTES))


def use_of(units: Units) -> float:
    """Return ``units`` as a share of what a partition carries, of reads or writes: the larger."""
    return max(units.read / PARTITION.read, units.write / PARTITION.write)
