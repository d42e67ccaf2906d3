"""The page of latencies: each operation on each table, in the last hour and the last day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..capacity.usage import HOUR
from ..monitoring.formatting import milliseconds
from ..monitoring.histogram import quantile
from ..monitoring.latency import Latency, summary
from ..monitoring.periods import Period
from .charts import DASHED, SOLID, LineChart, Series, line_chart
from .past import Past

BUSIEST, SLOWEST = "busiest", "slowest"
# So many operations of an alias are shown, and the first of them with charts.
_MOST_ROWS, _MOST_CHARTS = 100, 12


@dataclass(frozen=True)
class Point:
    """The latency of one minute or hour that begins ``at``, in seconds."""

    at: float
    calls: int
    p50: float
    p99: float


@dataclass(frozen=True)
class LatencyRow:
    """
    An operation on a table. ``hour`` and ``day`` are None without calls; the points are of the
    minutes and hours that have calls.
    """

    table: str
    operation: str
    hour: Latency | None
    day: Latency | None
    minutes: tuple[Point, ...] = ()
    hours: tuple[Point, ...] = ()
    charts: tuple[LineChart, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data; latencies are in seconds."""
        return {
            "table": self.table,
            "operation": self.operation,
            "hour": _figures(self.hour),
            "day": _figures(self.day),
            "minutes": [asdict(each) for each in self.minutes],
            "hours": [asdict(each) for each in self.hours],
        }


@dataclass(frozen=True)
class AliasLatency:
    """The latencies of one alias: ``count`` operations, the first of them in ``rows``."""

    using: str
    rows: tuple[LatencyRow, ...]
    count: int
    knows_hour: bool
    knows_day: bool
    problems: tuple[str, ...]

    @property
    def charted(self) -> list[LatencyRow]:
        """The rows that have charts."""
        return [row for row in self.rows if row.charts]

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        return {
            "using": self.using,
            "knows_hour": self.knows_hour,
            "knows_day": self.knows_day,
            "problems": list(self.problems),
            "count": self.count,
            "operations": [row.as_json() for row in self.rows],
        }


def latencies(pasts: Sequence[Past], *, table: str, order: str) -> list[AliasLatency]:
    """
    Return the latencies of each alias, the busiest or the slowest operations first, of all tables
    or of one.
    """
    return [_latencies(past, table, order) for past in pasts]


def _latencies(past: Past, only: str, order: str) -> AliasLatency:
    hour = _by_operation(past.of_hour(), only)
    day = _by_operation(past.of_day(), only)
    keys = sorted({*hour, *day})
    if order == SLOWEST:
        keys.sort(key=lambda key: _p99(hour.get(key), day.get(key)), reverse=True)
    else:
        keys.sort(key=lambda key: (_calls(hour.get(key)), _calls(day.get(key))), reverse=True)
    rows = []
    for place, (table, operation) in enumerate(keys[:_MOST_ROWS]):
        key = table, operation
        row = LatencyRow(table, operation, hour.get(key), day.get(key))
        rows.append(row if place >= _MOST_CHARTS else _with_charts(row, past))
    return AliasLatency(
        past.using, tuple(rows), len(keys), past.knows_minutes, past.knows_hours, past.problems
    )


def _by_operation(period: Period | None, only: str) -> dict[tuple[str, str], Latency]:
    if period is None:
        return {}
    return {
        (table, each.operation): each
        for table in period.latencies
        if not only or table == only
        for each in summary(table, [period.latencies])
    }


def _p99(hour: Latency | None, day: Latency | None) -> float:
    found = hour or day
    return found.p99 if found is not None else 0.0


def _calls(latency: Latency | None) -> int:
    return latency.calls if latency is not None else 0


def _with_charts(row: LatencyRow, past: Past) -> LatencyRow:
    minutes = [_point(row, each * 60.0, past.minutes.get(each)) for each in past.last_hour]
    hours = [_point(row, each * 60.0 * HOUR, past.hours.get(each)) for each in past.last_day]
    charts = [
        line_chart(
            title,
            [each * seconds for each in times],
            [
                Series("p50", DASHED, [each.p50 if each else None for each in points]),
                Series("p99", SOLID, [each.p99 if each else None for each in points]),
            ],
            milliseconds,
            now=past.now,
        )
        for title, times, seconds, points in (
            ("Last hour, by minute", past.last_hour, 60.0, minutes),
            ("Last day, by hour", past.last_day, 60.0 * HOUR, hours),
        )
        if any(points)
    ]
    return LatencyRow(
        row.table,
        row.operation,
        row.hour,
        row.day,
        tuple(filter(None, minutes)),
        tuple(filter(None, hours)),
        tuple(charts),
    )


def _point(row: LatencyRow, at: float, period: Period | None) -> Point | None:
    buckets = period.latencies.get(row.table, {}).get(row.operation) if period else None
    if not buckets:
        return None
    return Point(at, sum(buckets.values()), quantile(buckets, 0.5), quantile(buckets, 0.99))


def _figures(latency: Latency | None) -> dict[str, Any] | None:
    if latency is None:
        return None
    return {name: value for name, value in asdict(latency).items() if name != "operation"}
