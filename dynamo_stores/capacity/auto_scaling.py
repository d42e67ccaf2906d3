"""
The targets of Application Auto Scaling, which overwrites changes of others to its tables.

So a table with targets is not changed, or, by ``AUTO_SCALING``, only the minimum of its targets.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, NamedTuple

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from .. import clock
from ..calls.account import get_account
from ..calls.batches import chunks
from ..calls.environment import is_loopback
from ..concurrency.per_process import PerProcess
from ..conf import get_config
from ..conf.groups import ScalingConfig
from ..exceptions import code_of
from .description import TableCapacity, Units
from .planner import Floor, Plan

logger = logging.getLogger(__name__)

# Seconds for which targets that were read are used.
_TARGETS_TIMEOUT = 300.0
# Each has two targets, and a response has 50 at most.
_RESOURCES_PER_REQUEST = 25


class ScalableTarget(NamedTuple):
    """The units a second between which Application Auto Scaling keeps a capacity."""

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

    def targets(self, capacity: TableCapacity) -> Targets:
        """
        Return the targets of the table and of its indexes, empty if there are none.

        Takes two seconds at most. If they cannot be read (no permission, no such service, no
        answer), the last targets that were read apply; without any, there are none, with a warning
        once. Cached for five minutes.
        """
        table = capacity.table
        known = self._known.get(table)
        if known is not None and clock.monotonic() - known[0] < _TARGETS_TIMEOUT:
            return known[1]
        found = self._read_targets(capacity)
        if found is None:
            found = known[1] if known is not None else {}
        self._known[table] = (clock.monotonic(), found)
        return found

    def set_minimums(self, capacity: TableCapacity, plan: Plan) -> Plan:
        """
        Make the units of ``plan`` the minimum of the table's targets.

        Return the plan, or one without changes if Application Auto Scaling refused or did not
        answer, or with the changes before that.
        """
        table, targets = capacity.table, self.targets(capacity)
        done: dict[str, Units] = {}
        try:
            for (name, kind), target in targets.items():
                if name not in plan.changes or plan.changes[name].of(kind) == target.minimum:
                    continue
                # Only the minimum, because the cached maximum may be old.
                self._client.register_scalable_target(
                    ServiceNamespace="dynamodb",
                    ResourceId=_resource_of(table, name),
                    ScalableDimension=_dimension_of(name, kind),
                    MinCapacity=plan.changes[name].of(kind),
                )
                done[name] = plan.changes[name]
        except ClientError as exc:
            why = (
                f"Application Auto Scaling refused a new minimum for {table} ({code_of(exc)}); "
                "check that application-autoscaling:RegisterScalableTarget is allowed"
            )
            return Plan("refused", why, done, again=True)
        except BotoCoreError as exc:
            why = f"Application Auto Scaling did not answer ({type(exc).__name__})"
            return Plan("unavailable", why, done, again=True)
        finally:
            # Read again at the next use, and kept for the case that this fails.
            self._known[table] = (-_TARGETS_TIMEOUT, targets)
        logger.info(
            "The minimum capacity of table %s was changed: %s.", table, plan.why,
            extra={
                "dynamodb_table": table,
                "dynamodb_using": self._using,
                "dynamodb_decision": plan.code,
                "dynamodb_capacity": {name: list(units) for name, units in plan.changes.items()},
            },
        )  # fmt: skip
        return plan

    def client_for(self, table: str) -> Any:
        """
        Return the client of the service, None for an engine on this machine, which comes without.
        """
        config = get_config(self._using)
        own = config.for_table(table).scaling.auto_scaling_endpoint_url
        if own is None and config.endpoint_url is not None and is_loopback(config.endpoint_url):
            return None
        if self._client is None:
            self._client = _make_client(self._using, own)
        return self._client

    def _read_targets(self, capacity: TableCapacity) -> Targets | None:
        table = capacity.table
        try:
            if self.client_for(table) is None:
                return {}
            found: dict[tuple[str, str], ScalableTarget] = {}
            names = [_resource_of(table, name) for name in capacity.resources]
            for some in chunks(names, _RESOURCES_PER_REQUEST):
                answer = self._client.describe_scalable_targets(
                    ServiceNamespace="dynamodb", ResourceIds=some
                )
                found |= dict(_target_of(table, each) for each in answer["ScalableTargets"])
            return found
        except (BotoCoreError, ClientError) as exc:
            if table not in self._known:
                logger.warning(
                    "The targets of Application Auto Scaling for table %s could not be read (%s); "
                    "the table is treated as having none.",
                    table, type(exc).__name__,
                    extra={"dynamodb_table": table, "dynamodb_using": self._using},
                )  # fmt: skip
            return None


def plan_no_change(table: str) -> Plan:
    """Return the plan for a table that Application Auto Scaling scales: without changes."""
    return Plan(
        "auto_scaled", f"Application Auto Scaling has targets for {table} and sets its capacity"
    )


def plan_minimums_up(capacity: TableCapacity, plan: Plan, targets: Targets) -> Plan:
    """Return the plan that raises minimums, up to the maximums, instead of the capacity."""
    if not plan.changes:
        return plan
    wanted = {
        (name, kind): min(plan.changes[name].of(kind), target.maximum)
        for (name, kind), target in targets.items()
        if name in plan.changes
    }
    higher = {name: units for name, units in wanted.items() if units > targets[name].minimum}
    if not higher:
        return Plan(
            "at_maximum",
            f"no target of Application Auto Scaling for {capacity.table} allows a higher minimum",
        )
    why = f"{plan.why}; the minimum for Application Auto Scaling is raised"
    return Plan("minimum_raised", why, _minimums(targets, higher))


def plan_minimums_down(
    capacity: TableCapacity, config: ScalingConfig, targets: Targets, floor: Floor
) -> Plan:
    """
    Return the plan that sets raised minimums to what they were (``floor``) or to the baseline,
    whichever is more; the capacity follows its targets.
    """
    base = Units(config.base_read_capacity, config.base_write_capacity)
    wanted = {
        (name, kind): min(max(base.of(kind), floor[name, kind]), target.maximum)
        for (name, kind), target in targets.items()
        if (name, kind) in floor
    }
    lower = {name: units for name, units in wanted.items() if units < targets[name].minimum}
    if not lower:
        return Plan("at_baseline", f"the minimums of {capacity.table} are not raised")
    why = f"the minimum for Application Auto Scaling of {capacity.table} is what it was before"
    return Plan("minimum_lowered", why, _minimums(targets, lower))


def minimums(targets: Targets) -> dict[str, Units]:
    """Return the minimum units by resource, 0 for a kind without a target."""
    return _minimums(targets, {name: target.minimum for name, target in targets.items()})


def _minimums(targets: Targets, changed: Mapping[tuple[str, str], int]) -> dict[str, Units]:
    found: dict[str, Units] = {}
    for name in dict.fromkeys(name for name, _ in changed):
        units = Units(0, 0)
        for kind in ("Read", "Write"):
            if (target := targets.get((name, kind))) is not None:
                units = units.with_kind(kind, changed.get((name, kind), target.minimum))
        found[name] = units
    return found


def _target_of(table: str, target: Mapping[str, Any]) -> tuple[tuple[str, str], ScalableTarget]:
    index = target["ResourceId"].removeprefix(f"table/{table}").removeprefix("/index/")
    kind = "Read" if "Read" in target["ScalableDimension"] else "Write"
    return (index, kind), ScalableTarget(int(target["MinCapacity"]), int(target["MaxCapacity"]))


def _resource_of(table: str, index: str) -> str:
    return f"table/{table}/index/{index}" if index else f"table/{table}"


def _dimension_of(index: str, kind: str) -> str:
    return f"dynamodb:{'index' if index else 'table'}:{kind}CapacityUnits"


def _make_client(using: str, endpoint: str | None) -> Any:
    config, account = get_config(using), get_account(using)
    credentials: dict[str, Any] = {}
    if endpoint is not None and is_loopback(endpoint) and not config.names_account:
        credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return account.create_client(
        "application-autoscaling",
        region_name=config.region or ("us-east-1" if credentials else None),
        endpoint_url=endpoint,
        # In a VPC without an endpoint for this service its address does not answer.
        config=Config(
            connect_timeout=1.0,
            read_timeout=1.0,
            retries={"total_max_attempts": 1, "mode": "standard"},
        ),
        **credentials,
    )


_auto_scaling = PerProcess(AutoScaling)


def get_auto_scaling(using: str) -> AutoScaling:
    """Return the targets of the alias ``using``, as this process caches them."""
    return _auto_scaling.get(using)
