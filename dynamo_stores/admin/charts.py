"""Bars and sparklines as numbers for inline SVG, without scripts or styles. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..monitoring.formatting import count_of, number
from ..monitoring.status import ThroughputStatus

WIDTH, HEIGHT = 300.0, 40.0
_TOP = 3.0


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
