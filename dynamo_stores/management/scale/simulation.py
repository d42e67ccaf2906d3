"""A table under load, second by second, with expected values for each group of keys."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from .partitions import Asked, Outcome, Partitions, Placed, widest
from .throughput import OnDemand, Provisioned, Throughput
from .units import BURST_SECONDS, GROWTH_SECONDS, NEW_TABLE, PARTITION, TABLE_QUOTA, Units
from .workload import Workload

KINDS = ("read", "write")
CAUSES = ("key", "table", "partition")
# A smaller share of the requests is an error of floating-point numbers.
_NOTHING = 1e-9
_NONE = Units(0, 0)


@dataclass(frozen=True)
class Table:
    """The table at the start, and how fast it adapts."""

    provisioned: bool = False
    # Units a second: provisioned ones, or the warm throughput of an on-demand table.
    capacity: Units = NEW_TABLE
    quota: float = TABLE_QUOTA
    growth: int = GROWTH_SECONDS
    burst: int = BURST_SECONDS
    heat: int = 300  # seconds after which a hot partition is split; AWS names no figure

    def throughputs(self) -> list[Throughput]:
        """Return what the table carries, of reads and of writes."""
        if self.provisioned:
            return [Provisioned(units, self.burst) for units in self.capacity]
        return [OnDemand(units, self.quota, self.growth) for units in self.capacity]


@dataclass
class Minute:
    """
    What happened in one minute, in requests a second on average. ``in_process`` ones need no call;
    ``units`` are those of the requests that were served.

    ``hottest`` is what the hottest partition was asked for, as a share of what it carries.
    """

    number: int
    offered: float = 0.0
    in_process: float = 0.0
    served: float = 0.0
    throttled: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    partitions: int = 0
    hottest: float = 0.0
    units: Units = _NONE


class Break(NamedTuple):
    """
    The first throttling: when, for what, and of which kind most; what was asked for and what was
    carried, in units a second. ``limit`` is what bounds the table; ``share`` is that of the units
    of this kind which are throttled.
    """

    second: int
    cause: str
    kind: str
    asked: Units
    carried: Units
    limit: str
    share: float


@dataclass(frozen=True)
class Result:
    """
    The minutes of a simulation, what broke first, and the units of all that was served.

    ``peak`` is what the table is asked for at most, without what is too much for a key, and
    ``busiest`` what its busiest item is asked for, both in units a second.
    """

    minutes: list[Minute]
    first: Break | None
    units: Units
    peak: Units
    busiest: Units


class _Traffic(NamedTuple):
    """Of one minute, in units a second: all that is sent, and what the keys' limits let through."""

    sent: Units
    allowed: Units
    by_item: Asked
    busiest: Units  # what is sent for the item that is asked for most often


class Simulation:
    """
    One run. A request is checked against the limit of its key, then against that of the table, then
    against that of its partition; the first one that it exceeds has throttled it.
    """

    def __init__(self, workload: Workload, table: Table, seed: int = 0) -> None:
        self._workload, self._price = workload, workload.price
        self._groups = workload.groups()
        self._throughputs = table.throughputs()
        self._stored = workload.stored
        self._first: Break | None = None
        self._asked: tuple[_Traffic, Units, Asked] | None = None
        places = random.Random(seed)
        items = [
            Placed(places.random(), number)
            for number, group in enumerate(self._groups)
            if group.is_placed
            for _ in range(group.items)
        ]
        self._partitions = Partitions(self._width, items, table.heat)

    def run(self, minutes: int) -> Result:
        """Return what happens in ``minutes``."""
        found = [self._minute(number) for number in range(minutes)]
        units = Units(*(60 * sum(each.units[kind] for each in found) for kind in (0, 1)))
        # The traffic never falls.
        last = self._traffic(self._workload.offered(minutes - 1))
        return Result(found, self._first, units, last.allowed, last.busiest)

    @property
    def _width(self) -> float:
        read, write = (each.sustained for each in self._throughputs)
        return widest(Units(read, write), self._stored)

    def _minute(self, number: int) -> Minute:
        offered = self._workload.offered(number)
        traffic = self._traffic(offered)
        calls = sum(sent / price for sent, price in zip(traffic.sent, self._price, strict=True))
        minute = Minute(number + 1, sum(offered), sum(offered) - calls)
        for second in range(number * 60, number * 60 + 60):
            self._second(second, traffic, minute)
        minute.partitions = len(self._partitions)
        return minute

    def _traffic(self, offered: Units) -> _Traffic:
        items, busiest, sent, allowed, spread = [], _NONE, _NONE, _NONE, _NONE
        for group in self._groups:
            of_item = self._workload.units(group, offered)
            within = Units(*map(min, of_item, PARTITION))
            busiest = Units(*map(max, busiest, of_item))
            sent, allowed = _add(sent, of_item, group.items), _add(allowed, within, group.items)
            items.append(within)
            if not group.is_placed:
                spread = _add(spread, within, group.items)
        return _Traffic(sent, allowed, Asked(items, spread), busiest)

    def _second(self, second: int, traffic: _Traffic, minute: Minute) -> None:
        self._partitions.split(second, self._width)
        available = Units(*(each.available for each in self._throughputs))
        admitted = Units(*map(min, traffic.allowed, available))
        if self._asked is None or self._asked[:2] != (traffic, admitted):
            self._asked = traffic, admitted, _part_of(traffic, admitted)
        outcome = self._partitions.serve(second, self._asked[2])
        for kind in (0, 1):
            lost = {
                "key": traffic.sent[kind] - traffic.allowed[kind],
                "table": traffic.allowed[kind] - admitted[kind],
                "partition": admitted[kind] - outcome.served[kind],
            }
            self._note_break(second, kind, lost, traffic, outcome, available)
            for cause, units in lost.items():
                minute.throttled[cause] += units / self._price[kind] / 60
            minute.served += outcome.served[kind] / self._price[kind] / 60
        for throughput, served in zip(self._throughputs, outcome.served, strict=True):
            throughput.use(served)
        minute.units = _add(minute.units, outcome.served, 1 / 60)
        minute.hottest = max(minute.hottest, outcome.use)
        new = outcome.served.write / self._price.write * self._workload.new_share
        self._stored += new * self._workload.item_bytes

    def _note_break(
        self,
        second: int,
        kind: int,
        lost: dict[str, float],
        traffic: _Traffic,
        outcome: Outcome,
        available: Units,
    ) -> None:
        """Remember the first throttling; of several at once the one that costs the most."""
        cause = max(lost, key=lambda each: lost[each])
        if lost[cause] <= _NOTHING * traffic.sent[kind]:
            return
        share = lost[cause] / traffic.sent[kind]
        if self._first and (self._first.second < second or self._first.share >= share):
            return
        asked, carried = {
            "key": (traffic.busiest, PARTITION),
            "table": (traffic.allowed, available),
            "partition": (outcome.hottest, PARTITION),
        }[cause]
        limit = self._throughputs[kind].limit if cause == "table" else ""
        self._first = Break(second, cause, KINDS[kind], asked, carried, limit, share)


def _part_of(traffic: _Traffic, admitted: Units) -> Asked:
    """Return what the items are asked for when the table admits ``admitted`` of all."""
    read, write = (
        part / whole if whole else 1.0
        for part, whole in zip(admitted, traffic.allowed, strict=True)
    )
    return Asked(
        [Units(each.read * read, each.write * write) for each in traffic.by_item.items],
        Units(traffic.by_item.spread.read * read, traffic.by_item.spread.write * write),
    )


def _add(total: Units, more: Units, times: float) -> Units:
    return Units(total.read + times * more.read, total.write + times * more.write)
