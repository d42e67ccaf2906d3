"""What a run costs by list prices: at most, before it; by what was consumed, after it."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from dynamo_stores.calls.observer import Measurement
from dynamo_stores.cost.cloudwatch import PRICE_PER_METRIC
from dynamo_stores.cost.prices import MILLION, Prices, money, read_prices
from dynamo_stores.exceptions import ConfigurationError

from .project import BASE_UNITS, PROVISIONED, RAISED_READS

# More units on demand, and more metrics, than a run consumes; a test compares.
MOST_READS, MOST_WRITES, MOST_METRICS = 500, 500, 20
# The table and its index; an hour is billed in full, and a run may be in two.
_RESOURCES, _HOURS = 2, 2
# No region's list price is more than twice that of us-east-1.
_ELSEWHERE = Decimal(2)


@dataclass
class Consumed:
    """Units on demand, and metrics that were asked for."""

    reads: Decimal = Decimal(0)
    writes: Decimal = Decimal(0)
    metrics: int = 0

    def add(self, measured: list[Measurement]) -> None:
        """Add the units of the measurements; those of the provisioned table are not billed."""
        for each in measured:
            if each.using != PROVISIONED:
                units = Decimal(str(sum(each.units.values())))
                if each.kind == "Read":
                    self.reads += units
                else:
                    self.writes += units


MOST = Consumed(Decimal(MOST_READS), Decimal(MOST_WRITES), MOST_METRICS)


def prices_of(region: str) -> tuple[Prices, str]:
    """Return the prices of ``region``, and a sentence about them."""
    try:
        prices = read_prices(region=region)
        note = f"List prices of {prices.date}."
    except ConfigurationError:
        prices = read_prices(region=region, price_region="us-east-1", factor=_ELSEWHERE)
        note = f"The price file has no prices of {region}: twice those of us-east-1 are taken."
    return prices, note


def price(consumed: Consumed, prices: Prices) -> Decimal:
    """Return the price of a run: what was consumed, and two hours of the raised table."""
    hourly = RAISED_READS * prices.provisioned.read + BASE_UNITS * prices.provisioned.write
    on_demand = consumed.reads * prices.on_demand.read + consumed.writes * prices.on_demand.write
    return on_demand / MILLION + hourly * _RESOURCES * _HOURS + consumed.metrics * PRICE_PER_METRIC


def told(consumed: Consumed, prices: Prices) -> str:
    """Return the sum of :func:`price` as a line."""
    return (
        f"{consumed.reads:,} read and {consumed.writes:,} write units on demand, "
        f"{_HOURS} hours of {RAISED_READS} read and {BASE_UNITS} write units a second for a table "
        f"and its index, {consumed.metrics} metrics: "
        f"{money(price(consumed, prices), prices.currency)}"
    )
