"""Which errors of calls IGNORE_EXCEPTIONS covers, and which are always raised."""

from __future__ import annotations

import time

import pytest

from dynamo_stores.calls.breaker import State
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.exceptions import ConfigurationError, StoreRefused, StoreUnavailable, code_of

EXPIRED = {"status": 400, "code": "ExpiredTokenException", "body": {"message": "It is expired."}}


def page(status):
    """Return the fault of a proxy that answers with a page of its own."""

    def act(handler, request):
        body = b"<html>secret-7</html>"
        handler.answer(status, body, {"Server": "proxy"})
        return True

    return act


def test_a_refusal_is_raised_once_and_named(faulty, dynamo_faults):
    """Not retried; the message has the operation, the table, the endpoint and AWS's sentence."""
    cache = faulty()
    dynamo_faults.fail("GetItem", **EXPIRED)
    with pytest.raises(
        StoreRefused, match=r"GetItem on .* was refused .*: It is expired"
    ) as caught:
        cache.get("k")
    host = dynamo_faults.url.removeprefix("http://")
    assert f"endpoint {host}, region us-east-1" in str(caught.value)
    assert code_of(caught.value) == "ExpiredTokenException"
    assert dynamo_faults.requests["GetItem"] == 1


def test_refusals_open_the_breaker(faulty, dynamo_faults):
    """As other operations without an answer do; its status has AWS's code."""
    cache = faulty()
    dynamo_faults.fail("GetItem", **EXPIRED)
    for _ in range(3):
        with pytest.raises(StoreRefused):
            cache.get("k")
    status = cache.store.get_circuit_breaker_status()
    assert (status.state, status.error) == (State.OPEN, "ExpiredTokenException")


@pytest.mark.parametrize("fault", ["expired", "page"])
def test_refusals_are_ignored_with_ignore_exceptions(faulty, dynamo_faults, fault):
    """And a lock is not taken, without an exception."""
    cache = faulty({"IGNORE_EXCEPTIONS": True}, CIRCUIT_BREAKER={"ENABLED": False})
    if fault == "page":
        dynamo_faults._add("*", None, page(403))
    else:
        dynamo_faults.fail("*", **EXPIRED)
    assert cache.get("k", "default") == "default"
    assert cache.add("k", 1) is False
    assert cache.get_many(["k"]) == {}
    assert cache.set_many({"k": 1}) == ["k"]
    assert cache.get_or_set("k", lambda: 7) == 7
    assert cache.lock("l", blocking_timeout=0.01).acquire() is False


@pytest.mark.parametrize("status", [200, 400, 403, 404])
def test_a_page_of_a_proxy_is_not_dynamodbs_answer(faulty, dynamo_faults, status):
    """It is not sent again, and not shown."""
    cache = faulty()
    dynamo_faults._add("GetItem", None, page(status))
    with pytest.raises(StoreRefused, match="was not answered by DynamoDB") as caught:
        cache.get("k")
    assert "secret-7" not in str(caught.value)
    assert dynamo_faults.requests["GetItem"] == 1


@pytest.mark.parametrize("status", [408, 429])
def test_a_page_of_a_busy_proxy_is_attempted_again(faulty, dynamo_faults, status):
    """408 and 429 pass by themselves."""
    cache = faulty()
    dynamo_faults._add("GetItem", 2, page(status))
    assert cache.get("k", "missing") == "missing"
    assert dynamo_faults.requests["GetItem"] == 3


def test_a_conflict_is_attempted_again(faulty, dynamo_faults):
    """With the transaction of another client; lost to the end it opens no breaker."""
    cache = faulty()
    dynamo_faults.fail("PutItem", 2, status=400, code="TransactionConflictException")
    cache.set("k", 1)
    assert dynamo_faults.requests["PutItem"] == 3
    dynamo_faults.fail("PutItem", status=400, code="TransactionConflictException")
    for _ in range(5):
        with pytest.raises(StoreUnavailable, match="conflicted with another request"):
            cache.set("k", 1)
    assert cache.store.get_circuit_breaker_status().state is State.CLOSED


def test_a_missing_table_is_always_raised(alias, make_cache):
    """By every method, with IGNORE_EXCEPTIONS, with the table, the alias and the endpoint."""
    using = alias(TABLE_NAME="there-is-no-such-table", CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1})
    cache = make_cache(using, OPTIONS={"IGNORE_EXCEPTIONS": True})
    cache.key_prefix = ""
    calls = [
        (cache.get, ("k",)),
        (cache.set, ("k", 1)),
        (cache.get_many, (["k", "l"],)),
        (cache.set_many, ({"k": 1},)),
        (cache.delete_many, (["k"],)),
        (cache.get_or_set, ("k", 1)),
        (cache.lock("l").acquire, ()),
        (cache.clear, ()),
    ]
    for method, args in calls:
        with pytest.raises(
            ConfigurationError, match=r"there-is-no-such-table' .*dynamo_create"
        ) as e:
            method(*args)
        assert f"alias '{using}'" in str(e.value)
        assert "region us-east-1" in str(e.value)
        assert code_of(e.value) == "ResourceNotFoundException"
    # DynamoDB answered.
    assert cache.store.get_circuit_breaker_status().state is State.CLOSED


def test_an_invalid_request_is_always_raised(faulty, dynamo_faults):
    """It is an answer: not retried, and the breaker stays closed."""
    cache = faulty({"IGNORE_EXCEPTIONS": True}, CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1})
    dynamo_faults.fail("GetItem", status=400, code="ValidationException")
    with pytest.raises(ConfigurationError, match=r"GetItem on .* is not valid for DynamoDB"):
        cache.get("k")
    assert dynamo_faults.requests["GetItem"] == 1
    assert cache.store.get_circuit_breaker_status().state is State.CLOSED


@pytest.mark.parametrize(
    ("region", "words"), [(None, "'REGION'. is not set"), ("eu_west_1 ", "'eu_west_1 '")]
)
def test_an_alias_without_a_valid_region(alias, make_cache, monkeypatch, tmp_path, region, words):
    """ConfigurationError with IGNORE_EXCEPTIONS, too; it says nothing to the breaker."""
    for name in ("AWS_DEFAULT_REGION", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    using = alias(REGION=region, ENDPOINT_URL=None, CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1})
    cache = make_cache(using, OPTIONS={"IGNORE_EXCEPTIONS": True})
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=words):
            cache.get("k")
    assert cache.store.get_circuit_breaker_status().state is State.CLOSED
    with pytest.raises(ConfigurationError, match=words):
        get_connection(using)._transport.prepare(time.monotonic() + 60)


def test_a_name_in_the_endpoint_is_not_shown(alias, make_cache):
    """Credentials may be part of a URL."""
    using = alias(ENDPOINT_URL="http://somebody:secret-7@127.0.0.1:9", RETRY={"MAX_RETRIES": 0})
    with pytest.raises(StoreUnavailable, match=r"endpoint 127\.0\.0\.1:9, region") as caught:
        make_cache(using).get("k")
    assert "secret-7" not in str(caught.value)
