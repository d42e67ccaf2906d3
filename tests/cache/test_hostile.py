"""Hostile items in the table: no code runs, no wrong value is returned, nothing crashes."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import pickle
import random
import secrets
import time

import pytest
from django.core.management import call_command

from dynamo_stores.cache.store.items import CacheEntry
from dynamo_stores.calls.control import get_control
from dynamo_stores.conf import get_config

CALLS = []


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self):
        return (CALLS.append, ("run",))


@pytest.fixture
def table():
    """Puts and gets items as they are."""
    connection = CacheEntry._get_connection()

    class Table:
        def put(self, item):
            request = {"TableName": connection.table_name, "Item": item}
            connection.connection.dispatch("PutItem", request)

        def get(self, cache, key, version=None):
            made = cache.store.item_key(cache.make_key(key, version))
            request = {
                "TableName": connection.table_name,
                "Key": {"PK": {"S": made.pk}, "SK": {"S": made.sk}},
                "ConsistentRead": True,
            }
            return connection.connection.dispatch("GetItem", request)["Item"]

    return Table()


def altered(item, noise):
    """Return ``item`` with one thing wrong in its bytes or its attributes."""
    sealed = item["v"]["B"]
    place = noise.randrange(len(sealed))
    way = noise.randrange(5)
    if way == 0:
        changed = sealed[:place] + bytes([sealed[place] ^ 1 << noise.randrange(8)])
        return {**item, "v": {"B": changed + sealed[place + 1 :]}}
    if way == 1:
        return {**item, "v": {"B": sealed[:place]}}
    if way == 2:
        return {**item, "v": {"B": sealed + noise.randbytes(noise.randrange(1, 9))}}
    if way == 3:
        return {**item, "v": {"B": pickle.dumps(Bomb())}}
    return {**item, "v": {"B": sealed[:34] + pickle.dumps(Bomb())}}


@pytest.mark.parametrize("options", [{}, {"COMPRESSOR": "zlib", "COMPRESS_OVER": 10}], ids=repr)
def test_hundreds_of_altered_entries(make_cache, table, options):
    """Whatever is done to the bytes, the entry is a miss and nothing is run."""
    cache = make_cache(OPTIONS=options)
    noise = random.Random(7)
    value = {"name": "Ada" * 20}
    cache.set("k", value)
    genuine = table.get(cache, "k")
    CALLS.clear()
    for _ in range(300):
        table.put(altered(genuine, noise))
        assert cache.get("k", "missing") == "missing"
    table.put(genuine)
    assert cache.get("k") == value
    assert CALLS == []


def test_entries_are_not_swapped_or_replayed(make_cache, table):
    """Under another key, version, prefix or write they are misses."""
    one, two = make_cache(), make_cache()
    places = [(one, "a", 1), (one, "b", 1), (one, "a", 2), (two, "a", 1)]
    for number, (cache, key, version) in enumerate(places):
        cache.set(key, f"value {number}", version=version)
    items = [table.get(cache, key, version) for cache, key, version in places]
    for (here, (cache, key, version)), (there, item) in itertools.product(
        enumerate(places), enumerate(items)
    ):
        keys = {name: items[here][name] for name in ("PK", "SK")}
        table.put({**item, **keys})
        expected = f"value {here}" if here == there else "missing"
        assert cache.get(key, "missing", version=version) == expected
        table.put({**item, **keys, "w": {"S": "1700000000000aabbccddee"}})
        assert cache.get(key, "missing", version=version) == "missing"
        table.put(items[here])


@pytest.fixture
def staging(alias):
    """An alias whose store table has another name."""
    using = alias(TABLE_PREFIX=f"staging-{secrets.token_hex(4)}-")
    name = get_config(using).store_table
    call_command("dynamo_create_tables", table=[name], stdout=io.StringIO())
    yield using
    get_control(using).call("DeleteTable", {"TableName": name})


@pytest.mark.parametrize("value", ["from staging", "x" * 900_000], ids=["whole", "in parts"])
def test_entries_of_another_table_are_misses(make_cache, staging, value):
    """Though they have the same key, and were signed with the same SECRET_KEY."""
    theirs = make_cache(staging, KEY_PREFIX="shared")
    ours = make_cache(KEY_PREFIX="shared")
    theirs.set("k", value)
    source, target = theirs.store.core.items.table, ours.store.core.items.table
    copied = source.connection.dispatch("Scan", {"TableName": source.table_name})["Items"]
    for item in copied:
        target.connection.dispatch("PutItem", {"TableName": target.table_name, "Item": item})
    assert ours.get("k", "missing") == "missing"
    assert ours.get_many(["k"]) == {}
    assert theirs.get("k") == value


@pytest.mark.parametrize(
    "attributes",
    [
        {"v": {"S": "text"}},
        {"v": {"B": b""}},
        {"v": {"NULL": True}},
        {"n": {"S": "five"}},
        {"n": {"L": []}},
        {"w": {"N": "5"}},
        {"w": {"S": "short"}},
        {"e": {"S": "soon"}},
        {"e": {"N": "1.5"}},
        {"e": {"N": "-5"}},
        {"p": {"S": "2"}},
        {"p": {"N": "-2"}},
    ],
    ids=str,
)
def test_attributes_of_another_kind_are_misses(cache, table, attributes):
    """On every reading method, and nothing raises."""
    cache.set("k", ["value"])
    item = table.get(cache, "k")
    table.put({**item, **attributes})
    assert cache.get("k", "missing") == "missing"
    assert cache.get_many(["k"]) == {}
    with pytest.raises(ValueError, match="no such key"):
        cache.incr("k")
    cache.set("k", "new")
    assert cache.get("k") == "new"


ODD = [
    None,
    {"S": "text"},
    {"N": "2"},
    {"N": "1.5"},
    {"N": "-1"},
    {"N": "9" * 38},
    {"N": "1E+100"},
    {"B": b"\xff"},
    {"M": {"text": {"S": "text"}}},
]
VERBS = {
    "get_or_set": lambda cache: cache.get_or_set("k", lambda: "computed", 60),
    "get": lambda cache: cache.get("k"),
    "get_many": lambda cache: cache.get_many(["k"]),
    "has_key": lambda cache: cache.has_key("k"),
    "ttl": lambda cache: cache.ttl("k"),
    "keys": lambda cache: cache.keys("*"),
    "add": lambda cache: cache.add("k", "added"),
    "add in parts": lambda cache: cache.add("k", b"x" * 450_000),
    "touch": lambda cache: cache.touch("k", 60),
    "persist": lambda cache: cache.persist("k"),
    "incr": lambda cache: cache.incr("k", ignore_key_check=True),
    "incr by a float": lambda cache: cache.incr("k", 1.5),
    "incr_version": lambda cache: cache.incr_version("k"),
    "set": lambda cache: cache.set("k", "set"),
    "set in parts": lambda cache: cache.set("k", b"x" * 450_000),
    "delete": lambda cache: cache.delete("k"),
    "cleanup": lambda cache: cache.store.cleanup(),
}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("value", [5, 1.5], ids=["number", "bytes"])
def test_no_attribute_makes_a_verb_crash(make_cache, table, verb, value):
    """Whatever is in an attribute, or without it: a value, a miss, or Django's ValueError."""
    options = {"EARLY_REFRESH": 1.0, "STAMPEDE_LEASE": 1, "STALE_TIMEOUT": 10}
    for cache in (make_cache(), make_cache(OPTIONS=options)):
        cache.set("k", value, 60)
        genuine = {**table.get(cache, "k"), "d": {"N": "5"}}
        for name in "envwpkgtd":
            for odd in ODD:
                item = {**genuine, name: odd}
                table.put({key: held for key, held in item.items() if held is not None})
                with contextlib.suppress(ValueError):
                    VERBS[verb](cache)
        cache.clear()


def test_keys_and_values_do_not_reach_logs(cache, table, caplog):
    """A forged entry is logged without key and content."""
    caplog.set_level("DEBUG", "dynamo_stores")
    cache.set("confidential-key", "confidential-value")
    item = table.get(cache, "confidential-key")
    table.put({**item, "v": {"B": b"confidential-forgery"}})
    cache.get("confidential-key")
    assert "confidential" not in caplog.text


@pytest.mark.slow
def test_thousands_of_operations_leave_no_memory_behind(cache):
    """The memory of a process does not grow with its operations."""
    import gc
    import tracemalloc

    def work(rounds):
        for number in range(rounds):
            key = f"k{number}{os.urandom(4).hex()}"
            cache.set(key, [number])
            cache.get(key)
            cache.add(key, 1)
            cache.get_many([key, "other"])
            cache.delete(key)

    def work_and_forget(rounds):
        work(rounds)
        # The keys of recent writes are remembered for a second, and dropped by the next one.
        time.sleep(1.2)
        work(1)
        gc.collect()

    work(30)
    tracemalloc.start()
    try:
        work_and_forget(200)
        before, _ = tracemalloc.get_traced_memory()
        work_and_forget(200)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 40_000
