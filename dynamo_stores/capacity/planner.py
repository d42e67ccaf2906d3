"""
Plan capacity changes: the resources to raise or to lower, and their new units; pure.

A raise follows the attempted units of all processes, not the served ones. Clients that are
throttled send less, so the peak of a few seconds counts, and a raise is at least
``SCALE_UP_FACTOR``. A write consumes units of the table and of the indexes that its item is in, and
DynamoDB names only the first that is too low, so all of them are raised together. A write load does
not change read capacity, and a read load does not change write capacity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from ..conf.groups import ScalingConfig
from ..conf.rules import parse_hours
from ..exceptions import ACCOUNT_LIMIT, HOT_PARTITION, ON_DEMAND_MAXIMUM, ThrottlingReason
from .description import KINDS, Quota, TableCapacity, Units

# Units a second that were attempted or consumed, by resource ("" is the table) and kind.
Demand = Mapping[tuple[str, str], float]
# The units that raised resources had before, by resource and kind.
Floor = Mapping[tuple[str, str], int]
_NOTHING: Demand = MappingProxyType({})
_NEVER: Mapping[str, float] = MappingProxyType({})

_CURABLE = "ProvisionedThroughputExceeded"
# The codes and the texts of the plans for reasons that more capacity does not cure.
_INCURABLE = {
    HOT_PARTITION: (
        "hot_partition",
        "a single partition has reached its limit of 3,000 read or 1,000 write units a second",
    ),
    ACCOUNT_LIMIT: ("account_limit", "the account's quota of capacity is used up"),
    ON_DEMAND_MAXIMUM: (
        "on_demand_maximum",
        "the table's own maximum of on-demand throughput is reached",
    ),
}
# Decreases that are kept for manual changes.
RESERVE = 1


@dataclass(frozen=True)
class Plan:
    """
    The units to change to, by resource; an empty ``changes`` changes nothing.

    ``code`` is a word for programs, ``why`` a reason for people. With ``again`` the table is still
    above its baseline afterwards, and is checked again later.
    """

    code: str
    why: str
    changes: Mapping[str, Units] = field(default_factory=dict)
    again: bool = False


def plan_up(
    capacity: TableCapacity,
    reasons: Iterable[ThrottlingReason],
    demand: Demand,
    config: ScalingConfig,
    quota: Quota | None = None,
    *,
    kinds: Iterable[str] = (),
) -> Plan:
    """
    Return the plan after a throttle for ``reasons``.

    ``demand`` is the units a second that all processes attempted. ``kinds`` (``"Read"``,
    ``"Write"``) are the kinds of the throttled operations, for a throttle without reasons.
    """
    reasons = tuple(reasons)
    short, incurable = _read_reasons(reasons)
    # For an index that the description does not have, such as a new one, the table is raised.
    short = {(name if name in capacity.resources else "", kind) for name, kind in short}
    if not reasons:
        short = {(name, kind) for kind in kinds for name in _used_with(capacity, "", kind)}
    if capacity.is_on_demand:
        return incurable or Plan(
            "on_demand", f"{capacity.table} is on demand and has no capacity to raise"
        )
    if not short:
        return incurable or Plan("nothing", f"no capacity of {capacity.table} was too low")
    if not capacity.is_active:
        return Plan("in_progress", f"{capacity.table} is being changed already", again=True)
    if capacity.has_replicas and all(kind == "Write" for _, kind in short):
        return Plan(
            "replicas",
            f"{capacity.table} has replicas, whose write capacity must be equal in all regions",
        )
    maximum = _maximum(config, quota or Quota())
    changes: dict[str, Units] = {}
    is_capped = False
    for kind in KINDS:
        named = [name for name, each in short if each == kind]
        if not named or (kind == "Write" and capacity.has_replicas):
            continue
        raised: dict[str, Units] = {}
        for name in dict.fromkeys(
            part for each in named for part in _used_with(capacity, each, kind)
        ):
            units = changes.get(name, capacity.resources[name].units)
            wanted = max(
                by_factor(units.of(kind), config),
                _provisioned_for(demand.get((name, kind), 0.0), config),
            )
            is_capped |= wanted > maximum.of(kind)
            wanted = min(wanted, maximum.of(kind))
            if wanted > units.of(kind):
                raised[name] = units.with_kind(kind, wanted)
        # If all that was too low is at its maximum, raising the rest would cost and not help.
        if any(name in raised for name in named):
            changes |= raised
    if not changes:
        return Plan(
            "at_maximum",
            f"{capacity.table} is at its maximum of {_maximums(short, config, maximum)}",
        )
    capped = "; the increase is limited by the maximum" if is_capped else ""
    return Plan("raised", f"the demand exceeded {_capacities(short)}{capped}", changes)


def plan_down(
    capacity: TableCapacity,
    config: ScalingConfig,
    now: float,
    *,
    floor: Floor | None = None,
    need: Demand = _NOTHING,
    is_use_known: bool = True,
    throttled_at: Mapping[str, float] = _NEVER,
    reserve: int = RESERVE,
    minimums: Floor | None = None,
) -> Plan:
    """
    Return the plan that lowers a table at ``now`` (seconds since the epoch): to the baseline, or to
    the capacity for ``need`` (units a second, used lately) at the target utilisation.

    With ``floor``, only the kinds in it are lowered, and not below it. If the use is not known, a
    plan lowers by ``SCALE_UP_FACTOR`` at most. Nothing is lowered within ``SCALE_DOWN_DELAY`` of
    the time at which one of these kinds was throttled for lack of capacity (``throttled_at``): both
    kinds take one decrease together, and a table that is being changed cannot be raised. A resource
    that has only ``reserve`` decreases left is lowered later, and does not delay the others. What
    is above the end of all lowering for its ``minimums`` only, those of a schedule, has the code
    ``scheduled``.
    """
    if capacity.is_on_demand:
        return Plan("on_demand", f"{capacity.table} is on demand and has no capacity to lower")
    if not capacity.is_active:
        return Plan("in_progress", f"{capacity.table} is being changed already", again=True)
    kinds = [kind for kind in KINDS if not (kind == "Write" and capacity.has_replicas)]
    lowest = {
        (name, kind): max(_baseline(config, kind), (floor or {}).get((name, kind), 0))
        for name in capacity.resources
        for kind in kinds
        if floor is None or (name, kind) in floor
    }
    ago = [now - throttled_at[kind] for _, kind in lowest if kind in throttled_at]
    if ago and min(ago) < config.scale_down_delay:
        return Plan(
            "throttled_lately",
            f"{capacity.table} was throttled {min(ago):.0f} s ago",
            again=True,
        )
    least = {each: max(units, (minimums or {}).get(each, 0)) for each, units in lowest.items()}
    wanted = {
        name: _lowered(resource.units, name, least, need, config, is_use_known=is_use_known)
        for name, resource in capacity.resources.items()
    }
    changes = {
        name: units
        for name, units in wanted.items()
        if units != capacity.resources[name].units
        and capacity.resources[name].may_decrease(now, reserve)
    }
    waiting = [
        name
        for name, units in wanted.items()
        if units != capacity.resources[name].units and name not in changes
    ]
    above = any(
        changes.get(name, capacity.resources[name].units).of(kind) > units
        for (name, kind), units in lowest.items()
    )
    end = "its baseline"
    if any(units > _baseline(config, kind) for (_, kind), units in lowest.items()):
        end = "the capacity that it had before it was raised"
    if changes and above and not is_use_known:
        why = f"the use of {capacity.table} is not recorded, so it is lowered in steps"
        return Plan("lowered", why, changes, again=True)
    if changes:
        why = "less capacity than it has" if above else f"no more than {end}"
        return Plan("lowered", f"{capacity.table} needs {why}", changes, above)
    if waiting:
        return Plan(
            "no_decreases_left",
            f"the budget of decreases of {_resources(waiting)} is used up: DynamoDB allows 4 in a "
            "UTC day, and then one after each hour without a decrease",
            again=True,
        )
    if above and all(
        capacity.resources[name].units.of(kind) <= units for (name, kind), units in least.items()
    ):
        why = f"the schedule wants the capacity that {capacity.table} has"
        return Plan("scheduled", why, again=True)
    if above:
        return Plan("needed", f"{capacity.table} needs the capacity that it has", again=True)
    return Plan("at_baseline", f"{capacity.table} is at {end}")


def _read_reasons(
    reasons: Iterable[ThrottlingReason],
) -> tuple[set[tuple[str, str]], Plan | None]:
    short: set[tuple[str, str]] = set()
    incurable = None
    for reason in reasons:
        kind = next((each for each in KINDS if each in reason.reason[:10]), "")
        if kind and reason.reason.endswith(_CURABLE):
            short.add((reason.index, kind))
            continue
        for ending, (code, why) in _INCURABLE.items():
            if reason.reason.endswith(ending):
                incurable = Plan(code, f"{why}; more capacity would not help")
    return short, incurable


def _used_with(capacity: TableCapacity, name: str, kind: str) -> list[str]:
    """Return the resources to raise together: all that a write uses, or the one that was read."""
    if kind == "Write":
        return list(capacity.resources)
    return [name]


def by_factor(units: int, config: ScalingConfig) -> int:
    """Return ``units`` times ``SCALE_UP_FACTOR``, rounded up."""
    return math.ceil(units * config.scale_up_factor)


def _lowered(
    units: Units,
    name: str,
    lowest: Floor,
    need: Demand,
    config: ScalingConfig,
    *,
    is_use_known: bool,
) -> Units:
    for kind in KINDS:
        if (name, kind) not in lowest:
            continue
        now = units.of(kind)
        wanted = max(lowest[name, kind], _provisioned_for(need.get((name, kind), 0.0), config))
        if not is_use_known:
            wanted = max(wanted, math.floor(now / config.scale_up_factor))
        units = units.with_kind(kind, min(now, wanted))
    return units


def _provisioned_for(demand: float, config: ScalingConfig) -> int:
    # Less the rounding error of floats, which would raise a whole number by one.
    return math.ceil(demand / config.target_utilization - 1e-9)


def _baseline(config: ScalingConfig, kind: str) -> int:
    return config.base_read_capacity if kind == "Read" else config.base_write_capacity


def _maximum(config: ScalingConfig, quota: Quota) -> Quota:
    return Quota(
        min(config.max_read_capacity, quota.read), min(config.max_write_capacity, quota.write)
    )


def _maximums(short: Iterable[tuple[str, str]], config: ScalingConfig, maximum: Quota) -> str:
    kinds = {kind for _, kind in short}
    return " and ".join(
        f"{maximum.of(kind)} {kind.lower()} units ({_name_of_maximum(kind, config, maximum)})"
        for kind in KINDS
        if kind in kinds
    )


def _name_of_maximum(kind: str, config: ScalingConfig, maximum: Quota) -> str:
    own = config.max_read_capacity if kind == "Read" else config.max_write_capacity
    is_own = own == maximum.of(kind)
    return f"MAX_{kind.upper()}_CAPACITY" if is_own else "the account's quota"


def _capacities(short: Iterable[tuple[str, str]]) -> str:
    return " and ".join(
        f"the {kind.lower()} capacity of {_resources([name])}" for name, kind in sorted(short)
    )


def _resources(names: Iterable[str]) -> str:
    return ", ".join(f"the index {name}" if name else "the table" for name in names)


def end_of_maintenance(windows: Sequence[str], now: float) -> float | None:
    """Return when the maintenance window that contains ``now`` ends, None outside of all; UTC."""
    moment = datetime.fromtimestamp(now, UTC)
    minute = moment.hour * 60 + moment.minute
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    ends = []
    for window in windows:
        begin, end = parse_hours(window)
        if begin <= end and begin <= minute < end:
            ends.append(midnight + timedelta(minutes=end))
        elif begin > end and minute >= begin:
            ends.append(midnight + timedelta(days=1, minutes=end))
        elif begin > end and minute < end:
            ends.append(midnight + timedelta(minutes=end))
    return max(ends).timestamp() if ends else None
