"""The report of one process: its content and its JSON. Pure."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..capacity.usage import Usage, UsageByMinute

# A report is one item of at most so many bytes, so 8 write units a minute at most.
MAX_BYTES = 7_900
# A process that has not reported for so many of its intervals is late.
LATE_AFTER = 2.5
# A report is kept for so many seconds after it was written.
KEPT = 3_600.0


@dataclass(frozen=True)
class BreakerReport:
    """A breaker of one process: see :class:`~dynamo_stores.calls.breaker.BreakerStatus`."""

    table: str
    state: str
    failures: int
    error: str
    since: float


@dataclass(frozen=True)
class Calls:
    """Attempts on one table since the process began."""

    attempts: int = 0
    errors: int = 0
    throttled: int = 0


@dataclass(frozen=True)
class Report:
    """
    The report that the process ``host``#``pid`` made ``at`` a moment; it makes one every
    ``interval`` seconds. Times are in seconds since the epoch. ``reasons`` counts throttles by
    table and reason; ``left_out`` is how many tables did not fit.
    """

    host: str
    pid: int
    role: str
    version: str
    started: float
    at: float
    interval: float
    has_ended: bool = False
    breakers: tuple[BreakerReport, ...] = ()
    calls: Mapping[str, Calls] = field(default_factory=dict)
    reasons: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    use: UsageByMinute = field(default_factory=dict)
    cache_hits: int = 0
    cache_misses: int = 0
    limits_refused: int = 0
    left_out: int = 0

    @property
    def process(self) -> str:
        """``<host>#<pid>``."""
        return f"{self.host}#{self.pid}"

    def is_late(self, now: float) -> bool:
        """Return whether the next report is overdue at ``now``."""
        return not self.has_ended and now - self.at > self.interval * LATE_AFTER

    def as_text(self) -> str:
        """Return the report as JSON of at most 8 KB; tables with few attempts are left out."""
        for report in (self, replace(self, use=dict(sorted(self.use.items())[-2:]))):
            if len(text := _dump(report)) <= MAX_BYTES:
                return text
        failing = {each.table for each in self.breakers if each.state != "closed"}
        names = {each.table for each in self.breakers} | set(self.calls) | set(self.reasons)
        ranked = sorted(
            names, key=lambda name: (name in failing, self.calls.get(name, Calls()).attempts)
        )
        # Leave out as few tables as possible, those with the fewest attempts first.
        out = bisect_left(
            range(len(ranked)), True, key=lambda out: _fits(report._only(ranked[out:], out))
        )
        return _dump(report._only(ranked[out:], out))

    def _only(self, names: Iterable[str], left_out: int) -> Report:
        kept = frozenset(names)
        return replace(
            self,
            breakers=tuple(each for each in self.breakers if each.table in kept),
            calls={name: each for name, each in self.calls.items() if name in kept},
            reasons={name: each for name, each in self.reasons.items() if name in kept},
            use={
                minute: {
                    name: use for name, use in resources.items() if name.partition("/")[0] in kept
                }
                for minute, resources in self.use.items()
            },
            left_out=left_out,
        )


def _dump(report: Report) -> str:
    return json.dumps(asdict(report), separators=(",", ":"))


def _fits(report: Report) -> bool:
    return len(_dump(report)) <= MAX_BYTES


def read_report(text: str) -> Report:
    """Return the report that :meth:`Report.as_text` wrote; unknown fields are ignored."""
    values: dict[str, Any] = json.loads(text)
    known = {name: values[name] for name in Report.__dataclass_fields__ if name in values}
    known["breakers"] = tuple(
        BreakerReport(**{name: each[name] for name in BreakerReport.__dataclass_fields__})
        for each in known.get("breakers", ())
    )
    known["calls"] = {
        name: Calls(each["attempts"], each["errors"], each["throttled"])
        for name, each in known.get("calls", {}).items()
    }
    known["use"] = {
        int(minute): {name: Usage(*use) for name, use in resources.items()}
        for minute, resources in known.get("use", {}).items()
    }
    return Report(**known)


def total_usage(reports: list[Report]) -> dict[int, dict[str, Usage]]:
    """Return the sum of the usage in all reports, by minute and resource."""
    found: dict[int, dict[str, Usage]] = {}
    for report in reports:
        for minute, resources in report.use.items():
            total = found.setdefault(minute, {})
            for name, use in resources.items():
                total[name] = total.get(name, Usage()).plus(use)
    return found
