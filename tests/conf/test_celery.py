"""Celery: background work and its end, the messages of beat, cleanups that meet."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
from celery import current_app, shared_task

from dynamo_stores.cache.store.store import CacheStore
from dynamo_stores.calls.backpressure import background, is_background
from dynamo_stores.tasks import beat_schedule, cleanup_expired, roll_up_status
from tests.helpers.counting import operations

seen = []


@shared_task(name="tests.inner")
def inner():
    seen.append(is_background())


@shared_task(name="tests.outer")
def outer():
    seen.append(is_background())
    inner.apply()
    seen.append(is_background())
    raise_from.apply()
    seen.append(is_background())


@shared_task(name="tests.raise_from")
def raise_from():
    raise ValueError


@pytest.fixture(autouse=True)
def _nothing_seen():
    seen.clear()


def test_a_task_within_a_task_ends_no_background_work():
    """Nor one that fails; the calls of the outer task stay background work."""
    outer.apply()
    assert seen == [True, True, True, True]
    assert not is_background()


def test_a_task_within_a_background_block_ends_nothing():
    """The block goes on as it was."""
    with background():
        inner.apply()
        assert is_background()
    assert not is_background()


def test_after_a_task_a_view_goes_on_for_its_user():
    """A task that runs in the thread of a view."""
    inner.apply()
    assert seen == [True]
    assert not is_background()


def test_messages_of_beat_expire_for_both_schedulers(settings):
    """``expires`` for Celery's own, ``expire_seconds`` for django-celery-beat's."""
    alias = {"BILLING_MODE": "PROVISIONED", "SCALING": {"RECONCILE_INTERVAL": 2.5}}
    settings.DYNAMO_STORES = {"default": alias}
    options = {name: entry["options"] for name, entry in beat_schedule().items()}
    assert options["dynamo_stores.roll_up_status"] == {"expires": 60.0, "expire_seconds": 60}
    assert options["dynamo_stores.reconcile_capacity"] == {"expires": 2.5, "expire_seconds": 3}


def test_celery_sends_messages_with_both_options():
    """The one that it does not know does no harm."""
    with current_app.connection_for_write() as connection:
        queue = connection.SimpleQueue("options")
        roll_up_status.apply_async(
            queue="options", expires=60.0, expire_seconds=60, connection=connection
        )
        message = queue.get(timeout=10)
        message.ack()
        assert message.headers["task"] == "dynamo_stores.roll_up_status"
        assert message.headers["expires"]
        queue.close()


@pytest.fixture
def cleaned(settings, cache):
    """The cache of ``CACHES``, with five entries."""
    settings.CACHES = {
        "default": {"BACKEND": "dynamo_stores.cache.DynamoDBCache", "KEY_PREFIX": cache.key_prefix}
    }
    cache.set_many({str(number): number for number in range(5)}, 10)
    return cache


def test_a_cleanup_does_not_overlap_with_itself(cleaned, dynamo_clock):
    """The second one leaves the cache to the first, and the next one cleans again."""
    dynamo_clock.advance(11)
    lock = cleaned.lock("dynamo_stores.cleanup_expired")
    assert lock.acquire()
    assert cleanup_expired() == 0
    assert operations(cleanup_expired) == {"UpdateItem": 1}
    lock.release()
    assert cleanup_expired() == 5
    assert not lock.locked()


def test_two_cleanups_at_once_delete_each_entry_once(cleaned, dynamo_clock, monkeypatch):
    """The first one is held while the second one begins."""
    dynamo_clock.advance(11)
    cleanup, began, go_on = CacheStore.cleanup, threading.Event(), threading.Event()

    def slow(self, **options):
        began.set()
        go_on.wait(60)
        return cleanup(self, **options)

    monkeypatch.setattr(CacheStore, "cleanup", slow)
    found = []
    first = threading.Thread(target=lambda: found.append(cleanup_expired()))
    first.start()
    assert began.wait(60)
    assert cleanup_expired() == 0
    go_on.set()
    first.join()
    assert found == [5]


def test_a_cleanup_that_fails_frees_its_lock(alias, settings, cleaned, dynamo_faults, until):
    """The next one does not wait for the end of a lease."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": using}}
    dynamo_faults.fail("Scan", times=1)
    with pytest.raises(Exception, match="Scan"):
        cleanup_expired()
    assert not cleaned.lock("dynamo_stores.cleanup_expired").locked()


@pytest.mark.parametrize("base", [False, True])
def test_a_schedule_in_the_settings_is_refused_with_the_place_for_it(tmp_path, base):
    """Also in a module that the settings import; settings that are half loaded are not kept."""
    line = "from dynamo_stores.tasks import beat_schedule\nCELERY_BEAT_SCHEDULE = beat_schedule()\n"
    (tmp_path / "own_base.py").write_text(line if base else "")
    (tmp_path / "own_settings.py").write_text(
        ("from own_base import *\n" if base else line)
        + "DYNAMO_STORES = {'default': {'TABLE_NAME': 'mine'}}\nSECRET_KEY = 'x'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", "import django; django.setup()"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.getcwd()]),
            "DJANGO_SETTINGS_MODULE": "own_settings",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ConfigurationError: beat_schedule() was called while the settings" in done.stderr
