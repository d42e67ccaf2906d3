"""Manual changes of a table's capacity."""

from __future__ import annotations

from dataclasses import replace

from .. import clock
from ..conf import get_config
from ..conf.groups import ScalingConfig
from ..exceptions import StoreError
from .auto_scaling import get_auto_scaling, plan_minimums_up, plan_no_change
from .description import KINDS, TableCapacity, Units
from .history import Decisions
from .planner import Plan, by_factor, plan_down
from .records import CapacityRecords
from .update import BEING_CHANGED, apply, as_decision, describe, raise_until

# The directions of a change.
UP, DOWN, TO = "up", "down", "to"


class NoSuchTable(StoreError):
    """The table to change does not exist."""


def change_manually(
    using: str,
    table: str,
    direction: str,
    *,
    read: int | None = None,
    write: int | None = None,
    by: str = "",
    dry_run: bool = False,
) -> Plan:
    """
    Raise a table and its indexes by ``SCALE_UP_FACTOR`` (``"up"``), lower them to their baseline
    (``"down"``) or set their units a second (``"to"``). Return the plan that was carried out, or
    one without changes. ``by`` is the name of the user or program that requests it.

    Raised capacity is lowered after ``SCALE_DOWN_DELAY``. Of a table that Application Auto Scaling
    scales, only minimums are raised, and only if ``AUTO_SCALING`` is ``"raise_minimum"``. The write
    capacity of a table with replicas is not changed.
    Raises NoSuchTable if there is no such table, StoreError if it is on demand, and
    StoreUnavailable without an answer.
    """
    records = CapacityRecords(using)
    record = records.get(table) if direction == DOWN and not dry_run else None
    capacity = describe(using, table)
    if capacity is None:
        raise NoSuchTable(f"Alias {using!r} has no table {table}.")
    if capacity.is_on_demand:
        raise StoreError(f"{table} is on demand: it has no capacity to change.")
    config = get_config(using).for_table(table).scaling
    plan = _plan(capacity, config, direction, read, write)
    if by and plan.changes:
        plan = replace(plan, why=f"{plan.why}, requested by {by}")
    targets = get_auto_scaling(using).targets(capacity)
    if targets:
        is_raise = config.auto_scaling == "raise_minimum" and direction == UP
        plan = plan_minimums_up(capacity, plan, targets) if is_raise else plan_no_change(table)
    if dry_run:
        return apply(using, capacity, plan, dry_run=True)
    if targets or _raises(capacity, plan, config):
        deadline = records.deadline_after(config.scale_down_delay)
        plan = raise_until(using, capacity, plan, deadline, targets) if plan.changes else plan
    else:
        plan = apply(using, capacity, plan)
    decision = as_decision(plan, capacity)
    if record is not None and record.deadline and plan.code in ("lowered", "at_baseline"):
        # The record was read before the table: a raise in the meantime keeps its deadline.
        if plan.again:
            records.lower_to_baseline(record, capacity)
        else:
            records.forget(record, decision)
    Decisions(using).publish(table, decision)
    return plan


def _raises(capacity: TableCapacity, plan: Plan, config: ScalingConfig) -> bool:
    base = Units(config.base_read_capacity, config.base_write_capacity)
    return any(
        units.of(kind) > max(base.of(kind), capacity.resources[name].units.of(kind))
        for name, units in plan.changes.items()
        for kind in KINDS
    )


def _plan(
    capacity: TableCapacity,
    config: ScalingConfig,
    direction: str,
    read: int | None,
    write: int | None,
) -> Plan:
    if direction == DOWN:
        return plan_down(capacity, config, clock.now(), reserve=0)
    changes = {}
    for name, resource in capacity.resources.items():
        units = resource.units
        if direction == TO:
            wanted = Units(read or units.read, write or units.write)
        else:
            wanted = Units(
                max(units.read, min(config.max_read_capacity, by_factor(units.read, config))),
                max(units.write, min(config.max_write_capacity, by_factor(units.write, config))),
            )
        if capacity.has_replicas:
            wanted = wanted._replace(write=units.write)
        if wanted != units:
            changes[name] = wanted
    if not changes:
        if not capacity.is_active:
            return Plan("in_progress", f"{capacity.table} {BEING_CHANGED}")
        has = "this capacity" if direction == TO else "at least its maximum"
        if capacity.has_replicas:
            has += ", or has replicas, whose write capacity must be equal in all regions"
        return Plan("nothing", f"{capacity.table} already has {has}")
    return Plan("by_hand", "manual change", changes)
