"""Tables are lowered once for each deadline, however many processes check and how often."""

from __future__ import annotations

import logging
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.core.management import CommandError

from dynamo_stores import clock
from dynamo_stores.calls.control import get_control
from dynamo_stores.capacity.records import CapacityRecords
from dynamo_stores.capacity.scale_down import reconcile
from dynamo_stores.capacity.update import describe
from dynamo_stores.capacity.usage import Usage, UsageHistory, minute_of
from dynamo_stores.signals import capacity_changed
from dynamo_stores.tasks import beat_schedule, reconcile_capacity, scale_down
from dynamo_stores.testing import FakeClock
from tests.helpers.capacity import named, record_use
from tests.helpers.clocks import with_clock


def units(using, table):
    return {name: tuple(each.units) for name, each in describe(using, table).resources.items()}


def until_active(using, table):
    while not describe(using, table).is_active:
        time.sleep(0.05)


def updates(relay, table):
    return relay.status()["tables"][table]["updates"]


@pytest.fixture
def later():
    """A clock that starts now and moves only when it is set."""
    with FakeClock(time.time()) as now:
        yield now


@pytest.fixture
def raised(provisioned, run, later):
    """
    ``raised()``: a table at 20 and 20 units that is due, and not used; returns alias, name and
    relay.
    """

    def make(**options):
        using, table, relay = provisioned(**options)
        run("dynamo_scale", table, "to", "--read", "20", "--write", "20", "--using", using)
        until_active(using, table)
        later.advance(61)
        record_use(using, table, Usage())
        return using, table, relay

    return make


def test_what_was_raised_comes_down_when_it_is_time(raised, later):
    """In one request for table and index; not before, and not again."""
    using, table, relay = raised()
    assert units(using, table) == {"": (20, 20), "GSI1": (20, 20)}
    later.advance(-2)
    assert reconcile(using) == []
    later.advance(2)
    (outcome,) = reconcile(using)
    assert (outcome.plan.code, outcome.next_deadline) == ("lowered", None)
    assert reconcile(using) == []
    until_active(using, table)
    assert units(using, table) == {"": (5, 5), "GSI1": (5, 5)}
    assert updates(relay, table) == 2
    record = CapacityRecords(using).get(table)
    assert record.deadline is None
    assert record.decision["code"] == "lowered"
    assert record.decision["from"] == {"": [20, 20], "GSI1": [20, 20]}


def test_fourteen_deliveries_are_one_lowering(raised, later):
    """At once, by task, sweep and command; the table is changed once."""
    using, table, relay = raised()
    with ThreadPoolExecutor(14) as threads:
        calls = [threads.submit(scale_down, table, using) for _ in range(7)]
        calls += [threads.submit(reconcile_capacity) for _ in range(7)]
        assert sum(call.result() for call in calls) == 1
    assert updates(relay, table) == 2


def test_a_worker_that_died_is_followed(raised, later):
    """After its lease, and with nothing done twice."""
    using, table, relay = raised()
    records = CapacityRecords(using)
    (due,) = records.due()
    assert records.lease(due, 120) is not None
    assert records.lease(due, 120) is None
    assert reconcile(using) == []
    later.advance(121)
    (outcome,) = reconcile(using)
    assert outcome.plan.code == "lowered"
    assert updates(relay, table) == 2


def test_a_worker_that_died_after_its_work_is_followed(raised, later):
    """The table is at its baseline; no second change is requested."""
    using, table, relay = raised()
    records = CapacityRecords(using)
    (due,) = records.due()
    records.lease(due, 120)
    throughput = {"ReadCapacityUnits": 5, "WriteCapacityUnits": 5}
    index = {"IndexName": "GSI1", "ProvisionedThroughput": throughput}
    get_control(using).call(
        "UpdateTable",
        {
            "TableName": table,
            "ProvisionedThroughput": throughput,
            "GlobalSecondaryIndexUpdates": [{"Update": index}],
        },
    )
    time.sleep(0.5)
    later.advance(121)
    (outcome,) = reconcile(using)
    assert (outcome.plan.code, outcome.next_deadline) == ("at_baseline", None)
    assert updates(relay, table) == 2


def test_a_raise_meanwhile_moves_the_deadline(raised, later):
    """The process that lowers the table does not undo the raise."""
    using, table, _ = raised()
    records = CapacityRecords(using)
    (due,) = records.due()
    leased = records.lease(due, 120)
    deadline = clock.now() + 60
    raised_again = records.record_raise(named(table), deadline, {"code": "raised"})
    assert raised_again.generation == leased.generation + 1
    assert records.finish(leased, {"code": "lowered"}, None) is False
    record = records.get(table)
    assert record.deadline == pytest.approx(deadline, abs=0.001)
    assert record.owner == ""
    assert record.decision == {"code": "raised"}


def test_a_table_that_is_being_changed_is_checked_again(raised, later):
    """A minute later."""
    using, table, _ = raised(updating=3.0)
    get_control(using).call(
        "UpdateTable",
        {
            "TableName": table,
            "ProvisionedThroughput": {"ReadCapacityUnits": 30, "WriteCapacityUnits": 20},
        },
    )
    (outcome,) = reconcile(using)
    assert outcome.plan.code == "in_progress"
    assert outcome.next_deadline == pytest.approx(clock.now() + 60, abs=1)
    assert reconcile(using) == []
    until_active(using, table)
    later.advance(61)
    (outcome,) = reconcile(using)
    assert outcome.plan.code == "lowered"


def test_a_used_up_budget_is_logged_once(raised, later, caplog):
    """With its name; the table is checked again when a decrease is allowed."""
    using, table, _ = raised()
    for number in range(3):
        for wanted in (19 - number, 20):
            until_active(using, table)
            throughput = {"ReadCapacityUnits": wanted, "WriteCapacityUnits": wanted}
            get_control(using).call(
                "UpdateTable",
                {
                    "TableName": table,
                    "ProvisionedThroughput": throughput,
                    "GlobalSecondaryIndexUpdates": [
                        {"Update": {"IndexName": "GSI1", "ProvisionedThroughput": throughput}}
                    ],
                },
            )
    until_active(using, table)
    with caplog.at_level(logging.WARNING):
        (outcome,) = reconcile(using)
        for _ in range(5):
            # Not for long: the budget is new at midnight.
            later.advance(1)
            assert reconcile(using) == []
    assert outcome.plan.code == "no_decreases_left"
    assert outcome.next_deadline > clock.now() + 1800 or outcome.next_deadline % 86_400 == 0
    assert caplog.text.count("the budget of decreases of the table, the index GSI1 is used up") == 1


def test_a_table_that_is_gone_is_forgotten(provisioned, later):
    """Its record is closed."""
    using, _, _ = provisioned()
    CapacityRecords(using).record_raise(named("no-such-table"), clock.now() - 1, {"code": "raised"})
    (outcome,) = reconcile(using)
    assert (outcome.plan.code, outcome.next_deadline) == ("no_table", None)
    assert reconcile(using) == []


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("wrong", [900.0, -900.0])
def test_a_wrong_clock_lowers_no_table_that_is_used(provisioned, run, wrong):
    """The minutes that count are by DynamoDB's time, in the sums and in what is read of them."""
    using, table, _ = provisioned(SCALING={"SCALE_DOWN_DELAY": 600})
    history, minute = UsageHistory(using), minute_of(time.time())
    with FakeClock(time.time() - 1800) as now:
        run("dynamo_scale", table, "to", "--read", "20", "--write", "20", "--using", using)
        until_active(using, table)
        for _ in range(27):
            now.advance(60)
            record_use(using, table, Usage(900, 900))
    busy = {table: Usage(900, 900), f"{table}/GSI1": Usage(900, 900)}
    assert with_clock(wrong, lambda: history.roll_up({minute - 1: busy})) == 1
    (code,) = with_clock(wrong, lambda: [each.plan.code for each in reconcile(using)])
    assert code == "needed"
    assert units(using, table)[""] == (20, 20)


def test_a_dry_run_changes_nothing(raised, later, caplog):
    """It logs the change that it would make."""
    using, table, relay = raised(SCALING={"DRY_RUN": True})
    with caplog.at_level(logging.WARNING):
        (outcome,) = reconcile(using)
    assert outcome.plan.code == "dry_run"
    assert f"{table} would be changed to 5 RCU and 5 WCU, index GSI1 5 RCU and 5 WCU" in caplog.text
    assert updates(relay, table) == 1


def test_a_change_sends_a_signal(raised, later):
    """With the new units and the reason."""
    using, table, _ = raised()
    received = []

    def receive(sender, **kwargs):
        received.append(kwargs)

    capacity_changed.connect(receive)
    try:
        reconcile(using)
    finally:
        capacity_changed.disconnect(receive)
    (change,) = received
    assert (change["table"], change["code"]) == (table, "lowered")
    assert change["changes"] == {"": (5, 5), "GSI1": (5, 5)}


def test_the_commands(provisioned, run):
    """Raise, show, lower; sentences for what cannot be done."""
    using, table, _ = provisioned(updating=2.0)
    status = run("dynamo_status", table=[table])
    assert f"{table}: ACTIVE, baseline 5 RCU and 5 WCU, maximum 100 and 50, scaling on" in status
    assert "  table: 5 RCU and 5 WCU, 4 decreases left now" in status
    assert "  no decision yet" in status
    assert run("dynamo_reconcile", using=using) == "No table is due.\n"
    assert "changes to 10 RCU and 10 WCU, index GSI1 10 RCU and 10 WCU" in run(
        "dynamo_scale", table, "up", using=using
    )
    for units_wanted in (30, 10):
        with pytest.raises(CommandError, match="already; try again when it is ACTIVE"):
            run("dynamo_scale", table, "to", write=units_wanted, using=using)
    until_active(using, table)
    status = run("dynamo_status", table=[table])
    assert "index GSI1: 10 RCU and 10 WCU" in status
    assert "last decision: in_progress, " in status
    assert "will be lowered at 20" in status
    assert f"{table} would be changed to 5 RCU" in run(
        "dynamo_scale", table, "down", using=using, dry_run=True
    )
    run("dynamo_scale", table, "down", using=using)
    until_active(using, table)
    assert units(using, table)[""] == (5, 5)
    with FakeClock(time.time() + 61):
        assert run("dynamo_reconcile", using=using) == "No table is due.\n"
    for wrong, message in (
        (("none", "up"), f"has no table none. Known tables: .*{table}"),
        ((f"{table}-control", "up"), "is on demand"),
        ((table, "to"), "'to' requires --read or --write"),
        ((table, "down"), "at its baseline"),
    ):
        with pytest.raises(CommandError, match=message):
            run("dynamo_scale", *wrong, using=using)
    for option, number in (("read", 0), ("write", -5)):
        with pytest.raises(CommandError, match=f"^--{option} is {number}; expected 1 or more"):
            run("dynamo_scale", table, "to", using=using, **{option: number})
    with pytest.raises(CommandError, match=f"{table} already has this capacity"):
        run("dynamo_scale", table, "to", read=5, using=using)


def test_beat_looks_every_minute():
    """In every project, because tables can be raised by command."""
    entry = beat_schedule()["dynamo_stores.reconcile_capacity"]
    assert (entry["schedule"], entry["options"]["expires"]) == (60.0, 60.0)


def test_the_control_table_is_on_demand(provisioned):
    """Even if the other tables are not; its name ends with -control."""
    using, table, _ = provisioned()
    control = describe(using, f"{table}-control")
    assert control.is_on_demand
    assert get_control(using).ttl_attribute(f"{table}-control") == "TTL"


def test_one_claim_at_a_time(provisioned):
    """Eight threads want to raise a table; one may, until its claim has ended."""
    using, table, _ = provisioned()
    records = CapacityRecords(using)
    with ThreadPoolExecutor(8) as threads:
        won = list(threads.map(lambda _: records.claim(table, 30), range(8)))
    assert won.count(True) == 1
    with FakeClock(time.time() + 31):
        assert records.claim(table, 30)
