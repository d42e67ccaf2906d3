"""The data classes of a status snapshot, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .. import clock
from ..capacity.history import CapacityDecision
from ..capacity.usage import HOUR
from .formatting import clock_time
from .latency import Latency
from .report import Report

# The parts of a table's status that may be not known, because they could not be read.
CAPACITY, USAGE, DECISION, LOWERING = "capacity", "usage", "decision", "lowering"
# A table is to be lowered at its deadline; the sweep that does so runs each minute.
_OVERDUE = 120.0


def is_overdue(comes_down_at: float, now: float) -> bool:
    """Return whether a table that is due at ``comes_down_at`` should have been lowered by now."""
    return now - comes_down_at > _OVERDUE


@dataclass(frozen=True)
class ThroughputStatus:
    """
    Read or write units a second of a table or index.

    ``capacity``, ``baseline`` and ``maximum`` are None on demand, or if not known. ``used`` is of
    the last complete minute. ``history`` has the units a second of each minute, the oldest first,
    ``throttled`` the throttled attempts of each.
    """

    capacity: int | None
    baseline: int | None
    maximum: int | None
    used: float
    history: tuple[float, ...]
    throttled: tuple[int, ...]


@dataclass(frozen=True)
class ResourceStatus:
    """
    A table (``name`` is ``""``) or one of its indexes; ``throttled_since`` counts the throttled
    attempts after the last complete minute.
    """

    name: str
    read: ThroughputStatus
    write: ThroughputStatus
    decreases_left: int | None
    throttled_since: int

    def throttled(self, minutes: int = HOUR) -> int:
        """Return how many attempts were throttled in the last complete minutes, and after them."""
        before = sum(sum(line.throttled[-minutes:]) for line in (self.read, self.write))
        return before + self.throttled_since


@dataclass(frozen=True)
class ThrottledTime:
    """
    When a table throttled last, from ``since`` to ``last``, by the reports of all processes.
    ``asked`` and ``served`` are ``kind`` (``Read`` or ``Write``) units a second on average.
    """

    kind: str
    since: float
    last: float
    asked: float
    served: float


@dataclass(frozen=True)
class Outage:
    """
    No call for the status was answered. ``since`` is the first call without an answer since the
    last answer, None if this process cannot tell. ``next_try`` is when a circuit breaker of this
    process admits the next call, None if none is open. Times are in seconds since the epoch.
    ``is_refusal``: credentials or rights are wrong.
    """

    place: str
    since: float | None
    reason: str
    next_try: float | None
    is_refusal: bool

    def sentence(self, now: float) -> str:
        """Return what is known, and with ``since`` what becomes of the calls of this process."""
        does = "refuses the requests" if self.is_refusal else "does not answer"
        what = f"DynamoDB {does} at {self.place}"
        if self.since is None:
            return f"{what}: {self.reason}."
        return f"{what}, since {clock_time(self.since, now)}: {self.reason}. {self._next(now)}"

    def _next(self, now: float) -> str:
        if self.next_try is None:
            return "No circuit breaker of this process is open: its calls are sent."
        if self.next_try <= now:
            return "Calls fail at once; the next call is a try."
        return f"Calls fail at once; next try at {clock_time(self.next_try, now)}."


@dataclass(frozen=True)
class TableStatus:
    """
    The status of a table. ``status`` is DynamoDB's, ``missing`` or ``unknown``; times are in
    seconds since the epoch; ``reasons`` counts the throttles that processes reported.
    ``not_known`` names the parts that could not be read: ``capacity``, ``usage``, ``decision`` or
    ``lowering``. ``change`` is the last decision that changed the table; ``latency`` is of the last
    five minutes, by the reports of all processes.
    """

    using: str
    table: str
    status: str
    status_at: float
    is_on_demand: bool
    scaling: str
    resources: tuple[ResourceStatus, ...]
    reasons: Mapping[str, int]
    decision: CapacityDecision | None
    comes_down_at: float | None
    used_at: float
    not_known: frozenset[str] = frozenset()
    change: CapacityDecision | None = None
    throttling: ThrottledTime | None = None
    scale_down_delay: float = 0.0
    latency: tuple[Latency, ...] = ()

    @property
    def throttled(self) -> int:
        """Attempts that were throttled in the last hour."""
        return sum(each.throttled() for each in self.resources)

    def is_overdue(self, now: float) -> bool:
        """Return whether the table should have been lowered by ``now``."""
        return self.comes_down_at is not None and is_overdue(self.comes_down_at, now)


@dataclass(frozen=True)
class BreakerRow:
    """A breaker of a process, as reported ``at`` a time."""

    using: str
    process: str
    role: str
    table: str
    state: str
    failures: int
    error: str
    since: float
    at: float
    is_late: bool
    is_here: bool
    next_try: float | None = None


@dataclass(frozen=True)
class AliasStatus:
    """
    The snapshot of one alias. ``problems`` are sentences about calls that failed, ``notes`` about
    items that cannot be read. ``knows_others``: whether the reports of other processes were read.
    """

    using: str
    at: float
    problems: tuple[str, ...]
    reports: tuple[Report, ...]
    tables: tuple[TableStatus, ...]
    decisions: tuple[CapacityDecision, ...]
    here: str
    outage: Outage | None = None
    notes: tuple[str, ...] = ()
    knows_others: bool = True
    knows_decisions: bool = True

    @property
    def reporting(self) -> list[Report]:
        """The reports of processes that have not ended and are not late."""
        return [each for each in self.reports if not each.has_ended and not each.is_late(self.at)]

    @property
    def breakers(self) -> list[BreakerRow]:
        """The breakers of all processes that have not ended; open ones first."""
        rows = [
            BreakerRow(
                self.using, report.process, report.role, each.table, each.state, each.failures,
                each.error, each.since, report.at, report.is_late(self.at),
                report.process == self.here, each.next_try,
            )
            for report in self.reports
            if not report.has_ended
            for each in report.breakers
        ]  # fmt: skip
        order = {"open": 0, "half_open": 1}
        return sorted(rows, key=lambda row: (order.get(row.state, 2), row.table, row.process))


def as_json(statuses: list[AliasStatus]) -> dict[str, Any]:
    """
    Return the snapshots as JSON data: flat lists, ``using`` in each element. A figure that is not
    known is None.
    """
    return {
        "at": max((status.at for status in statuses), default=clock.now()),
        "problems": [
            {"using": status.using, "problem": problem, **_outage(status)}
            for status in statuses
            for problem in (*status.problems, *status.notes)
        ],
        "breakers": [asdict(row) for status in statuses for row in status.breakers],
        "capacity": [_table(table) for status in statuses for table in status.tables],
        "processes": [
            {
                "using": status.using,
                "process": report.process,
                **asdict(report),
                "is_late": report.is_late(status.at),
            }
            for status in statuses
            for report in status.reports
        ],
        "decisions": [
            {"using": status.using, **asdict(decision)}
            for status in statuses
            for decision in status.decisions
        ],
    }


def _outage(status: AliasStatus) -> dict[str, Any]:
    outage = status.outage
    return {
        "endpoint": outage.place if outage else None,
        "since": outage.since if outage else None,
        "next_try": outage.next_try if outage else None,
    }


def _table(table: TableStatus) -> dict[str, Any]:
    found = {**asdict(table), "throttled": table.throttled, "not_known": sorted(table.not_known)}
    if CAPACITY in table.not_known:
        found |= {"is_on_demand": None}
    if USAGE in table.not_known:
        unknown = ("throttled", "reasons", "used_at", "throttling", "latency")
        found |= dict.fromkeys(unknown)
        for resource in found["resources"]:
            resource["throttled_since"] = None
            for kind in ("read", "write"):
                resource[kind] |= {"used": None, "history": None, "throttled": None}
    return found
