"""The rate limit store: one write for a decision, and the status that it returns."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

import pytest

from dynamo_stores import keys
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.observer import measuring
from dynamo_stores.conf.rates import parse_resource
from dynamo_stores.exceptions import ConfigurationError, StoreUnavailable
from dynamo_stores.ratelimit import counting as settling
from dynamo_stores.ratelimit.items import RateWindow, StoredRate
from dynamo_stores.signals import rate_limited
from dynamo_stores.stores import RateLimitStore
from dynamo_stores.testing import FakeClock
from tests.helpers.counting import operations

ALGORITHMS = ["sliding", "fixed", "gcra", "log"]


@pytest.fixture
def resource():
    """A name that no other test uses."""

    return secrets.token_hex(6)


@pytest.fixture
def store(tables):
    return RateLimitStore()


@pytest.fixture(params=ALGORITHMS)
def limited(request, store, resource, dynamo_clock):
    """A store whose resource admits 5 in 10 seconds, by each algorithm."""
    store.set_resource_config(resource, {"RATE": "5/10s", "ALGORITHM": request.param, "BURST": 5})
    yield store
    store.unset_resource_config(resource)


def test_so_many_and_no_more(limited, resource, dynamo_clock: FakeClock):
    """A refusal is a status; a request after retry_after is admitted."""
    statuses = [limited.acquire(resource, key="k") for _ in range(7)]
    assert [each.allowed for each in statuses] == [True] * 5 + [False] * 2
    assert [each.remaining for each in statuses] == [4, 3, 2, 1, 0, 0, 0]
    assert {each.limit for each in statuses} == {5}
    assert {each.window for each in statuses} == {10}
    assert statuses[0].retry_after == 0
    refused = statuses[-1]
    assert 0 < refused.retry_after <= 11.01
    assert limited.acquire(resource, key="another").allowed
    dynamo_clock.advance(refused.retry_after)
    assert limited.acquire(resource, key="k").allowed
    dynamo_clock.advance(30)
    assert limited.get_status(resource, key="k").remaining == 5


def test_the_other_verbs(limited, resource, dynamo_clock: FakeClock):
    """get_status counts nothing, recording counts even over the limit, a refund undoes."""
    assert limited.can_proceed(resource)
    assert limited.get_status(resource).remaining == 5
    assert limited.get_wait_time(resource) == 0
    for _ in range(6):
        limited.record(resource)
    assert not limited.can_proceed(resource)
    assert limited.get_wait_time(resource) > 0
    assert not limited.acquire(resource).allowed
    limited.reset(resource)
    assert limited.acquire(resource, cost=5).allowed
    assert not limited.acquire(resource).allowed
    limited.refund(resource, cost=2)
    assert limited.acquire(resource, cost=2).allowed
    assert not limited.acquire(resource).allowed
    limited.refund(resource, cost=5)
    limited.refund(resource, cost=5)
    assert limited.get_status(resource).remaining == 5


def test_calls_of_a_decision(limited, resource):
    """One write; a read if the remembered state refuses; no call for a repeated refusal."""
    limited.acquire(resource, key="k")
    for _ in range(4):
        assert operations(lambda: limited.acquire(resource, key="k")) == {"UpdateItem": 1}
    assert operations(lambda: limited.acquire(resource, key="k")) == {"GetItem": 1}
    for _ in range(100):
        assert operations(lambda: limited.acquire(resource, key="k")) == {}
    assert operations(lambda: limited.get_status(resource, key="k")) == {"GetItem": 1}


def test_units_of_a_decision(store, resource, dynamo_clock, true_units):
    """A write unit, for all of the rates together."""
    with measuring() as measurements:
        for _ in range(3):
            store.acquire(resource, rate="10/s,100/m,1000/h")
    writes = [each for each in measurements if each.operation == "UpdateItem"]
    assert [sum(each.units.values()) for each in writes] == [1.0, 1.0, 1.0]


def test_several_rates_are_one_item(store, resource, dynamo_clock: FakeClock):
    """All or nothing; the status is that of the tightest."""

    def acquire(cost=1):
        return store.acquire(resource, rate="3/s,5/m", cost=cost)

    assert [acquire().remaining for _ in range(3)] == [2, 1, 0]
    refused = acquire()
    assert (refused.allowed, refused.limit, refused.window) == (False, 3, 1)
    dynamo_clock.advance(1.2)
    assert acquire()[:3] == (True, 5, 1)
    assert acquire(cost=3).allowed is False
    assert acquire()[:3] == (True, 5, 0)
    refused = acquire()
    assert (refused.allowed, refused.limit, refused.window) == (False, 5, 60)
    assert refused.retry_after > 50


def test_where_a_limit_comes_from(alias, resource, dynamo_clock: FakeClock):
    """This process, else the table, else RESOURCES, else LIMIT and WINDOW."""
    using = alias(RATE_LIMIT={"LIMIT": 7, "WINDOW": 30, "RESOURCES": {resource: "6/m"}})
    store = RateLimitStore(using)
    assert store.get_status("unnamed").limit == 7
    assert store.get_status(resource).limit == 6
    other = RateLimitStore(using)
    other.set_resource_config(resource, "5/m", everywhere=True)
    assert store.get_status(resource).limit == 5
    store.set_resource_config(resource, {"RATE": "4/m", "ALGORITHM": "log"})
    assert store.get_status(resource).limit == 4
    assert store.get_status(resource, rate="3/m").limit == 3
    store.unset_resource_config(resource)
    assert store.get_resource_config(resource).rates[0].limit == 5
    # Another process changed it.
    key = keys.stored_rate(resource)

    StoredRate.bound_to(using)(key.pk, key.sk, config='{"RATE": "2/m"}').save()
    assert store.get_status(resource).limit == 5
    dynamo_clock.advance(5.1)
    assert store.get_status(resource).limit == 2
    store.unset_resource_config(resource, everywhere=True)
    assert store.get_status(resource).limit == 6


def rate_of(resource, key):
    return "1/m" if key == "poor" else None


def test_rates_of_functions(store, resource, dynamo_clock):
    """A function of resource and key, or its dotted path; None is no limit."""
    for rate in (rate_of, f"{__name__}.rate_of"):
        assert store.acquire(resource, key="rich", rate=rate) == (True, None, None, 0, 0, None)
    assert store.acquire(resource, key="poor", rate=rate_of).remaining == 0
    assert not store.acquire(resource, key="poor", rate=rate_of).allowed


def test_zero_refuses_always(store, resource, dynamo_clock: FakeClock):
    """Whatever the cost, and at any time."""
    for _ in range(3):
        for algorithm in ALGORITHMS:
            store.set_resource_config(resource, {"RATE": "0/m", "ALGORITHM": algorithm})
            status = store.acquire(resource, cost=3)
            assert (status.allowed, status.limit, status.remaining) == (False, 0, 0)
            assert status.retry_after > 0
        dynamo_clock.advance(100)
    store.unset_resource_config(resource)


@pytest.mark.parametrize("cost", [1.5, True, "1", None])
def test_what_is_no_cost(store, resource, cost):
    """Only a whole number is one."""
    with measuring() as measurements, pytest.raises(ValueError, match="cost"):
        store.acquire(resource, rate="5/m", cost=cost)
    assert measurements == []


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize(("cost", "allowed"), [(0, True), (-1, False), (6, False)])
def test_costs_that_do_not_depend_on_the_count(
    store, resource, dynamo_clock, algorithm, cost, allowed
):
    """Nothing is free; what could never be admitted is refused. Neither is counted, nor a call."""
    rate = {"RATE": "5/m", "ALGORITHM": algorithm, "BURST": 5}
    store.set_resource_config(resource, rate)
    store.acquire(resource)
    with measuring() as measurements:
        status = store.acquire(resource, cost=cost)
    assert measurements == []
    assert (status.allowed, status.limit, status.remaining) == (allowed, 5, 4)
    assert (status.retry_after == 0) == allowed
    assert store.get_status(resource, cost=cost).allowed is allowed
    assert store.get_status(resource).remaining == 4
    store.unset_resource_config(resource)


def test_a_cost_over_a_limit_that_was_lowered_is_refused(store, resource, dynamo_clock):
    """The literal of a caller may be older than the limit; the burst of gcra is a limit, too."""
    for rate in ("2/m", {"RATE": "20/m", "ALGORITHM": "gcra"}):
        store.set_resource_config(resource, rate)
        assert not store.acquire(resource, cost=3).allowed
        store.unset_resource_config(resource)


def test_a_smaller_cost_than_the_refused_one_is_decided_anew(store, resource, dynamo_clock):
    """A refusal of 3 does not refuse 1."""
    store.acquire(resource, rate="5/m", cost=3)
    assert not store.acquire(resource, rate="5/m", cost=3).allowed
    assert store.acquire(resource, rate="5/m", cost=2).allowed
    assert not store.acquire(resource, rate="5/m", cost=1).allowed
    assert operations(lambda: store.acquire(resource, rate="5/m", cost=3)) == {}


def test_a_key_may_be_a_number(resource):
    """It is counted by its text; None is an error."""
    store = RateLimitStore()
    assert store.acquire(resource, key=5, rate="1/m").allowed
    assert not store.acquire(resource, key="5", rate="1/m").allowed
    with pytest.raises(TypeError, match="A key is None; expected a string"):
        store.acquire(resource, key=None, rate="1/m")


def test_a_reset_by_another_process_has_effect(alias, resource, dynamo_clock: FakeClock):
    """Within two seconds, although the refusal would last a minute."""
    here = RateLimitStore()
    for _ in range(2):
        here.acquire(resource, rate="1/m")
    item = RateWindow.query(keys.rate_window(resource, "", "").pk)
    for each in item:
        each.delete()
    assert not here.acquire(resource, rate="1/m").allowed
    dynamo_clock.advance(2)
    assert here.acquire(resource, rate="1/m").allowed


@pytest.mark.parametrize("block", [1, 5])
def test_a_reset_has_effect_at_once(resource, dynamo_clock: FakeClock, block):
    """In its own process, for every rate; nothing that was counted ahead is left."""
    store = RateLimitStore()
    store.set_resource_config(resource, {"RATE": "40/m", "BLOCK": block})
    for key in ("a", "b"):
        while store.acquire(resource, key=key).allowed:
            pass
        for _ in range(3):
            store.acquire(resource, key=key, rate="2/h")
    store.reset(resource, key="a")
    assert [store.acquire(resource, key="a", rate="2/h").allowed for _ in range(3)] == [
        True, True, False,
    ]  # fmt: skip
    admitted = sum(store.acquire(resource, key="a").allowed for _ in range(60))
    assert admitted == 40
    assert not store.acquire(resource, key="b", rate="2/h").allowed
    assert not store.acquire(resource, key="b").allowed


@pytest.mark.parametrize("name", ["{} POST", "path:/shards/", "path:/shards/ GET,HEAD", "own"])
def test_a_reset_finds_the_shards(alias, resource, name):
    """Of the resource, or of the path; those of a limit that only a decorator has are told."""
    limit = {"RATE": "16/h", "SHARDS": 4}
    paths = {"/shards/": {**limit, "KEY": "ip"}}
    using = alias(RATE_LIMIT={"RESOURCES": {resource: limit}, "PATHS": paths})
    store, scope = RateLimitStore(using), f"{name.format(resource)}"
    key = secrets.token_hex(6)
    config = parse_resource(limit, algorithm="sliding")
    for _ in range(2):
        assert sum(store.acquire(scope, key=key, rate=config).allowed for _ in range(40)) == 16
        store.reset(scope, key=key, **({"shards": 4} if name == "own" else {}))


def test_an_unanswered_reset_leaves_nothing_counted_ahead(alias, resource, dynamo_faults):
    """The items may be deleted all the same."""
    store = RateLimitStore(alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}))
    store.set_resource_config(resource, {"RATE": "800/h", "BLOCK": 50})
    for _ in range(120):
        store.acquire(resource)
    dynamo_faults.lose_answer("BatchWriteItem")
    with pytest.raises(StoreUnavailable):
        store.reset(resource)
    dynamo_faults.clear()
    assert sum(store.acquire(resource).allowed for _ in range(900)) == 800


def test_keys_of_any_kind(store, resource, dynamo_clock):
    """Long ones, odd ones, ones that look alike: each has a limit of its own."""
    for key in ("", "#", "%23", "a#b", "x" * 600, "x" * 601, "H#", "é" * 300, "\ud800", "\x00"):
        assert store.acquire(resource, key=key, rate="1/m").allowed, key
        assert not store.acquire(resource, key=key, rate="1/m").allowed, key
    assert store.acquire(f"{resource}#a", key="b", rate="1/m").allowed
    assert store.acquire(resource, key="a#b#", rate="1/m").allowed


def test_unavailable(alias, resource, dynamo_faults, caplog):
    """Allowed, denied, or limited in this process; a log line and a counter each."""
    using = alias(
        ENDPOINT_URL=dynamo_faults.url,
        RETRY={"MAX_RETRIES": 0},
        CIRCUIT_BREAKER={"ENABLED": False},
        RATE_LIMIT={"ON_UNAVAILABLE": "deny"},
    )
    store = RateLimitStore(using)
    dynamo_faults.fail()
    settling.decided_without_store.clear()
    with caplog.at_level(logging.WARNING):
        denied = store.acquire(resource, rate="2/m")
        allowed = store.acquire(resource, rate="2/m", on_unavailable="allow")
        local = [store.acquire(resource, rate="2/m", on_unavailable="local") for _ in range(3)]
    assert (denied.allowed, denied.retry_after >= 1) == (False, True)
    assert (allowed.allowed, allowed.limit) == (True, 2)
    assert [each.allowed for each in local] == [True, True, False]
    assert 59 < local[-1].retry_after <= 60
    assert settling.decided_without_store == {
        (using, "deny"): 1,
        (using, "allow"): 1,
        (using, "local"): 3,
    }
    assert caplog.text.count("A limit was decided without DynamoDB") == 5
    with pytest.raises(StoreUnavailable):
        store.record(resource, rate="2/m")
    dynamo_faults.clear()
    assert store.acquire(resource, rate="2/m").allowed


def test_a_lost_answer_errs_towards_refusing(alias, resource, dynamo_faults):
    """A write whose answer was lost may count twice, but it counts."""
    store = RateLimitStore(alias(ENDPOINT_URL=dynamo_faults.url))
    store.acquire(resource, rate="5/h")
    dynamo_faults.lose_answer("UpdateItem", times=1)
    store.acquire(resource, rate="5/h")
    assert store.get_status(resource, rate="5/h").remaining in (2, 3)


def test_shards(store, resource, dynamo_clock):
    """The limit is spread over items; their sum is never exceeded, and all of it is used."""
    store.set_resource_config(resource, {"RATE": "10/m", "SHARDS": 3})
    statuses = [store.acquire(resource) for _ in range(14)]
    assert [each.allowed for each in statuses] == [True] * 10 + [False] * 4
    assert store.get_status(resource)[:3] == (False, 10, 0)
    store.refund(resource)
    assert store.get_status(resource).remaining == 1
    store.reset(resource)
    assert store.get_status(resource)[:3] == (True, 10, 10)
    store.unset_resource_config(resource)


def test_the_status_of_shards_is_that_of_the_whole_limit(store, resource, dynamo_clock):
    """``remaining`` falls by one for each request, whichever shard counted it."""
    store.set_resource_config(resource, {"RATE": "40/m", "SHARDS": 4})
    statuses = [store.acquire(resource) for _ in range(41)]
    assert {each.limit for each in statuses} == {40}
    assert [each.remaining for each in statuses] == [*range(39, -1, -1), 0]
    assert store.get_status(resource)[:3] == (False, 40, 0)
    store.unset_resource_config(resource)


def test_the_remaining_requests_of_shards_do_not_rise(alias, resource, dynamo_clock):
    """Also while other processes count in the same shards."""
    here, there = RateLimitStore(alias()), RateLimitStore(alias())
    for each in (here, there):
        each.set_resource_config(resource, {"RATE": "40/m", "SHARDS": 4})
    seen = []
    for _ in range(20):
        seen.append(here.acquire(resource).remaining)
        there.acquire(resource)
    assert seen == sorted(seen, reverse=True)
    for each in (here, there):
        each.unset_resource_config(resource)


def test_blocks(store, resource, dynamo_clock: FakeClock):
    """Fewer calls than decisions for many requests; the limit holds; they end with the bucket."""
    store.set_resource_config(resource, {"RATE": "1000/m", "BLOCK": 50})

    def burst(count):
        return sum(store.acquire(resource, key="hot").allowed for _ in range(count))

    with measuring() as measurements:
        assert burst(500) == 500
    assert len(measurements) < 60
    assert burst(700) == 500
    dynamo_clock.advance(120)
    with measuring() as measurements:
        for _ in range(10):
            assert store.acquire(resource, key="gentle").allowed
            dynamo_clock.advance(7)
    # Those it had no use for are not taken again and again.
    assert store.get_status(resource, key="gentle").remaining >= 1000 - 2 * 10
    store.unset_resource_config(resource)


def test_a_refusal_sends_a_signal(store, resource, dynamo_clock):
    """With the resource and the status, and no key."""
    received = []

    def receive(sender, **kwargs):
        received.append((sender, kwargs))

    rate_limited.connect(receive)
    try:
        for _ in range(3):
            store.acquire(resource, key="secret", rate="1/m")
    finally:
        rate_limited.disconnect(receive)
    assert len(received) == 2
    sender, kwargs = received[0]
    assert sender is RateLimitStore
    assert (kwargs["using"], kwargs["resource"]) == ("default", resource)
    assert not kwargs["status"].allowed
    assert "secret" not in repr(received)


def test_the_clock_is_learned_from_answers(store, resource):
    """To a few hundredths of a second, after some calls."""

    clock = get_connection().server_clock
    for number in range(40):
        store.acquire(resource, key=str(number), rate="1/m")
        time.sleep(0.05)
    times = clock.times()
    assert times.low - 0.2 < time.time() < times.high + 0.2
    assert times.high - times.low < 0.5


def test_bad_settings_are_named(alias, resource):
    """At the call, with what was expected."""
    with pytest.raises(ConfigurationError, match="expected '100/m'"):
        RateLimitStore().acquire(resource, rate="many")
    with pytest.raises(ConfigurationError, match="SHARDS"):
        RateLimitStore().set_resource_config(resource, {"RATE": "1/m", "SHARDS": 0})


def test_async_twin(store, resource, dynamo_clock):
    """The same decisions."""

    async def run():
        return [await store.aacquire(resource, rate="2/m") for _ in range(3)]

    assert [each.allowed for each in asyncio.run(run())] == [True, True, False]
