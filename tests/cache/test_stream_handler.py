"""Caches that are invalidated by the stream of a table."""

from __future__ import annotations

import dataclasses
import secrets

import pytest
from django.core.cache import caches
from django.test import override_settings

from dynamo_stores import keys
from dynamo_stores.cache.stream_handler import CacheInvalidator, invalidate_caches
from dynamo_stores.calls.control import get_control
from dynamo_stores.calls.observer import measuring
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import ConfigurationError, StoreUnavailable
from dynamo_stores.infrastructure.tables import create_table, table_of
from dynamo_stores.models import StoreItem
from dynamo_stores.streams import StreamRecord
from dynamo_stores.streams.follower import StreamFollower

NEAR = {"LOCAL_TIMEOUT": 600}


@pytest.fixture
def cache(make_cache):
    """A cache with a near tier."""
    return make_cache(OPTIONS=NEAR)


@pytest.fixture
def far(cache, alias, make_cache):
    """The same entries as another process sees and writes them."""
    return make_cache(alias(), KEY_PREFIX=cache.key_prefix)


def record_of(key, *, has_images=True):
    """The record of the last change of an item of the store's table."""
    item = read(key)
    return StreamRecord(
        event_id="1",
        event_name="MODIFY" if item else "REMOVE",
        table=get_config().store_table,
        sequence_number="1",
        created_at=0.0,
        raw_keys=key.raw(),
        raw_new_image=item if has_images else None,
    )


def read(key):
    from dynamo_stores.calls.connection import get_connection
    from dynamo_stores.concurrency.effects import run

    request = {"TableName": get_config().store_table, "Key": key.raw(), "ConsistentRead": True}
    return run(get_connection().call("GetItem", request)).get("Item")


def entry(cache, key):
    return keys.cache_entry(cache.key_prefix, cache.make_key(key))


def test_an_entry_that_changed_elsewhere_is_read_again(cache, far):
    """Changed or deleted, with and without images; other entries stay."""
    far.set("k", "old")
    far.set("other", "same")
    assert cache.get_many(["k", "other"]) == {"k": "old", "other": "same"}
    far.set("k", "new")
    assert cache.get("k") == "old"
    invalidate_caches([record_of(entry(cache, "k"))])
    assert cache.get("k") == "new"
    far.set("k", "newer")
    invalidate_caches([record_of(entry(cache, "k"), has_images=False)])
    assert cache.get("k") == "newer"
    far.delete("k")
    invalidate_caches([record_of(entry(cache, "k"))])
    assert cache.get("k") is None
    with measuring() as measurements:
        assert cache.get("other") == "same"
    assert measurements == []


def test_the_next_read_is_strong(cache, far):
    """A replica may not show yet what the stream has told."""
    far.set("k", 1)
    invalidate_caches([record_of(entry(cache, "k"))])
    assert cache.get("k") == 1
    far.set("k", 2)
    invalidate_caches([record_of(entry(cache, "k"))])
    with measuring() as measurements:
        assert cache.get("k") == 2
    assert [sum(each.units.values()) for each in measurements] == [1.0]


def test_own_writes_stay_in_the_near_tier(cache):
    """The stream tells them, too; a longer life elsewhere is a change."""
    cache.set("k", "mine")
    invalidate_caches([record_of(entry(cache, "k"))])
    with measuring() as measurements:
        assert cache.get("k") == "mine"
    assert measurements == []


def test_a_change_of_the_expiry_is_a_change(cache, far):
    """``touch`` writes no new value."""
    far.set("k", "v", 1000)
    assert cache.get("k") == "v"
    far.touch("k", 2000)
    invalidate_caches([record_of(entry(cache, "k"))])
    with measuring() as measurements:
        assert cache.get("k") == "v"
    assert len(measurements) == 1


@pytest.mark.parametrize("has_images", [True, False])
def test_an_invalidated_tag_is_seen_at_once(cache, far, has_images):
    """And not only after LOCAL_TIMEOUT."""
    far.set("k", "v", tags=["t"])
    assert cache.get("k") == "v"
    far.invalidate_tags(["t"])
    assert cache.get("k") == "v"
    tag = keys.tag(cache.key_prefix, "t")
    invalidate_caches([record_of(tag, has_images=has_images)])
    assert cache.get("k") is None


@pytest.mark.parametrize("has_images", [True, False])
def test_a_new_generation_is_seen_at_once(make_cache, alias, has_images):
    """And not only after GENERATION_TIMEOUT."""
    near = make_cache(OPTIONS={**NEAR, "CLEAR": "generation", "GENERATION_TIMEOUT": 600})
    far = make_cache(alias(), KEY_PREFIX=near.key_prefix, OPTIONS={"CLEAR": "generation"})
    far.set("k", "v")
    assert near.get("k") == "v"
    far.clear()
    assert near.get("k") == "v"
    generation = keys.generation(near.key_prefix)
    invalidate_caches([record_of(generation, has_images=has_images)])
    assert near.get("k") is None


def test_records_of_other_tables_and_items_change_nothing(cache, far):
    """Other kinds of items, other prefixes, and tables that hold no store."""
    far.set("k", "v")
    assert cache.get("k") == "v"
    record = record_of(entry(cache, "k"), has_images=False)
    of_other_table = StreamRecord(**{**vars(record), "table": "orders"})
    other_prefix = record_of(keys.cache_entry("other", "k"))
    invalidate_caches([of_other_table, other_prefix, record_of(keys.dedupe_job("k"))])
    with measuring() as measurements:
        assert cache.get("k") == "v"
    assert measurements == []


def order(number, customer="c"):
    """A record of another table."""
    raw = {"id": {"N": str(number)}}
    new = {**raw, "customer": {"S": customer}}
    return StreamRecord("1", "MODIFY", "orders", str(number), 0.0, raw, None, new)


def configured(name, using="default", **params):
    backend = "dynamo_stores.cache.DynamoDBCache"
    return override_settings(CACHES={name: {"BACKEND": backend, "LOCATION": using, **params}})


def test_entries_of_other_tables_are_deleted(tables):
    """By key and by tag, each once for a batch, for all processes."""
    invalidated = []

    def keys_of(record):
        invalidated.append(record)
        return [f"order:{record.keys['id']}", "orders"]

    with configured("default", KEY_PREFIX=secrets.token_hex(4)):
        cache = caches["default"]
        cache.set_many({"order:1": 1, "order:2": 2, "orders": 3, "kept": 4})
        cache.set("tagged", 5, tags=["customer:c"])
        handler = CacheInvalidator(
            keys=keys_of, tags=lambda record: [f"customer:{record.new_image['customer']}"]
        )
        with measuring() as measurements:
            handler([order(1), order(2)])
        assert [each.operation for each in measurements] == ["BatchWriteItem", "UpdateItem"]
        assert cache.get_many(["order:1", "order:2", "orders", "tagged", "kept"]) == {"kept": 4}
        assert len(invalidated) == 2


def test_an_invalidation_is_never_ignored(alias, dynamo_faults):
    """With IGNORE_EXCEPTIONS, too: the worker tries again."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    options = {"IGNORE_EXCEPTIONS": True}
    with configured("default", using, OPTIONS=options, KEY_PREFIX=secrets.token_hex(4)):
        handler = CacheInvalidator(keys=lambda record: ["k"])
        dynamo_faults.fail("BatchWriteItem")
        with pytest.raises(StoreUnavailable):
            handler([order(1)])


def test_other_backends_are_invalidated_by_key():
    """They have no tags, which is an error."""
    memory = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    with override_settings(CACHES={"default": memory}):
        caches["default"].set("k", 1)
        CacheInvalidator(keys=lambda record: ["k"])([order(1)])
        assert caches["default"].get("k") is None
        with pytest.raises(ConfigurationError, match="has no tags"):
            CacheInvalidator(tags=lambda record: ["t"])([order(1)])


def test_an_item_that_moves_invalidates_the_tags_of_both_images(tables):
    """A set of tags for each record, from the image before the change and the one after it."""
    with configured("default", KEY_PREFIX=secrets.token_hex(4)):
        cache = caches["default"]
        for customer in ("c1", "c2", "c3"):
            cache.set(customer, 1, tags=[f"customer:{customer}"])

        def customers(record):
            images = [record.raw_old_image, record.raw_new_image]
            return {f"customer:{image['customer']['S']}" for image in images if image}

        moved = order(1, "c2")
        old = {**moved.raw_new_image, "customer": {"S": "c1"}}
        CacheInvalidator(tags=customers)([dataclasses.replace(moved, raw_old_image=old)])
        assert cache.get_many(["c1", "c2", "c3"]) == {"c3": 1}


@pytest.mark.parametrize("answer", ["order:1", None], ids=["text", "nothing"])
def test_keys_and_tags_that_are_no_iterable_are_explained(answer):
    """Text would be taken for a key of each letter."""
    name = type(answer).__name__
    with pytest.raises(ConfigurationError, match=f"'keys' .* returned a {name}; expected an iter"):
        CacheInvalidator(keys=lambda record: answer)([order(1)])


def test_a_wrong_invalidator_is_refused_at_once():
    """Before any record could be set aside because of it."""
    with pytest.raises(ConfigurationError, match="CACHES has no cache 'defualt'; did you mean"):
        CacheInvalidator("defualt", keys=lambda record: [])
    with pytest.raises(ConfigurationError, match="neither keys nor tags"):
        CacheInvalidator()


def test_a_follower_keeps_the_near_tier_of_its_process_right(alias, make_cache, until):
    """On the engine's own stream: a change elsewhere is seen long before LOCAL_TIMEOUT."""
    prefix = f"stream-{secrets.token_hex(4)}-"
    using, other = alias(TABLE_PREFIX=prefix), alias(TABLE_PREFIX=prefix)
    spec = table_of(StoreItem.bound_to(using))
    create_table(spec, lambda line: None)
    control = get_control(using)
    try:
        view = {"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"}
        control.call("UpdateTable", {"TableName": spec.name, "StreamSpecification": view})
        near = make_cache(using, OPTIONS=NEAR)
        elsewhere = make_cache(other, KEY_PREFIX=near.key_prefix)
        follower = StreamFollower.of_store(invalidate_caches, using)
        follower.turn()
        follower.start()
        elsewhere.set("k", "old")
        assert near.get("k") == "old"
        elsewhere.set("k", "new")
        until(lambda: near.get("k") == "new", 30)
        follower.stop()
        follower.join(30)
        assert not follower.is_alive()
    finally:
        control.call("DeleteTable", {"TableName": spec.name})
