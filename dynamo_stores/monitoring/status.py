"""What there is to know, for whoever is on call: its shapes, for people and for programs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .. import clock
from ..capacity.history import CapacityDecision
from .report import Report
from .usage import HOUR


@dataclass(frozen=True)
class Line:
    """
    Read or write units a second: what there is, between ``baseline`` and ``maximum`` (None: on
    demand, or not known), what was ``used`` in the last minute that is known whole, and before,
    the oldest first, and ``throttled`` attempts in each minute.
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
    A table (``name`` is ``""``) or one of its indexes; ``throttled_since`` the last minute that is
    known whole.
    """

    name: str
    read: Line
    write: Line
    decreases_left: int | None
    throttled_since: int

    def throttled(self, minutes: int = HOUR) -> int:
        """Return how many attempts were throttled in the last minutes, and since."""
        before = sum(sum(line.throttled[-minutes:]) for line in (self.read, self.write))
        return before + self.throttled_since


@dataclass(frozen=True)
class TableStatus:
    """
    What there is to know of a table. ``status`` is DynamoDB's, ``missing`` or ``unknown``; times
    are in seconds since the epoch; ``reasons`` counts the throttles that processes told of.
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
    """A breaker of a process: ``at`` is when the process said so."""

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
    """The snapshot of one alias; ``problems`` are sentences about what could not be asked."""

    using: str
    at: float
    problems: tuple[str, ...]
    reports: tuple[Report, ...]
    tables: tuple[TableStatus, ...]
    decisions: tuple[CapacityDecision, ...]
    here: str

    @property
    def breakers(self) -> list[BreakerRow]:
        """Every breaker of every process that has not ended; open ones first."""
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
    """Return the snapshots for programs: lists with ``using`` in each of their parts."""
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
