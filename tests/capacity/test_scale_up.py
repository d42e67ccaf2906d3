"""Raising a table: by one of all processes, for the demand of all, outside of the request."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from functools import partial

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from celery import current_app
from celery.signals import before_task_publish
from django.conf import settings

from dynamo_stores.cache.options import CacheOptions
from dynamo_stores.calls.backpressure import is_background
from dynamo_stores.calls.observer import Measurement
from dynamo_stores.capacity import ThroughputScaler, demand, with_throughput_scaling
from dynamo_stores.capacity.demand import LocalDemand, SharedDemand, total_of
from dynamo_stores.capacity.records import CapacityRecords
from dynamo_stores.capacity.scale_down import reconcile
from dynamo_stores.capacity.scale_up import get_scaler
from dynamo_stores.capacity.update import describe
from dynamo_stores.exceptions import (
    ConfigurationError,
    StoreUnavailable,
    ThrottlingError,
)
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import FakeClock, FaultProxy
from tests.helpers.capacity import reason
from tests.helpers.clocks import with_clock
from tests.helpers.forking import in_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def put_from_threads(using, *, threads, seconds, pause):
    """Put small values from all threads for so long; return how many were stored."""
    done = []

    def work(number):
        store = CacheStore(using, prefix=f"p{number}")
        until = time.monotonic() + seconds
        turn = 0
        while time.monotonic() < until:
            turn += 1
            try:
                store.set(str(turn), "v")
            except StoreUnavailable:
                continue
            done.append(turn)
            time.sleep(pause)

    running = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for each in running:
        each.start()
    for each in running:
        each.join()
    return len(done)


@pytest.mark.slow
def test_a_throttled_table_is_raised_once_for_all(provisioned):
    """Three processes write 120 items a second to a table of 5 units: few changes, all up."""
    using, table, relay = provisioned(updating=1.0, burst=1.0)
    done = in_processes(3, lambda number: put_from_threads(using, threads=4, seconds=8, pause=0.1))
    capacity = describe(using, table)
    assert capacity.resources[""].units.write > 5
    assert capacity.resources[""].units.read == 5
    assert capacity.resources["GSI1"].units.write >= 10
    assert relay.status()["tables"][table]["updates"] <= 3
    # Without a raise it would be 5 a second and a burst: 45.
    assert sum(done) > 60
    record = CapacityRecords(using).get(table)
    assert record.deadline > time.time()
    assert record.decision["code"] == "raised"


def test_the_calls_path_does_no_control_plane(provisioned):
    """A throttled call waits for its retries alone: the scaler has a thread of its own."""
    using, table, _ = provisioned(updating=1.0, burst=1.0)
    scaler = get_scaler(using)
    began_at = time.perf_counter()
    for _ in range(1000):
        scaler.record(Measurement(using, "another", "PutItem", 0.01, throttled=False))
    assert scaler._thread is None
    assert time.perf_counter() - began_at < 5
    assert describe(using, table).is_active


def test_one_claim_decides(provisioned):
    """The second process does nothing, after one write that failed."""
    using, table, relay = provisioned()
    scaler = get_scaler(using)
    plan = scaler.handle(table, [reason(using, table)])
    assert plan.code == "raised"
    assert scaler.handle(table, [reason(using, table)]) is None
    assert relay.status()["tables"][table]["updates"] == 1


def test_a_dry_run_logs_what_it_would_do(provisioned, caplog):
    """And changes nothing."""
    using, table, relay = provisioned(SCALING={"DRY_RUN": True})
    with caplog.at_level(logging.WARNING):
        plan = get_scaler(using).handle(table, [reason(using, table)])
    assert plan.code == "dry_run"
    assert (
        f"{table} would be changed to 5 RCU and 10 WCU, index GSI1 5 RCU and 10 WCU" in caplog.text
    )
    assert relay.status()["tables"][table]["updates"] == 0
    assert CapacityRecords(using).get(table) is None


def test_a_throttle_while_the_thread_ends_is_handled(provisioned):
    """It comes after the minute in which the thread has waited for one."""
    using, table, _ = provisioned()
    scaler, came = get_scaler(using), []

    class Minute(threading.Event):
        def wait(self, timeout=None):
            if not came:
                came.append(table)
                scaler.on_throttle(table, [reason(using, table)], ["Write"])
            return False

    scaler._has_work = Minute()
    scaler._thread = thread = threading.Thread(target=scaler._run)
    thread.start()
    thread.join()
    assert CapacityRecords(using).get(table).decision["code"] == "raised"
    assert scaler._thread is None


def test_scaling_must_be_enabled(provisioned):
    """It spends money: without ENABLED nothing is raised."""
    using, table, relay = provisioned(SCALING={"ENABLED": False})
    assert get_scaler(using).handle(table, [reason(using, table)]) is None
    assert put_from_threads(using, threads=2, seconds=2, pause=0.02) > 0
    assert relay.status()["tables"].get(table, {}).get("updates", 0) == 0


def measured(units=None, *, throttled=False, operation="PutItem"):
    consumed = [
        {"TableName": table, "CapacityUnits": used}
        if not index
        else {
            "TableName": table,
            "Table": {"CapacityUnits": 0.0},
            "GlobalSecondaryIndexes": {index: {"CapacityUnits": used}},
        }
        for (table, _, index), used in (
            (name.partition("/"), used) for name, used in (units or {}).items()
        )
    ]
    return Measurement("u", "t", operation, 0.01, consumed=consumed, throttled=throttled)


def test_demand_is_what_is_attempted():
    """The busiest second; a throttled attempt costs what the last one of its kind did."""
    with FakeClock() as now:
        demand = LocalDemand()
        for _ in range(3):
            demand.record(measured({"t": 2.0, "t/I": 1.0}))
        demand.record(measured({"t": 5.0}, operation="Query"))
        now.advance(1)
        for _ in range(4):
            demand.record(measured(throttled=True))
        demand.record(measured(throttled=True, operation="UpdateItem"))
        assert demand.peak("t") == {
            ("", "Write"): 9.0,
            ("I", "Write"): 4.0,
            ("", "Read"): 5.0,
        }
        now.advance(11)
        assert demand.peak("t") == {}


def test_demand_is_summed_over_processes(provisioned):
    """Of those that published it lately."""
    using, table, _ = provisioned()
    shared = SharedDemand(using)

    def publish(number):
        shared.publish(table, {("", "Write"): 10.0 + number})

    in_processes(3, publish)
    assert shared.total(table) == {("", "Write"): 33.0}
    item = {"a": {"N": "1000"}, "x": {"S": '[["", "Write", 5.0]]'}}
    assert total_of([item], 10.0) == {("", "Write"): 5.0}
    assert total_of([item], 12.0) == {}


@pytest.mark.parametrize("wrong", [3600.0, -3600.0])
def test_demand_is_published_and_read_by_the_time_of_dynamodb(provisioned, monkeypatch, wrong):
    """A clock that is ahead or behind neither hides demand nor makes it last."""
    monkeypatch.setattr(demand, "WINDOW", 600.0)
    using, table, _ = provisioned()
    shared, units = SharedDemand(using), {("", "Write"): 7.0}
    with_clock(wrong, lambda: shared.publish(table, units))
    assert shared.total(table) == with_clock(wrong, lambda: shared.total(table)) == units
    with FakeClock(time.time() + 1800):
        assert shared.total(table) == {}


def test_demand_of_the_future_is_not_counted():
    """An earlier version published it by a clock that is ahead."""
    item = {"a": {"N": "1000000"}, "x": {"S": '[["", "Write", 5.0]]'}}
    assert total_of([item], 985.0) == {}
    assert total_of([item], 995.0) == {("", "Write"): 5.0}


def bare_client(relay):
    return boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=relay.url,
        aws_access_key_id="local",
        aws_secret_access_key="local",
        config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
    )


def test_calls_of_ones_own_are_scaled(provisioned):
    """A boto3 client's throttle raises the table; the call is retried until it succeeds."""
    using, table, relay = provisioned(updating=0.5, burst=1.0, SCALING={"ENABLED": False})
    client = bare_client(relay)

    def put(number):
        item = {"PK": {"S": f"p{number}"}, "SK": {"S": "s"}}
        client.put_item(TableName=table, Item=item)
        return number

    scaler = ThroughputScaler(table, using=using, max_write_capacity=33, scale_up_factor=3.0)
    done = [scaler.execute_with_scaling(partial(put, each), "put") for each in range(30)]
    assert done == list(range(30))
    assert 5 < describe(using, table).resources[""].units.write <= 33
    assert relay.status()["tables"][table]["updates"] >= 1


def test_the_demand_of_ones_own_calls_is_measured(alias):
    """By the response of botocore, once such a call was throttled."""
    using = alias(OPERATION_TIMEOUT=5)
    scaler, units = ThroughputScaler("t", using=using), {"TableName": "t", "CapacityUnits": 7.0}
    answers = [{"ConsumedCapacity": units}, throttled("t"), {"ConsumedCapacity": units}, {}]

    def call():
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    for _ in range(3):
        scaler.execute_with_scaling(call, "put")
    demand = get_scaler(using)._demand.peak("t")
    assert demand.keys() == {("", "Write")}
    assert demand["", "Write"] >= 7.0


def test_names_of_tables_get_the_prefix(alias):
    """A model's name for a table, its own name in DynamoDB, and one that is the same."""
    using = alias(TABLE_PREFIX="p-", TABLES={"orders": {"TABLE_NAME": "old-orders"}})
    names = ("posts", "p-posts", "orders", "old-orders")
    assert [ThroughputScaler(name, using=using).table for name in names] == [
        "p-posts",
        "p-posts",
        "old-orders",
        "old-orders",
    ]
    assert ThroughputScaler("posts", using=alias(TABLE_PREFIX="")).table == "posts"


def test_a_throttled_statement_may_be_a_read_or_a_write(provisioned):
    """Without reasons both kinds are raised: the operation does not say which it is."""
    using, table, _ = provisioned(updating=0.1)
    error = {"Code": "ProvisionedThroughputExceededException"}
    scaler = ThroughputScaler(table, using=using)
    scaler.on_throttle(ClientError({"Error": error}, "ExecuteStatement"), "select")
    until = time.monotonic() + 20
    while describe(using, table).resources[""].units != (10, 10):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_the_wrapper_the_decorator_and_the_block(provisioned):
    """One name for all three; other errors pass, results come back, coroutines are awaited."""
    using, table, relay = provisioned(updating=0.5, burst=1.0)
    assert with_throughput_scaling("op", lambda: 7, table=table, using=using) == 7
    calls = []

    @with_throughput_scaling("op", table=table, using=using)
    def flaky(value):
        calls.append(value)
        if len(calls) < 3:
            raise throttled(table)
        return value

    @with_throughput_scaling("op", table=table, using=using)
    async def coroutine(value):
        calls.append(value)
        if len(calls) < 6:
            raise throttled(table)
        return value

    assert flaky("v") == "v"
    assert asyncio.run(coroutine("w")) == "w"
    assert calls == ["v"] * 3 + ["w"] * 3
    with pytest.raises(ZeroDivisionError):
        with_throughput_scaling("op", lambda: 1 / 0, table=table, using=using)
    with pytest.raises(ClientError, match="ProvisionedThroughput"):
        a_throttled_block(table, using)
    until = time.monotonic() + 20
    while relay.status()["tables"].get(table, {}).get("updates") != 1:
        assert time.monotonic() < until
        time.sleep(0.1)


def a_throttled_block(table, using):
    with with_throughput_scaling("op", table=table, using=using) as scaler:
        assert scaler.table == table
        raise throttled(table)


def throttled(table):
    reasons = [
        {
            "reason": "TableWriteProvisionedThroughputExceeded",
            "resource": f"arn:aws:dynamodb:us-east-1:000000000000:table/{table}",
        }
    ]
    error = {"Code": "ProvisionedThroughputExceededException", "Message": "slow down"}
    return ClientError({"Error": error, "ThrottlingReasons": reasons}, "PutItem")


def test_a_call_that_stays_throttled_ends(alias, default_alias):
    """At the operation's deadline, with a typed error."""
    using = alias(OPERATION_TIMEOUT=0.5)
    with pytest.raises(ThrottlingError) as caught:
        with_throughput_scaling(
            "op", lambda: (_ for _ in ()).throw(throttled("t")), table="t", using=using
        )
    assert caught.value.retry_after > 0
    assert caught.value.reasons[0].table == "t"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"max_write_capcity": 3}, "did you mean 'MAX_WRITE_CAPACITY'"),
        ({"scale_up_factor": 1.0}, "expected a number above 1"),
    ],
)
def test_wrong_overrides_are_named(overrides, message):
    """As wrong settings are."""
    with pytest.raises(ConfigurationError, match=message):
        ThroughputScaler("t", **overrides)


def test_a_raise_sends_the_hint_to_come_down(provisioned, tmp_path):
    """With a countdown to its deadline; a broker that is not there does no harm."""
    using, table, _ = provisioned()
    sent = []

    def remember(body, **kwargs):
        sent.append((kwargs["headers"]["task"], body[0], kwargs["headers"]["eta"]))

    before_task_publish.connect(remember)
    try:
        get_scaler(using).handle(table, [reason(using, table)])
        # Another thread sends it.
        until = time.monotonic() + 20
        while not sent:
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        before_task_publish.disconnect(remember)
    ((task, args, eta),) = sent
    assert (task, list(args)) == ("dynamo_stores.scale_down", [table, using])
    assert eta is not None


def test_celery_tasks_are_background_work():
    """And the thread that calls one as a function is not, afterwards."""

    @current_app.task
    def task():
        return is_background()

    assert task.apply().get() is True
    assert not is_background()


def test_no_operation_waits_for_a_table_to_be_active(provisioned):
    """While it is UPDATING an operation ends by its deadline, with a sentence on what to do."""
    using, table, _ = provisioned(updating=40.0, burst=1.0)
    store = CacheStore(using, prefix="p", options=CacheOptions(operation_timeout=1.0))
    get_scaler(using).handle(table, [reason(using, table)])
    longest, refused, until = 0.0, 0, time.monotonic() + 3
    while time.monotonic() < until:
        assert not describe(using, table).is_active
        began_at = time.monotonic()
        try:
            store.set("k", "v" * 20_000)
        except StoreUnavailable as exc:
            refused += isinstance(exc, ThrottlingError)
        longest = max(longest, time.monotonic() - began_at)
    assert refused
    # And what a busy machine takes, which is less than becoming ACTIVE does.
    assert longest < 1.0 + 15.0


def test_a_raise_is_recorded_before_it_is_requested(provisioned, alias):
    """A process that dies between the two leaves no table raised for ever."""
    using, table, relay = provisioned()
    with FaultProxy(relay.url) as faults:
        broken = alias(**{**settings.DYNAMO_STORES[using], "ENDPOINT_URL": faults.url})
        faults.lose_answer("UpdateTable")
        with pytest.raises(StoreUnavailable):
            get_scaler(broken).handle(table, [reason(broken, table)])
    while not describe(using, table).is_active:
        time.sleep(0.05)
    assert describe(using, table).resources[""].units == (5, 10)
    with FakeClock(time.time() + 61):
        (outcome,) = reconcile(using)
    assert outcome.plan.changes == {"": (5, 5), "GSI1": (5, 5)}
