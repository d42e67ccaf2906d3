"""The cache over a real engine: results and costs."""

from __future__ import annotations

import pickle
import random
from collections import Counter

import pytest
from asgiref.sync import async_to_sync

from dynamo_stores import keys
from dynamo_stores.cache.options import find_cache_problems
from dynamo_stores.cache.store.items import CacheEntry
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.observer import measuring
from dynamo_stores.exceptions import ConfigurationError, ItemTooLargeError
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import FakeClock

VALUES = [None, True, False, 0, -1, 2**200, 10**37, -(10**38) + 1, 10**38, 1.5, "", "é🐍", b"\x00"]


def calls(function, *args, **kwargs):
    """Return the operations that ``function`` made, counted."""
    with measuring() as measurements:
        function(*args, **kwargs)
    return Counter(each.operation for each in measurements)


@pytest.mark.parametrize("value", [*VALUES, [1, {"a": (2, None)}]], ids=repr)
def test_values_come_back_as_they_were(cache, value):
    """Equal, and of the same type."""
    cache.set("k", value)
    found = cache.get("k", "missing")
    assert found == value
    assert type(found) is type(value)
    assert cache.get_many(["k"]) == {"k": value}


def test_ints_are_numbers_and_nothing_else_is(cache):
    """bools and ints over 38 digits are bytes."""
    for value, is_number in [(5, True), (-(10**38) + 1, True), (True, False), (10**38, False)]:
        cache.set("k", value)
        key = keys.cache_entry(cache.key_prefix, cache.make_key("k"))
        entry = CacheEntry.get(key.pk, key.sk)
        assert (entry.number is not None, entry.sealed is None) == (is_number, is_number)


def test_calls_per_operation(cache):
    """One each for values that fit one item; batches of 100 and of 25."""
    many = {f"k{number}": number for number in range(50)}
    expected = [
        (cache.set, ("a", 1), {"PutItem": 1}),
        (cache.get, ("a",), {"GetItem": 1}),
        (cache.get, ("nothing",), {"GetItem": 1}),
        (cache.has_key, ("a",), {"GetItem": 1}),
        (cache.add, ("a", 2), {"PutItem": 1}),
        (cache.add, ("b", 2), {"PutItem": 1}),
        (cache.incr, ("a",), {"UpdateItem": 1}),
        (cache.decr, ("a", 5), {"UpdateItem": 1}),
        (cache.touch, ("a", 60), {"UpdateItem": 1}),
        (cache.touch, ("nothing", 60), {"UpdateItem": 1}),
        (cache.delete, ("a",), {"DeleteItem": 1}),
        (cache.delete, ("a",), {"DeleteItem": 1}),
        (cache.set_many, (many,), {"BatchWriteItem": 2}),
        (cache.get_many, ([f"k{number}" for number in range(100)],), {"BatchGetItem": 1}),
        (cache.get_many, ([f"k{number}" for number in range(101)],), {"BatchGetItem": 2}),
        (cache.delete_many, (list(many),), {"BatchWriteItem": 2}),
        (cache.get_many, ([],), {}),
        (cache.set_many, ({},), {}),
        (cache.delete_many, ([],), {}),
    ]
    for method, args, operations in expected:
        assert calls(method, *args) == operations, method.__name__


@pytest.mark.parametrize("driven", ["sync", "async"])
def test_read_units_per_operation(cache, make_cache, alias, driven):
    """A kilobyte is half a unit, read strongly a whole one."""
    # As another process would: what a process wrote lately it reads strongly.
    make_cache(alias(), KEY_PREFIX=cache.key_prefix).set("a", "x" * 1000)
    strong = make_cache(OPTIONS={"CONSISTENT_READ": True}, KEY_PREFIX=cache.key_prefix)
    for found, units in ((cache, 0.5), (strong, 1.0)):
        assert units_of(found, driven, "get", "a") == units
        assert units_of(found, driven, "has_key", "a") == units


@pytest.mark.parametrize("driven", ["sync", "async"])
def test_write_units_per_operation(cache, true_units, driven):
    """A unit per KB of the entry, and nothing for the index; a refusal costs its write."""
    cache.set("a", "x" * 700)
    cache.set("n", 1)
    many = [f"k{number}" for number in range(25)]
    expected = [
        ("set", ("a", "x" * 700), 1.0),
        ("set", ("a", "x" * 1700), 2.0),
        ("add", ("new", 1), 1.0),
        ("incr", ("n",), 1.0),
        ("touch", ("n", 60), 1.0),
        ("delete", ("n",), 1.0),
        ("set_many", (dict.fromkeys(many, 1),), 25.0),
        # Strongly, because they were just written.
        ("get_many", (many,), 25.0),
        ("delete_many", (many,), 25.0),
    ]
    for name, args, units in expected:
        assert units_of(cache, driven, name, *args) == units, name


def units_of(cache, driven, name, *args):
    """Return the units that the method, or its async twin, consumed."""
    method = getattr(cache, name) if driven == "sync" else async_to_sync(getattr(cache, f"a{name}"))
    with measuring() as measurements:
        method(*args)
    return sum(sum(each.units.values()) for each in measurements)


def test_expiry_is_exact_to_the_millisecond(cache, dynamo_clock: FakeClock):
    """Alive until its last millisecond on every operation, though DynamoDB still holds it."""
    cache.set("a", "v", 10)
    cache.set("n", 5, 10)
    dynamo_clock.advance(9.999)
    assert cache.get("a") == "v"
    assert cache.has_key("a")
    assert cache.incr("n") == 6
    dynamo_clock.advance(0.001)
    assert cache.get("a") is None
    assert not cache.has_key("a")
    assert cache.get_many(["a", "n"]) == {}
    assert cache.touch("a", 10) is False
    assert cache.delete("a") is False
    with pytest.raises(ValueError, match="no such key"):
        cache.incr("n")
    assert cache.add("a", "new", 10) is True
    assert cache.get("a") == "new"


def test_ttl_is_rounded_up_to_whole_seconds(cache, dynamo_clock: FakeClock):
    """DynamoDB may never delete a live entry."""
    cache.set("a", "v", 10.4)
    key = keys.cache_entry(cache.key_prefix, cache.make_key("a"))
    entry = CacheEntry.get(key.pk, key.sk)
    assert entry.expiry == int(dynamo_clock.now() * 1000) + 10_400
    assert entry.ttl == int(dynamo_clock.now()) + 11


def test_timeouts_follow_django(cache, make_cache, dynamo_clock: FakeClock):
    """None is for ever, 0 and less are over at once, numbers may be strings."""
    cache.set("always", 1, None)
    cache.set("over", 1)
    cache.set("over", 1, 0)
    cache.set("never", 1, -5)
    cache.set("text", 1, "60")
    default = make_cache(TIMEOUT=30)
    default.set("default", 1)
    dynamo_clock.advance(31)
    assert cache.get("over") is None
    assert cache.get("never") is None
    assert cache.get("text") == 1
    assert default.get("default") is None
    dynamo_clock.advance(10**9)
    assert cache.get("always") == 1


def test_incr_keeps_the_expiry(cache, dynamo_clock: FakeClock):
    """Adding to a number does not make it live longer."""
    cache.set("n", 1, 10)
    cache.set("f", 1.5, 10)
    dynamo_clock.advance(5)
    assert cache.incr("n", 10**20) == 10**20 + 1
    assert cache.decr("n", 10**20) == 1
    assert cache.incr("f") == 2.5
    assert cache.incr("n", 0.5) == 1.5
    dynamo_clock.advance(5)
    assert cache.get("n") is None
    assert cache.get("f") is None


def test_incr_beyond_what_a_number_holds(cache):
    """Over 38 digits it becomes bytes, and counts on."""
    cache.set("n", 10**37 * 9, 100)
    assert cache.incr("n", 10**37) == 10**38
    assert cache.incr("n") == 10**38 + 1
    assert cache.decr("n", 10**38) == 1
    assert cache.incr("n") == 2


def test_incr_version_keeps_the_expiry(cache, dynamo_clock: FakeClock):
    """The value moves with the time it has left."""
    cache.set("k", ["v"], 10)
    dynamo_clock.advance(5)
    assert cache.incr_version("k", 3) == 4
    assert cache.get("k") is None
    dynamo_clock.advance(4.999)
    assert cache.get("k", version=4) == ["v"]
    dynamo_clock.advance(0.001)
    assert cache.get("k", version=4) is None
    with pytest.raises(ValueError, match="Key 'k' not found"):
        cache.decr_version("k", version=4)


def test_touch_changes_the_expiry_and_creates_nothing(cache, dynamo_clock: FakeClock):
    """Longer, for ever, and at once."""
    assert cache.touch("a") is False
    assert cache.get("a", "missing") == "missing"
    cache.set("a", "v", 10)
    assert cache.touch("a", 100) is True
    dynamo_clock.advance(99)
    assert cache.get("a") == "v"
    assert cache.touch("a", None) is True
    dynamo_clock.advance(10**8)
    assert cache.get("a") == "v"
    assert cache.touch("a", 0) is True
    assert cache.get("a") is None


def test_touch_against_expiry(cache):
    """Touched at the moment of its expiry, an entry lives on or is gone, never half of it."""
    for number in range(30):
        key = f"k{number}"
        cache.set(key, "v", 0.003)
        touched = cache.touch(key, 60)
        assert cache.get(key) == ("v" if touched else None)


def test_add_has_one_winner(cache):
    """A live value is not replaced."""
    assert cache.add("a", 1) is True
    assert cache.add("a", 2) is False
    assert cache.get("a") == 1
    assert cache.add("b", 1, 0) is True
    assert cache.get("b") is None


def test_many_keys_may_repeat_and_come_from_iterators(cache):
    """Duplicates and generators are taken."""
    assert cache.set_many({"a": 1, "b": 2}) == []
    assert cache.get_many(key for key in ("a", "b", "a", "c")) == {"a": 1, "b": 2}
    cache.delete_many(key for key in ("a", "a", "c"))
    assert cache.get_many(["a", "b"]) == {"b": 2}


def test_clear_removes_this_prefix_and_nothing_else(make_cache):
    """All versions, all pages; look-alike prefixes stay."""
    mine, alike, other = make_cache(KEY_PREFIX="p"), make_cache(KEY_PREFIX="p#"), make_cache()
    for each in (mine, alike, other):
        each.set_many({f"k{number}": number for number in range(60)})
        each.set("v2", 1, version=2)
    mine.clear()
    assert mine.get_many([f"k{number}" for number in range(60)]) == {}
    assert mine.get("v2", version=2) is None
    for each in (alike, other):
        assert len(each.get_many([f"k{number}" for number in range(60)])) == 60
        assert each.get("v2", version=2) == 1
        each.clear()


def test_versions_and_prefixes_are_apart(make_cache):
    """The same key under another version or prefix is another entry."""
    one, two = make_cache(), make_cache()
    one.set("k", "one")
    one.set("k", "second", version=2)
    two.set("k", "two")
    assert (one.get("k"), one.get("k", version=2), two.get("k")) == ("one", "second", "two")


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_a_prefix_of_escaped_characters(make_cache, settings):
    """It is measured as it is in the partition key, where # and % take three bytes."""
    fits = make_cache(KEY_PREFIX="#" * 341)
    fits.set("k", 1)
    assert fits.get("k") == 1
    long = {"BACKEND": "dynamo_stores.cache.DynamoDBCache", "KEY_PREFIX": "#" * 342}
    settings.CACHES = {"default": long}
    (problem,) = find_cache_problems()
    assert problem.id == "dynamo_stores.E107"
    assert "has 1,026 bytes" in problem.message
    with pytest.raises(ConfigurationError, match="expected at most 1,024"):
        type(fits)("default", long).get("k")


@pytest.mark.parametrize("timeout", [float("inf"), 1e300, 10**400], ids=["inf", "float", "int"])
def test_an_infinite_timeout_is_never(cache, timeout):
    """Also one in which nobody lives to see the end."""
    cache.set("k", 1, timeout)
    assert cache.ttl("k") is None
    assert cache.add("new", 1, timeout)
    assert cache.ttl("new") is None
    cache.set("k", 1, 60)
    assert cache.touch("k", timeout)
    assert cache.ttl("k") is None
    cache.set("k", 1, 60)
    assert cache.expire_at("k", timeout)
    assert cache.ttl("k") is None
    for change in (cache.expire, cache.pexpire, cache.pexpire_at):
        cache.set("k", 1, 60)
        assert change("k", timeout)
        assert cache.ttl("k") is None
    assert cache.get_or_set("computed", [1], timeout) == [1]
    assert cache.ttl("computed") is None
    for forget in (lambda: cache.set("k", 1, -timeout), lambda: cache.touch("k", -timeout)):
        cache.set("k", 1)
        forget()
        assert cache.get("k") is None


def test_a_timeout_that_is_no_number_is_a_value_error(cache):
    """The sentence names it, and nothing is written."""
    for write in (cache.set, cache.add, cache.get_or_set):
        with pytest.raises(ValueError, match="timeout is nan; expected seconds"):
            write("k", 1, float("nan"))
    assert cache.get("k") is None
    for change in (cache.touch, cache.expire, cache.pexpire, cache.expire_at):
        with pytest.raises(ValueError, match="is nan; expected"):
            change("k", float("nan"))


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_long_and_odd_keys(cache):
    """Any text of any length is a key (Django warns of some)."""
    odd = ["x" * 3000, "é" * 1500, "\ud800", "a b", "#", "H#", "🐍", "\x00"]
    for number, key in enumerate(odd):
        cache.set(key, number)
    assert [cache.get(key) for key in odd] == list(range(len(odd)))
    assert cache.get_many(odd) == dict(zip(odd, range(len(odd)), strict=True))


def test_a_value_too_large_is_refused_before_anything_is_written(make_cache):
    """The error names the limit and what to do."""
    cache = make_cache(OPTIONS={"MAX_VALUE_BYTES": 100_000})
    noise = random.Random(1).randbytes(100_001)
    cache.set("fits", noise[:99_000])
    assert cache.get("fits") == noise[:99_000]
    with pytest.raises(ItemTooLargeError, match=r"MAX_VALUE_BYTES allows 100,000"):
        cache.set("k", noise)
    with pytest.raises(ItemTooLargeError):
        cache.set_many({"small": 1, "large": noise})
    assert cache.get_many(["k", "small"]) == {}


def test_large_values_by_the_dozen(alias, make_cache):
    """get_many requests again the keys that DynamoDB left out because of its size limits."""
    cache = make_cache(alias(READ_TIMEOUT=60.0))
    noise = random.Random(2)
    values = {f"k{number}": noise.randbytes(390 * 1024) for number in range(50)}
    assert cache.set_many(values) == []
    found = cache.get_many(values)
    assert found == values


def test_compressed_values(make_cache):
    """COMPRESSOR makes a megabyte of text fit."""
    cache = make_cache(OPTIONS={"COMPRESSOR": "zlib"})
    cache.set("k", "text " * 200_000)
    assert cache.get("k") == "text " * 200_000


def test_forged_entries_are_misses_and_logged_once(cache, caplog):
    """Unsigned bytes, bytes of another key, and a pickle bomb: never a value, never run."""
    cache.set("a", "value of a")
    cache.set("b", "value of b")
    a, b = (keys.cache_entry(cache.key_prefix, cache.make_key(key)) for key in "ab")
    stolen = CacheEntry.get(b.pk, b.sk)
    for sealed in (stolen.sealed, pickle.dumps("value"), b"", stolen.sealed[:20]):
        CacheEntry(a.pk, a.sk, sealed=sealed, write=stolen.write).save()
        assert cache.get("a", "missing") == "missing"
        assert cache.get_many(["a"]) == {}
    assert len([r for r in caplog.records if "not signed" in r.message]) == 1
    assert "value of" not in caplog.text
    assert cache.get("b") == "value of b"


def test_the_error_of_a_missing_table_names_the_command(make_cache, alias):
    """The error names the command."""
    missing = make_cache(alias(TABLE_PREFIX="no-such-"))
    with pytest.raises(ConfigurationError, match="dynamo_create_tables"):
        missing.get("k")


def test_stores_show_and_reset_their_breaker(tables):
    """Every store returns the status of its breaker."""
    store = CacheStore(prefix="p")
    store.set("p:1:k", 1)
    status = store.get_circuit_breaker_status()
    assert (status.state, status.failures) == ("closed", 0)
    store.reset_circuit_breaker()
    store.close()
    assert store.get("p:1:k") == 1
    assert get_connection().policies()


def test_a_number_that_cannot_be_read_is_replaced(cache, make_cache):
    """A value of another serializer is a miss: add and incr store over it, and always end."""
    cache.set_many({"hits": 1.5, "flag": "x", "kept": 1})
    other = make_cache(KEY_PREFIX=cache.key_prefix, OPTIONS={"SERIALIZER": "json"})
    assert other.get("flag") is None
    assert other.add("flag", "new") is True
    assert other.get("flag") == "new"
    assert other.incr("hits", ignore_key_check=True) == 1
    assert other.get("hits") == 1
    assert other.add("kept", 2) is False


@pytest.mark.parametrize("value", ["a" * 800_000, 10**450_000], ids=["string", "int"])
def test_a_value_in_parts_is_added_to(cache, value):
    """Its new parts are written before its head, and the old ones deleted."""
    delta = type(value)("1")
    cache.set("k", value)
    assert cache.incr("k", delta) == value + delta
    assert cache.get("k") == value + delta
    cache.delete("k")
    assert cache.get("k") is None
