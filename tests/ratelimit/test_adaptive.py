"""The adaptive store: users first, background within its share, one write a decision."""

from __future__ import annotations

import asyncio
import json
import secrets

import pytest

from dynamo_stores import keys
from dynamo_stores.calls.observer import measuring
from dynamo_stores.concurrency.effects import run
from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.item_access import Items
from dynamo_stores.ratelimit.items import RateWindow
from dynamo_stores.stores import AdaptiveRateLimitStore
from dynamo_stores.testing import FakeClock
from tests.helpers.counting import operations


@pytest.fixture
def resource():
    return secrets.token_hex(6)


@pytest.fixture
def store(tables, dynamo_clock):
    return AdaptiveRateLimitStore()


def admitted(store, resource, priority, count, **kwargs):
    return sum(store.acquire(resource, priority=priority, **kwargs).allowed for _ in range(count))


def test_before_any_request(store, resource):
    """Three tenths are reserved for users; get_status counts nothing."""
    for _ in range(2):
        status = store.get_status(resource)
        assert (status.user_reserved, status.background_max, status.limit) == (60, 140, 200)
        assert (status.paused, status.trend, status.reason) == (False, "none", "No requests yet")
        assert status.remaining == 200
    assert store.get_status(resource, priority="background").remaining == 140


def test_background_stops_at_its_share(store, resource):
    """Users take what is left, and what is reserved for them."""
    assert admitted(store, resource, "background", 160) == 140
    assert admitted(store, resource, "user", 80) == 60
    assert not store.acquire(resource, priority="background").allowed
    assert store.get_status(resource).remaining == 0


def test_users_may_take_all(store, resource):
    """The reserve is a minimum for users, not a maximum."""
    assert admitted(store, resource, "user", 220) == 200
    assert admitted(store, resource, "background", 3) == 0


def test_the_allocation_follows(store, resource, dynamo_clock: FakeClock):
    """Recalculated at most every interval, stored with its reason, and the same for all."""
    store.acquire(resource, priority="background")
    dynamo_clock.advance(31)
    store.acquire(resource, priority="background")
    assert store.get_status(resource)[6:8] == (5, 195)
    for _ in range(12):
        store.acquire(resource)
    # Not yet: thirty seconds have not passed.
    assert store.get_status(resource)[6:8] == (5, 195)
    dynamo_clock.advance(31)
    refused = store.acquire(resource, priority="background")
    assert (refused.allowed, refused.paused, refused.trend) == (False, True, "increasing")
    assert (refused.user_reserved, refused.background_max) == (180, 20)
    assert "paused" in refused.reason
    assert store.acquire(resource).allowed
    key = keys.rate_window(resource, "", "SW", kind=keys.ADAPTIVE_WINDOW)
    (item,) = RateWindow.query(key.pk)
    stored = run(Items(RateWindow).get(key, consistent=True))
    assert json.loads(stored["al"]["S"])[:3] == [200, 180, 20]
    assert item.ttl > dynamo_clock.now() + 1800
    # Five minutes later no requests increase any more, so nothing is paused.
    dynamo_clock.advance(301)
    store.acquire(resource)
    dynamo_clock.advance(31)
    assert store.acquire(resource, priority="background").allowed
    # After half an hour without users all is the background's.
    dynamo_clock.advance(1801)
    status = store.acquire(resource, priority="background")
    assert (status.user_reserved, status.background_max) == (0, 200)
    assert store.acquire(resource).allowed


def test_a_pause_ends_with_background_requests_only(store, resource, dynamo_clock: FakeClock):
    """Refused requests recalculate the allocation, too."""
    for _ in range(12):
        store.acquire(resource)
    dynamo_clock.advance(31)
    refused = store.acquire(resource, priority="background")
    assert refused.paused
    assert 0 < refused.retry_after <= 30.1
    for _ in range(12):
        dynamo_clock.advance(31)
        status = store.acquire(resource, priority="background")
    assert status.allowed


def test_calls(store, resource, dynamo_clock: FakeClock):
    """One write a decision; a read before a recalculation."""
    store.acquire(resource, rate="200/m")
    store.acquire(resource, rate="200/m", priority="background")
    for priority in ("user", "background"):
        for _ in range(3):
            ask = lambda priority=priority: store.acquire(resource, rate="200/m", priority=priority)  # noqa: E731
            assert operations(ask) == {"UpdateItem": 1}
    dynamo_clock.advance(31)
    assert operations(lambda: store.acquire(resource, rate="200/m")) == {
        "GetItem": 1,
        "UpdateItem": 1,
    }
    assert operations(lambda: store.acquire(resource, rate="200/m")) == {"UpdateItem": 1}


def test_an_interval_of_a_second(alias, resource, dynamo_clock: FakeClock):
    """It is a valid setting."""
    store = AdaptiveRateLimitStore(alias(ADAPTIVE={"RECALCULATION_INTERVAL": 1}))
    for _ in range(12):
        store.acquire(resource)
    dynamo_clock.advance(1.01)
    assert store.acquire(resource).user_reserved == 180


def test_the_other_verbs(store, resource):
    """As in the reference, and a refund."""
    assert store.can_proceed(resource, "background")
    store.record(resource, "background")
    store.record(resource, "user")
    assert store.get_wait_time(resource, "user") == 0
    assert store.get_status(resource).remaining == 198
    store.refund(resource, priority="background")
    assert store.get_status(resource).remaining == 199
    assert store.get_status(resource, priority="background").remaining == 140
    store.reset(resource)
    assert store.get_status(resource).remaining == 200
    store.set_resource_config(resource, "3/m")
    assert admitted(store, resource, "user", 5) == 3
    store.unset_resource_config(resource)


@pytest.mark.parametrize("limit", [0, 1, 2])
def test_small_limits(store, resource, limit):
    """Never more than the limit, and users are not locked out of it."""
    rate = f"{limit}/m"
    background = admitted(store, resource, "background", 4, rate=rate)
    users = admitted(store, resource, "user", 4, rate=rate)
    assert background + users == limit


def test_what_is_refused(store, resource):
    """A wrong priority, several rates; a cost over the limit is a refusal without a call."""
    with measuring() as measurements:
        with pytest.raises(ConfigurationError, match="priority is 'users'; expected 'user' or"):
            store.acquire(resource, priority="users")
        with pytest.raises(ConfigurationError, match="expected one rate"):
            store.acquire(resource, rate="1/s,2/m")
        assert not store.acquire(resource, rate="2/m", cost=3).allowed
    assert measurements == []


def test_unavailable(alias, resource, dynamo_faults):
    """ON_UNAVAILABLE decides, as for the other store."""
    store = AdaptiveRateLimitStore(alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}))
    dynamo_faults.fail()
    assert store.acquire(resource).allowed
    assert not store.acquire(resource, on_unavailable="deny").allowed
    assert store.get_status(resource).allowed
    assert not store.get_status(resource, on_unavailable="deny").allowed


@pytest.mark.parametrize("algorithm", ["fixed", "gcra", "log"])
def test_the_algorithm_of_other_limits_does_not_matter(alias, resource, algorithm):
    """An adaptive limit that names none is a sliding one, whatever RATE_LIMIT["ALGORITHM"] is."""
    store = AdaptiveRateLimitStore(alias(RATE_LIMIT={"ALGORITHM": algorithm}))
    assert store.acquire(resource, rate="2/m").remaining == 1
    assert store.acquire(resource).limit == 200


def test_async_twin(store, resource):
    """The same decisions."""

    async def ask():
        return [await store.aacquire(resource, rate="2/m") for _ in range(3)]

    assert [each.allowed for each in asyncio.run(ask())] == [True, True, False]
