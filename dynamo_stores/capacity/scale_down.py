"""Lower the tables that are due, each once, in whichever process finds it first."""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from ..conf import DEFAULT_ALIAS, get_config
from ..conf.groups import ScalingConfig
from ..exceptions import CALL_ERRORS, TABLE_MISSING, ConfigurationError, code_of
from .auto_scaling import get_auto_scaling, plan_minimums_down, plan_no_change
from .demand import SharedDemand
from .description import QUIET_HOUR, TableCapacity
from .history import Decisions
from .planner import Demand, Plan, end_of_maintenance, plan_down
from .records import CapacityRecords, Record
from .schedule import Schedule
from .scheduled import schedule_of
from .update import apply, as_decision, describe
from .usage import UsageHistory, use_since

logger = logging.getLogger(__name__)

# Seconds of the lease under which a table is lowered, which takes two calls.
_LEASE = 120.0
# Seconds until a table is checked again that is being changed or could not be read.
_SOON = 60.0


@dataclass(frozen=True)
class Outcome:
    """The plan for a table that was due; ``next_deadline`` is its next check (None: never)."""

    table: str
    plan: Plan
    next_deadline: float | None


def reconcile(using: str = DEFAULT_ALIAS, table: str | None = None) -> list[Outcome]:
    """
    Lower the tables of the alias that are due, or only ``table``; return the outcome of each.

    May run in several processes at once: one of them lowers each table. Without a control table
    there are no records. Raises StoreUnavailable if the control table cannot be read.
    """
    records = CapacityRecords(using)
    outcomes = []
    try:
        due = records.due()
    except ConfigurationError as exc:
        if code_of(exc) == TABLE_MISSING:
            return []
        raise
    for record in due:
        if table is not None and record.table != table:
            continue
        leased = records.lease(record, _LEASE)
        if leased is not None:
            outcomes.append(_lower(using, records, leased))
    return outcomes


def _lower(using: str, records: CapacityRecords, record: Record) -> Outcome:
    config = get_config(using).for_table(record.table).scaling
    # By DynamoDB's clock, as the deadlines are.
    now = records.deadline_after(0)
    capacity: TableCapacity | None = None
    schedule: Schedule | None = None
    try:
        schedule = schedule_of(using, record.table, config)
        capacity = describe(using, record.table)
        plan = _plan(using, record, capacity, config, now, schedule)
    except CALL_ERRORS as exc:
        plan = Plan(
            "unavailable", f"the state of {record.table} could not be read: {exc}", again=True
        )
    next_deadline = _next(plan, capacity, config, now) if plan.again else None
    if schedule is not None and capacity is not None and plan.code == "scheduled":
        next_deadline = schedule.lower_at(capacity, now)
    if plan.code not in ("lowered", "minimum_lowered", "in_progress"):
        quiet = plan.code in ("at_baseline", "on_demand", "maintenance_window", "scheduled")
        logger.log(
            logging.INFO if quiet else logging.WARNING,
            "Table %s was not lowered: %s.", record.table, plan.why,
            extra={
                "dynamodb_table": record.table,
                "dynamodb_using": using,
                "dynamodb_decision": plan.code,
            },
        )  # fmt: skip
    decision = as_decision(plan, capacity)
    if plan.code != "in_progress":
        Decisions(using).publish(record.table, decision)
    if not records.finish(record, decision, next_deadline):
        logger.info(
            "Table %s was raised while it was being lowered; the deadline of the raise applies.",
            record.table,
        )
    return Outcome(record.table, plan, next_deadline)


def _plan(
    using: str,
    record: Record,
    capacity: TableCapacity | None,
    config: ScalingConfig,
    now: float,
    schedule: Schedule | None,
) -> Plan:
    table = record.table
    if capacity is None:
        return Plan("no_table", f"the table {table} no longer exists")
    auto_scaling = get_auto_scaling(using)
    targets = auto_scaling.targets(capacity)
    floor = {
        each: units
        for each, units in record.floor_of(capacity.table_id).items()
        if each not in targets
    }
    minimums = record.floor_of(capacity.table_id, minimums=True)
    if targets and not floor and (config.auto_scaling == "leave" or not minimums):
        return plan_no_change(table)
    if end_of_maintenance(config.maintenance_windows, now) is not None:
        return Plan("maintenance_window", f"{table} is in a maintenance window", again=True)
    if targets and minimums:
        plan = plan_minimums_down(capacity, config, targets, minimums)
        if plan.changes and not config.dry_run:
            done = auto_scaling.set_minimums(capacity, plan)
            return dataclasses.replace(done, again=done.again or bool(floor))
        if plan.changes or not floor:
            return apply(using, capacity, plan, dry_run=config.dry_run)
    history = UsageHistory(using).last_hour(now)
    recent = use_since(history, table, now, config.scale_down_delay)
    plan = plan_down(
        capacity,
        config,
        now,
        floor=floor,
        need=_higher(recent.need, SharedDemand(using).total(table)),
        is_use_known=recent.is_known,
        throttled_at=recent.throttled_at,
        minimums=None if schedule is None else schedule.soon(capacity, now),
    )
    return apply(using, capacity, plan, dry_run=config.dry_run)


def _higher(one: Demand, other: Demand) -> Demand:
    return {each: max(one.get(each, 0.0), other.get(each, 0.0)) for each in {*one, *other}}


def _next(plan: Plan, capacity: TableCapacity | None, config: ScalingConfig, now: float) -> float:
    if plan.code == "no_decreases_left" and capacity is not None:
        # Not earlier than a decrease is allowed again, so that this is logged once.
        return min(_quiet_hour(capacity, now), _midnight(now))
    end = end_of_maintenance(config.maintenance_windows, now)
    if plan.code == "maintenance_window" and end is not None:
        return end
    if plan.code in ("lowered", "needed"):
        return now + max(1.0, config.scale_down_delay)
    if plan.code in ("not_allowed", "dry_run", "refused"):
        return now + max(_SOON, config.scale_down_delay)
    return now + _SOON


def _quiet_hour(capacity: TableCapacity, now: float) -> float:
    last = [each.last_decrease for each in capacity.resources.values() if each.last_decrease]
    return max(now + _SOON, max(last, default=now) + QUIET_HOUR)


def _midnight(now: float) -> float:
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return (today + timedelta(days=1)).timestamp()
