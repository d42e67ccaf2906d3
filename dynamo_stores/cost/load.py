"""The load that an estimate is about: units, storage, replicas, streams and backups. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain

KINDS = ("read", "write")
# A stored item is billed with so many bytes more than it has, in the table and in each index.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
ITEM_OVERHEAD = 100
GB = Decimal(10**9)
SECONDS_PER_HOUR, HOURS_PER_DAY = 3600, 24
STANDARD, INFREQUENT_ACCESS = "STANDARD", "STANDARD_INFREQUENT_ACCESS"


@dataclass(frozen=True)
class Use:
    """
    Read and write units of one resource: ``read`` and ``write`` units a day, and the highest ones
    a second, over the whole time (``peak_read``, ``peak_write``) and of each measured hour.
    """

    read: Decimal = Decimal(0)
    write: Decimal = Decimal(0)
    peak_read: Decimal = Decimal(0)
    peak_write: Decimal = Decimal(0)
    hours: tuple[tuple[Decimal, Decimal], ...] = ()

    def of(self, kind: str) -> Decimal:
        """Return the ``"read"`` or ``"write"`` units a day."""
        return self.read if kind == "read" else self.write

    def peak(self, kind: str) -> Decimal:
        """Return the highest ``"read"`` or ``"write"`` units a second."""
        return self.peak_read if kind == "read" else self.peak_write


@dataclass(frozen=True)
class ResourceLoad:
    """
    The load of a table (``name`` is ``""``) or of one of its indexes. ``provisioned`` are its read
    and write units a second, None on demand; ``size`` is in bytes, as it is billed.
    """

    name: str
    use: Use
    size: Decimal = Decimal(0)
    provisioned: tuple[int, int] | None = None

    @property
    def gb(self) -> Decimal:
        """The size in GB."""
        return self.size / GB


@dataclass(frozen=True)
class TableLoad:
    """
    The load of a table. ``replicas`` are those in other regions; ``stream_reads`` are reads of its
    stream a day, None where nobody counted them; ``backup_size`` is that of all its full backups.
    ``target`` is the use of provisioned capacity to aim at, between 0 and 1.
    """

    table: str
    resources: tuple[ResourceLoad, ...]
    items: int = 0
    replicas: int = 0
    has_stream: bool = False
    stream_reads: Decimal | None = None
    backup_size: Decimal = Decimal(0)
    point_in_time_recovery: bool | None = False
    table_class: str = STANDARD
    target: Decimal = Decimal("0.7")

    @property
    def own(self) -> ResourceLoad:
        """The load of the table itself."""
        return self.resources[0]

    @property
    def indexes(self) -> tuple[ResourceLoad, ...]:
        """The loads of its indexes."""
        return self.resources[1:]

    @property
    def is_on_demand(self) -> bool:
        """Whether it has no provisioned capacity."""
        return self.own.provisioned is None

    @property
    def gb(self) -> Decimal:
        """The size of the table and its indexes in GB."""
        return sum((each.gb for each in self.resources), Decimal(0))

    def name_of(self, resource: ResourceLoad) -> str:
        """Return ``table`` or ``table/index``."""
        return f"{self.table}/{resource.name}" if resource.name else self.table

    def units(self, kind: str) -> Decimal:
        """Return the units a day of the table and its indexes together."""
        return sum((each.use.of(kind) for each in self.resources), Decimal(0))


@dataclass(frozen=True)
class Load:
    """
    The loads of tables, and where they are from: ``source`` is ``"reports"``, ``"cloudwatch"`` or
    ``"assumptions"``. The measured time is from ``first`` to ``last`` (seconds since the epoch),
    of which ``measured_hours`` have figures. ``notes`` are sentences about what is not known.
    """

    source: str
    tables: tuple[TableLoad, ...]
    first: float | None = None
    last: float | None = None
    measured_hours: Decimal = Decimal(0)
    notes: tuple[str, ...] = ()

    @property
    def is_measured(self) -> bool:
        """Whether the units were measured, and not assumed."""
        return self.source != "assumptions"

    def units(self, kind: str) -> Decimal:
        """Return the units a day of all tables."""
        return sum((each.units(kind) for each in self.tables), Decimal(0))

    @property
    def gb(self) -> Decimal:
        """The size of all tables in GB."""
        return sum((each.gb for each in self.tables), Decimal(0))

    @property
    def items(self) -> int:
        """The number of items of all tables."""
        return sum(each.items for each in self.tables)


def assumed(
    *,
    reads_per_day: Decimal,
    writes_per_day: Decimal,
    storage_mb: Decimal,
    replicas: int = 0,
    indexes: int = 0,
    stream_reads_per_day: Decimal = Decimal(0),
    backups: int = 0,
    point_in_time_recovery: bool = False,
    peak: Decimal = Decimal(1),
    target: Decimal = Decimal("0.7"),
    table: str = "the application",
) -> Load:
    """
    Return the load of assumptions about one table: units a day, MB of 1,000,000 bytes.

    ``peak`` is how much busier the busiest minute is than the average one. Each of the ``indexes``
    has all items and all writes of the table, and no reads.
    """
    per_second = peak / (HOURS_PER_DAY * SECONDS_PER_HOUR)
    size = storage_mb * 10**6
    write_peak = writes_per_day * per_second
    own = Use(reads_per_day, writes_per_day, reads_per_day * per_second, write_peak)
    of_index = Use(write=writes_per_day, peak_write=write_peak)
    resources = [ResourceLoad("", own, size)]
    resources += [
        ResourceLoad(f"index {number}", of_index, size) for number in range(1, indexes + 1)
    ]
    one = TableLoad(
        table,
        tuple(resources),
        replicas=replicas,
        has_stream=bool(stream_reads_per_day),
        stream_reads=stream_reads_per_day,
        backup_size=backups * size,
        point_in_time_recovery=point_in_time_recovery,
        target=target,
    )
    return Load("assumptions", (one,))


# The units and the highest units a second of one hour: reads and writes.
HourUse = tuple[Decimal, Decimal, Decimal, Decimal]


def use_of(hours: Iterable[HourUse], measured_hours: Decimal) -> Use:
    """
    Return the use a day of ``hours``, of which ``measured_hours`` are known; a known hour without
    figures of this resource is one without use.
    """
    found = list(hours)
    if not measured_hours:
        return Use()
    read, write, peak_read, peak_write = (
        list(each) for each in (zip(*found, strict=True) if found else ((), (), (), ()))
    )
    idle = max(0, int(measured_hours) - len(found))
    return Use(
        read=sum(read, Decimal(0)) / measured_hours * HOURS_PER_DAY,
        write=sum(write, Decimal(0)) / measured_hours * HOURS_PER_DAY,
        peak_read=max(peak_read, default=Decimal(0)),
        peak_write=max(peak_write, default=Decimal(0)),
        hours=tuple(
            chain(zip(peak_read, peak_write, strict=True), [(Decimal(0), Decimal(0))] * idle)
        ),
    )


def by_table(names: Iterable[str]) -> Mapping[str, list[str]]:
    """Return names such as ``table`` and ``table/index`` by table, the table's own first."""
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        found.setdefault(name.partition("/")[0], []).append(name)
    return found
