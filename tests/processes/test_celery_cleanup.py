"""Cleanup by a real worker and a real beat, in other processes, over the file system."""

from __future__ import annotations

import itertools
import re

from dynamo_stores.cache.store.items import CacheEntry

# What Celery logs of a run that deleted something.
_DELETED = re.compile(r"cleanup_expired\[\S+\] succeeded in \S+: [1-9]")


def test_beat_has_the_worker_delete_what_has_expired(
    alias, make_cache, start_worker, tmp_path, until
):
    """Expired entries are deleted from the table, the other one is not."""
    start_worker("--pool", "solo")
    log = tmp_path / "process.log"
    cache = make_cache(alias(CACHE={"EXPIRY_INDEX": True}), KEY_PREFIX="forum")
    cache.set("alive", 1, 1000)
    alive = cache.store.item_key(cache.make_key("alive"))
    numbers = itertools.count()

    def has_deleted():
        # The engine deletes by TTL, too, once a minute.
        cache.set(f"expired{next(numbers)}", 1, 0.01)
        return _DELETED.search(log.read_text())

    until(has_deleted)
    assert len(list(CacheEntry.query(alive.pk))) == 1
    assert cache.get("alive") == 1
