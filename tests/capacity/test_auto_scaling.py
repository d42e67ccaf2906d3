"""Tables that have targets of Application Auto Scaling."""

from __future__ import annotations

import logging
import socket
import time

import boto3
import pytest
from celery import current_app
from django.core.management import CommandError

from dynamo_stores.capacity.auto_scaling import ScalableTarget, get_auto_scaling
from dynamo_stores.capacity.records import CapacityRecords
from dynamo_stores.capacity.scale_down import reconcile
from dynamo_stores.capacity.scale_up import get_scaler
from dynamo_stores.capacity.update import describe
from dynamo_stores.signals import capacity_changed
from dynamo_stores.testing import FakeClock
from tests.helpers.capacity import named, reason


@pytest.fixture
def auto_scaling(moto):
    """The endpoint of an Application Auto Scaling that holds targets."""
    return moto


def register(endpoint, table, index="GSI1", maximum=50, minimum=5):
    boto3.client(
        "application-autoscaling",
        region_name="us-east-1",
        endpoint_url=endpoint,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    ).register_scalable_target(
        ServiceNamespace="dynamodb",
        ResourceId=f"table/{table}/index/{index}" if index else f"table/{table}",
        ScalableDimension=f"dynamodb:{'index' if index else 'table'}:WriteCapacityUnits",
        MinCapacity=minimum,
        MaxCapacity=maximum,
    )


def test_a_table_that_is_scaled_by_aws_is_left_alone(provisioned, auto_scaling, caplog):
    """Up and down, because Application Auto Scaling overwrites changes of others."""
    using, table, relay = provisioned(SCALING={"AUTO_SCALING_ENDPOINT_URL": auto_scaling})
    register(auto_scaling, table)
    with caplog.at_level(logging.WARNING):
        plan = get_scaler(using).handle(table, [reason(using, table)])
    assert (plan.code, plan.changes) == ("auto_scaled", {})
    assert caplog.text.count("Application Auto Scaling has targets for") == 1
    CapacityRecords(using).record_raise(named(table), time.time() - 1, {"code": "raised"})
    (outcome,) = reconcile(using)
    assert (outcome.plan.code, outcome.next_deadline) == ("auto_scaled", None)
    assert relay.status()["tables"][table]["updates"] == 0


def test_other_tables_targets_do_not_count(provisioned, auto_scaling):
    """Only its own, and those of its indexes."""
    using, table, _ = provisioned(SCALING={"AUTO_SCALING_ENDPOINT_URL": auto_scaling})
    register(auto_scaling, f"{table}-another")
    assert get_scaler(using).handle(table, [reason(using, table)]).code == "raised"


def test_targets_that_cannot_be_read_count_as_none(provisioned, caplog):
    """That is logged once, and the table is raised."""
    using, table, _ = provisioned(SCALING={"AUTO_SCALING_ENDPOINT_URL": "http://127.0.0.1:9"})
    with caplog.at_level(logging.WARNING):
        plan = get_scaler(using).handle(table, [reason(using, table)])
    assert plan.code == "raised"
    assert caplog.text.count("the table is treated as having none") == 1


def test_by_option_its_minimum_goes_up_and_comes_down(provisioned, auto_scaling, caplog):
    """Up to its maximum, in one raise; the table's own capacity is not changed."""
    using, table, relay = provisioned(
        SCALING={
            "AUTO_SCALING_ENDPOINT_URL": auto_scaling,
            "AUTO_SCALING": "raise_minimum",
            "MAX_WRITE_CAPACITY": 80,
            "SCALE_UP_FACTOR": 3.0,
        }
    )
    register(auto_scaling, table)
    register(auto_scaling, table, index="")
    with caplog.at_level(logging.INFO):
        plan = get_scaler(using).handle(table, [reason(using, table)])
    assert plan.code == "minimum_raised"
    expected = {("", "Write"): ScalableTarget(15, 50), ("GSI1", "Write"): ScalableTarget(15, 50)}
    assert get_auto_scaling(using).targets(describe(using, table)) == expected
    assert "the minimum for Application Auto Scaling is raised" in caplog.text
    assert reconcile(using) == []
    with FakeClock(time.time() + 61):
        (outcome,) = reconcile(using)
        assert (outcome.plan.code, outcome.next_deadline) == ("minimum_lowered", None)
        targets = get_auto_scaling(using).targets(describe(using, table))
    assert targets == {
        ("", "Write"): ScalableTarget(5, 50),
        ("GSI1", "Write"): ScalableTarget(5, 50),
    }
    assert relay.status()["tables"][table]["updates"] == 0


@pytest.mark.parametrize("direction", ["up", "down", "to"])
def test_a_command_leaves_it_alone_too(provisioned, auto_scaling, run, direction):
    """Application Auto Scaling would overwrite the change."""
    using, table, relay = provisioned(SCALING={"AUTO_SCALING_ENDPOINT_URL": auto_scaling})
    register(auto_scaling, table)
    units = {"write": 20} if direction == "to" else {}
    with pytest.raises(CommandError, match="Application Auto Scaling has targets for"):
        run("dynamo_scale", table, direction, using=using, **units)
    assert relay.status()["tables"][table]["updates"] == 0
    assert CapacityRecords(using).get(table) is None


def test_by_option_a_command_raises_the_minimum(provisioned, auto_scaling, run):
    """Until SCALE_DOWN_DELAY has passed; then it is what it was before, above the baseline."""
    using, table, _ = provisioned(
        SCALING={
            "AUTO_SCALING_ENDPOINT_URL": auto_scaling,
            "AUTO_SCALING": "raise_minimum",
            "BASE_WRITE_CAPACITY": 2,
        }
    )
    register(auto_scaling, table, minimum=3)
    client = get_auto_scaling(using)
    run("dynamo_scale", table, "up", using=using)
    assert client.targets(describe(using, table))["GSI1", "Write"].minimum == 4
    with FakeClock(time.time() + 61):
        (outcome,) = reconcile(using)
        assert outcome.plan.code == "minimum_lowered"
        assert client.targets(describe(using, table))["GSI1", "Write"].minimum == 3


def test_a_maximum_that_was_changed_meanwhile_stays(provisioned, auto_scaling):
    """The cached targets are up to five minutes old, and not written back."""
    using, table, _ = provisioned(
        SCALING={"AUTO_SCALING_ENDPOINT_URL": auto_scaling, "AUTO_SCALING": "raise_minimum"}
    )
    register(auto_scaling, table)
    assert get_auto_scaling(using).targets(describe(using, table))[
        "GSI1", "Write"
    ] == ScalableTarget(5, 50)
    register(auto_scaling, table, maximum=80)
    assert get_scaler(using).handle(table, [reason(using, table)]).code == "minimum_raised"
    assert get_auto_scaling(using).targets(describe(using, table))[
        "GSI1", "Write"
    ] == ScalableTarget(10, 80)


def test_nothing_is_raised_above_the_maximum_of_targets(provisioned, auto_scaling, caplog):
    """That is logged once, and there is no record."""
    using, table, _ = provisioned(
        SCALING={"AUTO_SCALING_ENDPOINT_URL": auto_scaling, "AUTO_SCALING": "raise_minimum"}
    )
    register(auto_scaling, table)
    read = reason(using, table, "TableReadProvisionedThroughputExceeded")
    assert get_scaler(using).handle(table, [read]).code == "at_maximum"
    assert CapacityRecords(using).get(table) is None


@pytest.fixture
def silent():
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def test_an_endpoint_that_does_not_answer_delays_a_raise_by_two_seconds(
    provisioned, silent, caplog
):
    """It counts as no targets, which is logged once; other tables and later raises do not wait."""
    using, table, _ = provisioned(SCALING={"AUTO_SCALING_ENDPOINT_URL": f"http://{silent}"})
    client = get_auto_scaling(using)
    capacity = describe(using, table)
    assert client.targets(capacity) == {}
    config = client._client.meta.config
    assert config.connect_timeout + config.read_timeout <= 2
    assert config.retries["total_max_attempts"] == 1
    assert client.targets(capacity) == {}
    assert caplog.text.count("could not be read") == 1
    assert get_scaler(using).handle(table, [reason(using, table)]).code == "raised"


def test_known_targets_are_kept_while_the_service_does_not_answer(
    provisioned, auto_scaling, dynamo_clock
):
    """A table that Application Auto Scaling manages stays left alone."""
    using, table, _ = provisioned(SCALING={"AUTO_SCALING_ENDPOINT_URL": auto_scaling})
    register(auto_scaling, table)
    client, capacity = get_auto_scaling(using), describe(using, table)
    known = client.targets(capacity)
    assert known
    client._client = boto3.client(
        "application-autoscaling",
        region_name="us-east-1",
        endpoint_url="http://127.0.0.1:9",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    dynamo_clock.advance(301)
    assert client.targets(capacity) == known


def test_a_broker_that_does_not_answer_stops_no_raise(provisioned, silent):
    """The task to lower is sent by another thread; the record in the table is what counts."""
    pytest.importorskip("redis")
    using, table, _ = provisioned(updating=0.1)
    before = current_app.conf.broker_url
    current_app.conf.broker_url = f"redis://{silent}/0"
    try:
        scaler = get_scaler(using)
        assert scaler.handle(table, [reason(using, table)]).code == "raised"
        started = time.monotonic()
        for _ in range(3):
            capacity_changed.send_robust(
                None, using=using, table=table, code="raised", changes={}, why=""
            )
        assert time.monotonic() - started < 5
        assert CapacityRecords(using).get(table).deadline is not None
    finally:
        current_app.conf.broker_url = before
