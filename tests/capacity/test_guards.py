"""Conditions in which nothing is raised or lowered."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime

import pytest
from django.conf import settings
from django.core import checks
from django.test import override_settings

from dynamo_stores import clock
from dynamo_stores.capacity.demand import SharedDemand
from dynamo_stores.capacity.planner import end_of_maintenance
from dynamo_stores.capacity.records import CapacityRecords
from dynamo_stores.capacity.scale_down import reconcile
from dynamo_stores.capacity.scale_up import get_scaler
from dynamo_stores.capacity.update import describe
from dynamo_stores.capacity.usage import Usage
from dynamo_stores.testing import FakeClock, FaultProxy
from tests.helpers.capacity import reason, record_use


def at(hour, minute=0):
    return datetime(2033, 5, 18, hour, minute, tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("now", "end"),
    [
        (at(9), at(12)),
        (at(8, 59), None),
        (at(12), None),
        (at(23), at(6, 30) + 86_400),
        (at(22), at(6, 30) + 86_400),
        (at(0), at(6, 30)),
        (at(6, 30), None),
    ],
)
def test_maintenance_windows(now, end):
    """In UTC, also over midnight."""
    assert end_of_maintenance(["09:00-12:00", "22:00-06:30"], now) == end


def test_nothing_is_lowered_in_a_maintenance_window(provisioned, run):
    """The table is lowered when the window ends."""
    using, table, relay = provisioned(SCALING={"MAINTENANCE_WINDOWS": ["00:00-12:00"]})
    start = at(11) if at(11) > time.time() else at(11) + 86_400
    run("dynamo_scale", table, "up", using=using)
    while not describe(using, table).is_active:
        time.sleep(0.05)
    with FakeClock(start) as now:
        (outcome,) = reconcile(using)
        assert outcome.plan.code == "maintenance_window"
        assert outcome.next_deadline == start + 3600
        assert reconcile(using) == []
        now.advance(3601)
        (outcome,) = reconcile(using)
        assert outcome.plan.code == "lowered"
    assert relay.status()["tables"][table]["updates"] == 2


@pytest.mark.parametrize("wrong", ["09:00-12:00", ["9-12"], ["24:00-01:00"], ["09:00-09:00"], [9]])
def test_wrong_windows_are_found(wrong):
    """By the check of the setting."""
    scaling = {"MAINTENANCE_WINDOWS": wrong}
    with override_settings(DYNAMO_STORES={"default": {"SCALING": scaling}}):
        assert "dynamo_stores.E049" in {each.id for each in checks.run_checks()}


def test_a_table_that_is_throttled_at_its_maximum_does_not_come_down(provisioned, run):
    """Its deadline moves on."""
    using, table, _ = provisioned(SCALING={"MAX_WRITE_CAPACITY": 10, "MAX_READ_CAPACITY": 10})
    run("dynamo_scale", table, "up", using=using)
    while not describe(using, table).is_active:
        time.sleep(0.05)
    before = CapacityRecords(using).get(table).deadline
    with FakeClock(time.time() + 30):
        plan = get_scaler(using).handle(table, [reason(using, table)])
        assert plan.code == "at_maximum"
        record = CapacityRecords(using).get(table)
        assert record.deadline == pytest.approx(clock.now() + 60, abs=1)
    assert record.deadline > before + 20


def test_a_missing_permission_is_logged_once(provisioned, dynamo_capacity, alias, caplog):
    """And there is a pause before the next attempt."""
    using, table, relay = provisioned()
    with FaultProxy(relay.url) as faults:
        denied = alias(
            **{
                **settings.DYNAMO_STORES[using],
                "ENDPOINT_URL": faults.url,
            }
        )
        faults.fail("UpdateTable", status=400, code="AccessDeniedException")
        scaler = get_scaler(denied)
        with caplog.at_level(logging.WARNING):
            plan = scaler.handle(table, [reason(denied, table)])
            scaler.on_throttle(table, [reason(denied, table)], ["Write"])
    assert (plan.code, plan.changes) == ("not_allowed", {})
    assert caplog.text.count("dynamodb:UpdateTable is missing") == 1
    assert scaler._thread is None
    with FakeClock(time.time() + 61):
        assert reconcile(using) == []


def test_capacity_that_is_needed_is_kept(provisioned, run):
    """The table is lowered to the demand, and checked again."""
    using, table, _ = provisioned()
    run("dynamo_scale", table, "to", read=20, write=40, using=using)
    while not describe(using, table).is_active:
        time.sleep(0.05)
    with FakeClock(time.time() + 61):
        record_use(using, table, Usage())
        SharedDemand(using).publish(table, {("", "Write"): 14.0})
        (outcome,) = reconcile(using)
        assert outcome.plan.changes == {"": (5, 20), "GSI1": (5, 5)}
        assert outcome.next_deadline == pytest.approx(clock.now() + 60, abs=1)
