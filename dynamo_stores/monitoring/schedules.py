"""Follow the schedules of the tables of an alias, learnt from the hours that are summed up."""

from __future__ import annotations

from .. import clock
from ..capacity.schedule import DAYS, Peaks, Schedule, given
from ..capacity.scheduled import Decided, Schedules, follow_schedules
from ..capacity.usage import HOUR, minute_of
from ..conf import get_config
from ..infrastructure.tables import wanted_tables
from .history import History


def follow(using: str) -> list[Decided]:
    """
    Decide about the next hour of each table that has a schedule; see
    :func:`~dynamo_stores.capacity.scheduled.follow_schedules`. Raises StoreUnavailable.
    """
    tables = scheduled_tables(using)
    return follow_schedules(using, tables, lambda: read_peaks(using)) if tables else []


def scheduled_tables(using: str) -> list[str]:
    """Return the provisioned tables of an alias that have a schedule, given or learnt."""
    return [
        spec.name
        for spec in wanted_tables()
        if spec.using == using
        and spec.billing_mode == "PROVISIONED"
        and spec.config.scaling.schedule is not None
    ]


def schedules(using: str) -> dict[str, Schedule | None]:
    """
    Return the schedule of each table that has one: as given, or as learnt last (None: not yet).
    One GetItem for each that is learnt. Raises StoreUnavailable.
    """
    return {
        table: given(get_config(using).for_table(table).scaling)
        or Schedules(using).get(table).schedule
        for table in scheduled_tables(using)
    }


def read_peaks(using: str) -> Peaks:
    """Return the highest units a second of the last five weeks by hour; one Query for a MB."""
    last = minute_of(clock.now()) // HOUR
    hours = History(using).hours(last - DAYS * 24, last - 1)
    return {hour: period.peak for hour, period in hours.items()}
