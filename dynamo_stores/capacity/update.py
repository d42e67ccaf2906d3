"""Change the capacity of a table by UpdateTable."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from .. import clock
from ..calls.control import get_control, was_repeated
from ..exceptions import LIMIT_EXCEEDED, NOT_ALLOWED, TABLE_IN_USE, code_of
from ..signals import capacity_changed
from .auto_scaling import Targets, get_auto_scaling, minimums
from .description import TableCapacity, Units, as_request, read_description
from .planner import Plan
from .records import CapacityRecords

logger = logging.getLogger(__name__)

BEING_CHANGED = "is being changed already; try again when it is ACTIVE"
# The code and the text of the plan for each error of UpdateTable.
_REFUSALS = {
    TABLE_IN_USE: ("in_progress", BEING_CHANGED),
    NOT_ALLOWED: (
        "not_allowed",
        "cannot be changed: the permission dynamodb:UpdateTable is missing",
    ),
}


def describe(using: str, table: str, *, seconds: float | None = None) -> TableCapacity | None:
    """Return the capacity of a table, None if it does not exist; one control plane call."""
    description = get_control(using).describe(table, seconds=seconds)
    return None if description is None else read_description(description)


def apply(using: str, capacity: TableCapacity, plan: Plan, *, dry_run: bool = False) -> Plan:
    """
    Request the changes of ``plan`` in one UpdateTable, without waiting for the table to be ACTIVE.

    Return the plan, or one without changes if DynamoDB refused.
    Raises StoreUnavailable without an answer.
    """
    if not plan.changes:
        return plan
    table = capacity.table
    if dry_run:
        why = f"{table} would be changed to {describe_changes(plan.changes)}: {plan.why}"
        return Plan("dry_run", why, again=True)
    try:
        get_control(using).call("UpdateTable", as_request(table, plan.changes))
    except ClientError as exc:
        if not (code_of(exc) == TABLE_IN_USE and was_repeated(exc)):
            return _refused(capacity, plan, exc)
        # The first attempt, which failed inside DynamoDB, was probably carried out after all.
        plan = dataclasses.replace(plan, again=True)
    logger.info(
        "The capacity of table %s will be changed to %s: %s.",
        table, describe_changes(plan.changes), plan.why,
        extra={
            "dynamodb_table": table,
            "dynamodb_using": using,
            "dynamodb_decision": plan.code,
            "dynamodb_capacity": {name: list(units) for name, units in plan.changes.items()},
        },
    )  # fmt: skip
    capacity_changed.send_robust(
        CapacityRecords,
        using=using,
        table=table,
        changes=dict(plan.changes),
        code=plan.code,
        why=plan.why,
    )
    return plan


def _refused(capacity: TableCapacity, plan: Plan, exc: ClientError) -> Plan:
    code, table = code_of(exc), capacity.table
    if code in _REFUSALS:
        refusal, why = _REFUSALS[code]
        return Plan(refusal, f"{table} {why}", again=True)
    if code == LIMIT_EXCEEDED and _lowers(capacity, plan):
        why = f"{table} has reached DynamoDB's limit of decreases for now"
        return Plan("no_decreases_left", why, again=True)
    message = exc.response.get("Error", {}).get("Message", "")
    return Plan("refused", f"DynamoDB refused the change: {message.removesuffix('.')}", again=True)


def _lowers(capacity: TableCapacity, plan: Plan) -> bool:
    return any(
        units.read < capacity.resources[name].units.read
        or units.write < capacity.resources[name].units.write
        for name, units in plan.changes.items()
    )


def raise_until(
    using: str, capacity: TableCapacity, plan: Plan, deadline: float, targets: Targets
) -> Plan:
    """
    Request the raise of ``plan`` until ``deadline``; with ``targets`` of Application Auto Scaling,
    of their minimums. Return the plan, or one without changes if it was refused.

    The raise is recorded before, so that the table is lowered if this process dies in between; the
    record is taken back if the raise is refused. Raises StoreUnavailable without an answer; the
    record is left then, because the raise may have been carried out.
    """
    records, auto_scaling = CapacityRecords(using), get_auto_scaling(using)
    before = minimums(targets) if targets else None
    raised = records.record_raise(
        capacity,
        deadline,
        as_decision(plan, capacity, before),
        of_minimums=bool(targets),
    )
    done = auto_scaling.set_minimums(capacity, plan) if targets else apply(using, capacity, plan)
    if not done.changes and done.code != "unavailable":
        records.take_back(raised, as_decision(done, capacity))
    return done


def as_decision(
    plan: Plan, capacity: TableCapacity | None, before: Mapping[str, Units] | None = None
) -> dict[str, Any]:
    """
    Return the stored form of a decision: when, code, why, and the units before and after.

    ``before`` replaces the units of ``capacity``.
    """
    if before is None:
        resources = capacity.resources if capacity is not None else {}
        before = {name: resource.units for name, resource in resources.items()}
    return {
        "at": clock.now(),
        "code": plan.code,
        "why": plan.why,
        "from": {name: list(before[name]) for name in plan.changes if name in before},
        "to": {name: list(units) for name, units in plan.changes.items()},
    }


def describe_changes(changes: Mapping[str, Units]) -> str:
    """Return the new units as text, such as ``5 RCU and 10 WCU, index I 5 RCU and 10 WCU``."""
    return ", ".join(
        f"{f'index {name} ' if name else ''}{units.read} RCU and {units.write} WCU"
        for name, units in changes.items()
    )
