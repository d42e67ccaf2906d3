"""Change the capacity of a table by UpdateTable."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from botocore.exceptions import ClientError

from .. import clock
from ..calls.control import get_control
from ..exceptions import DECREASE_REFUSED, NOT_ALLOWED, TABLE_IN_USE, code_of
from ..signals import capacity_changed
from .description import TableCapacity, Units, as_request, read_description
from .planner import Plan
from .records import CapacityRecords

logger = logging.getLogger(__name__)

BEING_CHANGED = "is being changed already; try again when it is ACTIVE"
# The code and the text of the plan for each error of UpdateTable.
_REFUSALS = {
    TABLE_IN_USE: ("in_progress", BEING_CHANGED),
    DECREASE_REFUSED: (
        "no_decreases_left",
        "has reached DynamoDB's limit of changes of this kind for now",
    ),
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
        return Plan("dry_run", why, again=plan.again)
    try:
        get_control(using).call("UpdateTable", as_request(table, plan.changes))
    except ClientError as exc:
        code = code_of(exc)
        if code not in _REFUSALS:
            message = exc.response.get("Error", {}).get("Message", "")
            why = f"DynamoDB refused the change: {message.removesuffix('.')}"
            return Plan("refused", why, again=True)
        refusal, why = _REFUSALS[code]
        return Plan(refusal, f"{table} {why}", again=True)
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


def as_decision(plan: Plan, capacity: TableCapacity | None) -> dict[str, Any]:
    """Return the stored form of a decision: when, code, why, and the units before and after."""
    before = capacity.resources if capacity is not None else {}
    return {
        "at": clock.now(),
        "code": plan.code,
        "why": plan.why,
        "from": {name: list(before[name].units) for name in plan.changes if name in before},
        "to": {name: list(units) for name, units in plan.changes.items()},
    }


def describe_changes(changes: Mapping[str, Units]) -> str:
    """Return the new units as text, such as ``5 RCU and 10 WCU, index I 5 RCU and 10 WCU``."""
    return ", ".join(
        f"{f'index {name} ' if name else ''}{units.read} RCU and {units.write} WCU"
        for name, units in changes.items()
    )
