"""Which keys are asked for, how often, and how much of that is sent to DynamoDB."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from .units import Units, units_of_request, use_of

# Items that have a place of their own among the partitions, and the share of what a partition
# carries that each of them needs at least. All others are spread evenly.
_PLACED, _PLACED_FROM = 1_000, 0.01
# Terms of a sum that are added one by one; an integral gives the rest.
_EXACT = 10_000
# A limit's window has ten buckets, and a block is given out within one (docs/limits.md).
_BUCKETS = 10


class KeyGroup(NamedTuple):
    """
    Items that are asked for equally often: their number, the share of all requests that each of
    them gets, whether the near tier keeps them, and whether they are placed one by one.
    """

    items: int
    share: float
    is_near: bool
    is_placed: bool = False


@dataclass(frozen=True)
class Workload:
    """The requests of an application, and what the package does before it sends them."""

    requests: float  # a second, at their peak
    write_share: float  # of the requests, 0 to 1
    keys: int
    zipf: float = 0.0  # the exponent of the distribution; 0 is uniform
    hot_share: float = 0.0  # of the requests that go to one key, besides its part of the others
    item_bytes: int = 1_024
    strong: bool = False  # strongly consistent reads
    new_share: float = 0.0  # of the writes that add an item
    ramp: int = 0  # minutes in which the requests grow to their peak
    shards: int = 1  # items of each key, as SHARDS of a limit
    block: int = 1  # the most that a process takes at once, as BLOCK of a limit
    window: float = 60.0  # seconds of the limit
    processes: int = 100
    near_timeout: float = 0.0  # seconds, as LOCAL_TIMEOUT of a cache
    near_entries: int = 1_000  # as LOCAL_MAX_ENTRIES

    @property
    def price(self) -> Units:
        """The units of one read and of one write."""
        return units_of_request(self.item_bytes, strong=self.strong)

    @property
    def stored(self) -> float:
        """The bytes that are stored before the first request: each key exists."""
        return self.keys * self.shards * self.item_bytes

    def offered(self, minute: int) -> Units:
        """Return the reads and writes a second in ``minute``, which counts from 0."""
        part = min(1.0, (minute + 1) / self.ramp) if self.ramp else 1.0
        writes = self.requests * part * self.write_share
        return Units(self.requests * part - writes, writes)

    def groups(self) -> list[KeyGroup]:
        """
        Return the items in groups, those that are asked for most often first.

        Each of the first thousand items is in a group of its own key. Each group that follows has
        twice as many keys, with their mean share.
        """
        total = _power_sum(1, self.keys, self.zipf)
        placed = min(self.keys, max(1, _PLACED // self.shards))
        peak = self.offered(self.ramp)
        groups, first = [], 1
        while first <= self.keys:
            last = first if first <= placed else min(self.keys, 2 * first - 1)
            if first <= self.near_entries < last:
                last = self.near_entries
            keys = last - first + 1
            share = (1 - self.hot_share) * _power_sum(first, last, self.zipf) / total / keys
            share += self.hot_share if first == 1 else 0
            group = KeyGroup(keys * self.shards, share / self.shards, last <= self.near_entries)
            if first <= placed and use_of(self.units(group, peak)) >= _PLACED_FROM:
                group = group._replace(is_placed=True)
            groups.append(group)
            first = last + 1
        return groups

    def units(self, group: KeyGroup, offered: Units) -> Units:
        """Return the units a second that one item of ``group`` is asked for."""
        sent, price = self.sent(group, offered), self.price
        return Units(sent.read * price.read, sent.write * price.write)

    def sent(self, group: KeyGroup, offered: Units) -> Units:
        """
        Return the reads and writes a second that are sent for one item of ``group``.

        A process reads an entry once, and then serves it for ``near_timeout``. So of *r* reads a
        second in each process it sends r / (1 + r · timeout), if they come at random. Of a block a
        process uses what it counts within a bucket, a tenth of the window.
        """
        reads, writes = offered.read * group.share, offered.write * group.share
        if group.is_near:
            reads /= 1 + reads * self.near_timeout / self.processes
        within_bucket = writes * self.window / _BUCKETS / self.processes
        return Units(reads, writes / max(1.0, min(self.block, within_bucket)))


def _power_sum(first: int, last: int, exponent: float) -> float:
    """Return the sum of rank ** -exponent over the ranks from ``first`` to ``last``."""
    exact = min(last, first + _EXACT - 1)
    total = float(sum(rank**-exponent for rank in range(first, exact + 1)))
    if exact < last:
        total += _integral(exact + 0.5, last + 0.5, exponent)
    return total


def _integral(low: float, high: float, exponent: float) -> float:
    """Return the integral of x ** -exponent from ``low`` to ``high``."""
    if math.isclose(exponent, 1, abs_tol=1e-6):
        return math.log(high / low)
    power = 1 - exponent
    return float(high**power - low**power) / power
