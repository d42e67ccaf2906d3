"""
CloudWatch's Embedded Metric Format: lines of JSON, of which CloudWatch Logs makes metrics.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/
CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import logging
import select
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, islice, repeat
from typing import Any, NamedTuple, TextIO

from ... import clock
from ...exceptions import ConfigurationError
from ..metrics import Snapshot
from .base import Metric, Sink
from .series import Pending, Point, Series

logger = logging.getLogger(__name__)

_MOST_METRICS, _MOST_VALUES = 100, 100
# Processes that share a pipe do not mix lines up to this length; the format allows 256 KB.
_LONGEST = 4096
_STREAMS = ("stdout", "stderr")


class EMFSink(Sink):
    """
    Writes what was counted since the last export, and the values of the application, as lines of
    CloudWatch's Embedded Metric Format to standard output.

    Options: ``STREAM``, ``"stdout"`` or ``"stderr"``; ``LOGGER``, the name of a logger that gets
    the lines instead, at INFO; ``DIMENSIONS``, see docs/metrics.md; ``COUNTS``, True to write
    latencies as values with their counts instead of lists of values.
    """

    option_names = ("STREAM", "LOGGER", "DIMENSIONS", "COUNTS")

    def __init__(self, using: str, options: Mapping[str, Any]) -> None:
        super().__init__(using, options)
        self._stream = options.get("STREAM", "stdout")
        if self._stream not in _STREAMS:
            raise ConfigurationError(
                f"The option STREAM of EMFSink is {self._stream!r}; expected 'stdout' or 'stderr'."
            )
        self._logger = logging.getLogger(options["LOGGER"]) if options.get("LOGGER") else None
        self._pending = Pending(using, options.get("DIMENSIONS"))
        self._dropped = 0
        self._has_failed = False

    def metric(self, metric: Metric) -> None:
        self._pending.record(metric)

    def is_due(self) -> bool:
        return self._pending.is_filling

    def export(self, snapshot: Snapshot, since: Snapshot) -> None:
        self._pending.collect(snapshot)
        points = self._pending.points(clock.now())
        # What cannot be written is left out, because nobody would read it later either.
        self._pending.accepted(points)
        self._write(points)
        dropped, self._dropped = self._pending.dropped - self._dropped, self._pending.dropped
        if dropped:
            logger.warning("%d values of the application were left out of the metrics.", dropped)

    def _write(self, points: Sequence[Point]) -> None:
        found = lines(self.config.namespace, points, counts=bool(self.options.get("COUNTS")))
        if self._logger is not None:
            for line in found:
                self._logger.info("%s", line)
            return
        try:
            for line in found:
                stream: TextIO = getattr(sys, self._stream)
                _wait_for(stream)
                stream.write(f"{line}\n")
                stream.flush()
                self._has_failed = False
        except (OSError, ValueError, AttributeError) as exc:
            # The stream was closed, or there is none.
            level = logging.DEBUG if self._has_failed else logging.WARNING
            self._has_failed = True
            logger.log(
                level, "Metrics cannot be written to %s: %s.", self._stream, type(exc).__name__
            )


class _Target(NamedTuple):
    """A metric of a line, and its JSON."""

    series: Series
    definition: str
    value: str


def lines(namespace: str, points: Sequence[Point], *, counts: bool = False) -> Iterator[str]:
    """
    Yield the lines of the format for ``points``, without line ends. With ``counts``, more than one
    value is an object with ``Values`` and ``Counts``, else a list in which each value is repeated.
    """
    groups: dict[tuple[int, tuple[tuple[str, str], ...]], list[Point]] = {}
    for point in points:
        groups.setdefault((point.minute, point.series.dimensions), []).append(point)
    for (minute, dimensions), found in groups.items():
        head = _Head(namespace, minute, dimensions)
        values = [(each.series, _values(each, counts)) for each in found]
        while values:
            # One value of each metric, because a line has each name once.
            targets = [
                _Target(series, head.definition(series), value)
                for series, each in values
                if (value := next(each, None)) is not None
            ]
            yield from head.lines(targets)
            named = {target.series for target in targets}
            values = [(series, each) for series, each in values if series in named]


class _Head:
    """What the lines of one minute and set of dimensions have in common."""

    def __init__(
        self, namespace: str, minute: int, dimensions: tuple[tuple[str, str], ...]
    ) -> None:
        self._names = {name for name, _ in dimensions}
        keys = json.dumps([name for name, _ in dimensions], separators=(",", ":"))
        self._begin = (
            f'{{"_aws":{{"Timestamp":{minute * 1000},"CloudWatchMetrics":[{{"Namespace":'
            f'{json.dumps(namespace)},"Dimensions":[{keys}],"Metrics":['
        )
        pairs = (f"{json.dumps(name)}:{json.dumps(text)}" for name, text in dimensions)
        self._end = "]}]}," + "".join(f"{pair}," for pair in pairs)

    def definition(self, series: Series) -> str:
        return f'{{"Name":{self.name(series)},"Unit":{json.dumps(series.unit)}}}'

    def name(self, series: Series) -> str:
        # The values of metrics and of dimensions are members of one object.
        name = series.name
        while name in self._names:
            name += "_"
        return json.dumps(name)

    def lines(self, targets: Sequence[_Target]) -> Iterator[str]:
        line: list[_Target] = []
        names: set[str] = set()
        size = 0
        for target in targets:
            name = self.name(target.series)
            added = len(target.definition) + len(name) + len(target.value) + 3
            is_full = len(line) == _MOST_METRICS or size + added > self._space or name in names
            if line and is_full:
                yield self._line(line)
                line, names, size = [], set(), 0
            line.append(target)
            names.add(name)
            size += added
        if line:
            yield self._line(line)

    @property
    def _space(self) -> int:
        return _LONGEST - len(self._begin) - len(self._end) - 2

    def _line(self, targets: Sequence[_Target]) -> str:
        definitions = ",".join(each.definition for each in targets)
        values = ",".join(f"{self.name(each.series)}:{each.value}" for each in targets)
        return f"{self._begin}{definitions}{self._end}{values}}}"


def _values(point: Point, counts: bool) -> Iterator[str]:
    found = point.values
    if found.count == 1:
        yield json.dumps(found.total)
        return
    pairs = iter(found.approximate().items())
    if not counts:
        values = chain.from_iterable(repeat(_number(value), count) for value, count in pairs)
        while some := list(islice(values, _MOST_VALUES)):
            yield f"[{','.join(some)}]"
        return
    while part := dict(islice(pairs, _MOST_VALUES)):
        yield json.dumps(
            {
                "Values": [*part],
                "Counts": [*part.values()],
                "Max": max(part),
                "Min": min(part),
                "Count": sum(part.values()),
                "Sum": sum(value * count for value, count in part.items()),
            },
            separators=(",", ":"),
        )


def _number(value: float) -> str:
    # Short, because it is repeated; the sum is exact to a millionth.
    return f"{value:.7g}"


def _wait_for(stream: TextIO) -> None:
    """Wait until a line can be written: this thread holds no lock of the stream meanwhile."""
    if not hasattr(select, "poll"):
        return  # pragma: no cover - Windows
    try:
        number = stream.fileno()
    except (OSError, ValueError, AttributeError):
        return
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    poll.poll()
