"""Reads behind replicas that lag: what a process wrote, sessions, and what stays old."""

from __future__ import annotations

import threading
import time
from importlib import import_module

import pytest
from django.contrib.sessions.backends import cache as cache_sessions

from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.testing import FaultProxy

LAG = 0.6


@pytest.fixture(scope="module")
def lagging(dynamo_engine, tables):
    """A relay whose reads without ``ConsistentRead`` are late."""
    with FaultProxy(dynamo_engine) as faults:
        faults.lag(LAG)
        yield faults


@pytest.fixture
def behind(lagging, alias, make_cache):
    """``behind(OPTIONS={…})``: a cache behind the lag; ``process=2`` is another process's."""
    lagging.clear()
    aliases = {}

    def make(process=1, prefix="lag", **options):
        if process not in aliases:
            aliases[process] = alias(ENDPOINT_URL=lagging.url)
        return make_cache(aliases[process], KEY_PREFIX=prefix, **options)

    return make


def settle():
    time.sleep(LAG + 0.3)


@pytest.fixture(params=[{}, {"LOCAL_TIMEOUT": 5}], ids=["plain", "near"])
def cache(behind, request):
    made = behind(OPTIONS=request.param)
    made.set("k", "old")
    made.set("n", 1)
    settle()
    return made


def test_a_process_reads_its_own_writes(cache):
    """By every verb that changes something, and at every later read."""
    writes = [
        (lambda: cache.set("k", "new"), "k", "new"),
        (lambda: cache.delete("k"), "k", None),
        (lambda: cache.add("k", "added"), "k", "added"),
        (lambda: cache.set_many({"k": "many"}), "k", "many"),
        (lambda: cache.delete_many(["k"]), "k", None),
        (lambda: cache.incr("n"), "n", 2),
        (lambda: cache.decr("n", 5), "n", -3),
        (lambda: cache.add("n", 9), "n", -3),
    ]
    for write, key, value in writes:
        write()
        for _ in range(2):
            assert cache.get(key) == value
            assert cache.get_many([key]) == ({} if value is None else {key: value})
            assert cache.has_key(key) == (value is not None)
    settle()
    assert (cache.get("k"), cache.get("n")) == (None, -3)


def assert_no_longer_there(cache):
    """By any verb, neither at once nor after the lag."""
    for _ in range(2):
        assert cache.get("k") is None
        assert cache.get_many(["k", "n"]) == {}
        assert not cache.has_key("n")
        settle()


def test_a_process_does_not_read_what_it_cleared(cache):
    """Nor does its near tier keep it."""
    time.sleep(1)  # The writes of before are recent no more.
    cache.clear()
    assert_no_longer_there(cache)


def test_a_process_does_not_read_what_it_deleted_by_a_pattern(cache):
    """Each key is a write of the process."""
    time.sleep(1)
    assert cache.delete_pattern("*") == 2
    assert_no_longer_there(cache)


def test_a_key_is_read_strongly_while_it_is_written(make_cache, alias, dynamo_faults, dynamo_clock):
    """An exception from outside may end the write before its end is noted."""
    cache = make_cache(alias(ENDPOINT_URL=dynamo_faults.url))
    dynamo_faults.delay(3, "PutItem")
    writer = threading.Thread(target=cache.set, args=("k", 1))
    writer.start()
    seen = []
    while writer.is_alive() and True not in seen:
        dynamo_faults.bodies.clear()
        cache.get("k")
        bodies = [body for operation, body in dynamo_faults.bodies if operation == "GetItem"]
        if writer.is_alive():
            seen.append(any(body.get("ConsistentRead") for body in bodies))
    writer.join()
    assert True in seen or not seen


def test_a_touch_is_seen_at_once(cache):
    """An entry that would have expired is read."""
    cache.set("k", "old", 0.8)
    settle()
    cache.set("k", "v", 4)
    assert cache.touch("k", 100)
    time.sleep(4)
    assert cache.get("k") == "v"


def test_versions_move_what_is_there(cache):
    """Not what a replica still shows."""
    cache.set("k", "new")
    cache.incr_version("k")
    assert (cache.get("k"), cache.get("k", version=2)) == (None, "new")
    cache.set("fresh", 1)
    cache.incr_version("fresh")
    assert cache.get("fresh", version=2) == 1


def test_a_large_value_is_added_after_a_deletion(cache):
    """A small one is: the write decides."""
    cache.delete("k")
    assert cache.add("k", b"x" * 900_000)


def test_the_lag_is_seen_by_other_processes(behind):
    """Unless they read consistently: that is what these tests are about."""
    one, other = behind(), behind(process=2)
    strong = behind(process=2, OPTIONS={"CONSISTENT_READ": True})
    one.set("k", "old")
    settle()
    started = time.monotonic()
    one.set("k", "new")
    seen = other.get("k")
    assert strong.get("k") == "new"
    if time.monotonic() - started < LAG:
        assert seen == "old"


@pytest.fixture
def sessions(behind):
    """``sessions(process)``: the session store of a process."""
    behind(process=1), behind(process=2)

    def make(engine, process, key=None, **options):
        cache = behind(process=process, prefix="sessions", OPTIONS=options)
        store = import_module(engine).SessionStore(key)
        store._cache = cache
        return store

    return make


@pytest.mark.parametrize("options", [{}, {"LOCAL_TIMEOUT": 5}])
def test_a_session_is_seen_by_the_next_request_in_another_process(sessions, options):
    """Made, changed and flushed: a user who logs out is logged out everywhere."""
    engine = "django.contrib.sessions.backends.cache"
    first = sessions(engine, 1, **options)
    first["user"] = 1
    first.create()
    first["user"] = 1
    first.save()
    second = sessions(engine, 2, first.session_key, **options)
    assert second["user"] == 1
    second["basket"] = ["book"]
    second.save()
    third = sessions(engine, 1, first.session_key, **options)
    assert third["basket"] == ["book"]
    # As Django's login does.
    third.cycle_key()
    assert sessions(engine, 2, third.session_key, **options)["user"] == 1
    third.flush()
    assert sessions(engine, 2, third.session_key, **options).load() == {}


@pytest.mark.django_db
def test_an_older_session_is_not_saved_over_a_newer_one(sessions):
    """With the engine cached_db, where an old read would end in the database."""
    engine = "django.contrib.sessions.backends.cached_db"
    store = sessions(engine, 1)
    store["steps"] = 0
    store.create()
    store["steps"] = 0
    store.save()
    for step in range(1, 7):
        store = sessions(engine, step % 2, store.session_key)
        assert store["steps"] == step - 1
        store["steps"] = step
        store.save()


def test_sessions_are_eventual_if_that_is_asked_for(sessions, lagging):
    """CONSISTENT_READ False; a system check warns of it."""
    store = sessions("django.contrib.sessions.backends.cache", 1, CONSISTENT_READ=False)
    store.create()
    settle()
    lagging.bodies.clear()
    sessions(
        "django.contrib.sessions.backends.cache", 2, store.session_key, CONSISTENT_READ=False
    ).load()
    reads = [body for operation, body in lagging.bodies if operation == "GetItem"]
    assert [body.get("ConsistentRead", False) for body in reads] == [False]


def test_the_engines_put_their_name_into_the_key():
    """By which the cache knows sessions."""
    assert cache_sessions.KEY_PREFIX.startswith("django.contrib.sessions.")
    cached_db = import_module("django.contrib.sessions.backends.cached_db")
    assert cached_db.KEY_PREFIX.startswith("django.contrib.sessions.")


def test_only_the_last_second_of_writes_is_read_consistently(make_cache, alias, dynamo_faults):
    """Reads cost half as much again afterwards."""
    cache = make_cache(alias(ENDPOINT_URL=dynamo_faults.url))

    def is_consistent():
        dynamo_faults.bodies.clear()
        cache.get("k")
        ((_, body),) = dynamo_faults.bodies
        return bool(body.get("ConsistentRead"))

    cache.set("k", 1)
    started = time.monotonic()
    first = is_consistent()
    if time.monotonic() - started < 0.9:
        assert first
    time.sleep(1.1)
    assert not is_consistent()


class TestLocalStale:
    """``LOCAL_STALE``: what the near tier gives while DynamoDB does not answer."""

    @pytest.fixture
    def cache(self, make_cache, alias, dynamo_faults):
        using = alias(ENDPOINT_URL=dynamo_faults.url)
        options = {"LOCAL_TIMEOUT": 0.2, "LOCAL_STALE": 60, "OPERATION_TIMEOUT": 1}
        return make_cache(using, OPTIONS=options)

    def test_old_values_are_returned_during_an_outage(self, cache, dynamo_faults):
        """Also by get_many, whole or in part; and the new ones after it."""
        cache.set_many({"a": 1, "b": 2})
        time.sleep(0.3)
        dynamo_faults.fail()
        assert cache.get("a") == 1
        assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
        with pytest.raises(StoreUnavailable) as caught:
            cache.get_many(["a", "unknown"])
        assert list(caught.value.found.values()) == [1]
        with pytest.raises(StoreUnavailable):
            cache.get("unknown")
        dynamo_faults.clear()
        cache.store.reset_circuit_breaker()
        cache.set("a", 3)
        time.sleep(0.3)
        assert cache.get("a") == 3

    def test_nothing_older_than_it_is_returned(self, make_cache, alias, dynamo_faults):
        """Nor an expired entry, nor one that this process deleted."""
        using = alias(ENDPOINT_URL=dynamo_faults.url)
        options = {"LOCAL_TIMEOUT": 0.1, "LOCAL_STALE": 1, "OPERATION_TIMEOUT": 1}
        cache = make_cache(using, OPTIONS=options)
        cache.set_many({"a": 1, "deleted": 2})
        cache.delete("deleted")
        time.sleep(1.2)
        dynamo_faults.fail()
        for key in ("a", "deleted"):
            with pytest.raises(StoreUnavailable):
                cache.get(key)

    def test_without_it_an_outage_is_an_error(self, make_cache, alias, dynamo_faults):
        """The default."""
        using = alias(ENDPOINT_URL=dynamo_faults.url)
        cache = make_cache(using, OPTIONS={"LOCAL_TIMEOUT": 0.1, "OPERATION_TIMEOUT": 1})
        cache.set("a", 1)
        time.sleep(0.2)
        dynamo_faults.fail()
        with pytest.raises(StoreUnavailable):
            cache.get("a")
