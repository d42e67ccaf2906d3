"""Background tasks of the forum."""

from __future__ import annotations

import logging
from typing import Any

from celery import shared_task

from . import caching, threads
from .adapters import get_database
from .trees import NoSuchThread, Tree

logger = logging.getLogger(__name__)

# How many of the newest threads are kept in the cache.
WARMED = 10


@shared_task(name="forum.warm_pages", ignore_result=True)
def warm_pages() -> int:
    """Read the newest threads into the cache until the limit refuses; return how many."""
    warmed = 0
    try:
        found = threads.list_threads(priority="background").content.threads
        for thread in found[:WARMED]:
            try:
                threads.show_thread(thread.thread_id, priority="background")
            except NoSuchThread:
                continue
            warmed += 1
    except caching.Busy as exc:
        logger.info(
            "Pages are not warmed: the read limit is reserved for users for %.0f s.",
            exc.status.retry_after,
        )
    return warmed


@shared_task(name="forum.finish_moves", ignore_result=True)
def finish_moves() -> int:
    """Finish moves and deletions of replies that a process left; return of how many threads."""
    return Tree(get_database()).finish_all()


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Return the entries of the forum for ``beat_schedule``."""
    return {
        f"forum-{name.replace('_', '-')}": {
            "task": f"forum.{name}",
            "schedule": float(caching.FRESH_FOR),
            "options": {"expires": caching.FRESH_FOR},
        }
        for name in ("warm_pages", "finish_moves")
    }
