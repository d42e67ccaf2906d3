"""Background tasks of the forum."""

from __future__ import annotations

import logging
from typing import Any

from celery import shared_task

from . import services

logger = logging.getLogger(__name__)

# How many of the newest threads are kept in the cache.
WARMED = 10


@shared_task(name="forum.warm_pages", ignore_result=True)
def warm_pages() -> int:
    """Read the newest threads into the cache until the limit refuses; return how many."""
    warmed = 0
    try:
        threads = services.list_threads(priority="background").content.threads
        for thread in threads[:WARMED]:
            services.show_thread(thread.thread_id, priority="background")
            warmed += 1
    except services.Busy as exc:
        logger.info(
            "Pages are not warmed: the read limit is reserved for users for %.0f s.",
            exc.status.retry_after,
        )
    return warmed


def beat_schedule() -> dict[str, dict[str, Any]]:
    """Return the entries of the forum for ``beat_schedule``."""
    seconds = services.FRESH_FOR
    return {
        "forum-warm-pages": {
            "task": "forum.warm_pages",
            "schedule": float(seconds),
            "options": {"expires": seconds},
        }
    }
