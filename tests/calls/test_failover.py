"""``FAILOVER``: another alias answers the reads of one that does not."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings

from dynamo_stores import signals
from dynamo_stores.cache.store.invalidation import InvalidationNumbers, get_numbers
from dynamo_stores.calls.batches import batch_write
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.control import get_control
from dynamo_stores.calls.observer import measuring
from dynamo_stores.calls.policy import deadline
from dynamo_stores.client import Get, Put, get_dynamodb_client
from dynamo_stores.concurrency.effects import run
from dynamo_stores.conf import get_config
from dynamo_stores.dedupe.store import DedupeStore
from dynamo_stores.exceptions import (
    CircuitBreakerOpenError,
    ConfigurationError,
    OperationTimeoutError,
    StoreUnavailable,
    ThrottlingError,
)
from dynamo_stores.infrastructure.tables import create_table, table_of, wanted_tables
from dynamo_stores.models import StoreItem
from dynamo_stores.monitoring.health import Health
from dynamo_stores.monitoring.reporter import get_reporter
from dynamo_stores.monitoring.snapshot import read_status
from dynamo_stores.testing.faults import FaultProxy

_numbers = itertools.count()


def make_client_of(using):
    """Make the client, which may take longer than an operation may on a busy machine."""
    key = {"PK": {"S": "none"}, "SK": {"S": "none"}}
    for _ in range(10):
        try:
            get_connection(using).dispatch("GetItem", {"TableName": store_table(using), "Key": key})
        except StoreUnavailable:
            continue
        return


def store_table(using):
    return get_config(using).store_table


@pytest.fixture
def regions(alias, dynamo_faults, make_cache):
    """
    ``regions(**settings)`` returns the names of two aliases: the first is behind ``dynamo_faults``
    and fails over to the second, which has a table of the same name in another region.
    """
    made = []

    def make(prefix=None, **changes):
        other = {} if prefix is None else {"TABLE_PREFIX": prefix}
        second = alias(REGION="eu-west-1", **other)
        spec = table_of(StoreItem.bound_to(second))
        create_table(spec, lambda text: None)
        made.append((second, spec.name))
        settings = {
            "ENDPOINT_URL": dynamo_faults.url,
            "FAILOVER": second,
            "OPERATION_TIMEOUT": 2.0,
            "CIRCUIT_BREAKER": {"FAILURE_THRESHOLD": 3, "RECOVERY_TIMEOUT": 0.5},
        }
        first = alias(**settings | changes)
        for using in (first, second):
            make_client_of(using)
        return first, second

    yield make
    for using, name in made:
        get_control(using).call("DeleteTable", {"TableName": name})


@pytest.fixture
def changes():
    """The signals ``failed_over`` of a test."""
    found = []

    def receive(**kwargs):
        found.append((kwargs["using"], kwargs["failover"], kwargs["is_active"], kwargs["error"]))

    signals.failed_over.connect(receive, dispatch_uid="test")
    yield found
    signals.failed_over.disconnect(dispatch_uid="test")


def filled(make_cache, using, second, seconds=1.0):
    """Return caches of both aliases with the same entries, as replication makes them."""
    prefix = f"p{next(_numbers)}"

    def make(timeout):
        options = {"KEY_PREFIX": prefix, "OPTIONS": {"OPERATION_TIMEOUT": timeout}}
        return make_cache(using, **options), make_cache(second, **options)

    for each in make(60.0):
        each.set_many({f"k{number}": number for number in range(130)})
        each.set("large", b"x" * 500_000)
    return make(seconds)


@pytest.mark.parametrize("fault", ["reset", "hang", "fail"])
def test_reads_are_answered_by_the_other_alias(
    regions, make_cache, dynamo_faults, changes, caplog, fault
):
    """Within the deadline of one operation; single values, large ones, and many at once."""
    using, second = regions()
    cache, _ = filled(make_cache, using, second)
    getattr(dynamo_faults, fault)("*")
    with measuring() as found:
        assert cache.get("k1") == 1
    assert [each.using for each in found] == [using, second]
    assert cache.get_many([f"k{n}" for n in range(130)]) == {f"k{n}": n for n in range(130)}
    assert cache.get("large") == b"x" * 500_000
    assert cache.get("none") is None
    assert [change[:3] for change in changes] == [(using, second, True)]
    assert f"the alias '{second}' answers instead" in caplog.text
    with pytest.raises(StoreUnavailable):
        cache.set("k1", 2)
    with pytest.raises(StoreUnavailable):
        cache.incr("k1")
    assert dynamo_faults.requests["PutItem"] >= 1


def test_the_other_alias_is_asked_at_once_while_the_breaker_is_open(
    regions, make_cache, dynamo_faults, changes
):
    """And no more as soon as the probe is answered."""
    using, second = regions()
    cache, other = filled(make_cache, using, second)
    other.set("k1", "of the second")
    dynamo_faults.hang("*")
    for _ in range(3):
        assert cache.get("k1") == "of the second"
    sent = dynamo_faults.requests["GetItem"]
    assert cache.get("k1") == "of the second"
    assert dynamo_faults.requests["GetItem"] == sent
    dynamo_faults.clear()
    until = time.monotonic() + 20
    while cache.get("k1") != 1 and time.monotonic() < until:
        time.sleep(0.05)
    assert cache.get("k1") == 1
    assert [change[2] for change in changes] == [True, False]


def test_an_answer_is_not_sought_elsewhere(regions, make_cache, dynamo_faults):
    """A throttle, a refusal and a missing item are answers."""
    using, second = regions(OPERATION_TIMEOUT=0.4)
    cache, _ = filled(make_cache, using, second)
    cache.delete("k1")
    assert cache.get("k1") is None
    with measuring() as found:
        dynamo_faults.throttle("GetItem")
        with pytest.raises(ThrottlingError):
            cache.get("k2")
        dynamo_faults.clear()
        dynamo_faults.fail("GetItem", code="AccessDeniedException", status=400)
        with pytest.raises(StoreUnavailable, match="AccessDenied"):
            cache.get("k2")
    assert {each.using for each in found} == {using}
    assert len(found) > 3  # it was throttled up to the deadline


def test_neither_answers(make_cache, dynamo_faults, alias):
    """The error is the first one's, and names the other in a note."""
    relay = FaultProxy(dynamo_faults.upstream.geturl()).start()
    try:
        pair = alias(
            ENDPOINT_URL=dynamo_faults.url,
            FAILOVER=alias(ENDPOINT_URL=relay.url),
            RETRY={"MAX_RETRIES": 0},
        )
        make_client_of(pair)
        make_client_of(get_config(pair).failover)
        dynamo_faults.reset("*")
        relay.hang("*")
        cache = make_cache(pair, OPTIONS={"OPERATION_TIMEOUT": 0.6})
        with pytest.raises(StoreUnavailable, match="got no answer") as caught:
            cache.get("k1")
        assert "did not answer either" in caught.value.__notes__[0]
        assert isinstance(caught.value.__cause__, OperationTimeoutError)
    finally:
        relay.stop()


def test_models_clients_and_transactions_fail_over(regions, dynamo_faults, make_cache):
    """PynamoDB's reads too, and the answers have the alias's own names of tables."""
    using, second = regions()
    for each in (using, second):
        StoreItem.bound_to(each)("p", "s", gsi1pk="x", gsi1sk="y").save()
    dynamo_faults.reset("*")
    model, client = StoreItem.bound_to(using), get_dynamodb_client(using)
    table, key = get_config(using).store_table, {"PK": "p", "SK": "s"}
    assert model.get("p", "s").gsi1pk == "x"
    assert [each.sk for each in model.query("p")] == ["s"]
    assert [each.sk for each in model.batch_get([("p", "s")])] == ["s"]
    assert [each.sk for each in model.expiry_index.query("x")] == ["s"]
    assert client.get(table, key)["SK"] == "s"
    assert len(client.batch_get(table, [key])) == 1
    assert len(client.scan(table).all()) == 1
    assert client.transact_get([Get(table, key)])[0]["SK"] == "s"
    with pytest.raises(StoreUnavailable):
        client.transact_write([Put(table, {**key, "n": 1})])


def test_tasks_fail_over(regions, make_cache, dynamo_faults):
    """Hundreds at once, on one event loop."""
    using, second = regions()
    cache, _ = filled(make_cache, using, second, seconds=6.0)
    dynamo_faults.hang("*")

    async def use():
        return await asyncio.gather(*(cache.aget(f"k{n % 130}") for n in range(300)))

    assert asyncio.run(use()) == [n % 130 for n in range(300)]


def test_writes_fail_over_if_the_settings_say_so(regions, make_cache, dynamo_faults):
    """With conditions that are evaluated on the other table."""
    using, second = regions(FAILOVER_WRITES=True)
    cache, other = filled(make_cache, using, second)
    dynamo_faults.reset("*")
    cache.set("k1", "new")
    assert not cache.add("k2", 5)
    assert cache.incr("k3") == 4
    cache.set_many({f"m{n}": n for n in range(30)})
    cache.delete("k4")
    assert (other.get("k1"), other.get("k2"), other.get("k3")) == ("new", 2, 4)
    assert len(other.get_many([f"m{n}" for n in range(30)])) == 30
    assert other.get("k4") is None


def test_records_of_capacity_never_come_from_another_region(regions, dynamo_faults):
    """They are about the tables of their own."""
    using, _ = regions()
    table = get_config(using).control_table
    dynamo_faults.reset("*")
    request = {"TableName": table, "Key": {"PK": {"S": "p"}, "SK": {"S": "s"}}}
    with measuring() as found, pytest.raises(StoreUnavailable):
        get_connection(using).dispatch("GetItem", request)
    assert {each.using for each in found} == {using}


def test_a_backup_never_reads_another_region(regions, dynamo_faults):
    """Nor does a restore write there."""
    using, _ = regions(FAILOVER_WRITES=True)
    table = get_config(using).store_table
    dynamo_faults.reset("*")
    with measuring() as found:
        with pytest.raises(StoreUnavailable):
            run(get_connection(using).here.call("Scan", {"TableName": table}))
        put = {"PutRequest": {"Item": {"PK": {"S": "p"}, "SK": {"S": "s"}}}}
        with pytest.raises(StoreUnavailable):
            run(batch_write(get_connection(using).here, table, [put]))
    assert {each.using for each in found} == {using}


def test_the_status_names_it(regions, make_cache, dynamo_faults):
    """While it lasts."""
    using, second = regions()
    cache, _ = filled(make_cache, using, second)
    dynamo_faults.reset("GetItem")
    cache.get("k1")

    def notes():
        return [
            note
            for note in read_status(using, get_reporter(using).report()).notes
            if f"The alias '{second}' answers requests of this process" in note
        ]

    (note,) = notes()
    assert get_config(using).store_table in note
    dynamo_faults.clear()
    cache.get("k1")
    assert not notes()


def test_under_load_no_read_fails_while_the_first_goes_and_comes_back(
    regions, make_cache, dynamo_faults
):
    """Threads read all the time; each read has an answer, and writes fail as long as it is away."""
    using, second = regions(OPERATION_TIMEOUT=4.0)
    cache, _ = filled(make_cache, using, second, 4.0)
    stop, errors, done = threading.Event(), [], []

    def read(number):
        while not stop.is_set():
            try:
                assert cache.get("k1") == 1
                assert len(cache.get_many(["k1", "k2", "k3"])) == 3
                done.append(number)
            except Exception as exc:
                errors.append(exc)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    try:
        for fault in (dynamo_faults.hang, dynamo_faults.reset):
            fault("*")
            with pytest.raises(StoreUnavailable):
                cache.set("k9", 1)
            time.sleep(1.0)
            dynamo_faults.clear()
            until = time.monotonic() + 20
            while get_connection(using).failed_over() and time.monotonic() < until:
                time.sleep(0.02)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not errors
    assert not get_connection(using).failed_over()
    assert len(set(done)) == 6
    cache.set("k9", 1)


def test_a_short_deadline_leaves_time_for_the_other(regions, make_cache, dynamo_faults):
    """The first alias gets half of it."""
    using, second = regions(CIRCUIT_BREAKER={"ENABLED": False})
    cache, _ = filled(make_cache, using, second)
    dynamo_faults.hang("*")
    with deadline(1.0):
        assert cache.get("k1") == 1


def test_an_open_breaker_without_failover_is_an_error(regions, make_cache, dynamo_faults):
    """Writes are not sent while it is open, and not sent elsewhere."""
    using, second = regions()
    cache, _ = filled(make_cache, using, second)
    dynamo_faults.reset("*")
    for _ in range(3):
        cache.get("k1")
    with measuring() as found, pytest.raises(CircuitBreakerOpenError):
        cache.set("k1", 2)
    assert not found


def test_settings_that_contradict_each_other(alias):
    """FAILOVER_WRITES needs an alias."""
    with pytest.raises(ConfigurationError, match=r"FAILOVER_WRITES.*without FAILOVER"):
        get_config(alias(FAILOVER_WRITES=True))


def test_the_health_command_works(regions):
    """Aliases with FAILOVER pass the checks."""
    regions()
    call_command("check")


def test_the_probe_is_ready_while_the_other_alias_answers(regions, dynamo_faults):
    """Load balancers keep the process; the check of the client says that the first is down."""
    using, _ = regions()
    assert Health(using).current().success
    dynamo_faults.reset("*")
    assert Health(using).current().success
    assert not get_dynamodb_client(using).health_check()


def test_tables_with_other_names(regions, make_cache, dynamo_faults):
    """Each alias has its prefix and its names; answers have those of the first."""
    using, second = regions(prefix=f"second{next(_numbers)}-")
    for each in (using, second):
        StoreItem.bound_to(each)("q", "s").save()
    dynamo_faults.reset("*")
    own, other = get_config(using), get_config(second)
    assert own.store_table != other.store_table
    assert [each.sk for each in StoreItem.bound_to(using).batch_get([("q", "s")])] == ["s"]
    answer = get_connection(using).dispatch(
        "BatchGetItem",
        {"RequestItems": {own.store_table: {"Keys": [{"PK": {"S": "q"}, "SK": {"S": "s"}}]}}},
    )
    assert list(answer["Responses"]) == [own.store_table]


@pytest.mark.parametrize(
    ("own", "other", "name", "expected"),
    [
        ({"TABLE_PREFIX": "a-"}, {"TABLE_PREFIX": "b-"}, "a-posts", "b-posts"),
        ({"TABLE_NAME": "one"}, {"TABLE_NAME": "two"}, "one", "two"),
        ({"TABLES": {"posts": {"TABLE_NAME": "x"}}}, {"TABLE_PREFIX": "b-"}, "x", "b-posts"),
        ({}, {"TABLES": {"posts": {"TABLE_NAME": "y"}}}, "posts", "y"),
        ({"TABLE_PREFIX": "a-"}, {"TABLE_PREFIX": "b-"}, "foreign", None),
        ({}, {}, "arn:aws:dynamodb:us-east-1:1:table/posts", None),
    ],
)
def test_names_of_the_same_table(own, other, name, expected):
    """By the name that models have for it, whatever the prefixes and other names."""
    with override_settings(DYNAMO_STORES={"default": {}, "own": own, "other": other}):
        assert get_config("other").same_table(get_config("own"), name) == expected


def test_what_decides_about_a_write_is_not_read_elsewhere(regions, make_cache, dynamo_faults):
    """Sweeps, moves, locks and jobs: an older answer would delete, lose or free something."""
    using, second = regions(CIRCUIT_BREAKER={"ENABLED": False})
    cache, other = filled(make_cache, using, second)
    lock = cache.lock("job", timeout=60)
    assert lock.acquire()
    store = DedupeStore(using)
    assert store.run("k", lambda: 5) == 5
    other.clear()
    for operation in ("GetItem", "BatchGetItem", "Scan", "Query"):
        dynamo_faults.reset(operation)
    for call in (
        cache.clear,
        lambda: cache.delete_pattern("k*"),
        lambda: cache.store.cleanup(scan=True),
        lambda: cache.incr_version("k1"),
        lock.owned,
        lambda: cache.lock("job").locked(),
        lambda: store.wait_for("k"),
    ):
        with pytest.raises(StoreUnavailable):
            call()
    dynamo_faults.clear()
    assert (cache.get("k1"), len(cache.get("large"))) == (1, 500_000)
    assert lock.owned()
    assert store.wait_for("k") == 5


def test_numbers_of_another_region_are_read_again_after_it(regions, make_cache, dynamo_faults):
    """A tag that was invalidated before the outage is invalid after it at once."""
    using, second = regions()
    cache, other = filled(make_cache, using, second)
    for each in (cache, other):
        each.set("tagged", 1, tags=["t"])
    cache.invalidate_tags(["t"])
    # The process of a moment later.
    fresh = make_cache(using, **{"KEY_PREFIX": cache.key_prefix})
    InvalidationNumbers.__init__(get_numbers(using, cache.key_prefix))
    dynamo_faults.reset("*")
    fresh.get("tagged")
    dynamo_faults.clear()
    assert cache.get("k1") == 1
    assert not get_connection(using).failed_over()
    assert fresh.get("tagged") is None


def test_an_error_of_the_other_alias_is_no_answer(regions, alias, make_cache, dynamo_faults):
    """A missing table, or a wrong profile, is noted on the error of the first alias."""
    for changes in ({"TABLE_PREFIX": "missing-"}, {"PROFILE": "no-such-profile"}):
        other = alias(REGION="eu-west-1", **changes)
        using = alias(ENDPOINT_URL=dynamo_faults.url, FAILOVER=other, RETRY={"MAX_RETRIES": 0})
        cache = make_cache(using, OPTIONS={"OPERATION_TIMEOUT": 2.0})
        make_client_of(using)
        dynamo_faults.reset("*", times=1)
        with pytest.raises(StoreUnavailable, match="got no answer") as caught:
            cache.get("k1")
        assert "did not answer either" in caught.value.__notes__[0]


def test_transactions_are_never_written_elsewhere(regions, dynamo_faults):
    """A token holds in one region: the first one may have carried it out."""
    using, _ = regions(FAILOVER_WRITES=True)
    client = get_dynamodb_client(using)
    dynamo_faults.reset("TransactWriteItems")
    with measuring() as found, pytest.raises(StoreUnavailable):
        client.transact_write([Put(get_config(using).store_table, {"PK": "p", "SK": "s"})])
    assert {each.using for each in found} == {using}


@pytest.mark.parametrize("fault", ["reset", "hang"])
def test_a_tree_and_a_batch_learn_the_key_of_a_table_from_the_other_alias(
    regions, dynamo_faults, fault
):
    """In a process that begins while the first does not answer; within the deadline."""
    using, second = regions(OPERATION_TIMEOUT=4.0, READ_TIMEOUT=60.0)
    StoreItem.bound_to(second)("p", "s").save()
    client, table = get_dynamodb_client(using), get_config(using).store_table
    getattr(dynamo_faults, fault)("*")
    began = time.monotonic()
    tree = client.read_tree(table, {"PK": "p", "SK": "s"}, children="below")
    assert tree.root.item == {"PK": "p", "SK": "s"}
    # Half of the time for the key, and half of it for the root; without them READ_TIMEOUT.
    assert time.monotonic() - began < 30


def test_the_key_of_a_table_is_learned_within_the_deadline(alias, dynamo_faults):
    """Which may be shorter than READ_TIMEOUT, also by the block of a deadline."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, OPERATION_TIMEOUT=1.0, READ_TIMEOUT=60.0)
    client, table = get_dynamodb_client(using), get_config(using).store_table
    dynamo_faults.hang("*")
    for seconds in (120.0, 0.2):
        began = time.monotonic()
        with deadline(seconds), pytest.raises(StoreUnavailable):
            client.batch_write(table, deletes=[{"PK": "p", "SK": "s"}])
        assert time.monotonic() - began < 30


def test_the_tables_of_models_are_required_in_both_aliases(regions):
    """So that commands create, compare and change those of the alias that answers instead."""
    using, second = regions()
    names = {(spec.using, spec.name) for spec in wanted_tables()}
    assert (using, get_config(using).store_table) in names
    assert (second, get_config(second).store_table) in names
    before = {name for alias, name in names if alias == second}
    with override_settings(
        DYNAMO_STORES={
            **settings.DYNAMO_STORES,
            "default": {**settings.DYNAMO_STORES["default"], "FAILOVER": second},
        }
    ):
        after = {spec.name for spec in wanted_tables() if spec.using == second}
    assert {name for name in after - before if "forum-posts" in name}
