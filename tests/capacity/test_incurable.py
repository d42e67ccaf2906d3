"""Throttling that more capacity does not cure: logged in one line, and nothing is changed."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time

import pytest

from dynamo_stores.calls.control import get_control
from dynamo_stores.capacity.scale_up import get_scaler
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import StoreUnavailable, ThrottlingError
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import FakeClock
from dynamo_stores.testing.throttling.buckets import Partitions
from tests.helpers.capacity import reason


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("TableWriteKeyRangeThroughputExceeded", "hot_partition"),
        ("TableWriteAccountLimitExceeded", "account_limit"),
    ],
)
def test_what_is_not_cured_is_logged_once(provisioned, caplog, text, code):
    """In one line, and nothing is changed."""
    using, table, relay = provisioned()
    scaler = get_scaler(using)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            with FakeClock(time.time() + 10):
                plan = scaler.handle(table, [reason(using, table, text)])
            time.sleep(0.01)
            if plan is not None:
                assert (plan.code, plan.changes) == (code, {})
    assert caplog.text.count("is throttled and was not raised") == 1
    assert relay.status()["tables"][table]["updates"] == 0


@pytest.mark.parametrize("named", [False, True])
def test_a_hot_key_is_named_to_the_operator(provisioned, caplog, named):
    """By its hash, or in clear if the setting allows it; nothing is raised."""
    using, table, relay = provisioned(
        partitions=Partitions(read=5, write=5),
        burst=100.0,
        SCALING={"NAME_HOT_KEYS": named, "BASE_WRITE_CAPACITY": 50},
    )
    store = CacheStore(using, prefix="p")
    until = time.monotonic() + 20
    with caplog.at_level(logging.WARNING):
        while "would not help" not in caplog.text and time.monotonic() < until:
            with contextlib.suppress(StoreUnavailable):
                store.set("hot", "v")
    key = "CACHE#p#hot"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    assert (key in caplog.text) is named
    assert (digest in caplog.text) is not named
    assert "more capacity would not help" in caplog.text
    assert relay.status()["tables"][table]["updates"] == 0


def test_a_maximum_of_on_demand_throughput_is_reported(alias, dynamo_capacity, caplog):
    """DynamoDB refuses what is over it, whatever the table could serve."""
    relay = dynamo_capacity(burst=1.0)
    using = alias(
        ENDPOINT_URL=relay.url,
        TABLE_PREFIX="maximum-",
        SCALING={"ENABLED": True},
        RETRY={"THROTTLE_RETRIES": 0},
    )
    table = get_config(using).store_table
    control = get_control(using)
    for name, limits in ((table, {"MaxWriteRequestUnits": 5}), (f"{table}-control", {})):
        control.call(
            "CreateTable",
            {
                "TableName": name,
                "AttributeDefinitions": [
                    {"AttributeName": each, "AttributeType": "S"} for each in ("PK", "SK")
                ],
                "KeySchema": [
                    {"AttributeName": "PK", "KeyType": "HASH"},
                    {"AttributeName": "SK", "KeyType": "RANGE"},
                ],
                "BillingMode": "PAY_PER_REQUEST",
                **({"OnDemandThroughput": limits} if limits else {}),
            },
        )
    try:
        store = CacheStore(using, prefix="p")
        caught, until = None, time.monotonic() + 20
        with caplog.at_level(logging.WARNING):
            while "own maximum" not in caplog.text and time.monotonic() < until:
                try:
                    store.set("k", "v" * 3000)
                except ThrottlingError as exc:
                    caught = exc
        assert caught.reasons[0].reason == "TableWriteMaxOnDemandThroughputExceeded"
        assert caplog.text.count("own maximum of on-demand throughput is reached") == 1
        assert "UpdateTable" not in relay.requests
    finally:
        for name in (table, f"{table}-control"):
            control.call("DeleteTable", {"TableName": name})
