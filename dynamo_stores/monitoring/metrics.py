"""The metrics of a process: their names, and what was counted up to a moment. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .histogram import Buckets, add

# Names and values of the dimensions of a metric, in the order of the family.
Labels = tuple[str, ...]


class Family(NamedTuple):
    """
    A metric: ``kind`` is ``counter``, ``gauge`` or ``histogram``; ``unit`` is ``""`` for a count.
    ``labels`` are the names of its dimensions, beside the alias.
    """

    name: str
    kind: str
    unit: str
    labels: tuple[str, ...]
    text: str


FAMILIES = {
    each.name: each
    for each in (
        Family(
            "operations", "counter", "", ("table", "operation", "error"),
            "Calls of DynamoDB, with their retries; error is the class of the one raised.",
        ),
        Family(
            "operation_seconds", "histogram", "seconds", ("table", "operation"),
            "What calls took, with retries and the waits between them.",
        ),
        Family(
            "attempts", "counter", "", ("table", "operation", "error"),
            "Requests to DynamoDB; error is the class of the one that it ended in.",
        ),
        Family("retries", "counter", "", ("table", "operation"), "Attempts after the first one."),
        Family(
            "throttles", "counter", "", ("table", "index", "operation", "reason"),
            "Throttled attempts, by the reason that DynamoDB returned.",
        ),
        Family(
            "consumed_units", "counter", "", ("table", "index", "kind", "operation"),
            "Capacity units that answered attempts consumed; kind is read or write.",
        ),
        Family("cache_lookups", "counter", "", ("result",), "Keys read: hit or miss."),
        Family("rate_limit_refusals", "counter", "", ("resource",), "Requests that were refused."),
        Family("jobs", "counter", "", ("outcome",), "Deduplicated jobs, by what became of them."),
        Family(
            "waits", "counter", "", ("reason",),
            "Waits for something else than DynamoDB's answer.",
        ),
        Family(
            "breaker_transitions", "counter", "", ("table", "state"),
            "Changes of circuit breakers, by the new state.",
        ),
        Family(
            "breaker_open", "gauge", "", ("table",),
            "1 while the circuit breaker of the table is open or half open, else 0.",
        ),
        Family(
            "capacity_changes", "counter", "", ("table", "code"),
            "Changes of capacity that this process made.",
        ),
        Family(
            "scale_down_checks", "counter", "", ("state",),
            "Checks of the raised tables: ok, or stuck if one should have been lowered.",
        ),
        Family(
            "failovers", "counter", "", ("table", "state"),
            "Changes to the other alias (begun), and back (ended).",
        ),
        Family(
            "monitored_seconds", "histogram", "seconds", ("name", "error"),
            "What was measured by monitor_operation and correlations.",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Distribution:
    """The values of a histogram: how many, their sum, and counts by bucket; see histogram.py."""

    count: int
    total: float
    buckets: Mapping[int, int]

    def minus(self, earlier: Distribution) -> Distribution:
        """Return the values that were added since ``earlier``."""
        buckets: Buckets = {
            bucket: count - earlier.buckets.get(bucket, 0) for bucket, count in self.buckets.items()
        }
        return Distribution(
            self.count - earlier.count,
            self.total - earlier.total,
            {bucket: count for bucket, count in buckets.items() if count},
        )


@dataclass(frozen=True)
class Snapshot:
    """
    What one process has counted for the alias ``using`` since it began, ``at`` a moment in seconds
    since the epoch: counters, gauges and histograms by family and labels.
    """

    using: str
    at: float
    counters: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)
    gauges: Mapping[str, Mapping[Labels, float]] = field(default_factory=dict)
    histograms: Mapping[str, Mapping[Labels, Distribution]] = field(default_factory=dict)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of a counter over all labels but the given ones."""
        family = FAMILIES[name].labels
        wanted = [(family.index(label), value) for label, value in labels.items()]
        return sum(
            count
            for found, count in self.counters.get(name, {}).items()
            if all(found[at] == value for at, value in wanted)
        )

    def distribution(self, name: str) -> Distribution:
        """Return the values of a histogram over all labels."""
        buckets: Buckets = {}
        count, total = 0, 0.0
        for each in self.histograms.get(name, {}).values():
            add(buckets, each.buckets)
            count, total = count + each.count, total + each.total
        return Distribution(count, total, buckets)

    def since(self, earlier: Snapshot) -> Snapshot:
        """Return what was counted after ``earlier``; what did not change is left out."""
        counters = {
            name: {
                labels: value - before.get(labels, 0.0)
                for labels, value in values.items()
                if value != before.get(labels, 0.0)
            }
            for name, values in self.counters.items()
            for before in [earlier.counters.get(name, {})]
        }
        histograms = {
            name: {
                labels: value.minus(before[labels]) if labels in before else value
                for labels, value in values.items()
                if labels not in before or value.count != before[labels].count
            }
            for name, values in self.histograms.items()
            for before in [earlier.histograms.get(name, {})]
        }
        return Snapshot(self.using, self.at, counters, self.gauges, histograms)
