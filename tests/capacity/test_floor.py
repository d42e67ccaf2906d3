"""What was raised comes down to what it was; what is used, or was not raised by us, stays."""

from __future__ import annotations

import time

import pytest
from django.conf import settings
from django.core.management import CommandError

from dynamo_stores import clock
from dynamo_stores.calls.control import get_control
from dynamo_stores.capacity import ThroughputScaler, manual
from dynamo_stores.capacity.auto_scaling import ScalableTarget, get_auto_scaling
from dynamo_stores.capacity.description import Units
from dynamo_stores.capacity.planner import Plan
from dynamo_stores.capacity.records import CapacityRecords
from dynamo_stores.capacity.scale_down import reconcile
from dynamo_stores.capacity.scale_up import get_scaler
from dynamo_stores.capacity.update import apply, describe
from dynamo_stores.capacity.usage import Usage
from dynamo_stores.conf import get_config
from dynamo_stores.tasks import beat_schedule, reconcile_capacity
from dynamo_stores.testing import FakeClock, FaultProxy
from tests.helpers.capacity import named, reason, record_use
from tests.helpers.clocks import with_clock


@pytest.fixture
def later():
    """A clock that starts now and moves only when it is set."""
    with FakeClock(time.time()) as now:
        yield now


def units(using, table):
    return {name: tuple(each.units) for name, each in describe(using, table).resources.items()}


def set_units(using, table, read, write):
    """Change the table and its index as their owner, and wait until they are ACTIVE."""
    throughput = {"ReadCapacityUnits": read, "WriteCapacityUnits": write}
    update = {"IndexName": "GSI1", "ProvisionedThroughput": throughput}
    get_control(using).call(
        "UpdateTable",
        {
            "TableName": table,
            "ProvisionedThroughput": throughput,
            "GlobalSecondaryIndexUpdates": [{"Update": update}],
        },
    )
    until_active(using, table)


def until_active(using, table):
    while not describe(using, table).is_active:
        time.sleep(0.05)


def throttle(using, table):
    """Handle a throttle of writes; return the plan."""
    plan = get_scaler(using).handle(table, [reason(using, table)])
    until_active(using, table)
    return plan


@pytest.fixture
def owned(provisioned, later):
    """``owned()``: a table that its owner gave 40 and 40 units, above the baseline of 5."""

    def make(**scaling):
        using, table, relay = provisioned(SCALING=scaling)
        set_units(using, table, 40, 40)
        return using, table, relay

    return make


@pytest.fixture
def behind_faults(owned, alias):
    """``behind_faults()``: the same with a FaultProxy; returns alias, table and proxy."""
    proxies = []

    def make(**scaling):
        using, table, relay = owned(**scaling)
        proxies.append(FaultProxy(relay.url).start())
        faulty = alias(**{**settings.DYNAMO_STORES[using], "ENDPOINT_URL": proxies[0].url})
        return faulty, table, proxies[0]

    yield make
    for proxy in proxies:
        proxy.stop()


def test_a_table_above_its_baseline_comes_down_to_what_it_had(owned, later):
    """Its reads, which were not raised, are not lowered."""
    using, table, _ = owned()
    assert throttle(using, table).changes == {"": (40, 50), "GSI1": (40, 50)}
    later.advance(61)
    record_use(using, table, Usage())
    (outcome,) = reconcile(using)
    assert outcome.plan.changes == {"": (40, 40), "GSI1": (40, 40)}
    assert outcome.plan.why == f"{table} needs no more than the capacity that it had before " + (
        "it was raised"
    )
    assert outcome.next_deadline is None
    assert CapacityRecords(using).get(table).entries == frozenset()


def test_two_raises_come_down_to_what_was_before_the_first(owned, later):
    """The record is of all raises since it was opened."""
    using, table, _ = owned(MAX_WRITE_CAPACITY=400)
    assert throttle(using, table).changes[""] == (40, 80)
    later.advance(6)
    assert throttle(using, table).changes[""] == (40, 160)
    later.advance(61)
    record_use(using, table, Usage())
    (outcome,) = reconcile(using)
    assert outcome.plan.changes == {"": (40, 40), "GSI1": (40, 40)}


def test_somebodys_own_capacity_is_not_lowered(owned, later):
    """A kind that was not raised stays, although the other has a record."""
    using, table, _ = owned()
    throttle(using, table)
    set_units(using, table, 70, 50)
    later.advance(61)
    record_use(using, table, Usage())
    reconcile(using)
    until_active(using, table)
    assert units(using, table) == {"": (70, 40), "GSI1": (70, 40)}


@pytest.mark.parametrize(
    "code", ["ResourceInUseException", "LimitExceededException", "ValidationException"]
)
def test_a_refused_raise_leaves_no_record(behind_faults, later, code):
    """Nothing was raised, so nothing is lowered."""
    using, table, faults = behind_faults()
    faults.fail("UpdateTable", status=400, code=code)
    assert throttle(using, table).changes == {}
    assert CapacityRecords(using).get(table).deadline is None
    later.advance(120)
    assert reconcile(using) == []
    assert units(using, table)[""] == (40, 40)


def test_a_refused_raise_leaves_the_record_of_an_earlier_one(behind_faults, later):
    """With its deadline and with what the table had before it."""
    using, table, faults = behind_faults(MAX_WRITE_CAPACITY=400)
    throttle(using, table)
    before = CapacityRecords(using).get(table)
    later.advance(6)
    faults.fail("UpdateTable", status=400, code="LimitExceededException")
    assert throttle(using, table).code == "refused"
    after = CapacityRecords(using).get(table)
    assert (after.deadline, after.entries) == (before.deadline, before.entries)
    floor = after.floor_of(describe(using, table).table_id)
    assert floor == {("", "Write"): 40, ("GSI1", "Write"): 40}


def test_a_raise_without_an_answer_keeps_its_record(behind_faults, later):
    """It may have been carried out."""
    using, table, faults = behind_faults()
    faults.lose_answer("UpdateTable", times=1)
    with pytest.raises(Exception, match="UpdateTable"):
        throttle(using, table)
    until_active(using, table)
    assert units(using, table)[""] == (40, 50)
    later.advance(61)
    record_use(using, table, Usage())
    (outcome,) = reconcile(using)
    assert outcome.plan.changes[""] == (40, 40)


def test_what_the_first_of_two_attempts_changed_counts_as_changed(behind_faults):
    """DynamoDB failed after it had taken the change, and refuses the second attempt."""
    using, table, faults = behind_faults()
    plan = Plan("raised", "a test", {"": Units(40, 80)})
    capacity = describe(using, table)
    faults.fail("UpdateTable", status=500, code="InternalServerError", times=1)
    # The engine may have finished the change by then.
    faults.fail("UpdateTable", status=400, code="ResourceInUseException", times=1)
    throughput = {"ReadCapacityUnits": 40, "WriteCapacityUnits": 80}
    outside = {"TableName": table, "ProvisionedThroughput": throughput}
    get_control(_behind(using)).call("UpdateTable", outside)
    done = apply(using, capacity, plan)
    assert (done.changes, done.again) == (plan.changes, True)


def test_a_lowering_that_may_not_have_been_made_is_checked_again(behind_faults, later):
    """Another change was in progress when the second attempt was refused."""
    using, table, faults = behind_faults()
    throttle(using, table)
    later.advance(61)
    record_use(using, table, Usage())
    faults.fail("UpdateTable", status=500, code="InternalServerError", times=1)
    faults.fail("UpdateTable", status=400, code="ResourceInUseException", times=1)
    (outcome,) = reconcile(using)
    assert outcome.next_deadline is not None
    faults.clear()
    later.advance(61)
    record_use(using, table, Usage())
    (outcome,) = reconcile(using)
    assert outcome.plan.changes == {"": (40, 40), "GSI1": (40, 40)}


def test_a_raise_during_a_manual_lowering_keeps_its_deadline(owned, later, monkeypatch):
    """The record that was read before the table decides."""
    using, table, _ = owned()
    records, read = CapacityRecords(using), manual.describe
    records.record_raise(named(table), clock.now() + 60, {"code": "raised"})

    def describe_and_raise(*args):
        capacity = read(*args)
        records.record_raise(named(table), clock.now() + 90, {"code": "raised"})
        return capacity

    monkeypatch.setattr(manual, "describe", describe_and_raise)
    manual.change_manually(using, table, "down")
    assert records.get(table).deadline == pytest.approx(clock.now() + 90, abs=1)


def test_a_table_that_was_made_again_is_not_lowered(owned, later):
    """Its owner gave it 40 units; the table that was raised had another id."""
    using, table, _ = owned()
    decision = {"code": "raised", "from": {"": [5, 5]}, "to": {"": [10, 10]}}
    records = CapacityRecords(using)
    records.record_raise(named(table, "of-the-deleted-table"), clock.now() - 1, decision)
    record_use(using, table, Usage())
    (outcome,) = reconcile(using)
    assert (outcome.plan.code, outcome.plan.changes) == ("at_baseline", {})


def test_a_kind_without_a_target_is_lowered(owned, later, monkeypatch):
    """Application Auto Scaling manages the reads of the table only."""
    using, table, _ = owned()
    throttle(using, table)
    reads = {("", "Read"): ScalableTarget(5, 100), ("GSI1", "Read"): ScalableTarget(5, 100)}
    monkeypatch.setattr(get_auto_scaling(using), "targets", lambda capacity: reads)
    later.advance(61)
    record_use(using, table, Usage())
    (outcome,) = reconcile(using)
    assert outcome.plan.changes == {"": (40, 40), "GSI1": (40, 40)}


def test_a_pause_is_of_its_own_maximum(owned, later):
    """A table at the maximum of the settings is raised for a call with a larger one."""
    using, table, _ = owned(MAX_WRITE_CAPACITY=40)
    scaler = get_scaler(using)
    assert scaler.handle(table, [reason(using, table)]).code == "at_maximum"
    larger = ThroughputScaler(table, using=using, max_write_capacity=200)
    assert scaler._pause_of(table, larger.config) not in scaler._paused_until
    later.advance(6)
    assert scaler.handle(table, [reason(using, table)], (), larger.config).code == "raised"


def _behind(faulty):
    """Return the alias for the same table without the proxy."""
    (name,) = [
        each
        for each in settings.DYNAMO_STORES
        if each != faulty and get_config(each).store_table == get_config(faulty).store_table
    ]
    return name


def test_a_limit_of_changes_is_no_budget_of_decreases(behind_faults, later):
    """LimitExceededException for a raise says what DynamoDB says, and there are longer pauses."""
    using, table, faults = behind_faults()
    faults.fail("UpdateTable", status=400, code="LimitExceededException")
    plan = throttle(using, table)
    assert plan.code == "refused"
    assert plan.why.startswith("DynamoDB refused the change: ")


def test_capacity_that_is_used_stays(provisioned, run, later):
    """30 writes a second need 43 units at 70 percent; the table is checked again."""
    using, table, relay = provisioned()
    run("dynamo_scale", table, "to", write=43, using=using)
    until_active(using, table)
    before = relay.status()["tables"][table]["updates"]
    for _ in range(3):
        later.advance(61)
        record_use(using, table, Usage(write=1800.0))
        (outcome,) = reconcile(using)
        assert outcome.plan.code == "needed"
        assert outcome.next_deadline == pytest.approx(clock.now() + 60, abs=1)
    assert relay.status()["tables"][table]["updates"] == before


def test_without_recorded_use_a_table_comes_down_in_steps(provisioned, run, later):
    """By SCALE_UP_FACTOR, after each SCALE_DOWN_DELAY."""
    using, table, _ = provisioned()
    run("dynamo_scale", table, "to", write=20, using=using)
    until_active(using, table)
    found = []
    for _ in range(2):
        later.advance(61)
        (outcome,) = reconcile(using)
        until_active(using, table)
        found.append(units(using, table)[""])
    assert found == [(5, 10), (5, 5)]
    assert outcome.next_deadline is None


def test_a_table_that_was_throttled_lately_stays(provisioned, run, later):
    """Within the last SCALE_DOWN_DELAY."""
    using, table, _ = provisioned()
    run("dynamo_scale", table, "to", write=20, using=using)
    until_active(using, table)
    later.advance(61)
    record_use(using, table, Usage(throttled_writes=3))
    (outcome,) = reconcile(using)
    assert outcome.plan.code == "throttled_lately"
    later.advance(181)
    (outcome,) = reconcile(using)
    assert outcome.plan.code == "lowered"


def test_throttles_that_capacity_does_not_cure_keep_none(provisioned, run, later):
    """Those of a hot partition; the table comes down as if there were none."""
    using, table, _ = provisioned()
    run("dynamo_scale", table, "to", write=20, using=using)
    until_active(using, table)
    later.advance(61)
    record_use(using, table, Usage(throttled_writes=3, incurable_writes=3))
    (outcome,) = reconcile(using)
    assert outcome.plan.code == "lowered"


def test_a_dry_run_does_not_close_the_record(owned, alias, later):
    """A table that is up when DRY_RUN is switched on comes down when it is switched off."""
    using, table, _ = owned()
    throttle(using, table)
    options = settings.DYNAMO_STORES[using]
    dry = alias(**{**options, "SCALING": {**options["SCALING"], "DRY_RUN": True}})
    later.advance(61)
    record_use(using, table, Usage())
    (outcome,) = reconcile(dry)
    assert outcome.plan.code == "dry_run"
    assert outcome.next_deadline is not None
    later.advance(61)
    (outcome,) = reconcile(using)
    assert outcome.plan.changes[""] == (40, 40)


def test_a_person_who_asks_for_the_baseline_gets_it(owned, run, later):
    """Below what the table had, and without a deadline afterwards."""
    using, table, _ = owned()
    throttle(using, table)
    run("dynamo_scale", table, "down", using=using)
    until_active(using, table)
    assert units(using, table) == {"": (5, 5), "GSI1": (5, 5)}
    assert CapacityRecords(using).get(table).deadline is None


def test_a_baseline_that_was_asked_for_is_reached_later(owned, run, later):
    """When DynamoDB allows a decrease of the rest again."""
    using, table, _ = owned()
    throttle(using, table)
    records = CapacityRecords(using)
    assert records.lower_to_baseline(records.get(table), describe(using, table))
    later.advance(61)
    record_use(using, table, Usage())
    (outcome,) = reconcile(using)
    assert outcome.plan.changes == {"": (5, 5), "GSI1": (5, 5)}


def test_tables_are_lowered_where_scaling_is_off(provisioned, run, later):
    """They can be raised by command; the task looks at every alias, and beat always runs it."""
    using, table, _ = provisioned(SCALING={"ENABLED": False})
    run("dynamo_scale", table, "up", using=using)
    until_active(using, table)
    later.advance(61)
    record_use(using, table, Usage())
    assert "dynamo_stores.reconcile_capacity" in beat_schedule()
    assert reconcile_capacity() == 1
    until_active(using, table)
    assert units(using, table)[""] == (5, 5)


def test_an_alias_without_a_control_table_has_nothing_to_lower(alias):
    """Such as one whose tables are all made elsewhere."""
    assert reconcile(alias(TABLE_PREFIX="there-is-no-such-")) == []


def test_an_alias_that_does_not_answer_stops_no_other(provisioned, alias, run, later):
    """Task and command lower the tables of the others, and fail afterwards."""
    dead = alias(ENDPOINT_URL="http://127.0.0.1:9", OPERATION_TIMEOUT=1)
    using, table, _ = provisioned()
    record_use(using, table, Usage())
    for sweep, error in ((reconcile_capacity, ExceptionGroup), (_command(run), CommandError)):
        run("dynamo_scale", table, "up", using=using)
        until_active(using, table)
        later.advance(61)
        record_use(using, table, Usage())
        with pytest.raises(error, match=f"'{dead}'"):
            sweep()
        until_active(using, table)
        assert units(using, table)[""] == (5, 5)


def _command(run):
    return lambda: run("dynamo_reconcile")


def test_a_table_that_cannot_be_read_stops_no_other(behind_faults, later):
    """It is checked again; its lease is free."""
    using, table, faults = behind_faults()
    records = CapacityRecords(using)
    for name in (table, f"{table}-2"):
        records.record_raise(named(name), clock.now() - 1, {"code": "raised"})
    faults.fail("DescribeTable", status=400, code="AccessDeniedException", times=1)
    outcomes = reconcile(using)
    assert [outcome.plan.code for outcome in outcomes] == ["unavailable", "no_table"]
    record = records.get(table)
    assert record.owner == ""
    assert record.deadline == pytest.approx(clock.now() + 60, abs=1)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("wrong", [3600.0, -3600.0])
def test_a_wrong_clock_neither_lowers_early_nor_raises_for_longer(provisioned, run, wrong):
    """Deadlines, leases and claims are by DynamoDB's time."""
    using, table, _ = provisioned()
    records = CapacityRecords(using)

    def scale():
        run("dynamo_scale", table, "up", using=using)
        return records.claim(table, 30)

    assert with_clock(wrong, scale)
    assert not records.claim(table, 30)
    assert records.get(table).deadline == pytest.approx(time.time() + 60, abs=30)
    assert with_clock(wrong, lambda: reconcile(using)) == []
    assert not with_clock(wrong, lambda: records.claim(table, 30))
