"""Partitions: ranges of a table's keys, which are split and never merged."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import NamedTuple

from .units import PARTITION, PARTITION_BYTES, Units, use_of

# A partition that is just full is not split.
_MORE = 1 + 1e-9


class Placed(NamedTuple):
    """An item at its place in the range of all keys, 0 to 1, and the number of its group."""

    place: float
    group: int


class Asked(NamedTuple):
    """
    The units a second that the table is asked for: of one item of each group, and of all items
    together that are not placed but spread evenly.
    """

    items: Sequence[Units]
    spread: Units


@dataclass
class Partition:
    """
    A range of the keys with the items placed in it. ``alike`` partitions without such items are
    one object. ``hot_since`` is the second since which it is asked for more than it carries.
    """

    first: float
    last: float
    items: Sequence[Placed] = ()
    alike: int = 1
    hot_since: int | None = None

    @property
    def width(self) -> float:
        """Its share of the keys that are spread evenly."""
        return self.last - self.first

    def load(self, asked: Asked) -> Units:
        """Return the units a second that this partition is asked for."""
        read, write = (part * self.width for part in asked.spread)
        for item in self.items:
            of_item = asked.items[item.group]
            read, write = read + of_item.read, write + of_item.write
        return Units(read, write)


def widest(capacity: Units, stored: float) -> float:
    """Return the width of a partition that is just full, by throughput or by size."""
    return 1 / max(use_of(capacity), stored / PARTITION_BYTES, 1)


class Outcome(NamedTuple):
    """
    What the partitions do in one second: the units they serve, and what the hottest of them is
    asked for, in units and as a share of what it carries.
    """

    served: Units
    hottest: Units
    use: float


class Partitions:
    """All partitions of a table. Those that are hot for ``heat`` seconds are split."""

    def __init__(self, width: float, items: Iterable[Placed], heat: int) -> None:
        self._all = make_partitions(width, items)
        self._heat = heat
        self._asked: Asked | None = None
        self._outcome = Outcome(Units(0, 0), Units(0, 0), 0.0)
        self._next_split = math.inf
        self._widest = max(each.width for each in self._all)

    def __len__(self) -> int:
        return sum(each.alike for each in self._all)

    def split(self, second: int, width: float) -> None:
        """Split what is wider than ``width``, and what has been hot for long enough."""
        if self._widest > width * _MORE:
            self._replace([part for each in self._all for part in split_to_width(each, width)])
        elif self._asked is not None and second >= self._next_split:
            kept = []
            for each in self._all:
                is_due = each.hot_since is not None and second >= each.hot_since + self._heat
                kept += split_for_heat(each, self._asked) if is_due else [each]
            self._replace(kept)

    def serve(self, second: int, asked: Asked) -> Outcome:
        """Serve as much of ``asked`` as each partition carries, and note which ones are hot."""
        if asked == self._asked:
            return self._outcome
        self._asked = asked
        read = write = 0.0
        hottest, since = Units(0, 0), []
        for each in self._all:
            load = each.load(asked)
            read += each.alike * min(load.read, PARTITION.read)
            write += each.alike * min(load.write, PARTITION.write)
            hottest = max(hottest, load, key=use_of)
            if use_of(load) <= _MORE:
                each.hot_since = None
            else:
                each.hot_since = second if each.hot_since is None else each.hot_since
                since.append(each.hot_since)
        self._next_split = min(since, default=math.inf) + self._heat
        self._outcome = Outcome(Units(read, write), hottest, use_of(hottest))
        return self._outcome

    def _replace(self, partitions: list[Partition]) -> None:
        self._all = partitions
        self._widest = max(each.width for each in partitions)
        self._asked = None


def make_partitions(width: float, items: Iterable[Placed]) -> list[Partition]:
    """Return equal partitions of at most ``width`` over the whole range."""
    number = math.ceil(1 / width / _MORE)
    inside: list[list[Placed]] = [[] for _ in range(number)]
    for item in sorted(items, key=attrgetter("place")):
        inside[int(item.place * number)].append(item)
    made = [Partition(n / number, (n + 1) / number, held) for n, held in enumerate(inside) if held]
    if empty := number - len(made):
        made.append(Partition(0, 1 / number, alike=empty))
    return made


def split_to_width(partition: Partition, width: float) -> list[Partition]:
    """Split at the middle until no part is wider than ``width``."""
    if partition.width <= width * _MORE:
        return [partition]
    parts = _cut(partition, (partition.first + partition.last) / 2)
    return [each for part in parts for each in split_to_width(part, width)]


def split_for_heat(partition: Partition, asked: Asked) -> list[Partition]:
    """
    Return the two partitions into which a hot one is split: an item with more than half of the
    load is isolated, else each part has about half of the load.
    """
    load = partition.load(asked)
    kind = max((0, 1), key=lambda each: load[each] / PARTITION[each])
    if partition.items:
        hottest = max(partition.items, key=lambda item: asked.items[item.group][kind])
        if asked.items[hottest.group][kind] > load[kind] / 2:
            others = [item for item in partition.items if item is not hottest]
            alone = Partition(hottest.place, hottest.place, [hottest])
            return [alone, replace(partition, items=others, hot_since=None)]
    low, high = partition.first, partition.last
    for _ in range(50):
        middle = (low + high) / 2
        if _cut(partition, middle)[0].load(asked)[kind] < load[kind] / 2:
            low = middle
        else:
            high = middle
    cuts = [_cut(partition, place) for place in (low, high)]
    return min(cuts, key=lambda parts: max(each.load(asked)[kind] for each in parts))


def _cut(partition: Partition, place: float) -> list[Partition]:
    if partition.alike > 1:
        return [Partition(partition.first, place, alike=2 * partition.alike)]
    at = bisect_left(partition.items, place, key=attrgetter("place"))
    return [
        Partition(partition.first, place, partition.items[:at]),
        Partition(place, partition.last, partition.items[at:]),
    ]
