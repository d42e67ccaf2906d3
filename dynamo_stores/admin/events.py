"""Charts of what the stores of all processes counted: cache lookups, refused requests and jobs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..capacity.usage import HOUR
from ..monitoring.formatting import number
from ..monitoring.periods import Period
from .charts import BAD, DASHED, SOLID, LineChart, Series, line_chart
from .past import Past

HITS, MISSES, REFUSED = "hit", "miss", "refused"
BEGUN, COMPLETED, FAILED = "jobs.begun", "jobs.completed", "jobs.failed"
_MINUTES, _HOURS = "last hour, by minute", "last day, by hour"
# The names of events in JSON and on pages, and how their lines are drawn.
_NAMES = {
    HITS: ("hits", SOLID),
    MISSES: ("misses", DASHED),
    REFUSED: ("refused", BAD),
    BEGUN: ("begun", DASHED),
    COMPLETED: ("completed", SOLID),
    FAILED: ("failed", BAD),
}
_Points = Sequence[tuple[float, Period | None]]


@dataclass(frozen=True)
class Sum:
    """The counts of a span of time, and the share of hits if they are of a cache."""

    span: str
    counts: tuple[tuple[str, int], ...]
    rate: float | None = None

    @property
    def percent(self) -> str:
        """The rate for people, ``""`` without lookups."""
        return "" if self.rate is None else _percent(self.rate)


@dataclass(frozen=True)
class Events:
    """The events of one alias; ``sums`` are of the spans that were read."""

    using: str
    sums: tuple[Sum, ...]
    charts: tuple[LineChart, ...]
    problems: tuple[str, ...]
    minutes: tuple[dict[str, Any], ...]
    hours: tuple[dict[str, Any], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON data: the minutes and hours that are known, by their beginnings."""
        return {
            "using": self.using,
            "problems": list(self.problems),
            "minutes": list(self.minutes),
            "hours": list(self.hours),
        }


def lookups(pasts: Sequence[Past]) -> list[Events]:
    """Return the hits, misses and hit rates of each alias, of the last hour and the last day."""
    return [_lookups(past) for past in pasts]


def refusals(pasts: Sequence[Past]) -> list[Events]:
    """Return the requests that rate limits refused, by minute, of each alias."""
    return [_by_minute(past, "Refused requests", (REFUSED,)) for past in pasts]


def jobs(pasts: Sequence[Past]) -> list[Events]:
    """Return the jobs that began, were completed and failed, by minute, of each alias."""
    return [_by_minute(past, "Jobs", (BEGUN, COMPLETED, FAILED)) for past in pasts]


def _lookups(past: Past) -> Events:
    names = (HITS, MISSES)
    minutes, hours = _minutes(past), _hours(past)
    found = [("in the last hour", past.of_hour()), ("in the last day", past.of_day())]
    charts = []
    for points, when in ((minutes, _MINUTES), (hours, _HOURS)):
        if _has(points, names):
            rates = [_rate(period) for _, period in points]
            charts.append(
                line_chart(
                    f"Hit rate, {when}",
                    [at for at, _ in points],
                    [Series("hit rate", SOLID, rates)],
                    _percent,
                    now=past.now,
                    top=1.0,
                )
            )
            charts.append(_chart(f"Lookups, {when}", points, names, past.now))
    return Events(
        past.using,
        tuple(
            Sum(span, _counts(period, names), _rate(period))
            for span, period in found
            if period is not None
        ),
        tuple(charts),
        past.problems,
        _as_json(minutes, names),
        _as_json(hours, names),
    )


def _by_minute(past: Past, title: str, names: Sequence[str]) -> Events:
    points, period = _minutes(past), past.of_hour()
    charts = [_chart(f"{title}, {_MINUTES}", points, names, past.now)]
    return Events(
        past.using,
        (Sum("in the last hour", _counts(period, names)),) if period is not None else (),
        tuple(charts) if _has(points, names) else (),
        past.problems,
        _as_json(points, names),
    )


def _minutes(past: Past) -> _Points:
    # The present minute has only begun.
    return [(60.0 * each, past.minute(each)) for each in past.last_hour[:-1]]


def _hours(past: Past) -> _Points:
    return [(60.0 * HOUR * each, past.hour(each)) for each in past.last_day]


def _has(points: _Points, names: Sequence[str]) -> bool:
    return any(period and period.events.get(name) for _, period in points for name in names)


def _chart(title: str, points: _Points, names: Sequence[str], now: float) -> LineChart:
    series = []
    for event in names:
        name, style = _NAMES[event]
        values = [None if period is None else period.events.get(event, 0) for _, period in points]
        series.append(Series(name, style, values))
    return line_chart(title, [at for at, _ in points], series, number, now=now)


def _counts(period: Period, names: Sequence[str]) -> tuple[tuple[str, int], ...]:
    return tuple((_NAMES[name][0], period.events.get(name, 0)) for name in names)


def _rate(period: Period | None) -> float | None:
    if period is None:
        return None
    hits, misses = period.events.get(HITS, 0), period.events.get(MISSES, 0)
    return hits / (hits + misses) if hits + misses else None


def _percent(share: float) -> str:
    return f"{number(100 * share)} %"


def _as_json(points: _Points, names: Sequence[str]) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"at": at, **dict(_counts(period, names))} for at, period in points if period is not None
    )
