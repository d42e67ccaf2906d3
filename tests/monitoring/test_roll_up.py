"""The roll-up of reports for the chart of the last hour, and the deletion of old items."""

from __future__ import annotations

import time

import pytest
from django.test import override_settings

from dynamo_stores import keys
from dynamo_stores.capacity.history import Decisions
from dynamo_stores.capacity.usage import Usage, UsageHistory, minute_of
from dynamo_stores.concurrency.effects import run
from dynamo_stores.monitoring.decision_list import DecisionList
from dynamo_stores.monitoring.report import Report
from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.monitoring.roll_up import roll_up
from dynamo_stores.tasks import beat_schedule, roll_up_status
from dynamo_stores.testing import FakeClock, FaultProxy
from tests.helpers.clocks import with_clock
from tests.helpers.forking import in_processes

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def latest_decisions(using):
    return DecisionList(using).latest_and_unreadable()[0]


@pytest.fixture
def now():
    """A moment in the middle of a minute, and the minute."""
    moment = (time.time() // 60) * 60 + 30
    with FakeClock(moment) as clock:
        yield clock


def report(using, clock, pid, use, at=0.0):
    ReportStore(using).publish(
        Report("h", pid, "test", "1", clock.now(), clock.now() + at, 60.0, use=use)
    )


def test_processes_are_summed_up_by_minute_and_table(reporting, now):
    """Minutes that are over; the running one is still to come."""
    using, minute = reporting(), minute_of(now.now())
    report(using, now, 1, {minute - 1: {"t": Usage(1.5, 1.0), "t/I": Usage(0, 2.0)}, minute: {}})
    report(using, now, 2, {minute - 1: {"t": Usage(1.0, 0.0, 3, 0), "u": Usage(1.0)}})
    assert roll_up(using).written == 2
    assert UsageHistory(using).last_hour() == {
        minute - 1: {"t": Usage(2.5, 1.0, 3, 0), "t/I": Usage(0, 2.0), "u": Usage(1.0)}
    }
    assert roll_up(using).written == 0


def test_late_reports_are_added(reporting, now):
    """As long as they contain the minute; repeating is safe."""
    using, minute = reporting(), minute_of(now.now())
    report(using, now, 1, {minute - 1: {"t": Usage(1.0)}})
    assert roll_up(using).written == 1
    report(using, now, 2, {minute - 1: {"t": Usage(2.0)}})
    assert sorted(in_processes(2, lambda number: roll_up(using).written))[-1] == 1
    assert UsageHistory(using).last_hour() == {minute - 1: {"t": Usage(3.0)}}


def test_the_last_hour_is_one_query(reporting, now, dynamo_faults):
    """Of sixty minutes and several tables."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url)
    history, minute = UsageHistory(using), minute_of(now.now())
    for back in range(1, 6):
        history.roll_up({minute - back: {f"t{n}": Usage(1.0, 1.0) for n in range(5)}})
    dynamo_faults.requests.clear()
    assert len(history.last_hour()) == 5
    assert dynamo_faults.requests == {"Query": 1}


def test_what_is_over_is_deleted(reporting, now):
    """Usage after two hours, reports after one, decisions after thirty days."""
    using, minute = reporting(), minute_of(now.now())
    report(using, now, 1, {minute - 1: {"t": Usage(1.0)}})
    report(using, now, 2, {}, at=-3700.0)
    decisions = Decisions(using)
    for days in (1, 31):
        decisions.publish("t", {"at": now.now() - days * 86_400, "code": "raised", "why": "x"})
    roll_up(using)
    old = UsageHistory(using)
    key = keys.usage(minute - 121, "t")
    run(old._items.put({"PK": {"S": key.pk}, "SK": {"S": key.sk}, "x": {"S": "{}"}}))
    assert roll_up(using) == (0, 1)
    assert [each.pid for each in ReportStore(using).all()] == [1]
    assert len(latest_decisions(using)) == 1
    now.advance(31 * 86_400)
    roll_up(using)
    assert ReportStore(using).all() == []
    assert latest_decisions(using) == []
    assert (
        list(
            run(
                old._items.query(
                    {
                        "KeyConditionExpression": "PK = :p",
                        "ExpressionAttributeValues": {":p": {"S": "USE"}},
                    }
                )
            )
        )
        == []
    )


def test_a_clock_that_is_ahead_deletes_nothing(reporting):
    """What is over is so by DynamoDB's time, not by that of the machine."""
    using = reporting(REPORTS={"INTERVAL": 36_000.0})
    with FakeClock(time.time()) as now:
        minute = minute_of(now.now())
        report(using, now, 1, {minute - 1: {"t": Usage(1.0)}})
        Decisions(using).publish("t", {"at": now.now(), "code": "raised", "why": "x"})
        assert roll_up(using).written == 1
    assert with_clock(40 * 86_400.0, lambda: roll_up(using).deleted) == 0
    assert [each.pid for each in ReportStore(using).all()] == [1]
    assert UsageHistory(using).between(minute - 1, minute - 1) == {minute - 1: {"t": Usage(1.0)}}
    assert len(latest_decisions(using)) == 1


def test_beat_does_it_every_minute(reporting, now):
    """Where reports are on; one task for all aliases."""
    using, minute = reporting(), minute_of(now.now())
    assert beat_schedule()["dynamo_stores.roll_up_status"] == {
        "task": "dynamo_stores.roll_up_status",
        "schedule": 60.0,
        "options": {"expires": 60.0, "expire_seconds": 60},
    }
    report(using, now, 1, {minute - 1: {"t": Usage(1.0)}})
    assert roll_up_status() == 1
    off = {"default": {"REPORTS": {"ENABLED": False}}}
    with override_settings(DYNAMO_STORES=off):
        assert "dynamo_stores.roll_up_status" not in beat_schedule()


def test_an_alias_that_cannot_be_reached_fails_alone(reporting, now, dynamo_engine):
    """The task raises it; the other aliases are summed up."""
    using, minute = reporting(), minute_of(now.now())
    with FaultProxy(dynamo_engine) as faults:
        reporting(make_tables=False, ENDPOINT_URL=faults.url)
        faults.fail("Query")
        report(using, now, 1, {minute - 1: {"t": Usage(1.0)}})
        with pytest.raises(ExceptionGroup) as raised:
            roll_up_status()
    assert len(raised.value.exceptions) == 1
    assert UsageHistory(using).last_hour() == {minute - 1: {"t": Usage(1.0)}}
