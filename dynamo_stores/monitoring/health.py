"""Health checks of an alias: one small read, by a thread that no caller has to wait for."""

from __future__ import annotations

import concurrent.futures
import contextlib
import logging
import threading
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .. import clock, keys
from ..cache.store.items import CacheEntry
from ..calls.breaker import BreakerStatus
from ..calls.connection import get_connection
from ..calls.failover import FailedOver
from ..calls.policy import deadline
from ..concurrency.effects import run
from ..concurrency.per_process import PerProcess
from ..concurrency.threads import start
from ..conf import DEFAULT_ALIAS, get_config
from ..exceptions import CALL_ERRORS, ConfigurationError
from ..item_access import Items

logger = logging.getLogger(__name__)

# Seconds for which a result is used, so that many probes cost one request.
_CACHE_SECONDS = 1.0
# Seconds after its time-out in which a check that is cut may still end by itself.
_GRACE = 0.2
# A result of periodic checks is too old after so many intervals.
_MOST_INTERVALS = 2.5
# The errors of results without an error of a call: no answer in time, and no periodic check.
TOO_SLOW, TOO_OLD = "OperationTimeoutError", "NoRecentCheck"


@dataclass(frozen=True)
class HealthResult:
    """
    The result of a health check of the alias ``using``.

    ``success``: the store's table answered in time. ``seconds``: how long that took. ``error``: the
    class name of the error, ``""`` without one. ``breakers``: the circuit breakers of this process
    by table. ``at``: the end of the check, in seconds since the epoch.
    """

    success: bool
    using: str
    seconds: float
    error: str
    breakers: Mapping[str, BreakerStatus]
    at: float


@dataclass(frozen=True)
class HealthDetails:
    """
    What this process knows of an alias, for those who may see it.

    ``result`` is None before the first check; ``since``: when ``result.success`` became what it is;
    ``last_error`` and ``last_error_at``: the last failed check. Times are in seconds since the
    epoch.
    """

    using: str
    is_ready: bool
    is_required: bool
    result: HealthResult | None
    since: float | None
    last_error: str
    last_error_at: float | None
    failovers: tuple[FailedOver, ...]


class Health:
    """
    The health checks of one alias in this process, with the last result.

    One check is under way at a time, in a thread of its own. Callers wait for it until its time-out
    and then go on with a failed result, so that a DynamoDB that hangs keeps one thread, not one for
    each probe.
    """

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._config = get_config(using).health
        self._items = Items(CacheEntry, using, fails_over=True)
        self._lock = threading.Lock()
        self._under_way: concurrent.futures.Future[HealthResult] | None = None
        self._until = 0.0
        self._last: tuple[float, HealthResult] | None = None
        self._since: float | None = None
        self._last_error: HealthResult | None = None
        self._thread: threading.Thread | None = None

    def check(self, max_age: float = 0.0) -> HealthResult:
        """
        Check now, or wait for the check that is under way; return its result, or the last one of
        less than ``max_age`` seconds ago. Never raises.
        """
        with self._lock:
            if self._last is not None and clock.monotonic() - self._last[0] < max_age:
                return self._last[1]
            if self._under_way is None or self._under_way.done():
                self._under_way, self._until = self._start(), clock.monotonic() + self._longest
            under_way, left = self._under_way, self._until - clock.monotonic()
        try:
            return under_way.result(max(left, 0.0))
        except TimeoutError:
            result = self._result(self._config.timeout, TOO_SLOW)
            self._keep(result)
            return result

    def current(self) -> HealthResult:
        """
        Return a result that is recent enough: of the last second, or of the periodic checks. An old
        result of those is a failed one.
        """
        interval = self._config.interval
        if interval is not None:
            self._check_periodically(interval)
        last = self._last
        if interval is None or last is None:
            return self.check(_CACHE_SECONDS)
        if clock.monotonic() - last[0] > _MOST_INTERVALS * interval:
            return replace(last[1], success=False, error=TOO_OLD)
        return last[1]

    def details(self, *, checks: bool) -> HealthDetails:
        """Return what is known; with ``checks`` of a result that is recent enough."""
        is_required = self._config.required
        result = self.current() if checks else (self._last[1] if self._last else None)
        error = self._last_error
        return HealthDetails(
            using=self.using,
            is_ready=not is_required or result is None or result.success,
            is_required=is_required,
            result=result,
            since=self._since,
            last_error=error.error if error else "",
            last_error_at=error.at if error else None,
            failovers=tuple(get_connection(self.using).failed_over()),
        )

    @property
    def _longest(self) -> float:
        return self._config.timeout + _GRACE

    def _start(self) -> concurrent.futures.Future[HealthResult]:
        future: concurrent.futures.Future[HealthResult] = concurrent.futures.Future()
        thread = threading.Thread(
            target=self._run, args=(future,), name=f"dynamo-stores-health-{self.using}", daemon=True
        )
        if not start(thread):
            future.set_result(self._result(0.0, RuntimeError.__name__))
        return future

    def _run(self, future: concurrent.futures.Future[HealthResult]) -> None:
        began, error = clock.monotonic(), ""
        try:
            # Half a read unit: a missing item, read through the call path of every other request.
            with deadline(self._config.timeout):
                run(
                    self._items.get(
                        keys.cache_entry("health", "ready"), consistent=False, attributes=["PK"]
                    )
                )
        except CALL_ERRORS as exc:
            error = type(exc).__name__
        except Exception as exc:
            logger.exception("The health check of the alias %r failed.", self.using)
            error = type(exc).__name__
        seconds = clock.monotonic() - began
        if seconds > self._longest:
            error = error or TOO_SLOW
        result = self._result(seconds, error)
        self._keep(result)
        future.set_result(result)

    def _result(self, seconds: float, error: str) -> HealthResult:
        breakers: dict[str, BreakerStatus] = {}
        # The alias may have been removed from the settings meanwhile.
        with contextlib.suppress(ConfigurationError):
            for policy in get_connection(self.using).policies():
                breakers[policy.table] = policy.breaker.status()
        return HealthResult(not error, self.using, seconds, error, breakers, clock.now())

    def _keep(self, result: HealthResult) -> None:
        with self._lock:
            if self._last is None or self._last[1].success != result.success:
                self._since = result.at
            self._last = clock.monotonic(), result
            if not result.success:
                self._last_error = result

    def _check_periodically(self, interval: float) -> None:
        if self._thread is not None and self._thread.is_alive():
            return
        with self._lock:
            if self._thread is not None and self._thread.is_alive():
                return
            self._thread = threading.Thread(
                target=_check_again,
                args=(weakref.ref(self), interval),
                name=f"dynamo-stores-health-checks-{self.using}",
                daemon=True,
            )
            # Without a thread the views see an old result, and say so.
            with contextlib.suppress(RuntimeError):
                self._thread.start()


def _check_again(found: weakref.ref[Health], interval: float) -> None:
    # The thread ends when the checks are garbage collected, as after a change of settings.
    while (health := found()) is not None:
        health.check()
        del health
        # Real time: this thread must not advance the fake clock of a test.
        threading.Event().wait(interval)


_healths = PerProcess(Health)


def perform_health_check(using: str = DEFAULT_ALIAS) -> HealthResult:
    """
    Check the alias ``using`` now and return the result, within ``HEALTH["TIMEOUT"]``; never raises.

    If a check of this process is under way, its result is returned.
    """
    try:
        return _healths.get(using).check()
    except Exception as exc:  # noqa: BLE001 - unknown aliases and wrong settings
        return HealthResult(False, using, 0.0, type(exc).__name__, {}, clock.now())


def is_ready(using: str) -> bool:
    """
    Return whether the alias is ready: its table answers within ``HEALTH["TIMEOUT"]``, through
    the breaker, or ``HEALTH["REQUIRED"]`` is False.
    """
    return not get_config(using).health.required or _healths.get(using).current().success


def health_details(using: str, *, checks: bool = True) -> HealthDetails:
    """
    Return what this process knows of the alias; without ``checks`` no request is sent, and an alias
    that was never checked counts as ready.
    """
    return _healths.get(using).details(checks=checks)


def as_json(details: HealthDetails) -> dict[str, Any]:
    """Return the details as JSON data; times in seconds since the epoch."""
    result = details.result
    return {
        "using": details.using,
        "is_ready": details.is_ready,
        "is_required": details.is_required,
        "answers": result.success if result else None,
        "seconds": round(result.seconds, 6) if result else None,
        "checked_at": result.at if result else None,
        "error": result.error if result else "",
        "since": details.since,
        "last_error": details.last_error,
        "last_error_at": details.last_error_at,
        "breakers": [
            {
                "table": table,
                "state": str(each.state),
                "since": each.since,
                "failures": each.failures,
                "error": each.error,
                "retry_after": each.retry_after,
            }
            for table, each in sorted((result.breakers if result else {}).items())
        ],
        "failovers": [
            {
                "table": each.table,
                "failover": each.failover,
                "error": each.error,
                "since": each.since,
            }
            for each in details.failovers
        ],
    }
