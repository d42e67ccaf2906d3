"""What a load costs in a month, line by line with its arithmetic. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from .load import GB, INFREQUENT_ACCESS, KINDS, Load, ResourceLoad, TableLoad
from .prices import MILLION, Prices

READS, WRITES, CAPACITY, STORAGE = "reads", "writes", "capacity", "storage"
REPLICAS, STREAMS, BACKUPS, RECOVERY = "replicas", "streams", "backups", "recovery"


@dataclass(frozen=True)
class Line:
    """
    A part of the cost of ``resource``, a table or ``table/index``, in a month. ``part`` is a word
    for programs, ``what`` one for people, ``arithmetic`` how ``amount`` was computed.
    """

    resource: str
    part: str
    what: str
    arithmetic: str
    amount: Decimal

    @property
    def table(self) -> str:
        """The table of the resource."""
        return self.resource.partition("/")[0]


def estimate(load: Load, prices: Prices) -> tuple[Line, ...]:
    """Return the cost of ``load`` in a month, of each table in its present billing mode."""
    lines = [line for table in load.tables for line in _lines(table, prices)]
    return (*lines, *_stream_lines(load, prices))


def total(lines: tuple[Line, ...]) -> Decimal:
    """Return the sum of ``lines``, not rounded."""
    return sum((line.amount for line in lines), Decimal(0))


def _lines(table: TableLoad, prices: Prices) -> Iterator[Line]:
    units_of = _requests if table.is_on_demand else _capacity
    for resource in table.resources:
        yield from units_of(table, resource, prices)
    storage = _storage_price(table, prices)
    for resource in table.resources:
        if resource.size:
            yield Line(
                table.name_of(resource),
                STORAGE,
                "Storage",
                f"{number(resource.gb)} GB × {prices.money(storage)}",
                resource.gb * storage,
            )
    if table.replicas:
        yield from _replica_lines(table, prices)
    if table.backup_size:
        yield _by_size(table, BACKUPS, "Backups", table.backup_size / GB, prices.backup, prices)
    if table.point_in_time_recovery and table.own.size:
        price = prices.point_in_time_recovery
        yield _by_size(table, RECOVERY, "Point-in-time recovery", table.own.gb, price, prices)


def _requests(table: TableLoad, resource: ResourceLoad, prices: Prices) -> Iterator[Line]:
    for kind in KINDS:
        per_day = resource.use.of(kind)
        if per_day:
            yield _million(
                table.name_of(resource),
                READS if kind == "read" else WRITES,
                "Reads" if kind == "read" else "Writes",
                per_day,
                request_price(table, kind, prices),
                prices,
            )


def request_price(table: TableLoad, kind: str, prices: Prices) -> Decimal:
    """Return the price of a million units on demand, in the class of the table."""
    if table.table_class == INFREQUENT_ACCESS and prices.infrequent_access is not None:
        return getattr(prices.infrequent_access, kind)  # type: ignore[no-any-return]
    return prices.on_demand.of(kind)


def _storage_price(table: TableLoad, prices: Prices) -> Decimal:
    if table.table_class == INFREQUENT_ACCESS and prices.infrequent_access is not None:
        return prices.infrequent_access.storage
    return prices.storage


def _capacity(table: TableLoad, resource: ResourceLoad, prices: Prices) -> Iterator[Line]:
    # A local index uses the capacity of its table.
    for kind, units in zip(KINDS, resource.provisioned or (), strict=False):
        price = prices.provisioned.of(kind)
        yield Line(
            table.name_of(resource),
            CAPACITY,
            f"{kind.title()} capacity",
            f"{units:,} units × {number(prices.hours_per_month)} h × {prices.currency} {price}",
            units * prices.hours_per_month * price,
        )


def _replica_lines(table: TableLoad, prices: Prices) -> Iterator[Line]:
    count = table.replicas
    if table.is_on_demand:
        per_day = table.own.use.write + sum((each.use.write for each in table.indexes), Decimal(0))
        if per_day:
            yield _million(
                table.table,
                REPLICAS,
                "Writes in replicas",
                per_day,
                prices.on_demand.replicated_write,
                prices,
                count,
            )
    else:
        units = sum((each.provisioned or (0, 0))[1] for each in table.resources)
        price = prices.provisioned.replicated_write
        yield Line(
            table.table,
            REPLICAS,
            "Write capacity of replicas",
            f"{count} × {units:,} units × {number(prices.hours_per_month)} h × "
            f"{prices.currency} {price}",
            count * units * prices.hours_per_month * price,
        )
    if table.gb and prices.replica_storage:
        price = prices.replica_storage
        yield _by_size(table, REPLICAS, "Storage of replicas", table.gb, price, prices, count)


def _stream_lines(load: Load, prices: Prices) -> Iterator[Line]:
    """The free reads are those of the account, so all tables are one line."""
    per_day = sum((each.stream_reads or Decimal(0) for each in load.tables), Decimal(0))
    if not per_day:
        return
    reads = per_day * prices.days_per_month
    paid = max(Decimal(0), reads - prices.streams.free)
    names = [each.table for each in load.tables if each.stream_reads]
    yield Line(
        names[0] if len(names) == 1 else "all tables",
        STREAMS,
        "Reads of streams",
        f"({number(reads)} - {number(prices.streams.free)} free) / 1,000,000 × "
        f"{prices.money(prices.streams.read)}",
        paid / MILLION * prices.streams.read,
    )


def _million(
    resource: str,
    part: str,
    what: str,
    per_day: Decimal,
    price: Decimal,
    prices: Prices,
    count: int = 1,
) -> Line:
    units = per_day * prices.days_per_month
    times = "" if count == 1 else f"{count} × "
    return Line(
        resource,
        part,
        what,
        f"{times}({number(per_day)} × {number(prices.days_per_month)}) / 1,000,000 × "
        f"{prices.money(price)}",
        count * units / MILLION * price,
    )


def _by_size(
    table: TableLoad,
    part: str,
    what: str,
    gb: Decimal,
    price: Decimal,
    prices: Prices,
    count: int = 1,
) -> Line:
    times = "" if count == 1 else f"{count} × "
    return Line(
        table.table,
        part,
        what,
        f"{times}{number(gb)} GB × {prices.money(price)}",
        count * gb * price,
    )


def number(value: Decimal) -> str:
    """Return a number for people: whole from 1,000 on, else to three significant digits."""
    if not value:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) >= 1:
        text = f"{value:.2f}"
    else:
        text = f"{value:.3g}" if abs(value) >= Decimal("0.0001") else "under 0.0001"
    return text.rstrip("0").rstrip(".") if "." in text and text[-1].isdigit() else text
