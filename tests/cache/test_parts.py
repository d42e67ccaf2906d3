"""Values in parts: whole or missing, never half; spread, touched, deleted and cleaned up."""

from __future__ import annotations

import bisect
import itertools
import random
import threading
from collections import Counter

import pytest

from dynamo_stores import clock, keys
from dynamo_stores.cache.store.items import CacheEntry, CachePart
from dynamo_stores.cache.store.values import PART_BYTES
from dynamo_stores.calls.item_size import item_size
from dynamo_stores.calls.observer import measuring
from dynamo_stores.calls.policy import deadline
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.testing import FakeClock
from tests.helpers.forking import in_processes

MB = 2**20
NOISE = random.Random(3).randbytes(8 * MB)


def head_of(cache, key="k"):
    """Return the key of the entry and the entry itself."""
    item_key = cache.store.item_key(cache.make_key(key))
    return item_key, CacheEntry.get(item_key.pk, item_key.sk)


def parts_of(cache, key="k"):
    """Return the stored parts of the entry's own write, in order."""
    item_key, head = head_of(cache, key)
    names = [keys.cache_part(item_key.pk, head.write, n) for n in range(head.parts or 0)]
    found = {part.pk: part for part in CachePart.batch_get([(n.pk, n.sk) for n in names])}
    return [found.get(name.pk) for name in names]


def all_parts(cache):
    """Return every part under the cache's prefix."""
    prefix = keys.cache_prefix(cache.key_prefix)
    return list(CachePart.scan(CachePart.pk.startswith(prefix) & (CachePart.sk == keys.PART)))


def operations(function, *args):
    """Return the operations that ``function`` made, counted."""
    with measuring() as measurements:
        function(*args)
    return Counter(each.operation for each in measurements)


@pytest.mark.parametrize("size", [0, 1, 399 * 1024, 400 * 1024, 401 * 1024, MB, 8 * MB])
def test_values_of_any_size(cache, size):
    """Random bytes come back as they were, alone and among others."""
    value = NOISE[:size]
    cache.set("k", value)
    assert cache.get("k") == value
    assert cache.set_many({"a": value, "b": 1}) == []
    assert cache.get_many(["a", "b"]) == {"a": value, "b": 1}


def test_forty_megabytes(make_cache):
    """Random and compressible bytes, in so many requests that none hits its deadline."""
    value = NOISE * 5
    plain, compressed = make_cache(), make_cache(OPTIONS={"COMPRESSOR": "zlib"})
    plain.set("k", value)
    assert plain.get("k") == value
    compressed.set("k", bytes(40 * MB))
    assert compressed.get("k") == bytes(40 * MB)
    assert head_of(compressed)[1].parts is None
    plain.delete("k")


def test_what_fits_one_item_is_one_call(cache):
    """Up to 400 KB with its keys and what is added later; a byte more is in parts."""
    made = cache.make_key("k")

    def is_in_parts(size):
        return bool(cache.store.core.writer.prepare(made, NOISE[:size], None).parts)

    largest = bisect.bisect_left(range(500_000), True, key=is_in_parts) - 1
    assert (
        item_size(cache.store.core.writer.prepare(made, NOISE[:largest], None).head)
        == 400 * 1024 - 100
    )
    assert largest > PART_BYTES
    assert operations(cache.set, "k", NOISE[:largest], None) == {"PutItem": 1}
    assert operations(cache.get, "k") == {"GetItem": 1}
    assert operations(cache.set, "k", NOISE[: largest + 1], None) == {
        "BatchWriteItem": 1,
        "PutItem": 1,
    }
    assert operations(cache.get, "k") == {"GetItem": 1, "BatchGetItem": 1}
    assert cache.get("k") == NOISE[: largest + 1]


@pytest.mark.parametrize("add", ["touch", "early refresh"])
@pytest.mark.parametrize("index", [False, True], ids=["no index", "index"])
def test_what_is_added_to_the_largest_item_fits(alias, make_cache, add, index):
    """The attributes of an expiry, and of the time that a value took."""
    using = alias(CACHE={"EXPIRY_INDEX": index})
    cache = make_cache(using, OPTIONS={"EARLY_REFRESH": 1.0})
    made = cache.make_key("k")
    timeout = None if add == "touch" else 300.0

    def is_in_parts(size):
        return bool(cache.store.core.writer.prepare(made, NOISE[:size], timeout).parts)

    largest = NOISE[: bisect.bisect_left(range(500_000), True, key=is_in_parts) - 1]
    if add == "touch":
        cache.set("k", largest, None)
        assert cache.touch("k", 300)
    else:
        assert cache.get_or_set("k", lambda: largest, timeout) == largest
        assert cache.touch("k", 300)
    assert cache.get("k") == largest


def test_parts_are_spread_over_partitions(cache):
    """Each part has a partition key of its own."""
    cache.set("k", NOISE[: 2 * MB])
    parts = parts_of(cache)
    assert len(parts) == 6
    assert len({part.pk for part in parts}) == 6


def test_a_missing_part_is_a_miss(cache):
    """And so are parts in another order, from another write, or altered."""
    cache.set("k", NOISE[:MB])
    parts = parts_of(cache)
    data = [part.data for part in parts]

    def put(contents):
        for part, content in zip(parts, contents, strict=True):
            CachePart(part.pk, part.sk, data=content).save()

    assert cache.get("k") == NOISE[:MB]
    for contents in (
        [data[1], data[0], data[2]],
        [data[0], data[0], data[2]],
        [data[0], data[1][:-1], data[2]],
        [data[0], data[1], data[2] + b"x"],
        [data[0][:-1], data[0][-1:] + data[1], data[2][1:]],
    ):
        put(contents)
        assert cache.get("k", "missing") == "missing"
    put(data)
    assert cache.get("k") == NOISE[:MB]
    parts[1].delete()
    assert cache.get("k", "missing") == "missing"
    assert cache.get_many(["k"]) == {}


@pytest.mark.parametrize("count", ["1", "2", "4", "0", "-1", "1.5", "999999999999"])
def test_the_number_of_parts_is_signed(cache, count):
    """A head that names another number of parts is a miss, quickly."""
    cache.set("k", NOISE[:MB])
    key, _ = head_of(cache)
    table = CacheEntry._get_connection()
    table.connection.dispatch(
        "UpdateItem",
        {
            "TableName": table.table_name,
            "Key": {"PK": {"S": key.pk}, "SK": {"S": key.sk}},
            "UpdateExpression": "SET p = :p",
            "ExpressionAttributeValues": {":p": {"N": count}},
        },
    )
    assert cache.get("k", "missing") == "missing"
    assert sum(operations(cache.get, "k").values()) <= 3


def test_touch_reaches_every_part(cache, dynamo_clock: FakeClock):
    """One call more, and one per part; DynamoDB sweeps no part before its head."""
    cache.set("k", NOISE[:MB], 10)
    assert operations(cache.touch, "k", 1000) == {"UpdateItem": 2 + 3}
    _, head = head_of(cache)
    assert {part.ttl for part in parts_of(cache)} == {head.ttl}
    cache.touch("k", None)
    assert {part.ttl for part in parts_of(cache)} == {None}
    dynamo_clock.advance(10**6)
    assert cache.get("k") == NOISE[:MB]


def test_a_touch_that_fails_leaves_the_parts_for_as_long_as_their_head(
    cache, alias, make_cache, dynamo_faults
):
    """The parts are changed first, so that the value is not missing before its expiry."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    faulty = make_cache(using, KEY_PREFIX=cache.key_prefix)
    cache.set("k", NOISE[:MB], 10)
    dynamo_faults.delay(0.0, "UpdateItem", times=1)
    dynamo_faults.fail("UpdateItem")
    with pytest.raises(StoreUnavailable):
        faulty.touch("k", 1000)
    _, head = head_of(cache)
    assert all(part.ttl >= head.ttl for part in parts_of(cache))
    assert cache.get("k") == NOISE[:MB]
    dynamo_faults.clear()
    assert faulty.touch("k", 1000)
    assert cache.ttl("k") > 900


def test_delete_takes_the_parts_along(cache):
    """Nothing of it is left."""
    cache.set("k", NOISE[:MB])
    assert cache.delete("k") is True
    assert all_parts(cache) == []
    assert cache.delete("k") is False


def test_an_overwrite_in_parts_takes_the_old_ones_along(cache, alias, make_cache, dynamo_faults):
    """Nothing is left of the old value; and a lost answer does not cost the new one its parts."""
    cache.set("k", NOISE[: 2 * MB], None)
    cache.set("k", NOISE[:MB], None)
    assert len(all_parts(cache)) == 3
    faulty = make_cache(alias(ENDPOINT_URL=dynamo_faults.url), KEY_PREFIX=cache.key_prefix)
    dynamo_faults.lose_answer("PutItem", times=1)
    faulty.set("k", NOISE[MB : 2 * MB], None)
    assert cache.get("k") == NOISE[MB : 2 * MB]


def test_add_of_a_value_in_parts(cache):
    """One winner; the loser leaves no parts behind."""
    assert cache.add("k", NOISE[:MB]) is True
    assert cache.add("k", NOISE[MB : 2 * MB]) is False
    assert cache.get("k") == NOISE[:MB]
    assert len(all_parts(cache)) == 3
    wins = []
    barrier = threading.Barrier(4)

    def add(number):
        barrier.wait()
        wins.append(cache.add("raced", NOISE[number * MB : (number + 1) * MB]))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wins) == 1
    assert len(all_parts(cache)) == 6


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_readers_never_see_half_a_value(cache):
    """Four processes write one key, two read it: always a whole value of one write."""
    values = [NOISE[n * MB : (n + 1) * MB] for n in range(4)]
    cache.set("k", values[0])

    def work(number):
        seen = Counter()
        for _ in range(4 if number < 4 else 20):
            if number < 4:
                cache.set("k", values[number])
            else:
                found = cache.get("k", "missing")
                seen["whole" if found in values else str(found)[:10]] += 1
        return seen

    seen = sum(in_processes(6, work), Counter())
    assert set(seen) <= {"whole", "missing"}
    assert seen["whole"] > 0
    assert cache.get("k") in values


def test_a_write_that_fails_in_its_parts_leaves_the_old_value(
    alias, make_cache, dynamo_faults, dynamo_clock
):
    """The head is written last, so no reader sees the new value."""
    # The fake clock is advanced by each wait, so every attempt has time for its answer.
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"DELAY": 10.0, "MAX_DELAY": 30.0})
    cache = make_cache(using, OPTIONS={"OPERATION_TIMEOUT": 60.0})
    cache.set("k", "old")
    dynamo_faults.take_in_part("BatchWriteItem", 1, times=1)
    dynamo_faults.take_in_part("BatchWriteItem", 0)
    with pytest.raises(StoreUnavailable):
        cache.set("k", NOISE[:MB])
    assert cache.set_many({"k": NOISE[:MB], "small": 1}) == ["k", "small"]
    dynamo_faults.clear()
    assert cache.get("k") == "old"
    assert cache.set_many({"k": NOISE[:MB], "small": 1}) == []
    assert cache.get_many(["k", "small"]) == {"k": NOISE[:MB], "small": 1}


def test_cleanup_removes_the_parts_of_overwritten_values(cache, dynamo_clock: FakeClock):
    """After an hour, when their head names another write or is gone; never younger ones."""
    cache.set("k", NOISE[:MB], None)
    cache.set("k", "small now", None)
    cache.set("living", NOISE[:MB], None)
    cache.set("gone", NOISE[:MB], None)
    cache.delete_many(["gone"])
    assert len(all_parts(cache)) == 9
    dynamo_clock.advance(3599)
    at_once = {"units_per_second": 1e9}  # waiting would move the clock on
    assert cache.store.cleanup(**at_once) == 0
    dynamo_clock.advance(2)
    assert cache.store.cleanup(dry_run=True, **at_once) == 6
    assert cache.store.cleanup(**at_once) == 6
    assert cache.get("living") == NOISE[:MB]
    assert cache.get("k") == "small now"


def test_incr_of_a_number_does_not_touch_parts(cache):
    """A large value is no number."""
    cache.set("k", NOISE[:MB])
    with pytest.raises(TypeError):
        cache.incr("k")
    assert cache.get("k") == NOISE[:MB]


def test_write_names_begin_with_their_time(cache):
    """Cleanup reads the age of a part from its key."""
    cache.set("k", NOISE[:MB])
    _, head = head_of(cache)
    assert abs(int(head.write[:13]) - clock.now_ms()) < 60_000
    pk = parts_of(cache)[0].pk
    assert keys.head_of_part(pk) == (cache.store.item_key(cache.make_key("k")).pk, head.write)
    assert list(itertools.islice(parts_of(cache), 1))


def test_many_values_in_parts_are_read_side_by_side(alias, make_cache, dynamo_faults):
    """One after the other they would take longer than the deadline."""
    cache = make_cache(alias(ENDPOINT_URL=dynamo_faults.url), OPTIONS={"OPERATION_TIMEOUT": 30.0})
    values = {f"k{number}": NOISE[: MB - number] for number in range(4)}
    cache.set_many(values)
    dynamo_faults.delay(1.5, "BatchGetItem")
    with deadline(6.0):
        assert cache.get_many(values) == values
