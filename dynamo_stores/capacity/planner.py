"""
How much capacity is right: what to raise and to what, what to lower and when; pure.

A raise follows what all processes attempt, not what gets through: throttled callers go quiet, so
the peak of a few seconds counts, and a raise is at least ``SCALE_UP_FACTOR``. A write spends units
of the table and of the indexes that its item is in, and DynamoDB names only the first that is
short: so all of them are raised together. A write load leaves read capacity alone, and a read load
write capacity.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ..conf.groups import ScalingConfig
from ..conf.rules import parse_hours
from ..exceptions import ThrottlingReason
from .description import KINDS, Quota, TableCapacity, Units

# Units a second that were attempted or consumed, by resource ("" is the table) and kind.
Demand = Mapping[tuple[str, str], float]

_CURABLE = "ProvisionedThroughputExceeded"
# Reasons that more capacity does not cure, and what they say.
_INCURABLE = {
    "KeyRangeThroughputExceeded": (
        "hot_partition",
        "a single partition is at its own limit of 3,000 read or 1,000 write units",
    ),
    "AccountLimitExceeded": ("account_limit", "the account's quota of capacity is used up"),
    "MaxOnDemandThroughputExceeded": (
        "on_demand_maximum",
        "the table's own maximum of on-demand throughput is reached",
    ),
}
# A decrease that is kept for whoever lowers by hand.
RESERVE = 1


@dataclass(frozen=True)
class Plan:
    """
    What to change, by resource; nothing where ``changes`` is empty.

    ``code`` is a word for programs, ``why`` a sentence for people. With ``again`` the table has not
    reached its baseline after it, and is to be looked at later.
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
    Return what to raise after a throttle for ``reasons``.

    ``demand`` is what all processes attempted, in units a second; ``kinds`` (``"Read"``,
    ``"Write"``) is what was throttled where DynamoDB named no reason.
    """
    reasons = tuple(reasons)
    short, incurable = _read_reasons(reasons)
    if not reasons:
        short = {(name, kind) for kind in kinds for name in _path(capacity, "", kind)}
    if capacity.is_on_demand:
        return incurable or Plan("on_demand", f"{capacity.table} is on demand: nothing to raise")
    if not short:
        return incurable or Plan("nothing", f"nothing that {capacity.table} has was short")
    if not capacity.is_active:
        return Plan("in_progress", f"{capacity.table} is being changed already", again=True)
    if capacity.has_replicas and all(kind == "Write" for _, kind in short):
        return Plan(
            "replicas",
            f"{capacity.table} has replicas, whose write capacity must be equal in all regions",
        )
    most = _most(config, quota or Quota())
    changes: dict[str, Units] = {}
    is_capped = False
    for kind in KINDS:
        named = [name for name, each in short if each == kind]
        if not named or (kind == "Write" and capacity.has_replicas):
            continue
        raised: dict[str, Units] = {}
        for name in dict.fromkeys(part for each in named for part in _path(capacity, each, kind)):
            units = changes.get(name, capacity.resources[name].units)
            wanted = max(
                by_factor(units.of(kind), config),
                _provisioned_for(demand.get((name, kind), 0.0), config),
            )
            is_capped |= wanted > most.of(kind)
            wanted = min(wanted, most.of(kind))
            if wanted > units.of(kind):
                raised[name] = units.with_kind(kind, wanted)
        # What was short is at its maximum: raising the rest of its path would cost and not help.
        if any(name in raised for name in named):
            changes |= raised
    if not changes:
        return Plan(
            "at_maximum",
            f"{capacity.table} has the maximum of {most.read} read and {most.write} write units",
        )
    capped = ", as far as its maximum allows" if is_capped else ""
    return Plan("raised", f"{_named(short)} was short of what is asked for{capped}", changes)


def plan_down(
    capacity: TableCapacity,
    config: ScalingConfig,
    now: float,
    *,
    need: Demand | None = None,
    throttled_at: float | None = None,
    reserve: int = RESERVE,
) -> Plan:
    """
    Return what to lower at ``now`` (seconds since the epoch): to the baseline, or to what ``need``
    (units a second, consumed lately) takes at the target utilisation.

    Nothing within ``SCALE_DOWN_DELAY`` of a throttle. What has no decrease left but ``reserve`` is
    left for later, and does not hold up the others.
    """
    if capacity.is_on_demand:
        return Plan("on_demand", f"{capacity.table} is on demand: nothing to lower")
    if not capacity.is_active:
        return Plan("in_progress", f"{capacity.table} is being changed already", again=True)
    if throttled_at is not None and now - throttled_at < config.scale_down_delay:
        return Plan(
            "throttled_lately",
            f"{capacity.table} was throttled {now - throttled_at:.0f} s ago",
            again=True,
        )
    kinds = [kind for kind in KINDS if not (kind == "Write" and capacity.has_replicas)]
    wanted = {
        name: _lowered(resource.units, name, kinds, need or {}, config)
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
        changes.get(name, resource.units).of(kind) > _baseline(config, kind)
        for name, resource in capacity.resources.items()
        for kind in kinds
    )
    if changes:
        what = "its baseline" if not above else "what is needed now"
        return Plan("lowered", f"{capacity.table} needs no more than {what}", changes, above)
    if waiting:
        return Plan(
            "no_decreases_left",
            f"the budget of decreases of {_resources(waiting)} is used up: DynamoDB allows 4 a UTC "
            "day, and then one in an hour without any",
            again=True,
        )
    if above:
        return Plan("needed", f"{capacity.table} needs what it has", again=True)
    return Plan("at_baseline", f"{capacity.table} is at its baseline")


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


def _path(capacity: TableCapacity, name: str, kind: str) -> list[str]:
    """Return what is raised together: all that a write spends from, or what was read."""
    if kind == "Write":
        return list(capacity.resources)
    return [name] if name in capacity.resources else [""]


def by_factor(units: int, config: ScalingConfig) -> int:
    """Return ``units`` times ``SCALE_UP_FACTOR``, rounded up."""
    return math.ceil(units * config.scale_up_factor)


def _lowered(
    units: Units, name: str, kinds: Iterable[str], need: Demand, config: ScalingConfig
) -> Units:
    for kind in kinds:
        needed = _provisioned_for(need.get((name, kind), 0.0), config)
        units = units.with_kind(kind, min(units.of(kind), max(_baseline(config, kind), needed)))
    return units


def _provisioned_for(demand: float, config: ScalingConfig) -> int:
    # Less what floats make of a whole number.
    return math.ceil(demand / config.target_utilization - 1e-9)


def _baseline(config: ScalingConfig, kind: str) -> int:
    return config.base_read_capacity if kind == "Read" else config.base_write_capacity


def _most(config: ScalingConfig, quota: Quota) -> Quota:
    return Quota(
        min(config.max_read_capacity, quota.read), min(config.max_write_capacity, quota.write)
    )


def _named(short: Iterable[tuple[str, str]]) -> str:
    return " and ".join(
        f"the {kind.lower()} capacity of {_resources([name])}" for name, kind in sorted(short)
    )


def _resources(names: Iterable[str]) -> str:
    return ", ".join(f"the index {name}" if name else "the table" for name in names)


def end_of_maintenance(windows: Sequence[str], now: float) -> float | None:
    """Return when the maintenance window ends in which ``now`` is, None outside of all; UTC."""
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
