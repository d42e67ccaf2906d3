"""What tables cost on each day. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal

from .estimate import STREAMS, estimate, total
from .load import HOURS_PER_DAY, Load, TableLoad
from .measured import Measured
from .prices import Prices

MINUTES_PER_HOUR = 60


@dataclass(frozen=True)
class Day:
    """
    The cost of a day in UTC that begins ``at`` (seconds since the epoch), by table: of the
    ``minutes`` that were measured, with storage and capacity for as long.
    """

    at: float
    minutes: int
    costs: Mapping[str, Decimal] = field(default_factory=dict)

    @property
    def date(self) -> str:
        """The day as ``2026-05-31``."""
        return f"{datetime.fromtimestamp(self.at, UTC):%Y-%m-%d}"

    @property
    def hours(self) -> int | float:
        """The hours that were measured."""
        hours, rest = divmod(self.minutes, MINUTES_PER_HOUR)
        return self.minutes / MINUTES_PER_HOUR if rest else hours

    @property
    def total(self) -> Decimal:
        """The cost of all tables."""
        return sum(self.costs.values(), Decimal(0))


def by_day(load: Load, measured: Measured, prices: Prices) -> tuple[Day, ...]:
    """
    Return the cost of each table on each measured day, the oldest day first.

    The size, the capacity and the mode of a table are its present ones: they are not recorded.
    """
    days: dict[int, list[int]] = {}
    for hour in sorted(measured.hours):
        days.setdefault(hour // HOURS_PER_DAY, []).append(hour)
    return tuple(
        Day(
            day * 86_400.0,
            _minutes(hours, measured),
            {table.table: _cost(table, hours, measured, prices) for table in load.tables},
        )
        for day, hours in days.items()
    )


def _minutes(hours: list[int], measured: Measured) -> int:
    return sum(measured.minutes.get(hour, MINUTES_PER_HOUR) for hour in hours)


def _cost(table: TableLoad, hours: list[int], measured: Measured, prices: Prices) -> Decimal:
    known = Decimal(_minutes(hours, measured)) / MINUTES_PER_HOUR
    part = Measured({hour: measured.hours[hour] for hour in hours}, known)
    own = [
        name
        for name in part.names()
        if name.partition("/")[0] == table.table
        and name.partition("/")[2] not in {each.name for each in table.indexes}
    ]
    used = replace(
        table,
        resources=(
            replace(table.own, use=part.use(own)),
            *(replace(each, use=part.use([table.name_of(each)])) for each in table.indexes),
        ),
    )
    lines = estimate(Load("reports", (used,)), prices)
    month = total(tuple(line for line in lines if line.part != STREAMS))
    return month / prices.hours_per_month * known
