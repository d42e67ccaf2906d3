"""Cleanup by a real worker and a real beat, in other processes, over the file system."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
from django.conf import settings

from dynamo_stores.cache.store.items import CacheEntry


@pytest.fixture
def worker(tmp_path, dynamo_engine, dynamo_prefix):
    """A Celery worker of this project with beat, whose cleanup runs every second."""
    log = (tmp_path / "worker.log").open("w+")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "celery", "--app", "project", "worker", "--beat",
            "--pool", "solo", "--loglevel", "INFO", "--schedule", str(tmp_path / "beat"),
        ],
        cwd=settings.BASE_DIR,
        env={
            **os.environ,
            "ENV_FILE": os.devnull,
            "DYNAMODB_ENDPOINT": dynamo_engine,
            "DYNAMODB_TABLE_PREFIX": dynamo_prefix,
            "AWS_REGION": "us-east-1",
            "DYNAMODB_EXPIRY_INDEX": "true",
            "DYNAMODB_CLEANUP_INTERVAL": "1000",
            "CELERY_BROKER_FOLDER": str(tmp_path / "broker"),
        },
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    yield tmp_path / "worker.log"
    process.terminate()
    process.wait(30)
    log.close()


def test_beat_has_the_worker_delete_what_has_expired(alias, make_cache, worker):
    """The expired entry is deleted from the table, the other one is not."""
    cache = make_cache(alias(CACHE={"EXPIRY_INDEX": True}), KEY_PREFIX="forum")
    cache.set("expired", 1, 0.01)
    cache.set("alive", 1, 1000)
    dead, alive = (cache.store.item_key(cache.make_key(key)) for key in ("expired", "alive"))
    until = time.monotonic() + 60
    while list(CacheEntry.query(dead.pk)) and time.monotonic() < until:
        time.sleep(0.2)
    assert list(CacheEntry.query(dead.pk)) == [], worker.read_text()
    assert len(list(CacheEntry.query(alive.pk))) == 1
    assert "dynamo_stores.cleanup_expired" in worker.read_text()
