"""What all processes counted in a minute or an hour: sums and their JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..capacity.usage import Usage, UsageByMinute
from .latency import Latencies, Totals, add_latencies, busiest, packed_latencies
from .report import Report, read_latencies, usage_of
from .values import count_of, list_of, mapping_of, number_of, text_of

# An item of a minute or an hour has the latencies of so many operations at most.
_MOST_OPERATIONS = 200


@dataclass(frozen=True)
class Period:
    """
    ``latencies`` of calls by table, operation and bucket; ``events`` that stores counted, such as
    ``hit`` and ``jobs.failed``. Of an hour also ``use`` by table and ``table/index``, and ``peak``,
    the highest read and write units a second of its minutes.
    """

    latencies: Latencies = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    use: Mapping[str, Usage] = field(default_factory=dict)
    peak: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def as_text(self) -> str:
        """Return the period as JSON; latencies of operations with few calls may be left out."""
        (latencies,) = busiest({0: self.latencies}, _MOST_OPERATIONS).values() or [{}]
        return json.dumps(
            {
                "latencies": packed_latencies(latencies),
                "events": self.events,
                "use": self.use,
                "peak": self.peak,
            },
            separators=(",", ":"),
        )

    def at_least(self, other: Period) -> Period:
        """
        Return the higher count of each: of two sums of a minute the higher one has more reports.
        """
        latencies: Totals = {}
        for each in (self.latencies, other.latencies):
            for table, operations in each.items():
                for operation, counts in operations.items():
                    buckets = latencies.setdefault(table, {}).setdefault(operation, {})
                    for bucket, count in counts.items():
                        buckets[bucket] = max(buckets.get(bucket, 0), count)
        events = {
            name: max(self.events.get(name, 0), other.events.get(name, 0))
            for name in {*self.events, *other.events}
        }
        return Period(latencies, events)


def read_period(text: str) -> Period:
    """
    Return the period that ``as_text`` wrote. Raises ValueError if a value is not of its type.
    """
    values = mapping_of(json.loads(text))
    return Period(
        read_latencies(values.get("latencies", {})),
        {text_of(name): count_of(n) for name, n in mapping_of(values.get("events", {})).items()},
        {text_of(name): usage_of(n) for name, n in mapping_of(values.get("use", {})).items()},
        {
            text_of(name): (number_of(list_of(each)[0]), number_of(each[1]))
            for name, each in mapping_of(values.get("peak", {})).items()
        },
    )


def minutes_of(reports: Iterable[Report]) -> dict[int, Period]:
    """Return the sums of reports, by minute since the epoch."""
    latencies: dict[int, Totals] = {}
    events: dict[int, dict[str, int]] = {}
    for report in reports:
        for minute, each in report.latencies.items():
            add_latencies(latencies.setdefault(minute, {}), each)
        for minute, counts in report.events.items():
            found = events.setdefault(minute, {})
            for name, count in counts.items():
                found[name] = found.get(name, 0) + count
    return {
        minute: Period(latencies.get(minute, {}), events.get(minute, {}))
        for minute in {*latencies, *events}
    }


def total(periods: Iterable[Period]) -> Period:
    """Return the sum of periods."""
    latencies: Totals = {}
    events: dict[str, int] = {}
    use: dict[str, Usage] = {}
    peak: dict[str, tuple[float, float]] = {}
    for period in periods:
        add_latencies(latencies, period.latencies)
        for name, count in period.events.items():
            events[name] = events.get(name, 0) + count
        for name, each in period.use.items():
            use[name] = use.get(name, Usage()).plus(each)
        for name, (read, write) in period.peak.items():
            known = peak.get(name, (0.0, 0.0))
            peak[name] = (max(known[0], read), max(known[1], write))
    return Period(latencies, events, use, peak)


def hour_of(minutes: Iterable[Period], use: UsageByMinute) -> Period:
    """Return the hour that consists of ``minutes`` and of the ``use`` of its minutes."""
    sums: dict[str, Usage] = {}
    peak: dict[str, tuple[float, float]] = {}
    for resources in use.values():
        for name, each in resources.items():
            sums[name] = sums.get(name, Usage()).plus(each)
            read, write = peak.get(name, (0.0, 0.0))
            peak[name] = (max(read, each.read / 60), max(write, each.write / 60))
    found = total(minutes)
    return Period(found.latencies, found.events, sums, peak)
