"""
The reporter of this process: publishes reports of what its meter counts, from its own thread.

The thread starts with the first call of a process, and again after a fork. It uses a direct
connection, so that an open breaker is reported as long as DynamoDB can be reached.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import random
import socket
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from django.dispatch import receiver

from .. import __version__, clock
from ..cache.store.statistics import get_lookups
from ..calls.breaker import State
from ..calls.connection import get_connection
from ..calls.counters import get_counters
from ..calls.policy import deadline
from ..capacity.usage import MINUTES, minute_of
from ..concurrency.per_process import PerProcess
from ..conf import get_config
from ..exceptions import CALL_ERRORS, ConfigurationError
from ..signals import breaker_state_changed
from .ending import time_left
from .meter import get_meter, when_begun
from .report import BreakerReport, Report
from .report_store import ReportStore
from .token import token_of

logger = logging.getLogger(__name__)

# A report is not begun with less time, in seconds.
_SHORTEST = 0.01

# Seconds from the first call to the first report, and from an event to its report.
_FIRST, _GATHER = 1.0, 2.0
# The counters that reports have by minute; those of None by label.
_EVENTS = {"rate_limit_refusals": "refused", "jobs": None, "waits": None}


class Reporter:
    """Publishes reports of the calls of one alias in this process."""

    def __init__(self, using: str) -> None:
        self.using = using
        self.meter = get_meter(using)
        self._interval = get_config(using).reports.interval
        self._started = clock.now()
        # Of the reports before: by minute, and the totals at the last one.
        self._events: dict[int, dict[str, int]] = {}
        self._totals: dict[str, int] = {}
        self._has_published = self._has_ended = self._has_warned = False
        self._publishing = threading.Lock()
        self.due = threading.Event()
        self._thread: threading.Thread | None = None
        self.meter.when_throttled = self.due.set

    def start(self) -> None:
        """Start the thread that publishes reports."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=_run,
                args=(weakref.ref(self),),
                name=f"dynamo-stores-reports-{self.using}",
                daemon=True,
            )
            self._thread.start()

    def report_soon(self) -> None:
        """Publish a report soon, because something changed."""
        self.due.set()

    def report(self, *, has_ended: bool = False) -> Report:
        """Return the report as of now; sends nothing."""
        hits, misses = get_lookups(self.using).counts()
        refused = get_counters(self.using).total("rate_limit_refusals")
        meter, now = self.meter, clock.now()
        meter.count()
        with meter.locked():
            tally = meter.tally
            return Report(
                host=socket.gethostname()[:64],
                pid=os.getpid(),
                role=role_of(sys.argv),
                version=__version__,
                started=self._started,
                at=now,
                interval=self._interval,
                has_ended=has_ended,
                breakers=self._breakers(),
                calls=tally.calls(),
                reasons=tally.reasons(),
                use=tally.use(),
                cache_hits=hits,
                cache_misses=misses,
                limits_refused=refused,
                token=token_of(os.getpid()),
                throttling=tally.throttling(),
                latencies=tally.latencies(now),
                events=self._events_by_minute(now, hits, misses),
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
            self.meter.record_outcome(is_answered=True)
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

    def _events_by_minute(self, now: float, hits: int, misses: int) -> dict[int, dict[str, int]]:
        """Return what was counted between reports, by the minute of the later one."""
        totals = {"hit": hits, "miss": misses}
        for name, counts in get_counters(self.using).all().items():
            if name in _EVENTS:
                for labels, count in counts.items():
                    event = _EVENTS[name] or f"{name}.{labels[-1]}"
                    totals[event] = totals.get(event, 0) + count
        minute = minute_of(now)
        found = self._events.setdefault(minute, {})
        for event, total in totals.items():
            if more := total - self._totals.get(event, 0):
                found[event] = found.get(event, 0) + more
        self._totals = totals
        for old in [each for each in self._events if each < minute - MINUTES]:
            del self._events[old]
        return {each: dict(events) for each, events in self._events.items() if events}

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


@when_begun
def _start(using: str) -> None:
    if get_config(using).reports.enabled:
        get_reporter(using).start()


@receiver(breaker_state_changed, dispatch_uid="dynamo_stores.monitoring.reporter.breakers")
def _on_breaker_change(using: str, new: State, **kwargs: Any) -> None:
    if get_config(using).reports.enabled:
        get_reporter(using).report_soon()


@atexit.register
def publish_last_reports(**kwargs: Any) -> None:
    """
    Report that this process ends, unless DynamoDB did not answer its last call. Ctrl-C meanwhile
    leaves the rest of the reports out.
    """
    with contextlib.suppress(KeyboardInterrupt):
        time_left()
        for reporter in _reporters.all():
            if reporter.has_published() and reporter.meter.unanswered_since is None:
                if (left := time_left()) < _SHORTEST:
                    return
                with deadline(left):
                    reporter.publish(has_ended=True)
