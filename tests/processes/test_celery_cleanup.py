"""Cleanup by a real worker and a real beat, in other processes, over the file system."""

from __future__ import annotations

import time

from dynamo_stores.cache.store.items import CacheEntry


def test_beat_has_the_worker_delete_what_has_expired(alias, make_cache, start_worker, tmp_path):
    """The expired entry is deleted from the table, the other one is not."""
    start_worker("--pool", "solo")
    log = tmp_path / "process.log"
    cache = make_cache(alias(CACHE={"EXPIRY_INDEX": True}), KEY_PREFIX="forum")
    cache.set("expired", 1, 0.01)
    cache.set("alive", 1, 1000)
    dead, alive = (cache.store.item_key(cache.make_key(key)) for key in ("expired", "alive"))
    until = time.monotonic() + 60
    while list(CacheEntry.query(dead.pk)) and time.monotonic() < until:
        time.sleep(0.2)
    assert list(CacheEntry.query(dead.pk)) == [], log.read_text()
    assert len(list(CacheEntry.query(alive.pk))) == 1
    assert "dynamo_stores.cleanup_expired" in log.read_text()
