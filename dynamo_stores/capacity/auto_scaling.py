"""
Application Auto Scaling overwrites whoever else changes a table that it has targets for. So such a
table is left alone, or, where asked for, only the minimum of its targets is raised.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session

from .. import clock
from ..calls.transport import is_loopback
from ..concurrency.per_process import PerProcess
from ..conf import get_config
from ..conf.groups import ScalingConfig
from .description import TableCapacity, Units
from .planner import Plan

logger = logging.getLogger(__name__)

# How long an answer about targets is gone by, in seconds.
_REMEMBERED = 300.0


class ScalableTarget(NamedTuple):
    """Between what units a second Application Auto Scaling keeps a capacity."""

    minimum: int
    maximum: int


# By resource ("" is the table) and "Read" or "Write".
Targets = Mapping[tuple[str, str], ScalableTarget]


class AutoScaling:
    """The targets that Application Auto Scaling has for the tables of one alias."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._known: dict[str, tuple[float, Targets]] = {}
        self._client: Any = None

    def targets(self, table: str) -> Targets:
        """
        Return the targets of the table and of its indexes, empty where it has none.

        Where that cannot be asked (no permission, no such service) it is taken to have none, and
        said once. Remembered for five minutes.
        """
        known = self._known.get(table)
        if known is not None and clock.monotonic() - known[0] < _REMEMBERED:
            return known[1]
        found = self._ask(table)
        self._known[table] = (clock.monotonic(), found)
        return found

    def set_minimums(self, capacity: TableCapacity, plan: Plan) -> Plan:
        """
        Make the units of ``plan`` the minimum of the table's targets; return what came of it: the
        plan, or one without changes that says why not.
        """
        table, targets = capacity.table, self.targets(capacity.table)
        try:
            for (name, kind), target in targets.items():
                if name not in plan.changes or plan.changes[name].of(kind) == target.minimum:
                    continue
                # Only the minimum: what is remembered of the maximum may be old.
                self._client.register_scalable_target(
                    ServiceNamespace="dynamodb",
                    ResourceId=_resource_of(table, name),
                    ScalableDimension=_dimension_of(name, kind),
                    MinCapacity=plan.changes[name].of(kind),
                )
        except (BotoCoreError, ClientError) as exc:
            why = f"Application Auto Scaling refused a minimum for {table} ({type(exc).__name__})"
            return Plan("refused", f"{why}: is RegisterScalableTarget allowed?", again=True)
        finally:
            self._known.pop(table, None)
        logger.info(
            "%s: %s.", table, plan.why,
            extra={
                "dynamodb_table": table,
                "dynamodb_using": self._using,
                "dynamodb_decision": plan.code,
                "dynamodb_capacity": {name: list(units) for name, units in plan.changes.items()},
            },
        )  # fmt: skip
        return plan

    def _ask(self, table: str) -> Targets:
        config = get_config(self._using)
        own = config.for_table(table).scaling.auto_scaling_endpoint_url
        if own is None and config.endpoint_url is not None and is_loopback(config.endpoint_url):
            return {}  # an engine on this machine has no such service beside it
        try:
            if self._client is None:
                self._client = _make_client(config, own)
            pages = self._client.get_paginator("describe_scalable_targets").paginate(
                ServiceNamespace="dynamodb"
            )
            return dict(
                _read(table, each)
                for page in pages
                for each in page["ScalableTargets"]
                if _is_of(table, each)
            )
        except (BotoCoreError, ClientError) as exc:
            if table not in self._known:
                logger.warning(
                    "It could not be asked whether table %s has targets of Application Auto "
                    "Scaling (%s); it is taken to have none.",
                    table, type(exc).__name__,
                    extra={"dynamodb_table": table, "dynamodb_using": self._using},
                )  # fmt: skip
            return {}


def left_alone(table: str) -> Plan:
    """Return the plan for a table that Application Auto Scaling looks after: none."""
    return Plan("auto_scaled", f"{table} has targets of Application Auto Scaling, which decides")


def plan_minimums_up(capacity: TableCapacity, plan: Plan, targets: Targets) -> Plan:
    """Return which minimums to raise for what ``plan`` would raise, as far as their maximums."""
    if not plan.changes:
        return plan
    wanted = {
        (name, kind): min(plan.changes[name].of(kind), target.maximum)
        for (name, kind), target in targets.items()
        if name in plan.changes
    }
    higher = {what: units for what, units in wanted.items() if units > targets[what].minimum}
    if not higher:
        return Plan(
            "at_maximum",
            f"the targets that Application Auto Scaling has for {capacity.table} reach no higher",
        )
    why = f"{plan.why}, so the minimum for Application Auto Scaling is raised"
    return Plan("minimum_raised", why, _minimums(targets, higher))


def plan_minimums_down(capacity: TableCapacity, config: ScalingConfig, targets: Targets) -> Plan:
    """Return which minimums go back to the baseline; the capacity follows its targets."""
    base = Units(config.base_read_capacity, config.base_write_capacity)
    lower = {
        (name, kind): min(base.of(kind), target.maximum)
        for (name, kind), target in targets.items()
        if target.minimum > min(base.of(kind), target.maximum)
    }
    if not lower:
        return Plan("at_baseline", f"the minimums for {capacity.table} are at its baseline")
    why = (
        f"the minimum that Application Auto Scaling has for {capacity.table} is its baseline again"
    )
    return Plan("minimum_lowered", why, _minimums(targets, lower))


def _minimums(targets: Targets, changed: Mapping[tuple[str, str], int]) -> dict[str, Units]:
    found: dict[str, Units] = {}
    for name in dict.fromkeys(name for name, _ in changed):
        units = Units(0, 0)
        for kind in ("Read", "Write"):
            if (target := targets.get((name, kind))) is not None:
                units = units.with_kind(kind, changed.get((name, kind), target.minimum))
        found[name] = units
    return found


def _is_of(table: str, target: Mapping[str, Any]) -> bool:
    name = f"table/{table}"
    resource: str = target["ResourceId"]
    return resource == name or resource.startswith(f"{name}/")


def _read(table: str, target: Mapping[str, Any]) -> tuple[tuple[str, str], ScalableTarget]:
    index = target["ResourceId"].removeprefix(f"table/{table}").removeprefix("/index/")
    kind = "Read" if "Read" in target["ScalableDimension"] else "Write"
    return (index, kind), ScalableTarget(int(target["MinCapacity"]), int(target["MaxCapacity"]))


def _resource_of(table: str, index: str) -> str:
    return f"table/{table}/index/{index}" if index else f"table/{table}"


def _dimension_of(index: str, kind: str) -> str:
    return f"dynamodb:{'index' if index else 'table'}:{kind}CapacityUnits"


def _make_client(config: Any, endpoint: str | None) -> Any:
    credentials: dict[str, Any] = {}
    if endpoint is not None and is_loopback(endpoint):
        credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return get_session().create_client(
        "application-autoscaling",
        region_name=config.region or ("us-east-1" if credentials else None),
        endpoint_url=endpoint,
        **credentials,
    )


_auto_scaling = PerProcess(AutoScaling)


def get_auto_scaling(using: str) -> AutoScaling:
    """Return this process's view of Application Auto Scaling for the alias ``using``."""
    return _auto_scaling.get(using)
