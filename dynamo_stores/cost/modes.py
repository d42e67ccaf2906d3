"""Which billing mode is cheaper, and from which load on. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from .estimate import request_price
from .load import INFREQUENT_ACCESS, KINDS, SECONDS_PER_HOUR, Load, ResourceLoad, TableLoad
from .prices import MILLION, Prices, Reserved

ON_DEMAND, PROVISIONED, FOLLOWING = "on_demand", "provisioned", "following"
_BLOCK = 100
# The multiples of the load in which the break-even is looked for, and the step between them.
_LEAST, _MOST, _STEP = Decimal("0.0001"), Decimal(10**7), Decimal("1.1")
_EXACT = Decimal("0.0005")


@dataclass(frozen=True)
class Mode:
    """
    The cost in a month of all units in one mode, without storage and the like. ``upfront`` is what
    a reservation costs at once; it is in ``amount`` by the month.
    """

    code: str
    name: str
    amount: Decimal
    why: str
    upfront: Decimal = Decimal(0)


@dataclass(frozen=True)
class BreakEven:
    """
    From which load on the mode ``code`` is cheaper than on demand: ``factor`` is the multiple of
    this load, None if it never is; ``reads`` and ``writes`` are the units a day of that load.
    """

    code: str
    name: str
    factor: Decimal | None
    reads: Decimal
    writes: Decimal


@dataclass(frozen=True)
class Comparison:
    """
    The modes, the cheapest first, and the break-evens with on demand: of provisioned capacity, and
    of reserved one for each term.
    """

    modes: tuple[Mode, ...]
    break_evens: tuple[BreakEven, ...]

    @property
    def break_even(self) -> BreakEven:
        """The break-even of provisioned capacity."""
        return self.break_evens[0]

    @property
    def cheapest_without_term(self) -> Mode:
        """The cheapest mode that reserves nothing."""
        return next(each for each in self.modes if not each.upfront)

    @property
    def cheapest(self) -> Mode:
        """The cheapest mode."""
        return self.modes[0]

    def mode(self, code: str) -> Mode | None:
        """Return the mode ``code``, None if it was not compared."""
        return next((each for each in self.modes if each.code == code), None)


def compare(load: Load, prices: Prices) -> Comparison:
    """Return the cost of the units of ``load`` in each mode."""
    found = [
        Mode(ON_DEMAND, "On demand", on_demand(load, prices), "each unit is paid for"),
        Mode(
            PROVISIONED,
            "Provisioned",
            provisioned(load, prices),
            "constant capacity for the busiest minute, at the target utilization",
        ),
    ]
    if any(each.use.hours for table in load.tables for each in table.resources):
        found.append(
            Mode(
                FOLLOWING,
                "Provisioned, scaled each hour",
                _following(load, prices),
                "capacity for the busiest minute of each measured hour, at the target utilization",
            )
        )
    break_evens = [break_even(load, prices)]
    if any(_is_reservable(table, kind) for table in load.tables for kind in KINDS):
        found += [reserved(load, prices, each) for each in prices.reserved]
        break_evens += [break_even(load, prices, each) for each in prices.reserved]
    found.sort(key=lambda mode: mode.amount)
    return Comparison(tuple(found), tuple(break_evens))


def on_demand(load: Load, prices: Prices, factor: Decimal = Decimal(1)) -> Decimal:
    """Return the cost of ``factor`` times the units on demand, replicas included."""
    cost = Decimal(0)
    for table in load.tables:
        per_day = sum(
            (table.units(kind) * request_price(table, kind, prices) for kind in KINDS), Decimal(0)
        )
        per_day += table.replicas * table.units("write") * prices.on_demand.replicated_write
        cost += per_day
    return factor * cost * prices.days_per_month / MILLION


def provisioned(load: Load, prices: Prices, factor: Decimal = Decimal(1)) -> Decimal:
    """Return the cost of constant capacity for ``factor`` times the load, replicas included."""
    cost = Decimal(0)
    for table, resource in _resources(load):
        for kind in KINDS:
            units = capacity_for(factor * resource.use.peak(kind), table.target)
            cost += units * _hour_price(table, kind, prices)
    return cost * prices.hours_per_month


def capacity_for(peak: Decimal, target: Decimal) -> int:
    """Return the capacity units for ``peak`` units a second at the target utilization; 1 at least.

    This is what DynamoDB's own auto scaling aims at.
    """
    return max(1, math.ceil(peak / target - Decimal("1e-9")))


def _resources(load: Load) -> Iterator[tuple[TableLoad, ResourceLoad]]:
    for table in load.tables:
        for resource in table.resources:
            yield table, resource


def _hour_price(table: TableLoad, kind: str, prices: Prices) -> Decimal:
    price = prices.provisioned.of(kind)
    if kind == "write":
        price += table.replicas * prices.provisioned.replicated_write
    return price


def _following(load: Load, prices: Prices) -> Decimal:
    cost = Decimal(0)
    for table, resource in _resources(load):
        for kind, place in zip(KINDS, (0, 1), strict=True):
            peaks = [each[place] for each in resource.use.hours] or [resource.use.peak(kind)]
            units = sum(capacity_for(peak, table.target) for peak in peaks)
            cost += Decimal(units) / len(peaks) * _hour_price(table, kind, prices)
    return cost * prices.hours_per_month


def reserved(load: Load, prices: Prices, term: Reserved, factor: Decimal = Decimal(1)) -> Mode:
    """Return constant capacity for ``factor`` times the load, reserved in blocks of 100 units."""
    cost, upfront, bought = Decimal(0), Decimal(0), []
    for kind in KINDS:
        units = 0
        for table, resource in _resources(load):
            needed = capacity_for(factor * resource.use.peak(kind), table.target)
            if _is_reservable(table, kind):
                units += needed
            else:
                cost += needed * _hour_price(table, kind, prices) * prices.hours_per_month
        blocks, rest, amount = _blocks(units, kind, term, prices)
        cost += amount
        upfront += blocks * term.upfront(kind)
        bought.append(f"{blocks * _BLOCK:,} {kind} units reserved, {rest:,} not")
    years = f"{term.years} year{'' if term.years == 1 else 's'}"
    return Mode(f"reserved_{term.years}", f"Reserved for {years}", cost, "; ".join(bought), upfront)


def _is_reservable(table: TableLoad, kind: str) -> bool:
    """Writes of tables with replicas cannot be reserved, nor the class Standard-IA."""
    is_replicated = kind == "write" and table.replicas > 0
    return table.table_class != INFREQUENT_ACCESS and not is_replicated


def _blocks(units: int, kind: str, term: Reserved, prices: Prices) -> tuple[int, int, Decimal]:
    """
    Return how many blocks of 100 units to reserve, the units beyond them, and their cost in a
    month; one block at least, because none is the provisioned mode.
    """
    if not units:
        return 0, 0, Decimal(0)
    choices = []
    for blocks in {max(1, units // _BLOCK), max(1, math.ceil(units / _BLOCK))}:
        rest = max(0, units - blocks * _BLOCK)
        amount = blocks * reserved_block(kind, term, prices)
        amount += rest * prices.provisioned.of(kind) * prices.hours_per_month
        choices.append((amount, blocks, rest))
    amount, blocks, rest = min(choices)
    return blocks, rest, amount


def reserved_block(kind: str, term: Reserved, prices: Prices) -> Decimal:
    """Return what 100 reserved units cost in a month: upfront fee by month, and hourly fees."""
    return term.upfront(kind) / (12 * term.years) + term.hour(kind) * prices.hours_per_month


def reserved_saving(kind: str, term: Reserved, prices: Prices) -> Decimal:
    """Return the share that a fully used reservation saves of provisioned capacity, 0 to 1."""
    whole = _BLOCK * prices.provisioned.of(kind) * prices.hours_per_month
    return 1 - reserved_block(kind, term, prices) / whole


def break_even_utilization(kind: str, prices: Prices) -> Decimal:
    """
    Return the share of provisioned capacity, used on average, from which on it is cheaper than on
    demand: the price of a unit's hour / (3,600 units on demand).
    """
    return prices.provisioned.of(kind) * MILLION / (SECONDS_PER_HOUR * prices.on_demand.of(kind))


def break_even(load: Load, prices: Prices, term: Reserved | None = None) -> BreakEven:
    """
    Return from which multiple of ``load`` on provisioned capacity, or capacity reserved for a
    ``term``, is cheaper than on demand, at the same ratio of the busiest minute to the average. It
    is exact to 0.1 %.
    """

    def cost(factor: Decimal) -> Decimal:
        if term is None:
            return provisioned(load, prices, factor)
        return reserved(load, prices, term, factor).amount

    factor = _crossing(load, prices, cost)
    mode = None if term is None else reserved(load, prices, term)
    times = factor or Decimal(0)
    return BreakEven(
        PROVISIONED if mode is None else mode.code,
        "Provisioned" if mode is None else mode.name,
        factor,
        times * load.units("read"),
        times * load.units("write"),
    )


def _crossing(load: Load, prices: Prices, cost: Callable[[Decimal], Decimal]) -> Decimal | None:
    if not load.units("read") + load.units("write"):
        return None
    each = on_demand(load, prices)

    def is_cheaper(factor: Decimal) -> bool:
        return cost(factor) <= factor * each

    if not is_cheaper(_MOST):
        return None
    # Down from a load at which it is: capacity comes in whole units, so there may be several.
    high, low = _MOST, _MOST / _STEP
    while low > _LEAST and is_cheaper(low):
        high, low = low, low / _STEP
    while high / low - 1 > _EXACT:
        middle = (high + low) / 2
        if is_cheaper(middle):
            high = middle
        else:
            low = middle
    return high
