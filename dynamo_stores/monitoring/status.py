"""The data classes of a status snapshot, and their JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .. import clock
from ..capacity.history import CapacityDecision
from ..capacity.usage import HOUR
from .report import Report


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
class TableStatus:
    """
    The status of a table. ``status`` is DynamoDB's, ``missing`` or ``unknown``; times are in
    seconds since the epoch; ``reasons`` counts the throttles that processes reported.
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

    @property
    def throttled(self) -> int:
        """Attempts that were throttled in the last hour."""
        return sum(each.throttled() for each in self.resources)


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


@dataclass(frozen=True)
class AliasStatus:
    """The snapshot of one alias; ``problems`` are sentences about calls that failed."""

    using: str
    at: float
    problems: tuple[str, ...]
    reports: tuple[Report, ...]
    tables: tuple[TableStatus, ...]
    decisions: tuple[CapacityDecision, ...]
    here: str

    @property
    def breakers(self) -> list[BreakerRow]:
        """The breakers of all processes that have not ended; open ones first."""
        rows = [
            BreakerRow(
                self.using, report.process, report.role, each.table, each.state, each.failures,
                each.error, each.since, report.at, report.is_late(self.at),
                report.process == self.here,
            )
            for report in self.reports
            if not report.has_ended
            for each in report.breakers
        ]  # fmt: skip
        order = {"open": 0, "half_open": 1}
        return sorted(rows, key=lambda row: (order.get(row.state, 2), row.table, row.process))


def as_json(statuses: list[AliasStatus]) -> dict[str, Any]:
    """Return the snapshots as JSON data: flat lists, ``using`` in each element."""
    return {
        "at": max((status.at for status in statuses), default=clock.now()),
        "problems": [
            {"using": status.using, "problem": problem}
            for status in statuses
            for problem in status.problems
        ],
        "breakers": [asdict(row) for status in statuses for row in status.breakers],
        "capacity": [
            {**asdict(table), "throttled": table.throttled}
            for status in statuses
            for table in status.tables
        ],
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
