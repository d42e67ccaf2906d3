"""Celery tasks of a few lines each, and when beat should run them."""

from __future__ import annotations

from typing import Any, cast

from celery import shared_task
from django.core.cache import caches

from . import conf
from .cache import options
from .cache.backend import DynamoDBCache
from .capacity.scale_down import reconcile
from .exceptions import StoreError
from .monitoring.roll_up import roll_up


def our_caches() -> dict[str, DynamoDBCache]:
    """Return the caches of ``CACHES`` that are ours, by name; one for each alias and prefix."""
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
    """Delete what has expired in every cache of ours; return how many items."""
    return sum(cache.store.cleanup() for cache in our_caches().values())


@shared_task(name="dynamo_stores.reconcile_capacity", ignore_result=True)  # type: ignore[untyped-decorator]
def reconcile_capacity() -> int:
    """Lower every table whose time has come; return how many were looked at."""
    return sum(len(reconcile(using)) for using in conf.provisioned_aliases())


@shared_task(name="dynamo_stores.scale_down", ignore_result=True)  # type: ignore[untyped-decorator]
def scale_down(table: str, using: str = conf.DEFAULT_ALIAS) -> int:
    """Lower one table if its time has come: a hint, for the sweep does the same."""
    return len(reconcile(using, table))


@shared_task(name="dynamo_stores.roll_up_status", ignore_result=True)  # type: ignore[untyped-decorator]
def roll_up_status() -> int:
    """
    Sum up what processes report and delete what is over; return how many items were written.

    An alias that does not answer does not keep the others from it: an ExceptionGroup says which.
    """
    written, failures = 0, []
    for using in _reporting():
        try:
            written += roll_up(using).written
        except StoreError as exc:
            failures.append(exc)
    if failures:
        raise ExceptionGroup("Reports could not be summed up.", failures)
    return written


def _reporting() -> list[str]:
    return [using for using in conf.aliases() if conf.get_config(using).reports.enabled]


def beat_schedule() -> dict[str, dict[str, Any]]:
    """
    Return what ``beat_schedule`` of a Celery application should hold.

    Cleanup runs every ``CLEANUP_INTERVAL`` where an alias of a cache has the expiry index. Without
    it a cleanup is a Scan of the whole table, and DynamoDB's own TTL deletes for free. What was
    raised is brought down every ``RECONCILE_INTERVAL``, where an alias has provisioned tables.
    Reports are summed up once a minute where any alias has them.
    """
    schedule: dict[str, dict[str, Any]] = {}
    if _reporting():
        schedule["dynamo_stores.roll_up_status"] = {
            "task": "dynamo_stores.roll_up_status",
            "schedule": 60.0,
            "options": {"expires": 60.0},
        }
    scaled = [conf.get_config(using).scaling for using in conf.provisioned_aliases()]
    if scaled:
        often = min(float(each.reconcile_interval) for each in scaled)
        schedule["dynamo_stores.reconcile_capacity"] = {
            "task": "dynamo_stores.reconcile_capacity",
            "schedule": often,
            "options": {"expires": often},
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
    return schedule
