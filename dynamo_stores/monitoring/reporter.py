"""
The reporter of this process: counts its calls and publishes reports from its own thread.

The thread starts with the first call of a process, and again after a fork. It uses a direct
connection, so that an open breaker is reported as long as DynamoDB can be reached.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import socket
import sys
import threading
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

from django.dispatch import receiver

from .. import __version__, clock
from ..cache.store.statistics import get_lookups
from ..calls import observer
from ..calls.breaker import State
from ..calls.connection import get_connection
from ..calls.observer import Measurement
from ..capacity.usage import MINUTES, Usage, minute_of
from ..concurrency.per_process import PerProcess
from ..conf import aliases, get_config, when_changed
from ..exceptions import CALL_ERRORS, ConfigurationError
from ..signals import breaker_state_changed, rate_limited
from .report import BreakerReport, Calls, Report
from .report_store import ReportStore

logger = logging.getLogger(__name__)

# Seconds from the first call to the first report, and from an event to its report.
_FIRST, _GATHER = 1.0, 2.0
# A throttle is reported at once if the table was not throttled for so many seconds before.
_QUIET = 60.0


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
        self._throttled_at: dict[str, float] = {}
        self._use: dict[int, dict[str, Usage]] = {}
        self._refused = 0
        self._has_published = self._has_ended = self._has_warned = False
        self._lock = threading.Lock()
        self._publishing = threading.Lock()
        self.due = threading.Event()
        self._thread: threading.Thread | None = None

    def record(self, measurement: Measurement) -> None:
        """Count one attempt; takes microseconds and sends nothing."""
        table = measurement.table
        with self._lock:
            self._attempts[table] += 1
            if measurement.throttled:
                self._record_throttle(measurement)
            elif measurement.error:
                self._errors[table] += 1
            if measurement.units:
                kind = measurement.kind
                resources = self._this_minute()
                for name, units in measurement.units.items():
                    used = Usage(read=units) if kind == "Read" else Usage(write=units)
                    resources[name] = resources.get(name, Usage()).plus(used)
            if self._thread is None:
                self._start()

    def record_refusal(self) -> None:
        """Count a request that a limit refused."""
        with self._lock:
            self._refused += 1

    def report_soon(self) -> None:
        """Publish a report soon, because something changed."""
        self.due.set()

    def report(self, *, has_ended: bool = False) -> Report:
        """Return the report as of now; sends nothing."""
        hits, misses = get_lookups(self.using).counts()
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
                use={minute: dict(resources) for minute, resources in self._use.items()},
                cache_hits=hits,
                cache_misses=misses,
                limits_refused=self._refused,
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

    def _record_throttle(self, measurement: Measurement) -> None:
        table = measurement.table
        reasons = self._reasons.setdefault(table, Counter())
        if clock.monotonic() - self._throttled_at.get(table, -_QUIET) >= _QUIET:
            self.due.set()
        self._throttled_at[table] = clock.monotonic()
        reasons.update(reason.reason for reason in measurement.reasons)
        if not measurement.reasons:
            reasons["no reason named"] += 1
        self._throttled[table] += 1
        resources = self._this_minute()
        is_read = measurement.kind == "Read"
        one = Usage(throttled_reads=1) if is_read else Usage(throttled_writes=1)
        short = {reason.index for reason in measurement.reasons} or {""}
        for index in short:
            name = f"{table}/{index}" if index else table
            resources[name] = resources.get(name, Usage()).plus(one)

    def _this_minute(self) -> dict[str, Usage]:
        minute = minute_of(clock.now())
        resources = self._use.get(minute)
        if resources is None:
            resources = self._use[minute] = {}
            for old in [each for each in self._use if each < minute - MINUTES]:
                del self._use[old]
        return resources

    def _breakers(self) -> tuple[BreakerReport, ...]:
        found = []
        for policy in get_connection(self.using).policies():
            status = policy.breaker.status()
            found.append(
                BreakerReport(
                    policy.table, str(status.state), status.failures, status.error, status.since
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


@receiver(rate_limited, dispatch_uid="dynamo_stores.monitoring.reporter.limits")
def _on_refusal(using: str, **kwargs: Any) -> None:
    if get_config(using).reports.enabled:
        get_reporter(using).record_refusal()


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
def _publish_last_reports() -> None:
    for reporter in _reporters.all():
        if reporter.has_published():
            reporter.publish(has_ended=True)
