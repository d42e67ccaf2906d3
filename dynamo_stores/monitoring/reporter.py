"""
The reporter of this process: counts its calls and publishes reports from its own thread.

The thread starts with the first call of a process, and again after a fork. It uses a direct
connection, so that an open breaker is reported as long as DynamoDB can be reached.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import random
import secrets
import socket
import sys
import threading
import weakref
from collections import Counter, defaultdict, deque
from functools import cache
from pathlib import Path
from typing import Any

from django.dispatch import receiver

from .. import __version__, clock
from ..cache.store.statistics import get_lookups
from ..calls import observer
from ..calls.breaker import State
from ..calls.connection import get_connection
from ..calls.observer import Measurement
from ..capacity.planner import is_curable
from ..capacity.usage import MINUTES, Usage, minute_of
from ..concurrency.per_process import PerProcess
from ..conf import aliases, get_config, when_changed
from ..exceptions import CALL_ERRORS, CONDITION_FAILED, ConfigurationError
from ..ratelimit.memory import get_rate_memory
from ..signals import breaker_state_changed
from .latency import RecentLatencies
from .report import BreakerReport, Calls, Report, Throttling
from .report_store import ReportStore

logger = logging.getLogger(__name__)

# Seconds from the first call to the first report, and from an event to its report.
_FIRST, _GATHER = 1.0, 2.0
# A throttle begins a new time of throttling, which is reported at once, if the table did not
# throttle for so many seconds before.
QUIET = 60.0
# Answers that an application expects. Where another error than throttling and a conflict cancels a
# transaction, a condition has failed.
_REFUSALS = frozenset([CONDITION_FAILED, "TransactionCanceledException"])
# Measurements are counted many at a time: after so many seconds, or so many of them.
_LONGEST_PENDING, _MOST_PENDING = 1.0, 100
# The places of a Usage's fields: reads, and writes after them.
_READ, _WRITE, _THROTTLED, _INCURABLE = 0, 1, 2, 4
# Errors without an answer.
_NO_ANSWER = frozenset(["StoreUnavailable", "StoreRefused", "OperationTimeoutError"])


class Reporter:
    """Counts the calls of one alias in this process, and publishes reports of them."""

    def __init__(self, using: str) -> None:
        self.using = using
        self._interval = get_config(using).reports.interval
        self._started = clock.now()
        self._attempts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._throttled: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {}
        self._throttling: dict[str, _Throttled] = {}
        self._costs: dict[tuple[str, str], float] = {}
        self._latencies = RecentLatencies()
        self._answered_at = 0.0
        self._unanswered_since: float | None = None
        # By minute and resource: the fields of a Usage, added up in place.
        self._use: dict[int, dict[str, list[Any]]] = {}
        # Measurements that are not counted yet, each with its time on both clocks.
        self._pending: deque[tuple[float, float, Measurement]] = deque()
        self._count_at = 0.0
        self._has_published = self._has_ended = self._has_warned = False
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        self.due = threading.Event()
        self._thread: threading.Thread | None = None

    def record(self, measurement: Measurement) -> None:
        """Record one attempt; takes a microsecond and sends nothing."""
        now, pending = clock.now(), self._pending
        pending.append((now, clock.monotonic(), measurement))
        if measurement.error or now >= self._count_at or len(pending) >= _MOST_PENDING:
            self.count()

    def count(self) -> None:
        """Count what was recorded."""
        with self._lock:
            self._count_at = clock.now() + _LONGEST_PENDING
            with contextlib.suppress(IndexError):
                while True:
                    self._count(*self._pending.popleft())
            if self._thread is None and self._attempts:
                self._start()

    def record_outcome(self, *, is_answered: bool) -> None:
        """Record whether DynamoDB answered a call. Errors that it returned are answers."""
        self.count()
        self._count_outcome(clock.now(), is_answered)

    @property
    def answered_at(self) -> float:
        """When DynamoDB answered last, 0 if it did not."""
        self.count()
        return self._answered_at

    @property
    def unanswered_since(self) -> float | None:
        """When the first call without an answer since the last answer ended, None if none."""
        self.count()
        return self._unanswered_since

    def report_soon(self) -> None:
        """Publish a report soon, because something changed."""
        self.due.set()

    def report(self, *, has_ended: bool = False) -> Report:
        """Return the report as of now; sends nothing."""
        hits, misses = get_lookups(self.using).counts()
        self.count()
        with self._lock:
            names = [*self._attempts]
            return Report(
                host=socket.gethostname()[:64],
                pid=os.getpid(),
                role=role_of(sys.argv),
                version=__version__,
                started=self._started,
                at=clock.now(),
                interval=self._interval,
                has_ended=has_ended,
                breakers=self._breakers(),
                calls={
                    name: Calls(self._attempts[name], self._errors[name], self._throttled[name])
                    for name in names
                },
                reasons={name: dict(reasons) for name, reasons in self._reasons.items()},
                use={
                    minute: {name: Usage(*used) for name, used in resources.items()}
                    for minute, resources in self._use.items()
                },
                cache_hits=hits,
                cache_misses=misses,
                limits_refused=get_rate_memory(self.using).refused,
                token=token_of(os.getpid()),
                throttling={name: each.report() for name, each in self._throttling.items()},
                latency=self._latencies.recent(clock.now()),
            )

    def publish(self, *, has_ended: bool = False) -> None:
        """
        Publish a report, and reset the breakers for which a reset was requested. With
        ``has_ended`` it is the last report. Never raises.
        """
        try:
            with self._publishing:
                if self._has_ended:
                    return
                self._has_ended = has_ended
                resets = ReportStore(self.using).publish(self.report(has_ended=has_ended))
            self._has_published = True
            self.record_outcome(is_answered=True)
        except CALL_ERRORS as exc:
            # The page shows this process as late, except where the table is missing.
            level = logging.DEBUG
            if isinstance(exc, ConfigurationError) and not self._has_warned:
                self._has_warned, level = True, logging.WARNING
            logger.log(level, "The status of this process could not be published: %s", exc)
            return
        for table in resets:
            reset_breaker(self.using, table)

    def has_published(self) -> bool:
        """Return whether this process has published a report."""
        return self._has_published

    def start_interval(self) -> float:
        """Clear ``due`` before a report; return the seconds until the next one."""
        self.due.clear()
        # Jitter, because processes that started together would report together.
        return self._interval * random.uniform(0.85, 1.0)

    def _count(self, at: float, seen: float, measurement: Measurement) -> None:
        table = measurement.table
        self._count_outcome(at, measurement.error not in _NO_ANSWER)
        self._attempts[table] += 1
        self._latencies.record(at, table, measurement.operation, measurement.seconds)
        if measurement.throttled:
            self._record_throttle(measurement)
        elif measurement.error and measurement.error not in _REFUSALS:
            self._errors[table] += 1
        if measurement.units:
            self._record_cost(measurement, seen)
            field = _READ if measurement.kind == "Read" else _WRITE
            resources = self._minute_of(at)
            for name, units in measurement.units.items():
                resources[name][field] += units

    def _count_outcome(self, at: float, is_answered: bool) -> None:
        if is_answered:
            self._answered_at, self._unanswered_since = at, None
        elif self._unanswered_since is None:
            self._unanswered_since = at

    def _record_throttle(self, measurement: Measurement) -> None:
        table = measurement.table
        reasons = self._reasons.setdefault(table, Counter())
        throttling = self._throttling.get(table)
        if throttling is None or clock.monotonic() - throttling.seen >= QUIET:
            self.due.set()
            throttling = self._throttling[table] = _Throttled(measurement.kind)
        throttling.last, throttling.seen = clock.now(), clock.monotonic()
        if measurement.attempt == 1 and measurement.kind == throttling.kind:
            throttling.asked += self._costs.get((table, measurement.operation), 1.0)
        reasons.update(reason.reason for reason in measurement.reasons)
        if not measurement.reasons:
            reasons["no reason named"] += 1
        self._throttled[table] += 1
        resources = self._minute_of(clock.now())
        curable = {each.index for each in measurement.reasons if is_curable(each)}
        for index in {each.index for each in measurement.reasons} or {""}:
            incurable = int(bool(measurement.reasons) and index not in curable)
            used = resources[f"{table}/{index}" if index else table]
            field = _READ if measurement.kind == "Read" else _WRITE
            used[_THROTTLED + field] += 1
            used[_INCURABLE + field] += incurable

    def _record_cost(self, measurement: Measurement, seen: float) -> None:
        table = measurement.table
        cost = measurement.units.get(table, 0.0)
        self._costs[table, measurement.operation] = cost
        throttling = self._throttling.get(table)
        if throttling is not None and throttling.counts(measurement, seen):
            throttling.served += cost
            if measurement.attempt == 1:
                throttling.asked += cost

    def _minute_of(self, moment: float) -> dict[str, list[Any]]:
        minute = minute_of(moment)
        resources = self._use.get(minute)
        if resources is None:
            resources = self._use[minute] = defaultdict(lambda: [*Usage()])
            for old in [each for each in self._use if each < minute - MINUTES]:
                del self._use[old]
        return resources

    def _breakers(self) -> tuple[BreakerReport, ...]:
        found = []
        for policy in get_connection(self.using).policies():
            status = policy.breaker.status()
            found.append(
                BreakerReport(
                    policy.table,
                    str(status.state),
                    status.failures,
                    status.error,
                    status.since,
                    None if status.state == "closed" else clock.now() + status.retry_after,
                )
            )
        return tuple(found)

    def _start(self) -> None:
        self._thread = threading.Thread(
            target=_run,
            args=(weakref.ref(self),),
            name=f"dynamo-stores-reports-{self.using}",
            daemon=True,
        )
        self._thread.start()


class _Throttled:
    """What is counted while a table is throttled; ``seen`` is monotonic, for the next time."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.since = self.last = clock.now()
        self.seen = clock.monotonic()
        self.asked = self.served = 0.0

    def counts(self, measurement: Measurement, seen: float) -> bool:
        """Return whether the units of ``measurement`` belong to this time of throttling."""
        return measurement.kind == self.kind and seen - self.seen < QUIET

    def report(self) -> Throttling:
        asked = max(self.asked, self.served)
        return Throttling(self.kind, self.since, self.last, round(asked, 1), round(self.served, 1))


def _run(found: weakref.ref[Reporter]) -> None:
    # The thread ends when the reporter is garbage collected, as after a change of settings.
    wait = _FIRST
    while (reporter := found()) is not None:
        event = reporter.due
        del reporter
        event.wait(wait)
        if event.is_set():
            # Real time: this thread must not advance the fake clock of a test.
            threading.Event().wait(_GATHER)
        if (reporter := found()) is None:
            return
        wait = reporter.start_interval()
        try:
            reporter.publish()
        except Exception:
            logger.exception("The status of this process could not be published.")


_reporters = PerProcess(Reporter)


def get_reporter(using: str) -> Reporter:
    """Return the reporter of the alias ``using`` in this process."""
    return _reporters.get(using)


def reset_breaker(using: str, table: str) -> None:
    """Close this process's breaker of ``table``."""
    for policy in get_connection(using).policies():
        if policy.table == table:
            policy.breaker.reset()


@cache
def token_of(pid: int) -> str:
    """Return a random token of this process: containers may have equal hostnames and pids."""
    return secrets.token_hex(3)


def role_of(argv: list[str]) -> str:
    """Return the program, such as ``celery worker``, without arguments that may be secret."""
    if not argv or argv[0] in ("", "-c", "-m"):
        return "python"
    path = Path(argv[0])
    name = path.parent.name if path.name == "__main__.py" else path.name
    if name in ("manage.py", "django-admin"):
        name = " ".join([name, *[each for each in argv[1:] if each.isidentifier()][:1]])
    elif name == "celery":
        name = " ".join([name, *(each for each in argv[1:] if each in ("worker", "beat"))])
    return name[:64]


def _observe(measurement: Measurement) -> None:
    if get_config(measurement.using).reports.enabled:
        get_reporter(measurement.using).record(measurement)


@receiver(breaker_state_changed, dispatch_uid="dynamo_stores.monitoring.reporter.breakers")
def _on_breaker_change(using: str, new: State, **kwargs: Any) -> None:
    if get_config(using).reports.enabled:
        get_reporter(using).report_soon()


@when_changed
def watch() -> None:
    """Count calls if the settings of any alias enable reports."""
    try:
        wanted = any(get_config(using).reports.enabled for using in aliases())
    except ConfigurationError:
        return  # the system checks report it
    if wanted:
        observer.subscribe(_observe)
    else:
        observer.unsubscribe(_observe)


@atexit.register
def publish_last_reports(**kwargs: Any) -> None:
    """Report that this process ends. Ctrl-C meanwhile leaves the rest of the reports out."""
    with contextlib.suppress(KeyboardInterrupt):
        for reporter in _reporters.all():
            if reporter.has_published():
                reporter.publish(has_ended=True)
