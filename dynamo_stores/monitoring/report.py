"""The report of one process: its content and its JSON. Pure."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..capacity.usage import Usage, UsageByMinute
from .histogram import HIGHEST, LOWEST, Buckets
from .latency import LatenciesByMinute, Totals, busiest, packed_latencies, unpacked
from .values import count_of, list_of, mapping_of, number_of, text_of, time_of

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
    next_try: float | None = None


@dataclass(frozen=True)
class Calls:
    """
    Attempts on one table since the process began. ``errors`` are attempts without an answer, or
    with an error other than throttling and a failed condition.
    """

    attempts: int = 0
    errors: int = 0
    throttled: int = 0


@dataclass(frozen=True)
class Throttling:
    """
    A time in which a table throttled one process, from ``since`` to ``last`` (seconds since the
    epoch). ``kind`` is ``Read`` or ``Write``. ``asked`` are the units that first attempts asked for
    from ``since`` to the report, and ``served`` the units that DynamoDB served. A throttled attempt
    is assumed to cost as much as the last served one of its operation.
    """

    kind: str
    since: float
    last: float
    asked: float
    served: float


@dataclass(frozen=True)
class Report:
    """
    The report that the process ``host``#``pid`` made ``at`` a moment; it makes one every
    ``interval`` seconds. Times are in seconds since the epoch. ``token`` tells apart containers
    with equal hostnames and process ids. ``reasons`` counts throttles by table and reason;
    ``throttling`` has the last throttled time of each table; ``latencies`` the calls of the last
    minutes by table, operation and bucket; ``events`` what stores counted by minute and name, such
    as ``hit`` and ``jobs.failed``; ``left_out`` is how many tables did not fit.
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
    token: str = ""
    throttling: Mapping[str, Throttling] = field(default_factory=dict)
    latencies: LatenciesByMinute = field(default_factory=dict)
    events: Mapping[int, Mapping[str, int]] = field(default_factory=dict)

    @property
    def process(self) -> str:
        """``<host>#<pid>#<token>``, without a token in reports of earlier versions."""
        return "#".join([self.host, str(self.pid), *filter(None, [self.token])])

    def is_late(self, now: float) -> bool:
        """Return whether the next report is overdue at ``now``."""
        return not self.has_ended and now - self.at > self.interval * LATE_AFTER

    def as_text(self) -> str:
        """
        Return the report as JSON of at most 8 KB. What does not fit is left out: usage of earlier
        minutes, latencies of operations with few attempts, tables with few attempts.
        """
        latest = replace(
            self,
            use=dict(sorted(self.use.items())[-2:]),
            latencies=dict(sorted(self.latencies.items())[-2:]),
            events=dict(sorted(self.events.items())[-2:]),
        )
        fewer = (
            replace(latest, latencies=busiest(latest.latencies, most)) for most in (20, 10, 3, 0)
        )
        for report in (self, latest, *fewer):
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
            throttling={name: each for name, each in self.throttling.items() if name in kept},
            latencies={
                minute: {name: each for name, each in tables.items() if name in kept}
                for minute, tables in self.latencies.items()
            },
            use={
                minute: {
                    name: use for name, use in resources.items() if name.partition("/")[0] in kept
                }
                for minute, resources in self.use.items()
            },
            left_out=left_out,
        )


def _dump(report: Report) -> str:
    values = asdict(replace(report, latencies={}))
    values["latencies"] = {
        minute: packed_latencies(tables) for minute, tables in report.latencies.items()
    }
    return json.dumps(values, separators=(",", ":"))


def _fits(report: Report) -> bool:
    return len(_dump(report)) <= MAX_BYTES


def read_report(text: str) -> Report:
    """
    Return the report that :meth:`Report.as_text` wrote; unknown fields are ignored.

    Raises ValueError if another field than expected is missing, or a value is not of its type.
    """
    values = mapping_of(json.loads(text))
    return Report(
        host=text_of(values.get("host")),
        pid=count_of(values.get("pid")),
        role=text_of(values.get("role")),
        version=text_of(values.get("version")),
        started=time_of(values.get("started")),
        at=time_of(values.get("at")),
        interval=number_of(values.get("interval")),
        has_ended=values.get("has_ended") is True,
        breakers=tuple(map(_breaker, list_of(values.get("breakers", [])))),
        calls={name: _calls(each) for name, each in _items(values, "calls")},
        reasons={
            name: {text_of(why): count_of(n) for why, n in mapping_of(each).items()}
            for name, each in _items(values, "reasons")
        },
        use=read_usage(mapping_of(values.get("use", {}))),
        cache_hits=count_of(values.get("cache_hits", 0)),
        cache_misses=count_of(values.get("cache_misses", 0)),
        limits_refused=count_of(values.get("limits_refused", 0)),
        left_out=count_of(values.get("left_out", 0)),
        token=text_of(values.get("token", "")),
        throttling={name: _throttling(each) for name, each in _items(values, "throttling")},
        latencies={
            _minute(minute): read_latencies(tables)
            for minute, tables in mapping_of(values.get("latencies", {})).items()
        },
        events={
            _minute(minute): {
                text_of(name): count_of(count) for name, count in mapping_of(each).items()
            }
            for minute, each in mapping_of(values.get("events", {})).items()
        },
    )


def read_usage(use: Mapping[Any, Any]) -> dict[int, dict[str, Usage]]:
    """Return usage by minute and resource. Raises ValueError if a value is not of its type."""
    return {
        _minute(minute): {
            text_of(name): usage_of(each) for name, each in mapping_of(resources).items()
        }
        for minute, resources in use.items()
    }


def read_latencies(tables: Any) -> Totals:
    """Return latencies from their short form. Raises ValueError if a value is not of its type."""
    return {
        text_of(table): {
            text_of(operation): _buckets(each) for operation, each in mapping_of(operations).items()
        }
        for table, operations in mapping_of(tables).items()
    }


def _minute(value: Any) -> int:
    time_of(60.0 * int(value))
    return int(value)


def usage_of(value: Any) -> Usage:
    """Return the usage from a list of its figures. Raises ValueError if one is not a number."""
    if len(list_of(value)) < 4:
        raise ValueError(f"Expected 4 figures or more, not {len(value)}.")
    read, write, *throttled = value[: len(Usage._fields)]
    return Usage(number_of(read), number_of(write), *map(count_of, throttled))


def _items(values: Mapping[Any, Any], name: str) -> Iterable[tuple[str, Any]]:
    return [(text_of(key), each) for key, each in mapping_of(values.get(name, {})).items()]


def _breaker(value: Any) -> BreakerReport:
    found = mapping_of(value)
    next_try = found.get("next_try")
    return BreakerReport(
        table=text_of(found.get("table")),
        state=text_of(found.get("state")),
        failures=count_of(found.get("failures")),
        error=text_of(found.get("error")),
        since=time_of(found.get("since")),
        next_try=None if next_try is None else time_of(next_try),
    )


def _calls(value: Any) -> Calls:
    found = mapping_of(value)
    return Calls(*(count_of(found.get(name)) for name in ("attempts", "errors", "throttled")))


def _throttling(value: Any) -> Throttling:
    found = mapping_of(value)
    return Throttling(
        kind=text_of(found.get("kind")),
        since=time_of(found.get("since")),
        last=time_of(found.get("last")),
        asked=number_of(found.get("asked")),
        served=number_of(found.get("served")),
    )


def _buckets(value: Any) -> Buckets:
    counts = list(map(count_of, list_of(value)))
    if counts and not LOWEST <= counts[0] <= counts[0] + len(counts) - 2 <= HIGHEST:
        raise ValueError(f"Expected buckets from {LOWEST} to {HIGHEST}, not from {counts[0]}.")
    return unpacked(counts)


def total_usage(reports: list[Report]) -> dict[int, dict[str, Usage]]:
    """Return the sum of the usage in all reports, by minute and resource."""
    found: dict[int, dict[str, Usage]] = {}
    for report in reports:
        for minute, resources in report.use.items():
            total = found.setdefault(minute, {})
            for name, use in resources.items():
                total[name] = total.get(name, Usage()).plus(use)
    return found
