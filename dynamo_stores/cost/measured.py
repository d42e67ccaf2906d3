"""
The load that the reports of all processes measured, with the sizes that DescribeTable returns.

Only what goes through this package is measured, and neither the reports themselves nor the work of
the status pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from .. import clock
from ..calls.control import get_control
from ..capacity.description import Resource, TableCapacity
from ..capacity.update import describe
from ..capacity.usage import HOUR, Usage, UsageByMinute, UsageHistory, minute_of
from ..conf import get_config
from ..exceptions import CALL_ERRORS
from ..infrastructure.live import read_recovery
from ..infrastructure.service_backups import ServiceBackups
from ..infrastructure.tables import TableSpec, wanted_tables
from ..monitoring.formatting import count_of
from ..monitoring.history import History
from ..monitoring.periods import Period
from .load import ITEM_OVERHEAD, HourUse, Load, ResourceLoad, TableLoad, Use, use_of

# Hours that are measured at most: 35 days, as long as they are kept.
MOST_DAYS = 35
NO_FIGURES = (
    "Nothing is measured yet: the task dynamo_stores.roll_up_status (Celery beat) or "
    "dynamo_reconcile (cron) must run each minute, and processes must report. CloudWatch "
    "(--cloudwatch) and assumptions do without."
)
SIZES = "Sizes and item counts are those of DescribeTable, which are up to six hours old at AWS."
Describe = Callable[[str], TableCapacity | None]


@dataclass(frozen=True)
class Measured:
    """
    The units of resources (``table`` and ``table/index``) by hour since the epoch, and how many
    hours of them are known; of an hour in ``minutes`` only so many minutes are. ``first`` and
    ``last`` are seconds since the epoch.
    """

    hours: Mapping[int, Mapping[str, HourUse]] = field(default_factory=dict)
    measured_hours: Decimal = Decimal(0)
    first: float | None = None
    last: float | None = None
    notes: tuple[str, ...] = ()
    minutes: Mapping[int, int] = field(default_factory=dict)

    def names(self) -> set[str]:
        """Return the resources that were used."""
        return {name for hour in self.hours.values() for name in hour}

    def use(self, names: Iterable[str]) -> Use:
        """Return the use of resources together."""
        wanted = list(names)
        return use_of(
            (_sum(found) for hour in self.hours.values()
             if (found := [hour[name] for name in wanted if name in hour])),
            self.measured_hours,
        )  # fmt: skip


def measured_load(
    using: str, *, tables: Iterable[str] | None = None, days: int = 30, now: float | None = None
) -> Load:
    """
    Return the load of the alias's tables, or of ``tables``, in the last ``days``, measured by the
    reports. One Query for a MB of hours, and for each table a DescribeTable and a
    DescribeContinuousBackups. Raises StoreUnavailable without an answer.
    """
    measured = read_measured(using, days=days, now=now)
    return load_of(using, measured, lambda table: describe(using, table), tables=tables,
                   backups=backups_of(using))  # fmt: skip


def read_measured(using: str, *, days: int = 30, now: float | None = None) -> Measured:
    """Return the measured units of the last ``days``; of the last minutes if no hour is over."""
    now = clock.now() if now is None else now
    last = minute_of(now) // HOUR
    hours = History(using).hours(last - days * 24, last - 1)
    if hours:
        return of_hours(hours)
    minute = minute_of(now)
    return of_minutes(UsageHistory(using).between(minute - 2 * HOUR, minute - 1))


def of_hours(hours: Mapping[int, Period]) -> Measured:
    """Return the units of whole hours."""
    if not hours:
        return Measured(notes=(NO_FIGURES,))
    first, last = min(hours), max(hours) + 1
    notes = []
    if len(hours) < last - first:
        notes.append(
            f"{count_of(last - first - len(hours), 'hour')} between the first and the last one "
            "have no figures and are left out: no calls were made, or nobody summed them up."
        )
    return Measured(
        {
            hour: {
                name: _hour_use(use, period.peak.get(name, (0.0, 0.0)))
                for name, use in period.use.items()
            }
            for hour, period in hours.items()
        },
        Decimal(len(hours)),
        first * 3600.0,
        last * 3600.0,
        tuple(notes),
    )


def of_minutes(use: UsageByMinute) -> Measured:
    """Return the units of single minutes, of which the last may not be complete."""
    minutes = {minute: resources for minute, resources in use.items() if resources}
    if not minutes:
        return Measured(notes=(NO_FIGURES,))
    hours: dict[int, dict[str, HourUse]] = {}
    for minute, resources in minutes.items():
        found = hours.setdefault(minute // HOUR, {})
        for name, each in resources.items():
            one = _hour_use(each, (each.read / 60, each.write / 60))
            known = found.get(name)
            found[name] = one if known is None else _later(known, one)
    first, last = min(minutes), max(minutes) + 1
    note = f"No whole hour is summed up yet: these are {count_of(len(minutes), 'minute')}."
    return Measured(
        hours,
        Decimal(len(minutes)) / HOUR,
        first * 60.0,
        last * 60.0,
        (note,),
        Counter(minute // HOUR for minute in minutes),
    )


def load_of(
    using: str,
    measured: Measured,
    describe: Describe,
    *,
    source: str = "reports",
    tables: Iterable[str] | None = None,
    backups: Callable[[str], tuple[Decimal, bool | None]] | None = None,
) -> Load:
    """
    Return the load of the alias's tables, and of others that were used, or of ``tables``.

    ``describe`` returns the state of a table, None if it does not exist. ``backups`` returns the
    bytes of a table's backups, and whether it has point-in-time recovery (None: not known); by
    default there are none, and recovery is what the settings say.
    """
    specs = {spec.name: spec for spec in wanted_tables() if spec.using == using}
    used = {name.partition("/")[0] for name in measured.names()}
    names = sorted({*specs, *used}) if tables is None else list(dict.fromkeys(tables))
    found, notes = [], list(measured.notes)
    for name in names:
        capacity = describe(name)
        if capacity is None:
            if name in used or tables is not None:
                notes.append(f"The table {name} does not exist; it is left out.")
            continue
        load = _table(using, capacity, measured, specs.get(name))
        if backups is not None:
            size, recovery = backups(name)
            load = replace(load, backup_size=size, point_in_time_recovery=recovery)
        found.append(load)
    return Load(
        source,
        tuple(found),
        measured.first,
        measured.last,
        measured.measured_hours,
        (*notes, SIZES, *_unknown(found)),
    )


def _table(
    using: str, capacity: TableCapacity, measured: Measured, spec: TableSpec | None
) -> TableLoad:
    table = capacity.table
    of_indexes = [name for name in capacity.resources if name]
    # What is counted for other indexes, as local ones are, is the capacity of the table.
    own = [
        name
        for name in measured.names()
        if name.partition("/")[0] == table and name.partition("/")[2] not in of_indexes
    ]
    resources = [
        _resource("", capacity, capacity.resources[""], measured.use(own)),
        *(
            _resource(name, capacity, capacity.resources[name], measured.use([f"{table}/{name}"]))
            for name in of_indexes
        ),
    ]
    target = get_config(using).for_table(table).scaling.target_utilization
    recovery = spec.options.point_in_time_recovery if spec is not None else None
    return TableLoad(
        table,
        tuple(resources),
        items=capacity.resources[""].items,
        replicas=capacity.replicas,
        has_stream=capacity.has_stream,
        point_in_time_recovery=recovery,
        table_class=capacity.table_class,
        target=Decimal(str(target)),
    )


def _resource(name: str, capacity: TableCapacity, resource: Resource, use: Use) -> ResourceLoad:
    return ResourceLoad(
        name,
        use,
        Decimal(resource.size + resource.items * ITEM_OVERHEAD),
        None if capacity.is_on_demand else (resource.units.read, resource.units.write),
    )


def _unknown(tables: list[TableLoad]) -> list[str]:
    found = []
    names = [each.table for each in tables if each.has_stream and each.stream_reads is None]
    if names:
        found.append(
            f"Reads of streams are not counted ({', '.join(names)}): a reader that asks each shard "
            "once a second makes 86,400 reads a day (--stream-reads-per-day)."
        )
    names = [each.table for each in tables if each.point_in_time_recovery is None]
    if names:
        found.append(
            "Backups and point-in-time recovery are not known, and not counted: "
            f"{', '.join(names)}."
        )
    return found


def backups_of(using: str) -> Callable[[str], tuple[Decimal, bool | None]]:
    try:
        sizes: dict[str, int] = {}
        for each in ServiceBackups(using, lambda line: None).list():
            sizes[each.table] = sizes.get(each.table, 0) + each.size
    except CALL_ERRORS:
        # Not allowed, or an engine without backups.
        return lambda table: (Decimal(0), None)

    def of(table: str) -> tuple[Decimal, bool | None]:
        try:
            return Decimal(sizes.get(table, 0)), read_recovery(get_control(using), table)
        except CALL_ERRORS:
            return Decimal(sizes.get(table, 0)), None

    return of


def _hour_use(use: Usage, peak: tuple[float, float]) -> HourUse:
    # By their shortest text, so that 0.1 is 0.1.
    return tuple(Decimal(str(each)) for each in (use.read, use.write, *peak))  # type: ignore[return-value]


def _sum(found: list[HourUse]) -> HourUse:
    return tuple(map(sum, zip(*found, strict=True)))  # type: ignore[return-value]


def _later(one: HourUse, other: HourUse) -> HourUse:
    return (one[0] + other[0], one[1] + other[1], max(one[2], other[2]), max(one[3], other[3]))
