"""
The meter of this process: counts its calls once, for its reports and for the sinks of METRICS.

What is recorded is counted many at a time, so that a call pays little for it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

from django.dispatch import receiver

from .. import clock
from ..cache.store.statistics import get_lookups
from ..calls import observer
from ..calls.breaker import State
from ..calls.connection import get_connection
from ..calls.counters import MOST_LABELS, OTHER, get_counters
from ..calls.observer import Measurement, Operation
from ..capacity.usage import minute_of
from ..concurrency.per_process import PerProcess
from ..conf import aliases, get_config, when_changed
from ..exceptions import ConfigurationError
from ..signals import breaker_state_changed, capacity_changed, failed_over
from .histogram import Buckets, add, bucket_of, buckets_of
from .metrics import Distribution, Labels, Snapshot
from .tally import Tally

logger = logging.getLogger(__name__)

# Measurements are counted many at a time: after so many seconds, or so many of them.
_LONGEST_PENDING, MOST_PENDING = 1.0, 100


class _Distribution:
    """A histogram that is added to."""

    __slots__ = ("buckets", "count", "total")

    def __init__(self) -> None:
        self.count, self.total = 0, 0.0
        self.buckets: Buckets = {}

    def add(self, seconds: float) -> None:
        self.add_all(1, seconds, {bucket_of(seconds): 1})

    def add_all(self, count: int, total: float, buckets: Buckets) -> None:
        self.count += count
        self.total += total
        add(self.buckets, buckets)

    def copy(self) -> Distribution:
        return Distribution(self.count, self.total, dict(self.buckets))


# A call that was answered at its first attempt: when it ended, with its table, operation, seconds
# and ConsumedCapacity.
_Answer = tuple[float, str, str, float, Any]


class _Counted:
    """What the attempts and operations of one kind on one table came to."""

    __slots__ = ("attempts", "operations", "retries", "seconds", "throttles", "units")

    def __init__(self) -> None:
        self.attempts: dict[str, int] = {}
        self.operations: dict[str, int] = {}
        self.retries = 0
        self.seconds = _Distribution()
        self.throttles: Counter[tuple[str, str]] = Counter()
        self.units: dict[str, float] = {}


class Meter:
    """Counts the calls of one alias in this process. Thread-safe."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.is_wanted = is_wanted(using)
        self.lock = threading.Lock()
        self.tally = Tally()
        # Called when a table begins to throttle.
        self.when_throttled: Callable[[], None] = _nothing
        self._counted: dict[tuple[str, str], _Counted] = {}
        self._monitored: dict[tuple[str, str], _Distribution] = {}
        # What is not counted yet.
        self._answers: deque[_Answer] = deque()
        self._pending: deque[tuple[float, Measurement]] = deque()
        self._operations: deque[Operation] = deque()
        self._blocks: deque[tuple[str, str, float]] = deque()
        self._count_at = 0.0
        # Whether something is to be counted that the holder of the lock may have missed.
        self._is_due = False
        self._has_begun = False

    def record(self, measurement: Measurement) -> None:
        """Record one attempt; takes a microsecond and sends nothing."""
        now, pending = clock.now(), self._pending
        pending.append((now, measurement))
        if now >= self._count_at or len(pending) >= MOST_PENDING or measurement.error:
            self._count_soon()

    def record_answer(self, table: str, operation: str, seconds: float, consumed: Any) -> None:
        """Record a call that was answered at its first attempt; as :meth:`record`."""
        now, answers = clock.now(), self._answers
        answers.append((now, table, operation, seconds, consumed))
        if now >= self._count_at or len(answers) >= MOST_PENDING:
            self._count_soon()

    def record_operation(self, operation: Operation) -> None:
        """Record an operation that was not answered at its first attempt."""
        self._operations.append(operation)
        self._count_soon()

    def record_block(self, name: str, error: str, seconds: float) -> None:
        """Record a block of the application."""
        self._blocks.append((name, error, seconds))
        self._count_soon()

    def record_outcome(self, *, is_answered: bool) -> None:
        """Record whether DynamoDB answered a call that is not measured."""
        self.count()
        self.tally.count_outcome(clock.now(), is_answered=is_answered)

    @property
    def answered_at(self) -> float:
        """When DynamoDB answered last, 0 if it did not."""
        self.count()
        return self.tally.answered_at

    @property
    def unanswered_since(self) -> float | None:
        """When the first call without an answer since the last answer ended, None if none."""
        self.count()
        return self.tally.unanswered_since

    def count(self) -> None:
        """Count what was recorded."""
        with self.lock:
            has_begun = self._count_all()
        if has_begun:
            self.when_throttled()
        self.begin()
        if self._is_due:
            self._count_soon()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Let nothing be counted in the block; what is recorded meanwhile is counted after it."""
        with self.lock:
            yield
        if self._is_due:
            self._count_soon()

    def _count_soon(self) -> None:
        # This thread may have the lock itself, where a signal handler or garbage collection makes
        # a call. Who has the lock counts again after it.
        has_begun, self._is_due = False, True
        while self._is_due and not self.lock.locked():
            with self.lock:
                has_begun |= self._count_all()
        if has_begun:
            self.when_throttled()
        self.begin()

    def _count_all(self) -> bool:
        self._is_due = False
        self._count_at = clock.now() + _LONGEST_PENDING
        has_begun = self._count_pending()
        with contextlib.suppress(IndexError):
            while True:
                self._count_operation(self._operations.popleft())
        with contextlib.suppress(IndexError):
            while True:
                self._count_block(*self._blocks.popleft())
        return has_begun

    def begin(self) -> None:
        """Start the threads that publish what is counted, once there is something to publish."""
        if not self._has_begun and (self._counted or self._monitored):
            self._has_begun = True
            for start in _when_begun:
                try:
                    start(self.using)
                except Exception:
                    # Such as no thread, at the end of the interpreter.
                    logger.exception("The counts of the alias %r are not published.", self.using)

    def snapshot(self) -> Snapshot:
        """Return what was counted since the process began; sends nothing."""
        self.count()
        counters: dict[str, dict[Labels, float]] = {
            name: {labels: float(count) for labels, count in counts.items()}
            for name, counts in get_counters(self.using).all().items()
        }
        hits, misses = get_lookups(self.using).counts()
        if hits or misses:
            counters["cache_lookups"] = {("hit",): float(hits), ("miss",): float(misses)}
        histograms: dict[str, dict[Labels, Distribution]] = {}
        with self.locked():
            for key, counted in self._counted.items():
                _add_counters(counters, key, counted)
                histograms.setdefault("operation_seconds", {})[key] = counted.seconds.copy()
            for name_and_error, found in self._monitored.items():
                histograms.setdefault("monitored_seconds", {})[name_and_error] = found.copy()
        gauges: dict[str, dict[Labels, float]] = {
            "breaker_open": {
                (policy.table,): float(policy.breaker.status().state != State.CLOSED)
                for policy in get_connection(self.using).policies()
            }
        }
        return Snapshot(self.using, clock.now(), counters, gauges, histograms)

    def _count_pending(self) -> bool:
        answered_at, ended_at, has_begun = self._count_answers(), math.inf, False
        with contextlib.suppress(IndexError):
            while True:
                ended_at, measurement = self._pending.popleft()
                has_begun |= self._count(ended_at, measurement)
        if answered_at > ended_at:
            self.tally.count_outcome(answered_at, is_answered=True)
        return has_begun

    def _count_answers(self) -> float:
        """Count the calls that were answered at once; return when the last one ended, or 0."""
        # They are the many; those of one minute are added up together.
        answers = self._answers
        taken = [answers.popleft() for _ in range(len(answers))]
        if not taken:
            return 0.0
        throttled, begin = self.tally.throttling(), minute_of(taken[0][0]) * 60.0
        plain: defaultdict[tuple[str, str], list[_Answer]] = defaultdict(list)
        for answer in taken:
            at, table, operation, seconds, consumed = answer
            if begin <= at < begin + 60.0 and table not in throttled:
                plain[table, operation].append(answer)
                continue
            measurement = observer.answered(self.using, table, operation, seconds, 1, consumed, 0.0)
            self._count(at, measurement)
        for key, found in plain.items():
            self._count_plain(*key, found)
        ended_at = taken[-1][0]
        self.tally.count_outcome(ended_at, is_answered=True)
        return ended_at

    def _count_plain(self, table: str, operation: str, answers: list[_Answer]) -> None:
        times, _, _, seconds, consumed = zip(*answers, strict=True)
        counted, count = self._counted_of(table, operation), len(answers)
        for errors in (counted.attempts, counted.operations):
            errors[""] = errors.get("", 0) + count
        units = observer.units_in_all(consumed)
        for name, used in units.items():
            counted.units[name] = counted.units.get(name, 0.0) + used
        buckets = buckets_of(seconds)
        counted.seconds.add_all(count, sum(seconds), buckets)
        self.tally.count_plain(times[-1], table, operation, count, buckets, units)

    def _counted_of(self, table: str, operation: str) -> _Counted:
        found = self._counted.get((table, operation))
        if found is None:
            found = self._counted[table, operation] = _Counted()
        return found

    def _count(self, at: float, measurement: Measurement) -> bool:
        _, table, operation, seconds, attempt, consumed, error, *_, waited = measurement
        counted = self._counted_of(table, operation)
        counted.attempts[error] = counted.attempts.get(error, 0) + 1
        if consumed:
            observer.add_units(counted.units, consumed)
        if attempt > 1:
            counted.retries += 1
        elif not error:
            self._end(counted, at, table, operation, "", waited + seconds)
        if measurement.throttled:
            for reason in measurement.reasons:
                counted.throttles[reason.index, reason.reason] += 1
            if not measurement.reasons:
                counted.throttles["", ""] += 1
        return self.tally.count(at, measurement)

    def _count_block(self, name: str, error: str, seconds: float) -> None:
        key = (name, error)
        if key not in self._monitored and len(self._monitored) >= MOST_LABELS:
            key = (OTHER, OTHER)
        self._monitored.setdefault(key, _Distribution()).add(seconds)

    def _count_operation(self, operation: Operation) -> None:
        key = operation.table, operation.operation
        counted = self._counted_of(*key)
        self._end(counted, operation.ended, *key, operation.error, operation.seconds)

    def _end(
        self, counted: _Counted, at: float, table: str, operation: str, error: str, seconds: float
    ) -> None:
        counted.operations[error] = counted.operations.get(error, 0) + 1
        counted.seconds.add(seconds)
        self.tally.count_operation(at, table, operation, seconds)


def _add_counters(
    counters: dict[str, dict[Labels, float]], key: tuple[str, str], counted: _Counted
) -> None:
    table, operation = key
    for name, errors in (("operations", counted.operations), ("attempts", counted.attempts)):
        values = counters.setdefault(name, {})
        for error, count in errors.items():
            values[table, operation, error] = float(count)
    if counted.retries:
        counters.setdefault("retries", {})[key] = float(counted.retries)
    kind = observer.kind_of(operation).lower()
    for resource, units in counted.units.items():
        name, _, index = resource.partition("/")
        counters.setdefault("consumed_units", {})[name, index, kind, operation] = units
    for (index, reason), count in counted.throttles.items():
        counters.setdefault("throttles", {})[table, index, operation, reason] = float(count)


def _nothing() -> None:
    pass


_meters = PerProcess(Meter)
_when_begun: list[Callable[[str], None]] = []


def get_meter(using: str) -> Meter:
    """Return the meter of the alias ``using`` in this process."""
    return _meters.get(using)


def meters() -> list[Meter]:
    """Return the meters that this process has used so far."""
    return _meters.all()


def when_begun(start: Callable[[str], None]) -> Callable[[str], None]:
    """Call ``start`` with an alias when its first call was counted; a decorator."""
    _when_begun.append(start)
    return start


def is_wanted(using: str) -> bool:
    """Return whether reports or sinks need the counts of the alias."""
    config = get_config(using)
    return config.reports.enabled or bool(config.metrics.sinks)


def _observe(measurement: Measurement) -> None:
    meter = _meters.get(measurement.using)
    if meter.is_wanted:
        meter.record(measurement)


def _recorder_of(using: str) -> observer.Recorder:
    meter = _meters.get(using)
    return meter.record_answer if meter.is_wanted else _ignore


def _ignore(table: str, operation: str, seconds: float, consumed: Any) -> None:
    pass


def _observe_operation(operation: Operation) -> None:
    meter = _meters.get(operation.using)
    if meter.is_wanted:
        meter.record_operation(operation)


@when_changed
def watch() -> None:
    """Count calls if the settings of any alias need it."""
    try:
        wanted = any(is_wanted(using) for using in aliases())
    except ConfigurationError:
        return  # the system checks report it
    if wanted:
        observer.subscribe(_observe, recorder_of=_recorder_of)
        observer.subscribe_operations(_observe_operation, every=False)
    else:
        observer.unsubscribe(_observe)
        observer.unsubscribe_operations(_observe_operation)


@receiver(breaker_state_changed, dispatch_uid="dynamo_stores.monitoring.meter.breakers")
def _on_breaker_change(using: str, table: str, new: State, **kwargs: Any) -> None:
    get_counters(using).add("breaker_transitions", table, str(new))


@receiver(capacity_changed, dispatch_uid="dynamo_stores.monitoring.meter.capacity")
def _on_capacity_change(using: str, table: str, code: str, **kwargs: Any) -> None:
    get_counters(using).add("capacity_changes", table, code)


@receiver(failed_over, dispatch_uid="dynamo_stores.monitoring.meter.failover")
def _on_failover(using: str, table: str, is_active: bool, **kwargs: Any) -> None:
    get_counters(using).add("failovers", table, "begun" if is_active else "ended")
