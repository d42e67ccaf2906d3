"""Limits while DynamoDB does not answer: who decides, and after how long."""

from __future__ import annotations

import secrets
import threading
import time

import pytest
from django.test import override_settings

from dynamo_stores.calls.observer import measuring
from dynamo_stores.decorators import get_usage, is_ratelimited
from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.stores import AdaptiveRateLimitStore, RateLimitStore
from tests.helpers.limits import get


@pytest.fixture
def resource():
    return secrets.token_hex(6)


@pytest.fixture
def broken(alias, dynamo_faults):
    """``broken(**RATE_LIMIT)``: an alias whose DynamoDB fails at once."""

    def make(**limits):
        dynamo_faults.fail()
        return alias(
            ENDPOINT_URL=dynamo_faults.url,
            RETRY={"MAX_RETRIES": 0},
            CIRCUIT_BREAKER={"ENABLED": False},
            RATE_LIMIT=limits,
        )

    return make


@pytest.mark.parametrize("kind", [RateLimitStore, AdaptiveRateLimitStore])
@pytest.mark.parametrize(("policy", "allowed"), [("allow", True), ("deny", False)])
def test_looking_follows_on_unavailable(broken, resource, kind, policy, allowed):
    """As deciding does, with the limit's own argument before the setting."""
    store = kind(broken(ON_UNAVAILABLE=policy))
    assert store.get_status(resource, rate="2/m")[:2] == (allowed, 2)
    assert store.can_proceed(resource, rate="2/m") is allowed
    assert (store.get_wait_time(resource, rate="2/m") == 0) is allowed
    other = "deny" if allowed else "allow"
    assert store.get_status(resource, rate="2/m", on_unavailable=other).allowed is not allowed


@pytest.mark.parametrize("kind", [RateLimitStore, AdaptiveRateLimitStore])
def test_limits_without_dynamodb_make_no_call(alias, resource, kind, caplog):
    """With IN_PROCESS: admitted, counted, looked at and refused here, and nothing is logged."""
    store = kind(alias(ENDPOINT_URL="http://127.0.0.1:9", RATE_LIMIT={"IN_PROCESS": True}))
    with measuring() as calls:
        assert [store.acquire(resource, rate="2/m").allowed for _ in range(3)] == [
            True,
            True,
            False,
        ]
        assert store.get_status(resource, rate="2/m").remaining == 0
        assert store.acquire(resource, key="other", rate="2/m", cost=2).remaining == 0
        # The limit of the settings.
        assert store.acquire(resource, key="third").limit == 200
    assert calls == []
    assert not [each for each in caplog.records if each.levelname != "DEBUG"]


def test_looking_locally_counts_nothing(broken, resource):
    """It shows what this process has counted."""
    store = RateLimitStore(broken(ON_UNAVAILABLE="local"))
    for remaining in (2, 1, 0):
        for _ in range(3):
            status = store.get_status(resource, rate="2/m")
            assert (status.remaining, status.allowed) == (remaining, remaining > 0)
        store.acquire(resource, rate="2/m")


def test_looking_while_the_table_throttles_follows_on_throttled(alias, resource, dynamo_faults):
    """Other clients can throttle a table: that is no reason to say that the limit is unused."""
    using = alias(
        ENDPOINT_URL=dynamo_faults.url,
        RETRY={"THROTTLE_RETRIES": 0},
        RATE_LIMIT={"ON_THROTTLED": "deny"},
    )
    dynamo_faults.throttle()
    assert not RateLimitStore(using).get_status(resource, rate="2/m").allowed


def test_usage_follows_ratelimit_fail_open(broken, resource):
    """``is_ratelimited`` and ``get_usage`` without ``increment`` raise nothing in an outage."""
    ask = {"group": resource, "key": "ip", "rate": "2/m", "using": broken()}
    for fail_open in (True, False):
        with override_settings(RATELIMIT_FAIL_OPEN=fail_open):
            assert is_ratelimited(get(), **ask) is not fail_open
            assert get_usage(get(), **ask)["should_limit"] is not fail_open
    assert is_ratelimited(get(), **ask) is False
    assert is_ratelimited(get(), on_unavailable="deny", **ask) is True


def test_errors_of_configuration_are_raised(broken, resource):
    """No policy hides them."""
    store = RateLimitStore(broken(ON_UNAVAILABLE="allow"))
    for method in (store.acquire, store.get_status):
        with pytest.raises(ConfigurationError):
            method(resource, rate="many")


@pytest.fixture
def hanging(alias, dynamo_faults):
    """``hanging(**RATE_LIMIT)``: a store of an alias whose DynamoDB never answers."""

    def make(**limits):
        dynamo_faults.hang()
        return RateLimitStore(
            alias(
                ENDPOINT_URL=dynamo_faults.url,
                RETRY={"MAX_RETRIES": 0},
                CIRCUIT_BREAKER={"ENABLED": False},
                RATE_LIMIT={"OPERATION_TIMEOUT": 2.0, "ON_UNAVAILABLE": "deny", **limits},
            )
        )

    return make


def test_a_limit_of_zero_makes_no_client(alias, resource):
    """Also where there can be none: it is decided without DynamoDB."""
    store = RateLimitStore(alias(REGION="no such region", ENDPOINT_URL=None))
    assert store.acquire(resource, rate="0/m").allowed is False
    assert store.acquire(resource, rate="5/m", cost=0).allowed is True


def requests_of(dynamo_faults, function):
    """Return how many requests ``function`` sent, and its result."""
    before = dynamo_faults.requests.total()
    result = function()
    return dynamo_faults.requests.total() - before, result


def test_a_decision_has_one_deadline(hanging, resource):
    """The limit of the resource and the count share it; without, they would take 2 s each."""
    store = hanging()
    begin = time.monotonic()
    assert not store.acquire(resource).allowed
    assert time.monotonic() - begin < 3.5


def test_shards_have_one_deadline(hanging, resource):
    """The first shard that is unavailable ends the decision; eight would take 16 s."""
    store = hanging()
    store.set_resource_config(resource, {"RATE": "80/m", "SHARDS": 8})
    for method in (store.acquire, store.get_status):
        begin = time.monotonic()
        assert method(resource)[:2] == (False, 80)
        assert time.monotonic() - begin < 8
    store.unset_resource_config(resource)


def test_a_shard_that_fails_at_once_ends_the_decision(broken, resource, dynamo_faults):
    """One request, not one for each shard."""
    store = RateLimitStore(broken(ON_UNAVAILABLE="deny"))
    store.set_resource_config(resource, {"RATE": "80/m", "SHARDS": 8})
    sent, status = requests_of(dynamo_faults, lambda: store.acquire(resource))
    assert (sent, status.allowed, status.limit) == (1, False, 80)
    store.unset_resource_config(resource)


def test_a_limit_that_could_not_be_read_is_not_asked_for_by_every_request(
    alias, resource, dynamo_faults, dynamo_clock
):
    """For a second; then the limit in the table applies."""
    using = alias(
        ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}, CIRCUIT_BREAKER={"ENABLED": False}
    )
    RateLimitStore().set_resource_config(resource, "7/m", everywhere=True)
    store = RateLimitStore(using)
    dynamo_faults.fail("GetItem")
    sent, _ = requests_of(dynamo_faults, lambda: store.get_resource_config(resource))
    assert sent == 1
    for _ in range(5):
        sent, config = requests_of(dynamo_faults, lambda: store.get_resource_config(resource))
        assert (sent, config.rates[0].limit) == (0, 200)
    dynamo_faults.clear()
    dynamo_clock.advance(1.0)
    assert store.get_resource_config(resource).rates[0].limit == 7
    RateLimitStore().unset_resource_config(resource, everywhere=True)


def test_threads_do_not_wait_for_each_others_deadlines(hanging, resource):
    """Each decision ends after its own."""
    store = hanging()
    begin = time.monotonic()
    threads = [
        threading.Thread(target=store.acquire, args=(resource,), kwargs={"key": str(number)})
        for number in range(10)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert time.monotonic() - begin < 10
