"""
Raise tables ahead of the hours for which a schedule wants more, each table once an hour.

What was learnt is an item in the control table, so that the hours of five weeks are read once a
day. The process that takes the hour of a table by a conditional write decides; the claim of raises
and the record of raised tables are those of throttled ones, so the table comes down by its record.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from botocore.exceptions import ClientError
from pynamodb.attributes import UnicodeAttribute

from .. import keys
from ..calls.control import get_control
from ..concurrency.effects import run
from ..conf import get_config
from ..conf.groups import ScalingConfig
from ..conf.rules import LEARNT
from ..exceptions import (
    CALL_ERRORS,
    TABLE_MISSING,
    ConfigurationError,
    StoreUnavailable,
    code_of,
)
from ..expressions import at_most, equals, less, missing, put, remove
from ..item_access import ConditionFailed, Items
from ..leases import end_after
from ..models import ControlItem, IntegerAttribute, integer_of, string_of
from .auto_scaling import get_auto_scaling
from .description import Quota, TableCapacity, read_limits
from .history import Decisions
from .planner import Plan
from .records import CapacityRecords
from .schedule import (
    AHEAD,
    Peaks,
    Schedule,
    given,
    hour_of,
    learn,
    plan_scheduled,
    read_schedule,
)
from .update import apply, as_decision, describe, raise_until

logger = logging.getLogger(__name__)

# Seconds for which the hour of a table is taken; of the claim of a raise, as of throttled tables;
# after which a schedule is learnt again; and for which its item is kept.
_LEASE, _CLAIM, _LEARN_AFTER, _KEPT = 60.0, 5.0, 86_400.0, 8 * 86_400.0
# Plans after which the hour is decided again, at the next run.
_NOT_YET = frozenset(["in_progress", "unavailable", "claimed"])
# Plans that somebody should know of.
_FAILED = frozenset(["refused", "not_allowed", "unavailable", "no_table"])


class ScheduleItem(ControlItem):
    """
    The schedule of a table: the last hour that was decided (``done``, since the epoch), when it was
    learnt (``at``), and what (``text``, JSON). Until ``lease_end`` a process decides. In ms.
    """

    done = IntegerAttribute(null=True, attr_name="d")
    lease_end = IntegerAttribute(null=True, attr_name="l")
    at = IntegerAttribute(null=True, attr_name="a")
    text = UnicodeAttribute(null=True, attr_name="x")


@dataclass(frozen=True)
class Kept:
    """What the control table has about the schedule of a table; ``at`` is when it was learnt."""

    done: int = 0
    at: float = 0.0
    schedule: Schedule | None = None


class Schedules:
    """The schedules of one alias, in its control table."""

    def __init__(self, using: str) -> None:
        self.using = using
        self._items = Items(ScheduleItem, using)

    def get(self, table: str) -> Kept:
        """Return what is kept of the schedule of ``table``, by a strongly consistent read."""
        item = run(self._items.get(keys.capacity(table, keys.SCHEDULE), consistent=True)) or {}
        schedule = None
        if text := string_of(item, ScheduleItem.text):
            try:
                schedule = read_schedule(text)
            except (ArithmeticError, ValueError, RecursionError):
                logger.info("A learnt schedule was skipped: other software wrote it.")
        return Kept(
            integer_of(item, ScheduleItem.done),
            integer_of(item, ScheduleItem.at) / 1000,
            schedule,
        )

    def take(self, table: str, hour: int) -> int | None:
        """
        Take ``hour`` (since the epoch) of a table. Return the end of its lease, None if the hour is
        decided, or taken.
        """
        key = keys.capacity(table, keys.SCHEDULE)
        times = run(self._items.learned_times(key))
        now, until = int(times.low * 1000), end_after(times, _LEASE)
        open_ = missing(ScheduleItem.done) | less(ScheduleItem.done, hour)
        free = missing(ScheduleItem.lease_end) | at_most(ScheduleItem.lease_end, now)
        ttl = put(ScheduleItem.ttl, int(until / 1000 + _KEPT))
        try:
            run(self._items.update(key, put(ScheduleItem.lease_end, until) + ttl, open_ & free))
        except ConditionFailed:
            return None
        return until

    def finish(self, table: str, hour: int, lease_end: int, *, is_decided: bool) -> None:
        """Release the hour, decided or not, unless another process took it after the lease."""
        change = remove(ScheduleItem.lease_end)
        condition = equals(ScheduleItem.lease_end, lease_end)
        if is_decided:
            change += put(ScheduleItem.done, hour)
        try:
            run(self._items.update(keys.capacity(table, keys.SCHEDULE), change, condition))
        except ConditionFailed:
            logger.info("Another process decides about the hour of table %s.", table)

    def keep(self, table: str, schedule: Schedule, now: float) -> None:
        """Keep what was learnt."""
        change = put(ScheduleItem.text, schedule.as_text()) + put(ScheduleItem.at, int(now * 1000))
        run(self._items.update(keys.capacity(table, keys.SCHEDULE), change))

    def now(self) -> float:
        """Return the time by DynamoDB's clock, in seconds since the epoch."""
        return CapacityRecords(self.using).deadline_after(0)


@dataclass(frozen=True)
class Decided:
    """What was decided about a table for its next hour."""

    table: str
    plan: Plan


def schedule_of(using: str, table: str, config: ScalingConfig) -> Schedule | None:
    """Return the schedule that acts on a table; None without one, and for a dry one."""
    if config.schedule is None or config.schedule_dry_run or config.dry_run:
        return None
    return given(config) or Schedules(using).get(table).schedule


def follow_schedules(
    using: str, tables: Iterable[str], read_peaks: Callable[[], Peaks]
) -> list[Decided]:
    """
    Decide about the next hour of each of ``tables`` that has a schedule, and raise what it wants;
    with SCHEDULE_DRY_RUN only record it. Return the decisions that wanted a change.

    May run in several processes at once: one of them decides about each table and hour.
    ``read_peaks`` returns the peaks of the last weeks, for schedules that are learnt. Without a
    control table nothing is decided. Raises StoreUnavailable if it cannot be read.
    """
    scheduled = [
        (table, config)
        for table in tables
        if (config := get_config(using).for_table(table).scaling).schedule is not None
    ]
    if not scheduled:
        return []
    schedules, found = Schedules(using), []
    peaks: list[Peaks] = []

    def once() -> Peaks:
        if not peaks:
            peaks.append(read_peaks())
        return peaks[0]

    try:
        now = schedules.now()
        for table, config in scheduled:
            plan = _follow(using, table, config, schedules, now, once)
            if plan is not None and plan.code != "nothing":
                found.append(Decided(table, plan))
    except ConfigurationError as exc:
        if code_of(exc) == TABLE_MISSING:
            return []
        raise
    return found


def _follow(
    using: str,
    table: str,
    config: ScalingConfig,
    schedules: Schedules,
    now: float,
    read_peaks: Callable[[], Peaks],
) -> Plan | None:
    kept, hour = schedules.get(table), hour_of(now + AHEAD, config.schedule_time_zone)
    lease_end = None if kept.done >= hour else schedules.take(table, hour)
    if lease_end is None:
        return None
    plan = Plan("unavailable", f"the schedule of {table} could not be followed")
    capacity: TableCapacity | None = None
    try:
        capacity = describe(using, table)
        if capacity is None:
            plan = Plan("no_table", f"the table {table} does not exist")
        else:
            plan = _decide(using, capacity, config, schedules, kept, now, read_peaks)
    except CALL_ERRORS as exc:
        plan = Plan("unavailable", f"the schedule of {table} could not be followed: {exc}")
    finally:
        schedules.finish(table, hour, lease_end, is_decided=plan.code not in _NOT_YET)
    if plan.code in _FAILED:
        logger.warning(
            "Table %s was not raised by its schedule: %s.", table, plan.why,
            extra={
                "dynamodb_table": table,
                "dynamodb_using": using,
                "dynamodb_decision": plan.code,
            },
        )  # fmt: skip
    if plan.changes or plan.code in ("dry_run", "refused", "not_allowed"):
        Decisions(using).publish(table, as_decision(plan, capacity))
    return plan


def _decide(
    using: str,
    capacity: TableCapacity,
    config: ScalingConfig,
    schedules: Schedules,
    kept: Kept,
    now: float,
    read_peaks: Callable[[], Peaks],
) -> Plan:
    table, schedule = capacity.table, given(config) or kept.schedule
    if config.schedule == LEARNT and (
        schedule is None
        or now - kept.at >= _LEARN_AFTER
        or schedule.zone != config.schedule_time_zone
    ):
        schedule = learn(read_peaks(), table, capacity.resources, config)
        schedules.keep(table, schedule, now)
    if schedule is None:
        return Plan("nothing", f"{table} has no schedule")
    plan = plan_scheduled(capacity, schedule.soon(capacity, now), config, _quota(using))
    if not plan.changes:
        return plan
    if get_auto_scaling(using).targets(capacity):
        # Its own scheduled actions are for that.
        return Plan("nothing", f"Application Auto Scaling scales {table}")
    if config.schedule_dry_run or config.dry_run:
        return apply(using, capacity, plan, dry_run=True)
    records = CapacityRecords(using)
    if not records.claim(table, _CLAIM):
        return Plan("claimed", f"another process raises {table}", again=True)
    until = max(now + config.scale_down_delay, schedule.lower_at(capacity, now))
    return raise_until(using, capacity, plan, until, {})


def _quota(using: str) -> Quota:
    try:
        return read_limits(get_control(using).call("DescribeLimits", {}))
    except (ClientError, StoreUnavailable):
        # Not allowed, or an engine without this operation: the quota of a new account.
        return Quota()
