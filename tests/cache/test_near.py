"""The near tier: values that a process returns without a request, and their limits."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynamo_stores.cache import DynamoDBCache
from dynamo_stores.cache.store.near import Entry, NearTier
from dynamo_stores.calls.observer import measuring
from dynamo_stores.calls.policy import deadline
from dynamo_stores.concurrency.effects import run
from dynamo_stores.exceptions import OperationTimeoutError, StoreUnavailable
from dynamo_stores.testing import FakeClock
from tests.helpers.counting import operations
from tests.helpers.faults import interrupt_often
from tests.helpers.forking import in_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
# Of the test of memory: many times as many as fit.
_KEYS = 250_000

NEAR = {"LOCAL_TIMEOUT": 10}


@pytest.fixture
def cache(make_cache):
    return make_cache(OPTIONS=NEAR)


@pytest.fixture
def far(cache, alias, make_cache):
    """
    The same entries, without a near tier: as another process sees and writes them. By an alias of
    its own, because the caches of one alias share what a process knows.
    """
    return make_cache(alias(), KEY_PREFIX=cache.key_prefix)


def test_a_read_is_served_until_its_timeout(cache, far, dynamo_clock: FakeClock):
    """By get, get_many and their twins, in every thread; another's write is seen after it."""
    far.set("k", "old")
    assert operations(cache.get, "k") == {"GetItem": 1}
    far.set("k", "new")
    with measuring() as measurements:
        assert cache.get("k") == "old"
        assert cache.get_many(["k"]) == {"k": "old"}
        assert asyncio.run(cache.aget("k")) == "old"
        assert asyncio.run(cache.aget_many(["k"])) == {"k": "old"}
        with ThreadPoolExecutor(1) as threads:
            assert threads.submit(cache.get, "k").result() == "old"
    assert measurements == []
    dynamo_clock.advance(10)
    assert cache.get("k") == "new"
    stats = cache.store.get_near_stats()
    assert (stats.entries, stats.hits, stats.misses) == (1, 5, 2)
    assert far.store.get_near_stats() is None


def test_writes_of_a_cache_without_a_near_tier_are_seen(cache, make_cache):
    """By the caches of its alias and prefix that have one, in the same process."""
    plain = make_cache(KEY_PREFIX=cache.key_prefix)
    cache.set("k", "old")
    plain.set("k", "new")
    assert cache.get("k") == "new"
    plain.delete("k")
    assert cache.get("k") is None
    cache.set_many({"k": "old", "l": "old"})
    plain.set_many({"k": "new"})
    assert cache.get_many(["k", "l"]) == {"k": "new", "l": "old"}
    plain.clear()
    assert cache.get("l") is None
    assert plain.store.get_near_stats() is None


def test_an_async_read_counts_as_one(cache):
    """Whether it finds something near or asks the table."""
    cache.set("k", "v")
    before = cache.store.get_near_stats()
    assert asyncio.run(cache.aget("k")) == "v"
    assert asyncio.run(cache.aget("none")) is None
    stats = cache.store.get_near_stats()
    assert (stats.hits - before.hits, stats.misses - before.misses) == (1, 1)


def test_never_older_than_the_entrys_own_expiry(cache, far, dynamo_clock: FakeClock):
    """Five seconds of life are five seconds here too."""
    far.set("k", "v", 5)
    assert cache.get("k") == "v"
    dynamo_clock.advance(5.001)
    assert cache.get("k") is None


def test_misses_are_not_kept(cache, far):
    """A value that another process stores is found by the next read."""
    assert cache.get("k") is None
    far.set("k", "v")
    assert cache.get("k") == "v"


def test_get_many_asks_for_the_rest_alone(cache, far):
    """Keys in the near tier are not read again."""
    far.set_many({"a": 1, "b": 2, "c": 3})
    cache.get("a")
    with measuring() as measurements:
        assert cache.get_many("abc") == {"a": 1, "b": 2, "c": 3}
        assert cache.get_many("abc") == {"a": 1, "b": 2, "c": 3}
    assert [each.operation for each in measurements] == ["BatchGetItem"]


@pytest.mark.parametrize("value", [["list"], 7, "x" * 900_000])
def test_a_write_of_this_process_is_served(cache, value):
    """Without a request; a caller that changes a value changes no other caller's."""
    cache.set("k", "before")
    cache.set("k", value)
    with measuring() as measurements:
        found = cache.get("k")
        assert found == value
        if isinstance(found, list):
            found.append("changed")
        assert cache.get("k") == value
    assert measurements == []


def test_writes_of_this_process_are_seen(cache):
    """By every verb, whatever was near before."""
    cache.set_many(dict.fromkeys("abcdefg", 1))
    assert len(cache.get_many("abcdefg")) == 7
    cache.delete("a")
    cache.delete_many("b")
    cache.incr("c")
    cache.touch("d", 0)
    cache.incr_version("e")
    cache.set("f", 2)
    assert cache.get_many("abcdefg") == {"c": 2, "f": 2, "g": 1}
    assert cache.add("g", 5) is False
    assert cache.get("e", version=2) == 1
    cache.delete_pattern("f")
    assert cache.get("f") is None
    cache.clear()
    assert cache.get("g") is None
    assert cache.add("g", 5)
    assert cache.get("g") == 5


def test_add_incr_touch_and_ttl_ask_the_table(cache, far):
    """The near tier does not decide."""
    far.set("k", 1)
    assert cache.get("k") == 1
    far.delete("k")
    assert cache.touch("k") is False
    cache.set("k", 1)
    far.delete("k")
    assert cache.ttl("k") == 0
    assert not cache.has_key("k")
    assert cache.add("k", 2)
    far.incr("k")
    assert cache.incr("k") == 4


def test_a_child_process_starts_empty(cache, far):
    """Entries of the parent's near tier are not the child's."""
    cache.set("k", "parent")
    far.set("k", "table")
    assert in_processes(2, lambda number: cache.get("k")) == ["table", "table"]
    assert cache.get("k") == "parent"


def test_concurrent_reads_become_one(alias, make_cache, dynamo_faults):
    """Twenty threads, one key, one call; with CONSISTENT_READ each its own."""
    using = alias(ENDPOINT_URL=dynamo_faults.url)
    cache = make_cache(using, OPTIONS=NEAR)
    strong = make_cache(using, OPTIONS={**NEAR, "CONSISTENT_READ": True})
    for each, calls in ((cache, 1), (strong, 20)):
        each.set("k", "v")
        each.store.core.reader.near.clear()
        dynamo_faults.clear()
        dynamo_faults.delay(0.5)
        before = dynamo_faults.requests.total()
        with ThreadPoolExecutor(20) as threads:
            assert list(threads.map(each.get, ["k"] * 20)) == ["v"] * 20
        assert dynamo_faults.requests.total() - before == calls
        dynamo_faults.clear()
        each.store.core.reader.near.clear()
    dynamo_faults.delay(1.0)
    before = dynamo_faults.requests.total()
    with ThreadPoolExecutor(5) as threads:
        found = list(threads.map(cache.get_many, [["k", "l"]] * 5))
    assert found == [{"k": "v"}] * 5
    assert dynamo_faults.requests.total() - before == 1


def test_the_error_of_a_joined_read_reaches_all(alias, make_cache, dynamo_faults):
    """No caller waits without limit for a read that failed."""
    cache = make_cache(
        alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}), OPTIONS=NEAR
    )
    dynamo_faults.delay(0.3, times=1)
    dynamo_faults.fail("GetItem")

    def read(number):
        try:
            return cache.get("k")
        except StoreUnavailable:
            return "unavailable"

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(read, range(4))) <= {"unavailable", None}
    dynamo_faults.clear()
    assert cache.get("k", "default") == "default"


def test_a_write_detaches_the_reads_of_its_key(alias, make_cache, dynamo_faults):
    """A read that began before it is not kept, and no caller joins it."""
    cache = make_cache(alias(ENDPOINT_URL=dynamo_faults.url), OPTIONS=NEAR)
    cache.set("k", "old")
    cache.store.core.reader.near.clear()
    dynamo_faults.delay(1.0, "GetItem", times=1)
    with ThreadPoolExecutor(1) as threads:
        early = threads.submit(cache.get, "k")
        while not cache.store.core.reader.near._flights:
            time.sleep(0.01)
        cache.set("k", "new")
        assert cache.get("k") == "new"
        early.result()
    assert cache.get("k") == "new"
    assert len(cache.store.core.reader.near._flights) == 0


def test_an_interrupted_read_can_be_made_again(monkeypatch):
    """At whatever bytecode its exception from outside comes; no later read waits for it."""
    tier = NearTier(10, 10_000)

    async def fetch(pks):
        return {}

    def read():
        run(tier.fetch(["k", "l"], fetch, join=True, wait=60.0))

    interrupt_often(monkeypatch, read)
    gc.collect()
    assert len(tier._flights) == 0
    began_at = time.monotonic()
    read()
    assert time.monotonic() - began_at < 30


def test_a_read_after_an_interrupted_one_does_not_wait(monkeypatch):
    """Also while its exception is handled, whose traceback keeps what the read held."""
    tier = NearTier(10, 10_000)

    async def interrupted(own, fetch):
        raise KeyboardInterrupt

    async def fetch(pks):
        return {}

    with monkeypatch.context() as patch:
        patch.setattr(tier, "_lead", interrupted)
        try:
            run(tier.fetch(["k"], fetch, join=True, wait=60.0))
        except KeyboardInterrupt:
            patch.undo()
            began_at = time.monotonic()
            assert run(tier.fetch(["k"], fetch, join=True, wait=60.0)) == {}
            assert time.monotonic() - began_at < 30


def found(size=10):
    return Entry({"PK": {"S": "p"}, "SK": {"S": "s"}, "w": {"S": "w"}, "v": {"B": b"x" * size}})


def test_of_two_writes_at_once_none_is_kept():
    """The process does not know which of them came last in the table."""
    tier = NearTier(10, 10_000)
    one, other = tier.begin_write(["k"]), tier.begin_write(["k"])
    tier.end_write(["k"], {"k": found()}, one)
    tier.end_write(["k"], {"k": found()}, other)
    assert tier.get("k", 10, lambda _: True) is None
    began_at = tier.begin_write(["k"])
    tier.end_write(["k"], {"k": found()}, began_at)
    assert tier.get("k", 10, lambda _: True) is not None
    assert tier._writing == {}


def test_a_read_overtaken_by_a_write_is_not_kept():
    """Also one that began while the write was under way."""
    tier = NearTier(10, 10_000)
    began_at = tier.begin_write(["k"])

    async def fetch(pks):
        tier.end_write(["k"], {}, began_at)
        return {"k": found()}

    assert run(tier.fetch(["k"], fetch, join=True, wait=1))
    assert tier.get("k", 10, lambda _: True) is None


def test_a_write_that_failed_leaves_nothing(alias, make_cache, dynamo_faults):
    """Its outcome is unknown, so the next read asks."""
    cache = make_cache(
        alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}), OPTIONS=NEAR
    )
    cache.set("k", "old")
    dynamo_faults.lose_answer("PutItem", times=1)
    with pytest.raises(StoreUnavailable):
        cache.set("k", "new")
    assert operations(cache.get, "k") == {"GetItem": 1}
    assert cache.get("k") == "new"


def test_least_recently_used_first_out():
    """In number and in bytes; an entry over the whole limit is not kept."""
    tier = NearTier(3, 9_000)
    for key in "abc":
        tier.end_write([key], {key: found()}, tier.begin_write([key]))
    tier.get("a", 10, lambda _: True)
    tier.end_write("d", {"d": found()}, tier.begin_write("d"))
    assert list(tier._kept) == ["c", "a", "d"]
    tier.end_write("e", {"e": found(4_500)}, tier.begin_write("e"))
    assert list(tier._kept) == ["d", "e"]
    assert tier.stats().bytes <= 9_000
    tier.end_write("f", {"f": found(10_000)}, tier.begin_write("f"))
    assert "f" not in tier._kept
    assert tier.stats().evictions >= 3


@pytest.mark.slow
def test_memory_is_bounded_however_many_keys_there_are():
    """The reported size is what Python uses, and both stay under the limit."""
    limit = 4 * 2**20
    tier = NearTier(1_000_000, limit)
    tracemalloc.start()
    try:
        for number in range(_KEYS):
            if number == 20_000:
                # Full by now; tracing every allocation would take minutes.
                held, _ = tracemalloc.get_traced_memory()
                entries = tier.stats().entries
                tracemalloc.stop()
            key = f"CACHE#prefix#:1:{number}"
            entry = Entry(
                {
                    "PK": {"S": key},
                    "SK": {"S": "ENTRY"},
                    "w": {"S": f"{number:023}"},
                    "v": {"B": b"x" * 100},
                    "e": {"N": str(number)},
                    "TTL": {"N": str(number + 1)},
                }
            )
            tier.end_write([key], {key: entry}, tier.begin_write([key]))
    finally:
        tracemalloc.stop()
    assert held < limit
    stats = tier.stats()
    assert stats.bytes <= limit
    assert stats.entries <= entries + 1
    assert stats.evictions == _KEYS - stats.entries


def test_the_generation_is_obeyed_by_near_hits(make_cache, dynamo_clock: FakeClock):
    """Another's clear is seen within the bound, not only after LOCAL_TIMEOUT."""
    options = {**NEAR, "CLEAR": "generation"}
    cache = make_cache(OPTIONS=options)
    cache.set("k", "v")
    with measuring() as measurements:
        assert cache.get("k") == "v"
    assert measurements == []
    dynamo_clock.advance(1.01)
    assert operations(cache.get, "k") == {"BatchGetItem": 1}
    assert operations(cache.get, "k") == {}
    cleared = in_processes(1, lambda number: cache.clear())
    assert cleared == [None]
    dynamo_clock.advance(1.01)
    assert cache.get("k") is None


def test_tags_are_obeyed_by_near_hits(cache, far, dynamo_clock: FakeClock):
    """Those invalidated here at once, those of others within LOCAL_TIMEOUT."""
    cache.set("k", "v", tags=["t"])
    with measuring() as measurements:
        assert cache.get("k") == "v"
    assert measurements == []
    cache.invalidate_tags(["t"])
    assert cache.get("k") is None
    cache.set("k", "w", tags=["t"])
    in_processes(1, lambda number: far.invalidate_tags(["t"]))
    dynamo_clock.advance(5)
    assert cache.get("k") == "w"
    dynamo_clock.advance(5)
    assert cache.get("k") is None


def test_threads_that_read_and_write_see_their_own_writes(cache):
    """Eight threads, eight keys each, no stale value of one's own."""
    wrong = []

    def work(number):
        for turn in range(60):
            key = f"{number}:{turn % 8}"
            cache.set(key, turn)
            if cache.get(key) != turn:
                wrong.append((key, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_followers_have_errors_of_their_own(alias, make_cache, dynamo_faults):
    """Two get_many with a common key: neither gets the keys or the error object of the other."""
    using = alias(ENDPOINT_URL=dynamo_faults.url)
    options = {**NEAR, "OPERATION_TIMEOUT": 1.5}
    cache = make_cache(using, OPTIONS=options)
    cache.set_many({f"k{number}": number for number in range(10)})
    cache.store.core.reader.near.clear()
    assert (cache.get("k1"), cache.get("k9")) == (1, 9)
    dynamo_faults.throttle("BatchGetItem")

    def read(keys):
        with pytest.raises(StoreUnavailable) as caught:
            cache.get_many(keys)
        return caught.value

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(read, ["k1", "k5"])
        while not dynamo_faults.requests["BatchGetItem"]:
            time.sleep(0.001)
        second = threads.submit(read, ["k5", "k9"])
        errors = first.result(), second.result()
    assert errors[0] is not errors[1]
    assert [dict(error.found) for error in errors] == [{"k1": 1}, {"k9": 9}]
    silent = DynamoDBCache(
        using, {"KEY_PREFIX": cache.key_prefix, "OPTIONS": {**options, "IGNORE_EXCEPTIONS": True}}
    )
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(silent.get_many, [["k1", "k5"], ["k5", "k9"]]))
    assert found == [{"k1": 1}, {"k9": 9}]


def test_a_joined_read_does_not_return_an_invalidated_value(alias, make_cache, dynamo_faults):
    """A read that began before invalidate_tags, and ended after it, is joined and not used."""
    cache = make_cache(alias(ENDPOINT_URL=dynamo_faults.url), OPTIONS=NEAR)
    cache.set("k", b"x" * 900_000, tags=["t"])
    cache.store.core.reader.near.clear()
    dynamo_faults.delay(1.5, "BatchGetItem")
    with ThreadPoolExecutor(2) as threads:
        early = threads.submit(cache.get, "k")
        while not cache.store.core.reader.near._flights:
            time.sleep(0.001)
        time.sleep(0.2)
        cache.invalidate_tags(["t"])
        late = threads.submit(cache.get, "k")
        assert late.result() is None
        early.result()
    assert cache.get("k") is None


def test_a_reader_does_not_share_the_deadline_of_another(alias, make_cache, dynamo_faults):
    """Who waits for a read that ran out of its own time reads by itself."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    cache = make_cache(using, OPTIONS=NEAR)
    cache.set_many({"k": "v", "l": "w"})
    for read, operation, expected in (
        (lambda: cache.get("k"), "GetItem", "v"),
        (lambda: cache.get_many(["k", "l"]), "BatchGetItem", {"k": "v", "l": "w"}),
    ):
        cache.store.core.reader.near.clear()
        dynamo_faults.hang(operation, times=1)

        def hurried(read=read):
            with deadline(0.5), pytest.raises(OperationTimeoutError):
                read()

        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(hurried)
            while not cache.store.core.reader.near._flights:
                time.sleep(0.001)
            assert threads.submit(read).result() == expected
            first.result()


def test_a_reader_waits_for_another_to_its_deadline_at_most(alias, make_cache, dynamo_faults):
    """Not for the time of an operation of the cache."""
    cache = make_cache(alias(ENDPOINT_URL=dynamo_faults.url), OPTIONS=NEAR)
    cache.set("k", "v")
    cache.store.core.reader.near.clear()
    go_on = threading.Event()

    def wait(handler, request):
        assert go_on.wait(60)
        return False

    dynamo_faults._add("GetItem", 1, wait)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(cache.get, "k")
        while not cache.store.core.reader.near._flights:
            time.sleep(0.001)
        with deadline(0.2), pytest.raises(OperationTimeoutError):
            cache.get("k")
        assert not first.done()
        go_on.set()
        assert first.result() == "v"


def test_a_value_is_verified_by_each_cache_of_its_prefix(make_cache):
    """Bytes that another serializer made are read by no cache but its own, near or far."""
    plain = make_cache(OPTIONS=NEAR)
    other = make_cache(KEY_PREFIX=plain.key_prefix, OPTIONS={**NEAR, "SERIALIZER": "json"})
    for writer, reader in ((plain, other), (other, plain)):
        writer.set("k", ["v"])
        assert writer.get("k") == ["v"]
        assert reader.get("k") is None
        assert writer.get("k") == ["v"]
