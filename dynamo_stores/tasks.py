"""Celery tasks, and the schedule of beat for them."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, cast

from celery import shared_task
from django.conf import ENVIRONMENT_VARIABLE
from django.core.cache import caches

from . import celery_receivers, conf  # noqa: F401 - the first connects its receivers
from .cache import options
from .cache.backend import DynamoDBCache
from .capacity.scale_down import reconcile
from .exceptions import CALL_ERRORS, ConfigurationError, StoreUnavailable
from .monitoring.notifications.sources import check as check_notifications
from .monitoring.notifications.sources import is_checked
from .monitoring.roll_up import roll_up
from .monitoring.schedules import follow

logger = logging.getLogger(__name__)


def dynamodb_caches() -> dict[str, DynamoDBCache]:
    """Return the DynamoDB caches of ``CACHES`` by name; one for each alias and prefix."""
    found: dict[tuple[str, str], str] = {}
    for name in options.our_caches():
        store = _cache(name).store
        found.setdefault((store.using, store.prefix), name)
    return {name: _cache(name) for name in found.values()}


def _cache(name: str) -> DynamoDBCache:
    cache: Any = caches[name]
    return cast(DynamoDBCache, cache)


@shared_task(name="dynamo_stores.cleanup_expired", ignore_result=True)  # type: ignore[untyped-decorator]
def cleanup_expired() -> int:
    """
    Delete the expired items of every DynamoDB cache; return how many.

    A cache that another worker is cleaning is left to it.
    """
    return sum(_clean(name, cache) for name, cache in dynamodb_caches().items())


def _clean(name: str, cache: DynamoDBCache) -> int:
    lock = cache.lock("dynamo_stores.cleanup_expired")
    if not lock.acquire(blocking=False):
        logger.info("The cleanup of the cache %r is still running; this one is skipped.", name)
        return 0
    try:
        return cache.store.cleanup()
    finally:
        with contextlib.suppress(StoreUnavailable):
            lock.release()


@shared_task(name="dynamo_stores.reconcile_capacity", ignore_result=True)  # type: ignore[untyped-decorator]
def reconcile_capacity() -> int:
    """
    Raise tables ahead of the hours for which a schedule wants more, and lower every table that is
    due; return how many were decided about.

    Raises an ExceptionGroup with the errors of aliases that failed, after all aliases were tried.
    """
    return _for_each(conf.aliases(), _reconcile, "raise or lower tables of")


def _reconcile(using: str) -> int:
    try:
        scheduled = len(follow(using))
    finally:
        # What is due comes down in any case.
        lowered = len(reconcile(using))
    return scheduled + lowered


@shared_task(name="dynamo_stores.scale_down", ignore_result=True)  # type: ignore[untyped-decorator]
def scale_down(table: str, using: str = conf.DEFAULT_ALIAS) -> int:
    """Lower one table if it is due; ``reconcile_capacity`` does the same for all tables."""
    return len(reconcile(using, table))


@shared_task(name="dynamo_stores.roll_up_status", ignore_result=True)  # type: ignore[untyped-decorator]
def roll_up_status() -> int:
    """
    Sum up the reports of processes and delete old ones, and notify of tables that should have been
    lowered; return how many items were written.

    Raises an ExceptionGroup with the errors of aliases that failed, after all aliases were tried.
    """
    return _for_each(_rolled_up(), _roll_up, "sum up the reports of")


def _roll_up(using: str) -> int:
    try:
        check_notifications(using)
    finally:
        written = roll_up(using).written if using in _reporting() else 0
    return written


def _for_each(aliases: Iterable[str], work: Callable[[str], int], what: str) -> int:
    total, failures = 0, {}
    for using in aliases:
        try:
            total += work(using)
        except CALL_ERRORS as exc:
            failures[using] = exc
    if failures:
        names = ", ".join(map(repr, failures))
        raise ExceptionGroup(f"Could not {what} the aliases {names}.", list(failures.values()))
    return total


def _reporting() -> list[str]:
    return [using for using in conf.aliases() if conf.get_config(using).reports.enabled]


def _rolled_up() -> list[str]:
    return [
        using
        for using in conf.aliases()
        if conf.get_config(using).reports.enabled or is_checked(using)
    ]


def beat_schedule() -> dict[str, dict[str, Any]]:
    """
    Return the entries for ``beat_schedule`` of a Celery application.

    Cleanup runs every ``CLEANUP_INTERVAL`` if an alias of a cache has the expiry index. Without
    it a cleanup is a Scan of the whole table, and DynamoDB's own TTL deletes for free. Tables are
    lowered every ``RECONCILE_INTERVAL`` in any case, because they can be raised by command. Reports
    are summed up once a minute if an alias has them enabled, has ``NOTIFY``, or has provisioned
    tables and a sink in ``METRICS``. Messages expire after their interval.

    Raises ConfigurationError while the settings are being loaded: it reads them.
    """
    _check_settings_are_loaded()
    schedule: dict[str, dict[str, Any]] = {}
    if _rolled_up():
        schedule["dynamo_stores.roll_up_status"] = {
            "task": "dynamo_stores.roll_up_status",
            "schedule": 60.0,
            "options": {"expires": 60.0},
        }
    reconcile_interval = min(
        float(conf.get_config(using).scaling.reconcile_interval) for using in conf.aliases()
    )
    schedule["dynamo_stores.reconcile_capacity"] = {
        "task": "dynamo_stores.reconcile_capacity",
        "schedule": reconcile_interval,
        "options": {"expires": reconcile_interval},
    }
    configs = [
        conf.get_config(cache.get("LOCATION") or conf.DEFAULT_ALIAS).cache
        for cache in options.our_caches().values()
    ]
    intervals = [float(config.cleanup_interval) for config in configs if config.expiry_index]
    if intervals:
        interval = min(intervals)
        schedule["dynamo_stores.cleanup_expired"] = {
            "task": "dynamo_stores.cleanup_expired",
            "schedule": interval,
            "options": {"expires": interval},
        }
    for entry in schedule.values():
        # The name of the same option in the scheduler of django-celery-beat.
        entry["options"]["expire_seconds"] = math.ceil(entry["options"]["expires"])
    return schedule


def _check_settings_are_loaded() -> None:
    module = sys.modules.get(os.environ.get(ENVIRONMENT_VARIABLE, ""))
    if getattr(getattr(module, "__spec__", None), "_initializing", False):
        raise ConfigurationError(
            "beat_schedule() was called while the settings are being loaded, which it reads. Call "
            "it in the module of the Celery application, in a receiver of on_after_finalize."
        )
