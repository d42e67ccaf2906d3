"""What the reports of a process count: attempts, throttles, use and latency by minute."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from .. import clock
from ..calls.observer import Measurement, kind_of
from ..capacity.usage import MINUTES, Usage, UsageByMinute, minute_of
from ..exceptions import CONDITION_FAILED
from .histogram import Buckets, add, bucket_of
from .latency import Totals
from .report import Calls, Throttling

# A throttle begins a new time of throttling, which is reported at once, if the table did not
# throttle for so many seconds before.
QUIET = 60.0
# Answers that an application expects. Where another error than throttling and a conflict cancels a
# transaction, a condition has failed.
REFUSALS = frozenset([CONDITION_FAILED, "TransactionCanceledException"])
# Errors without an answer.
NO_ANSWER = frozenset(["StoreUnavailable", "StoreRefused", "OperationTimeoutError"])

# The places of a Usage's fields: reads, and writes after them.
_READ, _WRITE, _THROTTLED, _INCURABLE = 0, 1, 2, 4

# By minute, then by table and operation.
_Latency = dict[int, dict[tuple[str, str], Buckets]]


class Tally:
    """The counts of one alias since the process began. Not thread-safe."""

    def __init__(self) -> None:
        self.answered_at = 0.0
        self.unanswered_since: float | None = None
        self._attempts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._throttled: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {}
        self._throttling: dict[str, _Throttled] = {}
        self._costs: dict[tuple[str, str], float] = {}
        # By minute and resource: the fields of a Usage, added up in place.
        self._use: dict[int, dict[str, list[Any]]] = {}
        self._latency: _Latency = {}

    def count(self, at: float, measurement: Measurement) -> bool:
        """Count an attempt that ended ``at`` a time; return whether new throttling has begun."""
        table = measurement.table
        self.count_outcome(at, is_answered=measurement.error not in NO_ANSWER)
        self._attempts[table] += 1
        has_begun = False
        if measurement.throttled:
            has_begun = self._count_throttle(measurement)
        elif measurement.error and measurement.error not in REFUSALS:
            self._errors[table] += 1
        if used := measurement.units:
            self._count_cost(measurement, used.get(table, 0.0), at)
            field = _READ if measurement.kind == "Read" else _WRITE
            resources = self._minute_of(at)
            for name, units in used.items():
                resources[name][field] += units
        return has_begun

    def count_plain(
        self,
        at: float,
        table: str,
        operation: str,
        count: int,
        buckets: Buckets,
        units: Mapping[str, float],
    ) -> None:
        """
        Count ``count`` operations that were answered at their first attempt, in the minute of
        ``at``, with their latencies by bucket and their units. The table does not throttle. Their
        outcome is not counted.
        """
        self._attempts[table] += count
        add(self._buckets_of(at, table, operation), buckets)
        if units:
            self._costs[table, operation] = units.get(table, 0.0) / count
            field = _READ if kind_of(operation) == "Read" else _WRITE
            resources = self._minute_of(at)
            for name, used in units.items():
                resources[name][field] += used

    def count_operation(self, at: float, table: str, operation: str, seconds: float) -> None:
        """Count an operation that ended ``at`` a time, and took ``seconds``."""
        add(self._buckets_of(at, table, operation), {bucket_of(seconds): 1})

    def count_outcome(self, at: float, *, is_answered: bool) -> None:
        """Count whether DynamoDB answered a call. Errors that it returned are answers."""
        if is_answered:
            self.answered_at, self.unanswered_since = at, None
        elif self.unanswered_since is None:
            self.unanswered_since = at

    def calls(self) -> dict[str, Calls]:
        """Return the attempts by table."""
        return {
            name: Calls(attempts, self._errors[name], self._throttled[name])
            for name, attempts in self._attempts.items()
        }

    def reasons(self) -> dict[str, dict[str, int]]:
        """Return the throttles by table and reason."""
        return {name: dict(reasons) for name, reasons in self._reasons.items()}

    def throttling(self) -> dict[str, Throttling]:
        """Return the last time of throttling of each table."""
        return {name: each.report() for name, each in self._throttling.items()}

    def use(self) -> UsageByMinute:
        """Return the use of the last minutes."""
        return {
            minute: {name: Usage(*used) for name, used in resources.items()}
            for minute, resources in self._use.items()
        }

    def latencies(self, now: float) -> dict[int, Totals]:
        """Return the operations of the last minutes by minute, table, operation and bucket."""
        _forget(self._latency, minute_of(now))
        found: dict[int, Totals] = {}
        for minute, operations in self._latency.items():
            tables: Totals = {}
            found[minute] = tables
            for (table, operation), buckets in operations.items():
                tables.setdefault(table, {})[operation] = dict(buckets)
        return found

    def _count_throttle(self, measurement: Measurement) -> bool:
        table = measurement.table
        reasons = self._reasons.setdefault(table, Counter())
        throttling = self._throttling.get(table)
        has_begun = throttling is None or clock.monotonic() - throttling.seen >= QUIET
        if throttling is None or has_begun:
            throttling = self._throttling[table] = _Throttled(measurement.kind)
        throttling.last, throttling.seen = clock.now(), clock.monotonic()
        if measurement.attempt == 1 and measurement.kind == throttling.kind:
            throttling.asked += self._costs.get((table, measurement.operation), 1.0)
        reasons.update(reason.reason for reason in measurement.reasons)
        if not measurement.reasons:
            reasons["no reason named"] += 1
        self._throttled[table] += 1
        resources = self._minute_of(clock.now())
        curable = {each.index for each in measurement.reasons if each.is_curable}
        for index in {each.index for each in measurement.reasons} or {""}:
            incurable = int(bool(measurement.reasons) and index not in curable)
            used = resources[f"{table}/{index}" if index else table]
            field = _READ if measurement.kind == "Read" else _WRITE
            used[_THROTTLED + field] += 1
            used[_INCURABLE + field] += incurable
        return has_begun

    def _count_cost(self, measurement: Measurement, cost: float, at: float) -> None:
        table = measurement.table
        self._costs[table, measurement.operation] = cost
        throttling = self._throttling.get(table)
        if throttling is not None and throttling.counts(measurement, clock.now() - at):
            throttling.served += cost
            if measurement.attempt == 1:
                throttling.asked += cost

    def _buckets_of(self, at: float, table: str, operation: str) -> Buckets:
        minute = minute_of(at)
        found = self._latency.get(minute)
        if found is None:
            _forget(self._latency, minute)
            found = self._latency[minute] = {}
        return found.setdefault((table, operation), {})

    def _minute_of(self, moment: float) -> dict[str, list[Any]]:
        minute = minute_of(moment)
        resources = self._use.get(minute)
        if resources is None:
            resources = self._use[minute] = defaultdict(lambda: [*Usage()])
            _forget(self._use, minute)
        return resources


class _Throttled:
    """What is counted while a table is throttled; ``seen`` is monotonic, for the next time."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.since = self.last = clock.now()
        self.seen = clock.monotonic()
        self.asked = self.served = 0.0

    def counts(self, measurement: Measurement, age: float) -> bool:
        """Return whether the units of ``measurement``, ``age`` seconds ago, belong to this."""
        return (
            measurement.kind == self.kind and clock.monotonic() - max(0.0, age) - self.seen < QUIET
        )

    def report(self) -> Throttling:
        asked = max(self.asked, self.served)
        return Throttling(self.kind, self.since, self.last, round(asked, 1), round(self.served, 1))


def _forget(minutes: dict[int, Any], present: int) -> None:
    for old in [each for each in minutes if each < present - MINUTES]:
        del minutes[old]
