"""
Minimum units for each hour of the week, given or learnt from past use, and their plan. Pure.

Hours of the week are 0 (Monday 00:00) to 167, in the time zone of the settings. Capacity is raised
some minutes before the hour.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from zoneinfo import ZoneInfo

from ..conf.groups import ScalingConfig
from ..conf.rules import DAYS_OF_WEEK, HOURS_OF_WEEK, LEARNT, parse_hours_of_week
from .description import KINDS, Quota, TableCapacity, Units
from .planner import Floor, Plan

HOUR = 3600.0
# Seconds before an hour at which its minimum applies: an update takes minutes.
AHEAD = 600.0
# An hour of the week is learnt from so many weeks at least, and from this share of them: one week
# in five that was busier does not count.
LEAST_WEEKS, PERCENTILE = 2, 0.8
# The days that are learnt from, as long as hours are kept.
DAYS = 35
# In hours since the epoch.
_FIRST_MONDAY = 96
# Of a table and all its indexes.
EVERY = "*"
# The highest units a second by hour since the epoch, and by ``table`` or ``table/index``.
Peaks = Mapping[int, Mapping[str, tuple[float, float]]]


@dataclass(frozen=True)
class Schedule:
    """
    The minimum read and write units of each hour of the week, by resource: ``""`` is the table,
    and ``"*"`` are the table and all its indexes. 0 is no minimum.
    """

    minima: Mapping[str, tuple[tuple[int, int], ...]]
    zone: str = "UTC"

    def at(self, capacity: TableCapacity, moment: float) -> dict[tuple[str, str], int]:
        """Return the minimums of a table's resources in the hour of ``moment``."""
        hour = hour_of_week(moment, self.zone)
        found = {}
        for name in capacity.resources:
            by_hour = self.minima.get(name) or self.minima.get(EVERY)
            for place, kind in enumerate(KINDS):
                if by_hour is not None and by_hour[hour][place]:
                    found[name, kind] = by_hour[hour][place]
        return found

    def soon(self, capacity: TableCapacity, moment: float) -> dict[tuple[str, str], int]:
        """Return the higher minimums of the hours of ``moment`` and of some minutes later."""
        found = self.at(capacity, moment)
        for each, units in self.at(capacity, moment + AHEAD).items():
            found[each] = max(units, found.get(each, 0))
        return found

    def lower_at(self, capacity: TableCapacity, moment: float) -> float:
        """Return when a minimum of ``moment`` ends: the begin of an hour within a week."""
        now = self.soon(capacity, moment)
        begin = next_hour(moment, self.zone)
        for number in range(HOURS_OF_WEEK):
            later = self.soon(capacity, begin + number * HOUR)
            if any(later.get(each, 0) < units for each, units in now.items()):
                return begin + number * HOUR
        return begin + HOURS_OF_WEEK * HOUR

    def as_text(self) -> str:
        """Return the schedule as JSON."""
        return json.dumps({"minima": self.minima, "zone": self.zone}, separators=(",", ":"))


def read_schedule(text: str) -> Schedule:
    """Return the schedule that :meth:`Schedule.as_text` wrote. Raises ValueError for another."""
    values = json.loads(text)
    try:
        found = Schedule(
            {
                str(name): tuple((int(read), int(write)) for read, write in by_hour)
                for name, by_hour in values["minima"].items()
            },
            ZoneInfo(str(values["zone"])).key,
        )
    except (AttributeError, LookupError, OSError, TypeError) as exc:
        raise ValueError("This is no schedule.") from exc
    if any(len(by_hour) != HOURS_OF_WEEK for by_hour in found.minima.values()):
        raise ValueError("A schedule has 168 hours.")
    return found


def spans_of(schedule: Schedule, name: str) -> dict[str, dict[str, int]]:
    """Return the hours with minimums of a resource, in the form of the setting."""
    days: dict[tuple[int, int, int, int], list[int]] = {}
    by_hour = schedule.minima.get(name, ())
    for day in range(len(by_hour) // 24):
        begin = 0
        of_day = by_hour[day * 24 : day * 24 + 24]
        for hour in range(1, 25):
            if hour == 24 or of_day[hour] != of_day[begin]:
                if any(of_day[begin]):
                    days.setdefault((begin, hour, *of_day[begin]), []).append(day)
                begin = hour
    return {
        f"{','.join(map(_days_text, _runs(found)))} {begin:02}:00-{end:02}:00": {
            kind: units for kind, units in (("READ", read), ("WRITE", write)) if units
        }
        for (begin, end, read, write), found in sorted(days.items(), key=lambda each: each[1])
    }


def _runs(days: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for day in days:
        if found and found[-1][1] == day - 1:
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def _days_text(run: tuple[int, int]) -> str:
    first, last = run
    return DAYS_OF_WEEK[first] if first == last else f"{DAYS_OF_WEEK[first]}-{DAYS_OF_WEEK[last]}"


def given(config: ScalingConfig) -> Schedule | None:
    """Return the schedule that the settings give; None without one, or if it is learnt."""
    if config.schedule is None or isinstance(config.schedule, str):
        return None
    hours = [(0, 0)] * HOURS_OF_WEEK
    for span, units in config.schedule.items():
        wanted = (units.get("READ", 0), units.get("WRITE", 0))
        for hour in parse_hours_of_week(span):
            read, write = hours[hour]
            hours[hour] = (max(read, wanted[0]), max(write, wanted[1]))
    return Schedule({EVERY: tuple(hours)}, config.schedule_time_zone)


def learn(peaks: Peaks, table: str, resources: Iterable[str], config: ScalingConfig) -> Schedule:
    """
    Return the schedule for past ``peaks``: of each hour of the week the 80th percentile of its
    busiest minutes, divided by TARGET_UTILIZATION, within base and maximum.

    An hour that was not measured in two weeks has no minimum; one in which the base is enough has
    none either.
    """
    zone = config.schedule_time_zone
    # By hour of the week and by week: an hour may come twice where the time zone changes.
    hours: dict[int, dict[int, list[int]]] = {}
    for hour in peaks:
        # Zones that are off by half an hour have two of their hours in one.
        for slot in {hour_of_week(hour * HOUR, zone), hour_of_week((hour + 1) * HOUR - 1, zone)}:
            week = round((hour - slot - _FIRST_MONDAY) / HOURS_OF_WEEK)
            hours.setdefault(slot, {}).setdefault(week, []).append(hour)
    bases = (config.base_read_capacity, config.base_write_capacity)
    maxima = (config.max_read_capacity, config.max_write_capacity)
    minima = {}
    for name in resources:
        full = f"{table}/{name}" if name else table
        by_hour = []
        for slot in range(HOURS_OF_WEEK):
            known = hours.get(slot, {}).values()
            pair = [0, 0]
            for place in range(2) if len(known) >= LEAST_WEEKS else ():
                used = percentile(
                    [
                        max(peaks[hour].get(full, (0.0, 0.0))[place] for hour in week)
                        for week in known
                    ]
                )
                units = math.ceil(used / config.target_utilization - 1e-9)
                if units > bases[place]:
                    pair[place] = min(units, maxima[place])
            by_hour.append((pair[0], pair[1]))
        minima[name] = tuple(by_hour)
    return Schedule(minima, config.schedule_time_zone)


def percentile(values: list[float]) -> float:
    """Return the 80th percentile by nearest rank: the highest of up to four, the fourth of five."""
    return sorted(values)[math.ceil(PERCENTILE * len(values)) - 1]


def hour_of_week(moment: float, zone: str) -> int:
    """Return the hour of the week of ``moment``, seconds since the epoch."""
    local = datetime.fromtimestamp(moment, ZoneInfo(zone))
    return local.weekday() * 24 + local.hour


def next_hour(moment: float, zone: str) -> float:
    """Return when the next hour begins in the time zone."""
    local = datetime.fromtimestamp(moment, ZoneInfo(zone))
    whole = local.minute * 60 + local.second + local.microsecond / 1e6
    return round(moment + HOUR - whole, 3)


def hour_of(moment: float, zone: str) -> int:
    """Return the number of the zone's hour of ``moment``, one more than that of the hour before."""
    return int(next_hour(moment, zone) // HOUR) - 1


def plan_scheduled(
    capacity: TableCapacity, minimums: Floor, config: ScalingConfig, quota: Quota
) -> Plan:
    """Return the plan that raises a table to the ``minimums`` of a schedule, up to its maximum."""
    table = capacity.table
    if capacity.is_on_demand:
        return Plan("on_demand", f"{table} is on demand and has no capacity to raise")
    changes: dict[str, Units] = {}
    for (name, kind), minimum in minimums.items():
        if kind == "Write" and capacity.has_replicas:
            continue
        own = config.max_read_capacity if kind == "Read" else config.max_write_capacity
        units = changes.get(name, capacity.resources[name].units)
        wanted = min(minimum, own, quota.of(kind))
        if wanted > units.of(kind):
            changes[name] = units.with_kind(kind, wanted)
    if not changes:
        return Plan("nothing", f"{table} has the capacity that its schedule wants")
    if not capacity.is_active:
        return Plan("in_progress", f"{table} is being changed already", again=True)
    source = "learnt from past use" if config.schedule == LEARNT else "of the settings"
    return Plan("scheduled", f"the schedule {source} wants more for the next hour", changes)
