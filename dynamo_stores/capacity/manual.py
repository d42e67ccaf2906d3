"""Manual changes of a table's capacity."""

from __future__ import annotations

from .. import clock
from ..conf import get_config
from ..conf.groups import ScalingConfig
from ..exceptions import StoreError
from .description import TableCapacity, Units
from .history import Decisions
from .planner import Plan, by_factor, plan_down
from .records import CapacityRecords
from .update import BEING_CHANGED, apply, as_decision, describe

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
    dry_run: bool = False,
) -> Plan:
    """
    Raise a table and its indexes by ``SCALE_UP_FACTOR`` (``"up"``), lower them to their baseline
    (``"down"``) or set their units a second (``"to"``). Return the plan that was carried out, or
    one without changes.

    Capacity above the baseline is lowered after ``SCALE_DOWN_DELAY``.
    Raises NoSuchTable if there is no such table, StoreError if it is on demand, and
    StoreUnavailable without an answer.
    """
    capacity = describe(using, table)
    if capacity is None:
        raise NoSuchTable(f"Alias {using!r} has no table {table}.")
    if capacity.is_on_demand:
        raise StoreError(f"{table} is on demand: it has no capacity to change.")
    config = get_config(using).for_table(table).scaling
    wanted = _plan(capacity, config, direction, read, write)
    if not dry_run:
        _record(using, capacity, wanted, config)
    plan = apply(using, capacity, wanted, dry_run=dry_run)
    if not dry_run:
        Decisions(using).publish(table, as_decision(plan, capacity))
    return plan


def _record(using: str, capacity: TableCapacity, plan: Plan, config: ScalingConfig) -> None:
    base = Units(config.base_read_capacity, config.base_write_capacity)
    is_above = any(
        units.read > base.read or units.write > base.write for units in plan.changes.values()
    )
    if is_above:
        # Before the change, so that the table is lowered if this process dies in between.
        deadline = clock.now() + config.scale_down_delay
        CapacityRecords(using).record_raise(capacity.table, deadline, as_decision(plan, capacity))


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
        if wanted != units:
            changes[name] = wanted
    if not changes:
        if not capacity.is_active:
            return Plan("in_progress", f"{capacity.table} {BEING_CHANGED}")
        has = "this capacity" if direction == TO else "at least its maximum"
        return Plan("nothing", f"{capacity.table} already has {has}")
    return Plan("by_hand", "the change was requested manually", changes)
