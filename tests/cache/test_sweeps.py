"""Cleaning, clearing and counting: by Scan and by the expiry index."""

from __future__ import annotations

import functools
import io
import json
import threading
import time

import pytest
from django.core.management import CommandError, call_command

from dynamo_stores import clock
from dynamo_stores.cache.store.items import CacheEntry
from dynamo_stores.cache.store.sweeps import CacheStats
from dynamo_stores.calls.observer import measuring
from dynamo_stores.calls.policy import deadline
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import StoreUnavailable, ThrottlingError
from dynamo_stores.testing import FakeClock


@pytest.fixture(params=["scan", "index"])
def swept(request, alias, make_cache):
    """A cache without and with the expiry index."""
    using = alias(CACHE={"EXPIRY_INDEX": request.param == "index"})
    return make_cache(using)


def fill(cache):
    """Ten that expire after 10 s, five after 100 s, five never."""
    cache.set_many({f"short{n}": n for n in range(10)}, 10)
    cache.set_many({f"long{n}": "x" for n in range(5)}, 100)
    cache.set_many({f"ever{n}": 1.5 for n in range(5)}, None)


def test_cleanup_removes_what_has_expired(swept, make_cache, dynamo_clock: FakeClock):
    """Only expired items, only of this prefix; their number is returned."""
    other = make_cache(swept.store.using)
    fill(swept)
    fill(other)
    assert swept.store.cleanup() == 0
    dynamo_clock.advance(11)
    assert swept.store.get_stats() == CacheStats(total_items=20, expired_items=10)
    assert swept.store.cleanup(dry_run=True) == 10
    assert swept.store.get_stats().total_items == 20
    assert swept.store.cleanup() == 10
    assert swept.store.get_stats() == CacheStats(total_items=10, expired_items=0)
    assert other.store.get_stats() == CacheStats(total_items=20, expired_items=10)
    assert len(swept.get_many([*(f"long{n}" for n in range(5)), "ever0"])) == 6


def test_the_index_follows_touch_and_overwrites(swept, dynamo_clock: FakeClock):
    """An entry with a later expiry is not cleaned up, one with an earlier expiry is."""
    swept.set_many({"a": 1, "b": 2, "c": 3}, 10)
    swept.touch("a", 100)
    swept.touch("b", None)
    swept.set("c", 3, 1000)
    swept.incr("c")
    dynamo_clock.advance(20)
    assert swept.store.cleanup() == 0
    swept.touch("b", 1)
    dynamo_clock.advance(2)
    assert swept.store.cleanup() == 1
    assert swept.get_many(["a", "b", "c"]) == {"a": 1, "c": 4}


def test_cleanup_loses_against_a_renewal(swept, dynamo_clock: FakeClock):
    """An entry that is set again between the read and the delete stays."""
    swept.set("k", "old", 10)
    dynamo_clock.advance(20)
    sweep = swept.store._sweep()
    delete = type(sweep)._delete_unchanged
    seen = []

    async def renew_first(self, item, *args):
        swept.set("k", "new", 10)
        seen.append(item)
        return await delete(self, item, *args)

    monkey = pytest.MonkeyPatch()
    monkey.setattr(type(sweep), "_delete_unchanged", renew_first)
    try:
        assert swept.store.cleanup() == 0
    finally:
        monkey.undo()
    assert len(seen) == 1
    assert swept.get("k") == "new"


def test_set_against_cleanup(cache):
    """Entries that are set all the time while they are swept all the time are never lost."""
    stop, lost = threading.Event(), []

    def sweep():
        while not stop.is_set():
            cache.store.cleanup()

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    for _ in range(60):
        cache.set("k", "dead", 0.001)
        cache.set("k", "alive", 60)
        if cache.get("k") != "alive":
            lost.append(1)
    stop.set()
    sweeper.join()
    assert lost == []


def test_cleanup_goes_on_where_it_was_stopped(alias, make_cache, dynamo_clock: FakeClock):
    """The position is JSON; finished pages are not read again."""
    cache = make_cache(alias())
    cache.set_many({f"k{n}": n for n in range(20)}, 10)
    dynamo_clock.advance(20)
    positions, looked = [], []

    class Stop(Exception):
        pass

    def stop_after_first(progress):
        positions.append(json.dumps(progress.position))
        looked.append(progress.removed)
        if progress.removed:
            raise Stop

    with pytest.raises(Stop):
        cache.store.cleanup(progress=stop_after_first, page_size=2)
    assert 0 < looked[-1] < 20
    removed = cache.store.cleanup(position=json.loads(positions[-1]))
    assert looked[-1] + removed == 20


def test_cleanup_in_segments(cache, dynamo_clock: FakeClock):
    """Side by side they find the same."""
    fill(cache)
    dynamo_clock.advance(11)
    assert cache.store.cleanup(segments=4) == 10


def test_cleanup_is_paced(cache, dynamo_clock: FakeClock):
    """Each page waits until its consumed units are available again."""
    cache.set_many({f"k{n}": n for n in range(12)}, 10)
    dynamo_clock.advance(20)
    with measuring() as measurements:
        cache.store.cleanup(units_per_second=1.0, page_size=3)
    pages = [each for each in measurements if each.operation == "Scan"]
    assert len(pages) > 2
    assert sum(dynamo_clock.slept) > 0


def test_deletes_of_a_cleanup_are_paced(cache, dynamo_clock: FakeClock):
    """They consume no more units a second than the reads may."""
    cache.set_many({f"k{n}": n for n in range(12)}, 10)
    dynamo_clock.advance(20)
    assert cache.store.cleanup(units_per_second=10.0) == 12
    assert sum(dynamo_clock.slept) > 1.1


@pytest.fixture
def small(provisioned, alias, make_cache):
    """
    Two caches of one prefix in a table of 5 units: behind a relay that throttles, in whose time a
    second has four, and directly.
    """
    using, _, relay = provisioned({"ENABLED": False}, speed=4.0)
    direct = alias(TABLE_PREFIX=get_config(using).table_prefix)
    throttled = make_cache(using, OPTIONS={"OPERATION_TIMEOUT": 1.0})
    return throttled, make_cache(direct, KEY_PREFIX=throttled.key_prefix), relay


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["clear", "cleanup", "delete_pattern"])
def test_work_on_all_entries_ends_on_a_small_table(small, verb):
    """Throttled requests are sent again, however many operation timeouts that takes."""
    throttled, direct, _ = small
    direct.set_many({f"k{n}": n for n in range(120)}, 0.001 if verb == "cleanup" else None)
    # A time to live is in whole seconds.
    time.sleep(2.5)
    if verb == "delete_pattern":
        assert throttled.delete_pattern("k*") == 120
    elif verb == "clear":
        assert throttled.store.clear() == 120
    else:
        # Not counted: a delete whose first attempt timed out and was carried out, and those of the
        # engine itself, which deletes what has expired once a minute.
        assert throttled.store.cleanup() <= 120
    assert direct.store.get_stats().total_items == 0


@pytest.mark.parametrize("verb", ["clear", "cleanup", "delete_pattern"])
def test_work_on_all_entries_gives_up_when_nothing_is_processed(
    faulty, dynamo_faults, dynamo_clock: FakeClock, verb
):
    """After a minute, or at the caller's own deadline."""
    cache = faulty({"OPERATION_TIMEOUT": 1.0})
    # Only one, because each thread's waits would shorten the time of the others.
    cache.set("k", 1, 10 if verb == "cleanup" else None)
    dynamo_clock.advance(11)
    for operation in ("DeleteItem", "BatchWriteItem"):
        dynamo_faults.throttle(operation)
    run = functools.partial(getattr(cache.store, verb), *["*"] * (verb == "delete_pattern"))
    began_at = clock.monotonic()
    with pytest.raises(ThrottlingError):
        run()
    assert 55 < clock.monotonic() - began_at < 120
    with deadline(5.0), pytest.raises(StoreUnavailable):
        run()
    assert clock.monotonic() - began_at < 130


def test_by_the_index_nothing_is_scanned(alias, make_cache, dynamo_clock: FakeClock):
    """Cleanup, counting and, where asked for, clearing are Queries."""
    using = alias(CACHE={"EXPIRY_INDEX": True})
    cache = make_cache(using, OPTIONS={"CLEAR_BY_INDEX": True})
    fill(cache)
    dynamo_clock.advance(11)
    with measuring() as measurements:
        assert cache.store.cleanup() == 10
        assert cache.store.get_stats().total_items == 10
        cache.clear()
    assert {each.operation for each in measurements} == {"Query", "DeleteItem", "BatchWriteItem"}
    assert cache.store.get_stats().total_items == 0


def test_entries_carry_no_index_key_unless_asked_for(cache, alias, make_cache):
    """An index key doubles the price of a write."""
    cache.set("k", 1)
    key = cache.store.item_key(cache.make_key("k"))
    entry = CacheEntry.get(key.pk, key.sk)
    assert entry.gsi1pk is None
    indexed = make_cache(alias(CACHE={"EXPIRY_INDEX": True}))
    indexed.set("k", 1, None)
    key = indexed.store.item_key(indexed.make_key("k"))
    entry = CacheEntry.get(key.pk, key.sk)
    assert entry.gsi1pk.startswith(f"X#{indexed.key_prefix}#")
    assert entry.gsi1sk.startswith("9" * 15 + "#")


def test_set_against_clear(cache):
    """A set during a clear survives or is cleared, and nothing raises."""
    cache.set_many({f"k{n}": n for n in range(100)})
    clearer = threading.Thread(target=cache.clear)
    clearer.start()
    for n in range(100):
        cache.set(f"new{n}", n)
    clearer.join()
    assert cache.get_many([f"k{n}" for n in range(100)]) == {}
    found = cache.get_many([f"new{n}" for n in range(100)])
    assert all(found[key] == int(key[3:]) for key in found)
    cache.clear()


def run(**options):
    """Return the output of dynamo_cleanup."""
    out = io.StringIO()
    call_command("dynamo_cleanup", stdout=out, **options)
    return out.getvalue()


def test_the_command(settings, cache, tmp_path, dynamo_clock: FakeClock):
    """Every cache of ours, or one; --dry-run removes nothing; a state file to go on from."""
    settings.CACHES = {
        "default": {
            "BACKEND": "dynamo_stores.cache.DynamoDBCache",
            "KEY_PREFIX": cache.key_prefix,
        },
        "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    }
    fill(cache)
    dynamo_clock.advance(11)
    assert "default: 10 expired items would be removed" in run(dry_run=True)
    state = tmp_path / "state.json"
    assert "default: 10 expired items removed" in run(state=state)
    assert not state.exists()
    state.write_text('{"default": {"arguments": {"segments": 4}, "position": {"0": null}}}')
    with pytest.raises(CommandError, match="with other arguments"):
        run(state=state)
    state.write_text("[]")
    with pytest.raises(CommandError, match="is not a file that --state wrote"):
        run(state=state)
    missing = tmp_path / "missing" / "state.json"
    with pytest.raises(CommandError, match="expected a file in a folder that exists"):
        run(state=missing)
    assert "default: 0 expired items removed" in run(cache=["default"], scan=True, segments=2)
    with pytest.raises(CommandError, match="CACHES has no DynamoDB cache 'local'"):
        run(cache=["local"])


def test_invalid_numbers_do_not_stop_a_cleanup(cache, dynamo_clock: FakeClock):
    """Items of other programs under this prefix are not deleted."""
    cache.set_many({"a": 1, "b": 2}, 10)
    key = cache.store.item_key(cache.make_key("odd"))
    table = CacheEntry._get_connection()
    item = {"PK": {"S": key.pk}, "SK": {"S": key.sk}, "TTL": {"N": "1.5"}, "e": {"S": "soon"}}
    table.connection.dispatch("PutItem", {"TableName": table.table_name, "Item": item})
    dynamo_clock.advance(11)
    assert cache.store.cleanup() == 2


def test_the_task_and_its_schedule(settings, cache, dynamo_clock: FakeClock):
    """The task cleans every cache of ours; beat runs it only where the index makes it cheap."""
    from dynamo_stores.tasks import beat_schedule, cleanup_expired

    settings.CACHES = {
        "default": {
            "BACKEND": "dynamo_stores.cache.DynamoDBCache",
            "KEY_PREFIX": cache.key_prefix,
        }
    }
    fill(cache)
    dynamo_clock.advance(11)
    assert cleanup_expired() == 10
    assert "dynamo_stores.cleanup_expired" not in beat_schedule()
    alias = {**settings.DYNAMO_STORES["default"]}
    settings.DYNAMO_STORES = {
        "default": {**alias, "CACHE": {"EXPIRY_INDEX": True, "CLEANUP_INTERVAL": 60}}
    }
    assert beat_schedule()["dynamo_stores.cleanup_expired"] == {
        "task": "dynamo_stores.cleanup_expired",
        "schedule": 60.0,
        "options": {"expires": 60.0, "expire_seconds": 60},
    }
