"""Bars, sparklines and line charts as numbers for inline SVG, without scripts or styles. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..monitoring.formatting import clock_time, count_of, number
from ..monitoring.status import ThroughputStatus

WIDTH, HEIGHT = 300.0, 40.0
_TOP = 3.0
# Half the width of a point without neighbours.
_DOT = 1.5
# How a line is drawn, by the classes of the style sheet.
SOLID, DASHED, BAD = "solid", "dashed", "bad"


@dataclass(frozen=True)
class Bar:
    """Positions in a bar of 300 by 14, and the same as text."""

    used: float
    capacity: float
    baseline: float
    words: str
    is_full: bool


@dataclass(frozen=True)
class Sparkline:
    """The points of a polyline and of the area below it in 300 by 40, and a description."""

    points: str
    area: str
    marks: tuple[float, ...]
    words: str


def bar(line: ThroughputStatus, kind: str) -> Bar | None:
    """Return the bar of a provisioned capacity, None for a table on demand."""
    if line.capacity is None or line.baseline is None or line.maximum is None:
        return None
    whole = max(line.maximum, line.capacity, line.used, 1)
    words = (
        f"{number(line.used)} {kind} units a second used of {number(line.capacity)}; baseline "
        f"{number(line.baseline)}, maximum {number(line.maximum)}"
    )
    return Bar(
        used=round(WIDTH * line.used / whole, 1),
        capacity=round(WIDTH * line.capacity / whole, 1),
        baseline=round(WIDTH * line.baseline / whole, 1),
        words=words,
        is_full=line.used >= line.capacity * 0.9,
    )


def sparkline(
    values: Sequence[float], throttled: Sequence[int], kind: str, top: float = 0.0
) -> Sparkline:
    """
    Return the chart of ``values``, one a minute, with a mark where attempts were throttled. It
    reaches to ``top``, or to the highest value if that is more.
    """
    highest = max(values, default=0.0)
    peak = max(highest, top)
    step = WIDTH / max(1, len(values) - 1)
    xs = [round(step * each, 1) for each in range(len(values))]
    ys = [
        round(HEIGHT - 1 - (HEIGHT - 1 - _TOP) * value / peak, 1) if peak else HEIGHT - 1
        for value in values
    ]
    points = " ".join(f"{x:g},{y:g}" for x, y in zip(xs, ys, strict=True))
    marks = tuple(x for x, count in zip(xs, throttled, strict=True) if count)
    times = sum(throttled)
    words = f"{kind} in the last hour: at most {number(highest)} units a second"
    if times:
        words += f", {count_of(times, 'attempt')} throttled"
    return Sparkline(
        points, f"0,{HEIGHT:g} {points} {WIDTH:g},{HEIGHT:g}" if points else "", marks, words
    )


@dataclass(frozen=True)
class Series:
    """The values of a line, None where there is none; ``style`` is solid, dashed or bad."""

    name: str
    style: str
    values: Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """The points of each unbroken part of a line."""

    name: str
    style: str
    strokes: tuple[str, ...]


@dataclass(frozen=True)
class LineChart:
    """
    Lines in 300 by 40, from 0 to ``top``, between the times ``first`` and ``last``. ``words``
    describe it; ``rows`` have each time at which there is a value, and the values as text.
    """

    title: str
    lines: tuple[Line, ...]
    words: str
    first: str
    last: str
    top: str
    rows: tuple[tuple[str, tuple[str, ...]], ...]


def line_chart(
    title: str,
    times: Sequence[float],
    series: Sequence[Series],
    text: Callable[[float], str],
    *,
    now: float,
    top: float = 0.0,
) -> LineChart:
    """
    Return the chart of ``series``, whose values are of ``times`` in seconds since the epoch;
    ``text`` returns a value for people. It reaches to ``top``, or to the highest value if that is
    more.
    """
    highest = [
        max((value for value in each.values if value is not None), default=None) for each in series
    ]
    peak = max([top, *(value for value in highest if value is not None)])
    known = [
        f"{each.name} at most {text(most)}"
        for each, most in zip(series, highest, strict=True)
        if most is not None
    ]
    shown = [clock_time(at, now) for at in times]
    rows = tuple(
        (at, tuple("" if value is None else text(value) for value in values))
        for at, *values in zip(shown, *(each.values for each in series), strict=True)
        if any(value is not None for value in values)
    )
    return LineChart(
        title=title,
        lines=tuple(
            Line(each.name, each.style, tuple(_strokes(each.values, peak))) for each in series
        ),
        words=f"{title}: {', '.join(known) or 'nothing is known'}",
        first=shown[0],
        last=shown[-1],
        top=text(peak),
        rows=rows,
    )


def _strokes(values: Sequence[float | None], peak: float) -> Iterator[str]:
    step = WIDTH / max(1, len(values) - 1)
    part: list[tuple[float, float]] = []
    for at, value in enumerate([*values, None]):
        if value is not None:
            y = HEIGHT - 1 - ((HEIGHT - 1 - _TOP) * value / peak if peak else 0.0)
            part.append((step * at, y))
            continue
        if len(part) == 1:
            ((x, y),) = part
            part = [(max(0.0, x - _DOT), y), (min(WIDTH, x + _DOT), y)]
        if part:
            yield " ".join(f"{round(x, 1):g},{round(y, 1):g}" for x, y in part)
        part = []
