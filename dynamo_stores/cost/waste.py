"""What costs money and can be proved to be of no use. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal

from .estimate import number, request_price
from .load import INFREQUENT_ACCESS, KINDS, STANDARD, Load, TableLoad
from .modes import ON_DEMAND, PROVISIONED, Comparison, capacity_for
from .prices import MILLION, Prices
from .sample import Sample

UNUSED_INDEX, NO_TTL, BOUNDARY = "unused-index", "no-ttl", "unit-boundary"
OVER_PROVISIONED, TABLE_CLASS, MODE = "over-provisioned", "table-class", "billing-mode"
# Hours that must be measured before something counts as not used.
LEAST_HOURS = 24
# Findings about less than this amount a month are left out.
_LEAST = Decimal("0.01")
# Provisioned capacity may be so many times what is needed; less is no finding.
_AMPLE = 2
# A sampled table has so many items at least that a finding is about, and such a share of them.
_LEAST_ITEMS, _LEAST_SHARE = 5, Decimal("0.05")


@dataclass(frozen=True)
class Waste:
    """
    A finding about ``resource``. ``code`` is a word for programs; ``saving`` is what it costs in a
    month, at most, None where that is not known.
    """

    code: str
    resource: str
    message: str
    advice: str
    saving: Decimal | None = None


def find_waste(
    load: Load, prices: Prices, comparison: Comparison, samples: Iterable[Sample] = ()
) -> tuple[Waste, ...]:
    """Return the findings, the largest saving first."""
    found = []
    for table in load.tables:
        if load.is_measured and load.measured_hours >= LEAST_HOURS:
            found += [*_unused_indexes(table, load, prices), *_over_provisioned(table, prices)]
            found += _table_class(table, prices)
    if load.is_measured and load.measured_hours >= LEAST_HOURS:
        found += _mode(load, comparison)
    kept = [each for each in found if each.saving is None or each.saving >= _LEAST]
    tables = {table.table: table for table in load.tables}
    for sample in samples:
        if (of := tables.get(sample.table)) is not None:
            kept += _sampled(of, sample, prices)
    return tuple(sorted(kept, key=lambda each: -(each.saving or Decimal(0))))


def _unused_indexes(table: TableLoad, load: Load, prices: Prices) -> Iterator[Waste]:
    for index in table.indexes:
        if index.use.read:
            continue
        cost = index.gb * prices.storage
        if index.provisioned is None:
            per_day = index.use.write * request_price(table, "write", prices)
            cost += per_day * prices.days_per_month / MILLION
        else:
            for kind, units in zip(KINDS, index.provisioned, strict=True):
                cost += units * prices.hours_per_month * prices.provisioned.of(kind)
        yield Waste(
            UNUSED_INDEX,
            table.name_of(index),
            f"The index was never queried in {number(load.measured_hours)} measured hours, and "
            f"its writes and storage cost {prices.money(cost)} a month.",
            "If nothing else queries it, such as rare jobs or other programs, remove it.",
            # Queried rarely, an index may be needed; a cost of nothing is told too.
            max(cost, _LEAST),
        )


def _over_provisioned(table: TableLoad, prices: Prices) -> Iterator[Waste]:
    for resource in table.resources:
        for kind, units in zip(KINDS, resource.provisioned or (), strict=False):
            needed = capacity_for(resource.use.peak(kind), table.target)
            if units >= _AMPLE * needed and units > needed:
                price = prices.provisioned.of(kind)
                saving = (units - needed) * prices.hours_per_month * price
                yield Waste(
                    OVER_PROVISIONED,
                    table.name_of(resource),
                    f"{units:,} {kind} units are provisioned; the busiest minute used "
                    f"{number(resource.use.peak(kind))} a second, for which {needed:,} are enough.",
                    "Lower the baseline (BASE_READ_CAPACITY, BASE_WRITE_CAPACITY) or SCALING's "
                    "SCHEDULE.",
                    saving,
                )


def _table_class(table: TableLoad, prices: Prices) -> Iterator[Waste]:
    rare = prices.infrequent_access
    if rare is None or not table.is_on_demand:
        return
    costs = {
        STANDARD: _class_cost(table, prices.on_demand.read, prices.on_demand.write, prices.storage,
                              prices),
        INFREQUENT_ACCESS: _class_cost(table, rare.read, rare.write, rare.storage, prices),
    }  # fmt: skip
    other = INFREQUENT_ACCESS if table.table_class == STANDARD else STANDARD
    saving = costs.get(table.table_class, Decimal(0)) - costs[other]
    if saving > 0:
        yield Waste(
            TABLE_CLASS,
            table.table,
            f"The table class {other} costs {prices.money(costs[other])} a month for this load, "
            f"{table.table_class} {prices.money(costs[table.table_class])}.",
            f"Set TABLE_CLASS to {other!r}; DynamoDB allows two changes in 30 days.",
            saving,
        )


def _class_cost(
    table: TableLoad, read: Decimal, write: Decimal, storage: Decimal, prices: Prices
) -> Decimal:
    per_day = table.units("read") * read + table.units("write") * write
    return per_day * prices.days_per_month / MILLION + table.gb * storage


def _mode(load: Load, comparison: Comparison) -> Iterator[Waste]:
    modes = {each.code: each for each in comparison.modes}
    present = {ON_DEMAND if each.is_on_demand else PROVISIONED for each in load.tables}
    if len(present) != 1:
        return
    (now,) = present
    other = modes[PROVISIONED if now == ON_DEMAND else ON_DEMAND]
    saving = modes[now].amount - other.amount
    # Less than a fifth is within what a measured month differs from the next.
    if saving > modes[now].amount / 5:
        yield Waste(
            MODE,
            "all tables",
            f"The units of this load cost less in the mode {other.name.lower()}: {other.why}.",
            "Compare the modes, and set BILLING_MODE.",
            saving,
        )


def _sampled(table: TableLoad, sample: Sample, prices: Prices) -> Iterator[Waste]:
    if sample.items and sample.ttl_attribute is not None and sample.without_ttl:
        share = Decimal(sample.without_ttl) / sample.items
        yield Waste(
            NO_TTL,
            table.table,
            f"{sample.without_ttl:,} of {sample.items:,} sampled items have no "
            f"{sample.ttl_attribute}, so DynamoDB never deletes them.",
            "Give them a timeout, if they are not meant to be kept.",
            share * table.gb * prices.storage,
        )
    for kind, over, size in (
        ("write", sample.just_over_write, "1 KB"),
        ("read", sample.just_over_read, "4 KB"),
    ):
        if over.items < _LEAST_ITEMS or Decimal(over.items) / sample.items < _LEAST_SHARE:
            continue
        # So much of all units is what the last bytes of these items cost.
        share = Decimal(over.items) / max(1, over.units)
        cost = table.own.use.of(kind) * share * request_price(table, kind, prices)
        yield Waste(
            BOUNDARY,
            table.table,
            f"{over.items:,} of {sample.items:,} sampled items are at most {over.bytes} bytes over "
            f"a multiple of {size}, for which a {kind} is charged a whole unit more.",
            "Shorter attribute names or values would do.",
            cost * prices.days_per_month / MILLION,
        )
