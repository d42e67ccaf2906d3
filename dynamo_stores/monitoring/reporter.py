"""
What this process reports of itself: counted as its calls go by, told by a thread of its own.

The thread begins with the first call of a process, again after a fork, and goes through the side
door, so that an open breaker is reported as long as DynamoDB can be reached at all.
"""

from __future__ import annotations

import atexit
import logging
import os
import random
import socket
import sys
import threading
import time
import weakref
from collections import Counter
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from django.dispatch import receiver

from .. import __version__, clock
from ..cache.store.statistics import get_lookups
from ..calls import observer
from ..calls.breaker import State
from ..calls.connection import get_connection
from ..calls.observer import Measurement
from ..concurrency.per_process import PerProcess
from ..conf import aliases, get_config, when_changed
from ..exceptions import ConfigurationError, StoreError
from ..signals import breaker_state_changed, rate_limited
from .report import MINUTES, BreakerReport, Calls, Report, Use
from .report_store import ReportStore
from .usage import minute_of

logger = logging.getLogger(__name__)

# A process is there a second after its first call, and news are told at most so often, in seconds.
_FIRST, _GATHER = 1.0, 2.0
# Throttling is news again after so many seconds without.
_CALM = 60.0


class Reporter:
    """Counts the calls of one alias in this process, and tells what they were."""

    def __init__(self, using: str) -> None:
        self.using = using
        self._interval = get_config(using).reports.interval
        self._started = clock.now()
        self._attempts: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        self._throttled: Counter[str] = Counter()
        self._reasons: dict[str, Counter[str]] = {}
        self._throttled_at: dict[str, float] = {}
        self._use: dict[int, dict[str, Use]] = {}
        self._refused = 0
        self._has_told = self._has_ended = self._has_warned = False
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self.news = threading.Event()
        self._thread: threading.Thread | None = None

    def record(self, measurement: Measurement) -> None:
        """Count one attempt; costs microseconds, and sends nothing."""
        table = measurement.table
        with self._lock:
            self._attempts[table] += 1
            if measurement.throttled:
                self._note_throttle(measurement)
            elif measurement.error:
                self._errors[table] += 1
            if measurement.units:
                kind = measurement.kind
                resources = self._this_minute()
                for name, units in measurement.units.items():
                    used = Use(read=units) if kind == "Read" else Use(write=units)
                    resources[name] = resources.get(name, Use()).plus(used)
            if self._thread is None:
                self._start()

    def record_refusal(self) -> None:
        """Count a request that a limit refused."""
        with self._lock:
            self._refused += 1

    def hurry(self) -> None:
        """Report soon: there are news."""
        self.news.set()

    def report(self, *, has_ended: bool = False) -> Report:
        """Return what there is to say now; sends nothing."""
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
        Report, and reset the breakers that somebody asked to reset; ``has_ended`` is the last
        word. Never raises.
        """
        try:
            with self._telling:
                if self._has_ended:
                    return
                self._has_ended = has_ended
                resets = ReportStore(self.using).publish(self.report(has_ended=has_ended))
            self._has_told = True
        except (BotoCoreError, ClientError, StoreError) as exc:
            # The page says that this process is late; without the table nobody would.
            level = logging.DEBUG
            if isinstance(exc, ConfigurationError) and not self._has_warned:
                self._has_warned, level = True, logging.WARNING
            logger.log(level, "This process could not report its status: %s", exc)
            return
        for table in resets:
            reset_breaker(self.using, table)

    def has_told(self) -> bool:
        """Return whether there is a report of this process."""
        return self._has_told

    def begin_round(self) -> float:
        """Forget the news that are about to be told; return the seconds until the next report."""
        self.news.clear()
        # Processes that began together do not report together for ever.
        return self._interval * random.uniform(0.85, 1.0)

    def _note_throttle(self, measurement: Measurement) -> None:
        table = measurement.table
        reasons = self._reasons.setdefault(table, Counter())
        if clock.monotonic() - self._throttled_at.get(table, -_CALM) >= _CALM:
            self.news.set()
        self._throttled_at[table] = clock.monotonic()
        reasons.update(reason.reason for reason in measurement.reasons)
        if not measurement.reasons:
            reasons["no reason named"] += 1
        self._throttled[table] += 1
        resources = self._this_minute()
        is_read = measurement.kind == "Read"
        one = Use(throttled_reads=1) if is_read else Use(throttled_writes=1)
        short = {reason.index for reason in measurement.reasons} or {""}
        for index in short:
            name = f"{table}/{index}" if index else table
            resources[name] = resources.get(name, Use()).plus(one)

    def _this_minute(self) -> dict[str, Use]:
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
    # The thread ends when nobody has the reporter any more: after other settings, say.
    wait = _FIRST
    while (reporter := found()) is not None:
        event = reporter.news
        del reporter
        event.wait(wait)
        if event.is_set():
            time.sleep(_GATHER)
        if (reporter := found()) is None:
            return
        wait = reporter.begin_round()
        try:
            reporter.publish()
        except Exception:
            logger.exception("This process could not report its status.")


_reporters = PerProcess(Reporter)


def get_reporter(using: str) -> Reporter:
    """Return what counts the calls of the alias ``using`` in this process."""
    return _reporters.get(using)


def reset_breaker(using: str, table: str) -> None:
    """Close this process's breaker of ``table``."""
    for policy in get_connection(using).policies():
        if policy.table == table:
            policy.breaker.reset()


def role_of(argv: list[str]) -> str:
    """Return what the process is, without arguments that may be secret: ``celery worker``."""
    if not argv or not argv[0]:
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
def _hear_of_breaker(using: str, new: State, **kwargs: Any) -> None:
    if get_config(using).reports.enabled:
        get_reporter(using).hurry()


@receiver(rate_limited, dispatch_uid="dynamo_stores.monitoring.reporter.limits")
def _hear_of_refusal(using: str, **kwargs: Any) -> None:
    if get_config(using).reports.enabled:
        get_reporter(using).record_refusal()


@when_changed
def watch() -> None:
    """Count calls where the settings of any alias switch reports on."""
    try:
        wanted = any(get_config(using).reports.enabled for using in aliases())
    except ConfigurationError:
        return  # the system checks say what is wrong
    if wanted:
        observer.subscribe(_observe)
    else:
        observer.unsubscribe(_observe)


@atexit.register
def _say_goodbye() -> None:
    for reporter in _reporters.all():
        if reporter.has_told():
            reporter.publish(has_ended=True)
