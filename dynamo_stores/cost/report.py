"""The whole estimate: lines, sum, modes, Redis, waste and days, as data for commands and pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from .days import Day, by_day
from .estimate import Line, estimate, number, total
from .load import Load
from .measured import Measured
from .modes import Comparison, Mode, break_even_utilization, compare
from .prices import Prices, rounded
from .redis import RedisCost, on_redis
from .sample import Sample
from .waste import Waste, find_waste


@dataclass(frozen=True)
class CostReport:
    """
    What a load costs in a month: ``lines`` and their ``total``, not rounded, in the present modes;
    ``comparison`` of the modes, ``redis``, ``waste``, and the cost of each measured day.
    """

    load: Load
    prices: Prices
    lines: tuple[Line, ...]
    total: Decimal
    comparison: Comparison
    redis: tuple[RedisCost, ...]
    waste: tuple[Waste, ...]
    days: tuple[Day, ...] = ()

    @property
    def measured_share(self) -> Decimal:
        """How much of a month was measured, 0 to 1 (or more)."""
        return self.load.measured_hours / self.prices.hours_per_month

    @property
    def has_load(self) -> bool:
        """Whether reads and writes are known: assumed, or measured in an hour at least."""
        return not self.load.is_measured or self.load.first is not None

    def about(self, mode: Mode) -> str:
        """Return what is behind the amount of a mode, as text."""
        if not mode.upfront:
            return mode.why
        fee = self.prices.money(mode.upfront)
        return f"with {fee} due at once spread over the term; {mode.why}"

    def of_table(self, table: str) -> Decimal:
        """Return the cost of one table in a month."""
        return total(tuple(line for line in self.lines if line.table == table))

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data; amounts are texts with four digits."""
        load, prices = self.load, self.prices
        return {
            "prices": {
                "name": prices.name,
                "date": prices.date,
                "source": prices.source,
                "currency": prices.currency,
                "region": prices.region,
                "price_region": prices.price_region,
                "factor": str(prices.factor),
            },
            "load": {
                "source": load.source,
                "first": load.first,
                "last": load.last,
                "measured_hours": _text(load.measured_hours),
                "share_of_month": _text(self.measured_share),
                "reads_per_day": _text(load.units("read")),
                "writes_per_day": _text(load.units("write")),
                "gb": _text(load.gb),
                "notes": list(load.notes),
            },
            "lines": [
                {
                    "resource": line.resource,
                    "part": line.part,
                    "what": line.what,
                    "arithmetic": line.arithmetic,
                    "amount": _text(line.amount),
                }
                for line in self.lines
            ],
            "total": _text(self.total),
            "tables": {each.table: _text(self.of_table(each.table)) for each in load.tables},
            "modes": [
                {
                    "mode": mode.code,
                    "name": mode.name,
                    "amount": _text(mode.amount),
                    "upfront": _text(mode.upfront),
                    "why": mode.why,
                }
                for mode in self.comparison.modes
            ],
            "break_even": self._break_even(),
            "utilization": {
                kind: _text(break_even_utilization(kind, prices)) for kind in ("read", "write")
            },
            "redis": [
                {
                    "name": each.name,
                    "arithmetic": each.arithmetic,
                    "amount": _text(each.amount),
                    "failover": each.has_failover,
                }
                for each in self.redis
            ],
            "waste": [
                {
                    "code": each.code,
                    "resource": each.resource,
                    "message": each.message,
                    "advice": each.advice,
                    "saving": None if each.saving is None else _text(each.saving),
                }
                for each in self.waste
            ],
            "days": [
                {
                    "date": day.date,
                    "hours": day.hours,
                    "tables": {name: _text(cost) for name, cost in day.costs.items()},
                    "total": _text(day.total),
                }
                for day in self.days
            ],
        }

    def _break_even(self) -> list[dict[str, Any]]:
        return [
            {
                "mode": each.code,
                "factor": None if each.factor is None else _text(each.factor),
                "reads_per_day": _text(each.reads),
                "writes_per_day": _text(each.writes),
            }
            for each in self.comparison.break_evens
        ]

    def advice(self) -> list[str]:
        """Return which mode is cheaper and from which load on, as sentences."""
        comparison = self.comparison
        found = [f"The cheapest is {comparison.cheapest.name.lower()}."]
        if comparison.cheapest.upfront:
            free = comparison.cheapest_without_term.name.lower()
            found = [f"{found[0][:-1]}; without a reservation, it is {free}."]
        if not self.load.units("read") + self.load.units("write"):
            return found
        for each in comparison.break_evens:
            name = (
                "constant provisioned capacity"
                if each is comparison.break_even
                else (f"capacity {each.name.lower()}")
            )
            name = name[0].upper() + name[1:]
            if each.factor is None:
                found.append(f"{name} is never cheaper than on demand, with these peaks.")
            else:
                found.append(
                    f"{name} is cheaper than on demand from {number(each.factor)} times this load "
                    f"on ({number(each.reads)} read and {number(each.writes)} write units a day)."
                )
        share = break_even_utilization("write", self.prices)
        found.append(
            f"Provisioned capacity breaks even where {share:.1%} of it is used on average."
        )
        return found


def cost_report(
    load: Load,
    prices: Prices,
    *,
    measured: Measured | None = None,
    samples: Iterable[Sample] = (),
) -> CostReport:
    """
    Return the estimate of ``load``; with ``measured``, also the cost of each day. ``samples`` of
    items add what they show to the waste.
    """
    lines, comparison = estimate(load, prices), compare(load, prices)
    return CostReport(
        load,
        prices,
        lines,
        total(lines),
        comparison,
        on_redis(load, prices),
        find_waste(load, prices, comparison, samples),
        () if measured is None else by_day(load, measured, prices),
    )


def _text(value: Decimal) -> str:
    return f"{rounded(value, 4):f}"
