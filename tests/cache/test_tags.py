"""Tags: entries that are invalidated together, in a write per tag."""

from __future__ import annotations

import asyncio
import time

import pytest

from dynamo_stores import keys
from dynamo_stores.cache.store import invalidation as numbers
from dynamo_stores.cache.store.items import InvalidationNumber
from dynamo_stores.calls.observer import measuring
from dynamo_stores.concurrency.effects import run
from dynamo_stores.testing import FakeClock
from tests.helpers.counting import operations
from tests.helpers.forking import fork, in_processes

from .test_generation import forget

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_invalidating_a_tag_takes_all_its_entries(cache, make_cache):
    """One write per tag; other entries and other prefixes stay."""
    other = make_cache()
    other.set("a", 1, tags=["user:1"])
    cache.set("a", 1, tags=["user:1", "team"])
    cache.set("b", [2], tags=["user:2", "team"], version=2)
    cache.set_many({"c": 3, "d": 4}, tags=["user:1"])
    cache.set("plain", 5)
    assert operations(cache.invalidate_tags, ["user:1"]) == {"UpdateItem": 1}
    assert cache.get_many(["a", "c", "d", "plain"]) == {"plain": 5}
    assert cache.get("b", version=2) == [2]
    assert operations(cache.invalidate_tags, ["team", "of no entry"]) == {"UpdateItem": 2}
    assert cache.get("b", version=2) is None
    assert other.get("a") == 1


def test_every_verb_knows_of_tags(cache):
    """An invalid entry is missing for all of them."""
    for key in "abcdefg":
        cache.set(key, 1, tags=["t"])
    cache.invalidate_tags(["t"])
    assert not cache.has_key("a")
    assert cache.ttl("a") == 0
    assert cache.touch("a") is False
    assert cache.delete("b") is False
    with pytest.raises(ValueError, match="no such key"):
        cache.incr("c")
    with pytest.raises(ValueError, match="no such key"):
        cache.incr("c", 1.5)
    with pytest.raises(ValueError, match="not found"):
        cache.incr_version("d")
    assert cache.add("e", 2)
    assert cache.get("e") == 2
    assert cache.get_or_set("f", 3) == 3
    assert cache.incr("g", ignore_key_check=True) == 1
    assert cache.keys("*") == sorted("efg") or set(cache.keys("*")) == set("efg")
    assert cache.store.get_stats().expired_items == 3
    assert cache.store.cleanup() == 3


def test_living_tagged_entries_are_changed(cache):
    """They keep their tags: an entry that was changed, touched or moved is still invalidated."""
    cache.set("number", 1, tags=["t"])
    assert cache.incr("number") == 2
    assert cache.incr("number", 0.5) == 2.5
    cache.set("touched", "x", tags=["t"])
    assert cache.touch("touched", 100)
    assert cache.ttl("touched") == 100
    assert cache.add("touched", "y") is False
    cache.set("moved", "z", tags=["t"])
    cache.incr_version("moved")
    assert cache.get("moved", version=2) == "z"
    cache.invalidate_tags(["t"])
    assert cache.get_many(["number", "touched"]) == {}
    assert cache.get("moved", version=2) is None


def test_setting_anew_drops_the_tags(cache):
    """A value's tags are its own."""
    cache.set("k", 1, tags=["t"])
    cache.set("k", 2)
    cache.invalidate_tags(["t"])
    assert cache.get("k") == 2
    cache.set("k", 3, tags=["u"])
    cache.invalidate_tags(["t"])
    assert cache.get("k") == 3


def test_calls(cache, dynamo_clock: FakeClock):
    """Two for the first read of a key with unknown tags; later ones are one call each."""
    assert operations(lambda: cache.set("k", 1, tags=["a", "b"])) == {
        "BatchGetItem": 1,
        "PutItem": 1,
    }
    assert operations(lambda: cache.set("k", 1, tags=["a", "b"])) == {"PutItem": 1}
    assert operations(cache.get, "k") == {"GetItem": 1}
    forget()
    assert operations(cache.get, "k") == {"GetItem": 1, "BatchGetItem": 1}
    assert operations(cache.get, "k") == {"GetItem": 1}
    dynamo_clock.advance(1.5)
    assert operations(cache.get, "k") == {"BatchGetItem": 1}
    dynamo_clock.advance(1.5)
    assert operations(cache.get_many, ["k", "l"]) == {"BatchGetItem": 1}
    assert operations(cache.incr, "k") == {"UpdateItem": 2}
    dynamo_clock.advance(1.5)
    assert operations(cache.incr, "k") == {"UpdateItem": 2, "BatchGetItem": 1}
    assert operations(cache.touch, "k") == {"UpdateItem": 2}
    assert operations(cache.add, "k", 2) == {"PutItem": 1}
    cache.set("untagged", 1)
    assert operations(cache.incr, "untagged") == {"UpdateItem": 1}
    assert cache.get("k") == 3


def test_units(cache, dynamo_clock: FakeClock, true_units):
    """A unit for each number, and twice the price for the entry, once a second."""
    cache.set("k", 1, tags=["a", "b"])
    cache.invalidate_tags(["a", "b"])
    cache.set("k", 1, tags=["a", "b"])
    dynamo_clock.advance(2)
    with measuring() as measurements:
        cache.get("k")
    assert sum(measurements[0].units.values()) == 3.0


def test_another_process_sees_it_within_the_bound(cache):
    """Its own numbers are at most a second old."""

    cache.set("k", "old", tags=["t"])
    together = fork.Barrier(3)

    def work(number):
        together.wait(60)
        if number == 0:
            time.sleep(0.5)
            cache.invalidate_tags(["t"])
            return [time.time()]
        seen = []
        end = time.monotonic() + 2.5
        while time.monotonic() < end:
            asked_at = time.time()
            if cache.get("k") is not None:
                seen.append(asked_at)
        return seen

    (invalidated_at,), *others = in_processes(3, work)
    for seen in others:
        assert seen
        assert seen[-1] < invalidated_at + 1.0


def test_a_value_computed_before_an_invalidation_is_not_fresh(cache):
    """The numbers are taken before the computation."""

    def compute():
        cache.invalidate_tags(["t"])
        return "computed from what is now old"

    assert cache.get_or_set("k", compute, tags=["t"]).startswith("computed")
    assert cache.get("k") is None
    assert cache.get_or_set("k", "fresh", tags=["t"]) == "fresh"
    assert cache.get("k") == "fresh"


def test_an_invalidation_during_a_change_stays(cache, alias, make_cache):
    """An add to a number that is being invalidated does not revive it."""
    cache.set("k", 1, tags=["t"])
    store = cache.store
    key = store.item_key(cache.make_key("k"))
    old = run(store.core.items.get(key, consistent=True))
    assert run(store.core.reader.is_live_and_valid(old))
    cache.invalidate_tags(["t"])
    assert not run(store.core.reader.is_live_and_valid(old))


def test_forgotten_numbers_are_asked_for_again(cache, monkeypatch):
    """A number that a process dropped costs a call, and never a stale value."""
    monkeypatch.setattr(numbers, "_REMEMBERED", 3)
    cache.set_many({"a": 1}, tags=["t"])
    cache.invalidate_tags(["t"])
    for number in range(5):
        cache.set(f"k{number}", number, tags=[f"t{number}"])
    assert cache.get_many(["a", *(f"k{number}" for number in range(5))]).keys() <= {
        f"k{number}" for number in range(5)
    }
    assert cache.get("a") is None
    assert cache.get("k0") == 0


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ("user", "is a str; expected a list"),
        ([1], "of type int or empty"),
        ([""], "of type str or empty"),
        (["x" * 256], "at most 255 bytes"),
        (["\ud800"], "lone surrogate"),
        ([f"t{number}" for number in range(51)], "at most 50"),
    ],
)
def test_what_cannot_be_tags(cache, tags, message):
    """A sentence, before anything is sent."""
    for call in (
        lambda: cache.set("k", 1, tags=tags),
        lambda: cache.set_many({"k": 1}, tags=tags),
        lambda: cache.invalidate_tags(tags),
        lambda: cache.get_or_set("k", 1, tags=tags),
    ):
        with measuring() as measurements, pytest.raises(ValueError, match=message):
            call()
        assert measurements == []


def test_tags_of_a_value_in_parts(cache):
    """They are on its head."""
    value = "x" * 900_000
    cache.set("k", value, tags=["t"])
    assert cache.get("k") == value
    cache.invalidate_tags(["t"])
    assert cache.get("k") is None
    assert cache.add("k", value, tags=["t"])
    assert cache.get("k") == value


def test_numbers_of_tags_have_no_ttl(cache):
    """An entry would come back when its tag's number were swept."""
    cache.invalidate_tags(["t"])
    key = keys.tag(cache.store.prefix, "t")
    assert InvalidationNumber.get(key.pk, key.sk).ttl is None


def test_async_twins(cache):
    """aset, aadd, aset_many, aget_or_set, ainvalidate_tags."""

    async def run():
        await cache.aset("a", 1, tags=["t"])
        await cache.aadd("b", 1, tags=["t"])
        await cache.aset_many({"c": 1}, tags=["t"])
        await cache.aget_or_set("d", 1, tags=["t"])
        before = await cache.aget_many("abcd")
        await cache.ainvalidate_tags(["t"])
        return len(before), await cache.aget_many("abcd")

    assert asyncio.run(run()) == (4, {})
