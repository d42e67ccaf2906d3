"""
What goes to CloudWatch: sums of the counts by few dimensions, and values of the application.

Every combination of a name and dimensions is a custom metric, which is billed. So the counts are
added up over most of their labels: see :data:`DIMENSIONS`.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from ...conf.rules import suggestion
from ...exceptions import ConfigurationError
from ..histogram import Buckets, add, bound_of
from ..metrics import FAMILIES, Distribution, Labels, Snapshot
from ..tally import REFUSALS
from .base import Metric

# What is sent of a family beside its sum: the label, and the values of it that are left in or out.
_PARTS: Final[Mapping[str, tuple[str, str, Collection[str], bool]]] = {
    "errors": ("operations", "error", frozenset(["", *REFUSALS]), False),
    "read_units": ("consumed_units", "kind", ("read",), True),
    "write_units": ("consumed_units", "kind", ("write",), True),
    "hits": ("cache_lookups", "result", ("hit",), True),
    "misses": ("cache_lookups", "result", ("miss",), True),
    "stuck_scale_downs": ("scale_down_checks", "state", ("stuck",), True),
}
# By metric: its sets of labels, each of which makes custom metrics. The alias is in all of them.
DIMENSIONS: Final[Mapping[str, Sequence[Sequence[str]]]] = {
    "operations": [["table"]],
    "errors": [["table"]],
    "operation_seconds": [["table"]],
    "retries": [["table"]],
    "throttles": [["table"]],
    "read_units": [["table"]],
    "write_units": [["table"]],
    "breaker_open": [["table"]],
    "capacity_changes": [["table"]],
    "failovers": [["table"]],
    "scale_down_checks": [[]],
    "stuck_scale_downs": [[]],
    "hits": [[]],
    "misses": [[]],
    "rate_limit_refusals": [[]],
    "jobs": [["outcome"]],
    "waits": [[]],
    "monitored_seconds": [["name"]],
}
ALIAS = "using"

# https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html
MOST_VALUES = 150
_MOST_DIMENSIONS, _MOST_NAME, _MOST_TEXT, _LARGEST = 30, 250, 1024, 2.0**360
# Seconds: CloudWatch refuses what is older than two weeks, or two hours ahead; with some to spare.
_OLDEST, _NEWEST = 14 * 86_400 - 3_600, 2 * 3_600 - 600
_MINUTE = 60
# Values of the application that wait, by minute, name and dimensions; each takes some 500 bytes.
_MOST_WAITING = 10_000


class Series(NamedTuple):
    """One custom metric."""

    name: str
    unit: str
    dimensions: tuple[tuple[str, str], ...]


class Values:
    """
    Values of a series within a minute: their count, sum and bounds; and ``counts`` of each value,
    None if there are more than 150 different ones.
    """

    __slots__ = ("count", "counts", "high", "low", "total")

    def __init__(self, counts: Mapping[float, int], total: float | None = None) -> None:
        self.counts: dict[float, int] | None = dict(counts)
        self.count = sum(counts.values())
        self.total = sum(value * n for value, n in counts.items()) if total is None else total
        self.low, self.high = min(counts), max(counts)

    @classmethod
    def of(cls, found: Distribution) -> Values:
        """
        Return the values of a histogram: its count and sum, and in place of the values of a bucket
        its middle, moved so far that the sum is that of the values.
        """
        middles = {bound_of(bucket) / 2**0.125: count for bucket, count in found.buckets.items()}
        factor = found.total / sum(value * count for value, count in middles.items())
        counts: dict[float, int] = {}
        for value, count in middles.items():
            counts[value * factor] = counts.get(value * factor, 0) + count
        return cls(counts, found.total)

    def add(self, other: Values) -> None:
        """Add other values."""
        self.count, self.total = self.count + other.count, self.total + other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        if self.counts is None or other.counts is None:
            self.counts = None
            return
        for value, count in other.counts.items():
            self.counts[value] = self.counts.get(value, 0) + count
        if len(self.counts) > MOST_VALUES:
            self.counts = None

    def approximate(self) -> Mapping[float, int]:
        """Return the counts of each value; if they are not known, of some with this sum."""
        if self.counts is not None:
            return self.counts
        # There are more than a hundred: the lowest, the highest, and the mean of the others.
        others = self.count - 2
        mean = (self.total - self.low - self.high) / others
        found: dict[float, int] = {self.low: 1}
        for value, count in ((self.high, 1), (mean, others)):
            found[value] = found.get(value, 0) + count
        return found


class Point(NamedTuple):
    """Values of a series, in the minute that began at ``minute``, in seconds since the epoch."""

    series: Series
    minute: int
    values: Values


class Pending:
    """
    What is not published yet, of one alias. Counts are added up, and values of the application are
    kept by minute; both are bounded.

    :meth:`record` is called by any thread, and the other methods by one at a time.
    """

    def __init__(self, using: str, chosen: Any = None) -> None:
        self._using = using
        self._wanted = [*_wanted({**DIMENSIONS, **_checked(chosen or {})})]
        self._last = Snapshot(using, 0.0)
        self._counts: dict[Series, float] = {}
        self._histograms: dict[Series, Distribution] = {}
        self._gauges: dict[Series, float] = {}
        self._minute = 0
        self._lock = threading.Lock()
        # Of the application: what came since the last time, and what was to be published then.
        self._new: dict[tuple[Series, int], Values] = {}
        self._old: dict[tuple[Series, int], Values] = {}
        # Values of the application that were left out.
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._counts) + len(self._histograms) + len(self._new) + len(self._old)

    @property
    def is_filling(self) -> bool:
        """Whether half of the places for values of the application are taken."""
        return len(self._new) + len(self._old) >= _MOST_WAITING / 2

    def record(self, metric: Metric) -> None:
        """Keep a value of the application; it is dropped and counted if it cannot be kept."""
        if len(metric.dimensions) > _MOST_DIMENSIONS or not abs(metric.value) <= _LARGEST:
            self.drop(1)
            return
        dimensions = {_name(name): as_dimension(text) for name, text in metric.dimensions}
        series = Series(_name(metric.name), metric.unit, tuple(dimensions.items()))
        key, values = (series, _minute_of(metric.at)), Values({metric.value: 1})
        with self._lock:
            found = self._new.get(key)
            if found is not None:
                found.add(values)
            elif len(self._new) + len(self._old) < _MOST_WAITING:
                self._new[key] = values
            else:
                self.dropped += 1

    def drop(self, count: int) -> None:
        """Count values of the application that are left out."""
        with self._lock:
            self.dropped += count

    def collect(self, snapshot: Snapshot) -> None:
        """Add what was counted since the last snapshot."""
        since, self._last = snapshot.since(self._last), snapshot
        self._minute = _minute_of(snapshot.at)
        for wanted in self._wanted:
            for labels, count in since.counters.get(wanted.family, {}).items():
                if wanted.has(labels):
                    series = wanted.series(self._using, labels)
                    self._counts[series] = self._counts.get(series, 0.0) + count
            for labels, found in since.histograms.get(wanted.family, {}).items():
                if wanted.has(labels):
                    series = wanted.series(self._using, labels)
                    before = self._histograms.get(series)
                    self._histograms[series] = _sum(before, found) if before else found
        self._gauges = {}
        for wanted in self._wanted:
            for labels, value in snapshot.gauges.get(wanted.family, {}).items():
                series = wanted.series(self._using, labels)
                self._gauges[series] = max(value, self._gauges.get(series, value))

    def points(self, now: float) -> list[Point]:
        """Return all that waits; what is published is removed by :meth:`accepted`."""
        with self._lock:
            new, self._new = self._new, {}
        for key, values in new.items():
            if key in self._old:
                self._old[key].add(values)
            else:
                self._old[key] = values
        for key in [each for each in self._old if not -_NEWEST < now - each[1] < _OLDEST]:
            self.drop(self._old.pop(key).count)
        found = [Point(*key, values) for key, values in self._old.items()]
        own = [(series, Values({count: 1})) for series, count in self._counts.items()]
        own += [(series, Values.of(each)) for series, each in self._histograms.items()]
        # An idle process publishes nothing, unless a circuit breaker is open.
        if own or any(self._gauges.values()):
            own += [(series, Values({value: 1})) for series, value in self._gauges.items()]
        return found + [Point(series, self._minute, values) for series, values in own]

    def accepted(self, points: Sequence[Point]) -> None:
        """Remove what was published."""
        for series, minute, _ in points:
            if self._old.pop((series, minute), None) is None:
                self._counts.pop(series, None)
                self._histograms.pop(series, None)
                self._gauges.pop(series, None)


class _Wanted(NamedTuple):
    """A metric by one set of labels."""

    name: str
    unit: str
    family: str
    # Labels, and their places in the family.
    labels: tuple[tuple[str, int], ...]
    # The label that chooses: its place, values, and whether these are left in.
    part: tuple[int, Collection[str], bool] | None

    def has(self, labels: Labels) -> bool:
        if self.part is None:
            return True
        place, values, is_in = self.part
        return (labels[place] in values) is is_in

    def series(self, using: str, labels: Labels) -> Series:
        chosen = ((name, as_dimension(labels[place])) for name, place in self.labels)
        return Series(self.name, self.unit, ((ALIAS, as_dimension(using)), *chosen))


def _wanted(dimensions: Mapping[str, Sequence[Sequence[str]]]) -> Iterator[_Wanted]:
    for name, sets in dimensions.items():
        family, *part = _PARTS.get(name, (name,))
        found = FAMILIES[str(family)]
        unit = "Seconds" if found.unit == "seconds" else "Count"
        for labels in sets:
            places = tuple((label, found.labels.index(label)) for label in labels)
            chooses: Any = (found.labels.index(str(part[0])), *part[1:]) if part else None
            yield _Wanted(name, unit, found.name, places, chooses)


def _checked(chosen: Any) -> dict[str, Any]:
    known = {*FAMILIES, *_PARTS}
    if not isinstance(chosen, Mapping):
        raise ConfigurationError(
            f"The option DIMENSIONS is {chosen!r}; expected a dict of metrics and lists of sets of "
            "labels, such as {'operations': [['table'], ['table', 'operation']]}."
        )
    for name, sets in chosen.items():
        if name not in known:
            raise ConfigurationError(
                f"The option DIMENSIONS has an unknown metric {name!r}{suggestion(name, known)} "
                f"Known: {', '.join(sorted(known))}."
            )
        labels = FAMILIES[_PARTS[name][0] if name in _PARTS else name].labels
        is_list = isinstance(sets, list | tuple) and all(
            isinstance(each, list | tuple) and all(label in labels for label in each)
            for each in sets
        )
        if not is_list:
            raise ConfigurationError(
                f"The option DIMENSIONS has {sets!r} for {name!r}; expected a list of lists of "
                f"its labels: {', '.join(labels)}."
            )
    return dict(chosen)


def _minute_of(moment: float) -> int:
    return int(moment // _MINUTE) * _MINUTE


def _name(text: str) -> str:
    # This member of a line of the Embedded Metric Format is its own.
    return "aws" if (found := as_dimension(text, _MOST_NAME)) == "_aws" else found


def as_dimension(text: str, most: int = _MOST_TEXT) -> str:
    """Return a text as CloudWatch allows it: printable ASCII, not empty."""
    found = text[:most]
    if not (found.isascii() and found.isprintable()):
        found = "".join(each if " " <= each <= "~" else "?" for each in found)
    return found.rstrip().lstrip(": ") or "(none)"


def _sum(one: Distribution, other: Distribution) -> Distribution:
    buckets: Buckets = dict(one.buckets)
    add(buckets, other.buckets)
    return Distribution(one.count + other.count, one.total + other.total, buckets)
