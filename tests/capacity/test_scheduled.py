"""Schedules that are followed: ahead of the hour, once, and down again when they end."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from dynamo_stores import keys
from dynamo_stores.capacity import scheduled as scheduled_module
from dynamo_stores.capacity.records import CapacityRecords
from dynamo_stores.capacity.scale_down import reconcile
from dynamo_stores.capacity.schedule import HOUR
from dynamo_stores.capacity.scheduled import Schedules, follow_schedules
from dynamo_stores.capacity.update import describe
from dynamo_stores.capacity.usage import Usage, UsageHistory, minute_of
from dynamo_stores.concurrency.effects import run as do
from dynamo_stores.conf.rules import HOURS_OF_WEEK
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.expressions import put
from dynamo_stores.monitoring.decision_list import DecisionList
from dynamo_stores.monitoring.periods import Period
from dynamo_stores.monitoring.schedules import follow, read_peaks
from dynamo_stores.tasks import reconcile_capacity
from dynamo_stores.testing import FakeClock
from tests.helpers.data_pages import sum_up
from tests.helpers.forking import in_processes

OFFICE = {"mon-fri 08:00-18:00": {"READ": 50, "WRITE": 20}}
ACTS = {"SCHEDULE_DRY_RUN": False}


def units(using, table):
    return {name: tuple(each.units) for name, each in describe(using, table).resources.items()}


def until_active(using, table):
    while not describe(using, table).is_active:
        time.sleep(0.02)


def updates(relay, table):
    return relay.status()["tables"][table]["updates"]


@pytest.fixture
def now():
    """The begin of the next Monday, by a clock that only tests move."""
    today = datetime.fromtimestamp(time.time(), UTC)
    midnight = today.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    with FakeClock(midnight + (7 - today.weekday()) * 86_400) as clock:
        yield clock


@pytest.fixture
def scheduled(provisioned, now):
    """``scheduled(schedule, …)``: a provisioned table with it; returns alias, name and relay."""

    def make(schedule, **changes):
        return provisioned(SCALING={"SCHEDULE": schedule, **changes}, updating=0.0)

    return make


def idle(using, table, clock):
    """Record that the table was not used in the last minute."""
    use = {table: Usage(), f"{table}/GSI1": Usage()}
    UsageHistory(using).roll_up({minute_of(clock.now()) - 1: use})


def decisions(using):
    found, unreadable = DecisionList(using).latest_and_unreadable()
    assert unreadable == 0
    return [each.code for each in reversed(found)]


def test_a_table_is_raised_ahead_of_the_hour_and_lowered_at_its_end(scheduled, now):
    """Ten minutes before, once; by its record at the end, to what it had."""
    using, table, relay = scheduled(OFFICE, **ACTS)
    now.advance(7 * HOUR + 2990)
    assert follow(using) == []
    now.advance(20)
    (decided,) = follow(using)
    assert decided.plan.code == "scheduled"
    assert follow(using) == []
    until_active(using, table)
    assert units(using, table) == {"": (50, 20), "GSI1": (50, 20)}
    record = CapacityRecords(using).get(table)
    assert record.deadline == pytest.approx(now.now() - 3010 - 7 * HOUR + 18 * HOUR, abs=1)
    for _ in range(9):
        now.advance(HOUR)
        assert follow(using) == reconcile(using) == []
    now.advance(HOUR + 700)
    idle(using, table, now)
    (outcome,) = reconcile(using)
    assert (outcome.plan.code, outcome.next_deadline) == ("lowered", None)
    until_active(using, table)
    assert units(using, table) == {"": (5, 5), "GSI1": (5, 5)}
    assert updates(relay, table) == 2
    assert decisions(using) == ["scheduled", "lowered"]


def test_hours_that_begin_at_half_past(scheduled, now):
    """In Kolkata, 08:00 is 02:30 in UTC; the hour before was decided about, too."""
    using, _, _ = scheduled(
        {"mon 08:00-09:00": {"READ": 50}}, SCHEDULE_TIME_ZONE="Asia/Kolkata", **ACTS
    )
    now.advance(HOUR + 3000)
    assert follow(using) == []
    now.advance(1790)
    assert follow(using) == []
    now.advance(20)
    (decided,) = follow(using)
    assert decided.plan.changes[""].read == 50
    assert follow(using) == []


def test_dry_by_default(scheduled, now):
    """What would be done is recorded, once an hour, and nothing is changed."""
    using, table, relay = scheduled(OFFICE)
    now.advance(8 * HOUR)
    (decided,) = follow(using)
    assert decided.plan.code == "dry_run"
    assert "would be changed to 50 RCU and 20 WCU" in decided.plan.why
    assert follow(using) == []
    now.advance(HOUR)
    assert [each.plan.code for each in follow(using)] == ["dry_run"]
    assert decisions(using) == ["dry_run", "dry_run"]
    assert units(using, table)[""] == (5, 5)
    assert updates(relay, table) == 0
    assert CapacityRecords(using).get(table) is None


def test_a_throttled_raise_comes_down_to_the_schedule_only(scheduled, now, run):
    """While it lasts; then to what the table had before."""
    using, table, _ = scheduled(OFFICE, **ACTS)
    now.advance(9 * HOUR)
    follow(using)
    until_active(using, table)
    run("dynamo_scale", table, "to", "--read", "90", "--write", "40", "--using", using)
    until_active(using, table)
    now.advance(61)
    idle(using, table, now)
    (outcome,) = reconcile(using)
    assert outcome.plan.code == "lowered"
    until_active(using, table)
    assert units(using, table)[""] == (50, 20)
    now.advance(61)
    idle(using, table, now)
    (outcome,) = reconcile(using)
    assert outcome.plan.code == "scheduled"
    assert outcome.next_deadline == pytest.approx((now.now() // 86_400) * 86_400 + 18 * HOUR, abs=1)
    now.advance(10 * HOUR)
    idle(using, table, now)
    (outcome,) = reconcile(using)
    assert (outcome.plan.code, outcome.next_deadline) == ("lowered", None)
    until_active(using, table)
    assert units(using, table)[""] == (5, 5)


def test_two_weeks_of_a_learnt_schedule(scheduled, now):
    """The first two weeks teach it; in the third it raises, and lowers within the budget."""
    using, table, relay = scheduled("learnt", **ACTS)
    monday = now.now()
    busy = {table: (30.0, 21.0), f"{table}/GSI1": (0.0, 21.0)}
    quiet = {table: (1.0, 1.0), f"{table}/GSI1": (0.0, 1.0)}

    def hour_of(hour):
        is_busy = hour % 24 in (9, 10) and hour % HOURS_OF_WEEK < 5 * 24
        peak = busy if is_busy else quiet
        return Period(use=dict.fromkeys(peak, Usage(1.0, 1.0)), peak=peak)

    first = int(monday // 3600)
    for week in range(2):
        now.advance(9 * HOUR)
        # One week is not enough to learn from.
        assert [each for each in follow(using) if each.plan.changes] == []
        now.advance(HOURS_OF_WEEK * HOUR - 9 * HOUR)
        begin = first + week * HOURS_OF_WEEK
        sum_up(using, hours={begin + hour: hour_of(hour) for hour in range(HOURS_OF_WEEK)})
    assert len(read_peaks(using)) == 2 * HOURS_OF_WEEK
    raised = []
    for hour in range(2 * 24):
        idle(using, table, now)
        raised += [(hour, each.plan.code) for each in follow(using)]
        until_active(using, table)
        for outcome in reconcile(using):
            assert outcome.plan.code == "lowered"
            raised.append((hour, "lowered"))
        until_active(using, table)
        if hour % 24 in (9, 10):
            assert units(using, table) == {"": (43, 30), "GSI1": (5, 30)}
        elif hour % 24 in (12, 20):
            assert units(using, table) == {"": (5, 5), "GSI1": (5, 5)}
        now.advance(HOUR)
    assert raised == [(9, "scheduled"), (11, "lowered"), (33, "scheduled"), (35, "lowered")]
    assert updates(relay, table) == 4


def test_what_was_learnt_is_kept_for_a_day(scheduled, now):
    """So the hours of five weeks are read once a day."""
    using, table, _ = scheduled("learnt")
    reads = []

    def read():
        reads.append(now.now())
        return {}

    for _ in range(30):
        follow_schedules(using, [table], read)
        now.advance(HOUR)
    assert len(reads) == 2


def test_one_of_several_processes_raises(scheduled, now):
    """At once, by task and command; the others do nothing."""
    using, table, relay = scheduled(OFFICE, **ACTS)
    now.advance(8 * HOUR)
    done = in_processes(3, lambda number: [each.plan.code for each in follow(using)])
    assert sorted(done) == [[], [], ["scheduled"]]
    now.advance(0)
    with ThreadPoolExecutor(6) as threads:
        calls = [threads.submit(reconcile_capacity) for _ in range(6)]
        assert sum(call.result() for call in calls) == 0
    assert updates(relay, table) == 1
    assert CapacityRecords(using).get(table).generation == 1


def test_a_process_that_died_is_followed(scheduled, now):
    """A minute later: the hour is taken, and not decided."""
    using, table, relay = scheduled(OFFICE, **ACTS)
    now.advance(8 * HOUR)
    hour = int((now.now() + 600) // HOUR)
    assert Schedules(using).take(table, hour)
    assert follow(using) == []
    now.advance(61)
    assert [each.plan.code for each in follow(using)] == ["scheduled"]
    assert not Schedules(using).take(table, hour)
    assert Schedules(using).take(table, hour + 1)
    assert updates(relay, table) == 1


def test_a_slow_process_does_not_release_the_lease_of_another(scheduled, now, monkeypatch):
    """It took the hour after the lease of the slow one had ended."""
    using, table, _ = scheduled(OFFICE, **ACTS)
    now.advance(8 * HOUR)
    schedules, hour = Schedules(using), int((now.now() + 600) // HOUR)

    def take_long(*args):
        now.advance(61)
        assert schedules.take(table, hour)
        raise StoreUnavailable("no answer")

    monkeypatch.setattr(scheduled_module, "describe", take_long)
    assert [each.plan.code for each in follow(using)] == ["unavailable"]
    assert not schedules.take(table, hour)
    now.advance(61)
    assert schedules.take(table, hour)


def test_a_table_that_cannot_be_read_is_tried_again(provisioned, now, dynamo_faults, caplog):
    """At the next run; one line tells of it."""
    using, table, _ = provisioned(SCALING={"SCHEDULE": OFFICE, **ACTS}, using_relay=dynamo_faults)
    now.advance(8 * HOUR)
    dynamo_faults.fail("DescribeTable", times=3)
    assert [each.plan.code for each in follow(using)] == ["unavailable"]
    assert f"Table {table} was not raised by its schedule: " in caplog.text
    assert [each.plan.code for each in follow(using)] == ["scheduled"]
    until_active(using, table)
    assert units(using, table)[""] == (50, 20)


def test_a_refused_change_is_decided_for_the_hour(provisioned, now, dynamo_faults):
    """It is recorded once, and the record of the raise is taken back."""
    using, table, _ = provisioned(SCALING={"SCHEDULE": OFFICE, **ACTS}, using_relay=dynamo_faults)
    now.advance(8 * HOUR)
    dynamo_faults.fail("UpdateTable", code="LimitExceededException", status=400)
    assert [each.plan.code for each in follow(using)] == ["refused"]
    assert follow(using) == []
    assert decisions(using) == ["refused"]
    assert CapacityRecords(using).get(table).deadline is None


def test_a_raise_that_another_process_is_at_comes_later(scheduled, now):
    """The claim is that of throttled tables; the hour stays open."""
    using, table, _ = scheduled(OFFICE, **ACTS)
    now.advance(8 * HOUR)
    assert CapacityRecords(using).claim(table, 5.0)
    assert [each.plan.code for each in follow(using)] == ["claimed"]
    now.advance(6)
    assert [each.plan.code for each in follow(using)] == ["scheduled"]


def test_task_and_command_follow_schedules(scheduled, now, run):
    """The command prints what it decided; the task counts it."""
    using, table, _ = scheduled(OFFICE)
    now.advance(8 * HOUR)
    text = run("dynamo_reconcile", "--using", using)
    assert f"{table}: not raised, {table} would be changed to 50 RCU" in text
    assert "No table is due." in run("dynamo_reconcile", "--using", using)
    now.advance(HOUR)
    assert reconcile_capacity() == 1


def test_the_command_shows_schedules(scheduled, now, run):
    """Given ones, learnt ones and those that are not learnt yet; whether they are followed."""
    using, table, _ = scheduled(OFFICE, **ACTS)
    text = run("dynamo_reconcile", "--show-schedules", "--using", using)
    assert text.splitlines() == [
        f"{table}: followed, hours in UTC",
        "  table and indexes: {'mon-fri 08:00-18:00': {'READ': 50, 'WRITE': 20}}",
    ]
    using, table, _ = scheduled("learnt")
    show = ("dynamo_reconcile", "--show-schedules", "--using", using)
    assert run(*show) == f"{table}: nothing is learnt yet\n"
    hour = int(now.now() // 3600)
    peak = {table: (70.0, 0.0)}
    old = {hour - week * HOURS_OF_WEEK: Period(peak=peak) for week in (1, 2)}
    sum_up(using, hours=old)
    follow(using)
    assert run(*show).splitlines() == [
        f"{table}: only recorded, hours in UTC",
        "  table: {'mon 00:00-01:00': {'READ': 100}}",
        "  index GSI1: no minimums",
    ]


def test_an_item_of_other_software_is_learnt_anew(scheduled, now):
    using, table, _ = scheduled("learnt", **ACTS)
    key = keys.capacity(table, keys.SCHEDULE)
    schedules = Schedules(using)
    for text in ("[]", "nonsense", json.dumps({"minima": {}})):
        do(schedules._items.update(key, put(schedules._items._model.text, text)))
        assert schedules.get(table).schedule is None
        now.advance(HOUR)
        follow(using)
        assert schedules.get(table).schedule is not None


def test_aliases_without_a_schedule_cost_nothing(provisioned, now, dynamo_faults):
    """No call is made for them."""
    using, _, _ = provisioned(using_relay=dynamo_faults)
    dynamo_faults.requests.clear()
    assert follow(using) == []
    assert dict(dynamo_faults.requests) == {}
