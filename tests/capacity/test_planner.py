"""The plans of capacity changes."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.capacity.description import (
    Quota,
    Resource,
    TableCapacity,
    Units,
    as_request,
    read_description,
    read_limits,
)
from dynamo_stores.capacity.planner import by_factor, end_of_maintenance, plan_down, plan_up
from dynamo_stores.conf.groups import ScalingConfig
from dynamo_stores.exceptions import ThrottlingReason

NOW = 2_000_030_400.0  # noon
ARN = "arn:aws:dynamodb:us-east-1:000000000000:table/t"
CONFIG = ScalingConfig()


def reason(kind="Write", index="", ending="ProvisionedThroughputExceeded"):
    where = "Index" if index else "Table"
    resource = f"{ARN}/index/{index}" if index else ARN
    return ThrottlingReason(f"{where}{kind}{ending}", resource)


def table(status="ACTIVE", on_demand=False, replicas=False, **units):
    given_units = {"": (5, 5), **{name.strip("_"): each for name, each in units.items()}}
    resources = {
        name: each if isinstance(each, Resource) else Resource(name, Units(*each))
        for name, each in given_units.items()
    }
    return TableCapacity("t", ARN, status, on_demand, replicas, resources)


def test_all_that_a_write_spends_from_is_raised_together():
    """And read capacity is not changed."""
    plan = plan_up(table(I=(5, 5), J=(5, 8)), [reason(index="I")], {}, CONFIG)
    assert plan.code == "raised"
    assert plan.changes == {"": (5, 10), "I": (5, 10), "J": (5, 16)}
    assert plan.why == "the demand exceeded the write capacity of the index I"


def test_a_read_raises_what_was_read():
    """The table or the index, and only its read capacity."""
    assert plan_up(table(I=(5, 5)), [reason("Read")], {}, CONFIG).changes == {"": (10, 5)}
    assert plan_up(table(I=(5, 5)), [reason("Read", "I")], {}, CONFIG).changes == {"I": (10, 5)}


def test_demand_decides_and_the_factor_is_the_least():
    """At the target utilisation, up to the maximum."""
    demand = {("", "Write"): 21.0, ("I", "Write"): 2.0}
    plan = plan_up(table(I=(5, 5)), [reason()], demand, CONFIG)
    assert plan.changes == {"": (5, 30), "I": (5, 10)}
    plan = plan_up(table(), [reason()], {("", "Write"): 160.0}, CONFIG)
    assert plan.changes == {"": (5, 50)}
    assert plan.why.endswith("the increase is limited by the maximum")
    plan = plan_up(table(), [reason()], {("", "Write"): 160.0}, CONFIG, Quota(40_000, 20))
    assert plan.changes == {"": (5, 20)}


@pytest.mark.parametrize(
    ("capacity", "reasons", "code"),
    [
        (table(on_demand=True), [reason()], "on_demand"),
        (table(), [reason(ending="KeyRangeThroughputExceeded")], "hot_partition"),
        (table(), [reason(ending="AccountLimitExceeded")], "account_limit"),
        (
            table(on_demand=True),
            [reason(ending="MaxOnDemandThroughputExceeded")],
            "on_demand_maximum",
        ),
        (table(status="UPDATING"), [reason()], "in_progress"),
        (table(replicas=True), [reason()], "replicas"),
        (table(_=(100, 50)), [reason()], "at_maximum"),
        (table(_=(100, 5)), [reason("Read")], "at_maximum"),
        (table(_=(5, 50), I=(5, 5)), [reason()], "at_maximum"),
        (table(), [], "nothing"),
        (table(), [ThrottlingReason("SomethingNew", ARN)], "nothing"),
    ],
)
def test_what_more_capacity_does_not_cure(capacity, reasons, code):
    """It changes nothing, and the plan has the reason."""
    plan = plan_up(capacity, reasons, {}, CONFIG)
    assert (plan.code, plan.changes) == (code, {})
    assert plan.why


def test_replicas_are_read_more_and_never_written_more():
    """Write capacity must be equal in all regions."""
    plan = plan_up(table(replicas=True), [reason(), reason("Read")], {}, CONFIG)
    assert plan.changes == {"": (10, 5)}


def test_without_a_reason_the_kind_of_operation_decides():
    """Some engines return no reasons."""
    assert plan_up(table(), [], {}, CONFIG, kinds=["Write"]).changes == {"": (5, 10)}


def test_down_to_the_baseline_or_to_what_is_needed():
    """In one step; a table above the baseline is checked again."""
    high = table(_=(80, 40), I=(5, 40))
    plan = plan_down(high, CONFIG, NOW)
    assert (plan.code, plan.again) == ("lowered", False)
    assert plan.changes == {"": (5, 5), "I": (5, 5)}
    plan = plan_down(high, CONFIG, NOW, need={("", "Write"): 14.0})
    assert plan.changes == {"": (5, 20), "I": (5, 5)}
    assert plan.again
    assert plan_down(
        high, CONFIG, NOW, need={("", "Write"): 40.0, ("I", "Write"): 40.0}
    ).changes == {"": (5, 40)}
    assert plan_down(table(I=(5, 5)), CONFIG, NOW).code == "at_baseline"


@pytest.mark.parametrize(
    ("changes", "options", "code", "again"),
    [
        ({"on_demand": True}, {}, "on_demand", False),
        ({"status": "UPDATING"}, {}, "in_progress", True),
        ({}, {"throttled_at": {"Read": NOW - 599, "Write": NOW - 9}}, "throttled_lately", True),
        ({}, {"need": {("", "Write"): 40.0, ("", "Read"): 80.0}}, "needed", True),
    ],
)
def test_when_nothing_is_lowered(changes, options, code, again):
    """With ``again`` the table is checked later."""
    plan = plan_down(table(_=(80, 40), **changes), CONFIG, NOW, **options)
    assert (plan.code, plan.again, plan.changes) == (code, again, {})


def used(count, minutes_ago, units=(80, 40), name=""):
    return Resource(name, Units(*units), count, last_decrease=NOW - minutes_ago * 60)


def test_the_budget_of_decreases():
    """A reserve is kept for manual changes, except an hour after the last decrease."""
    assert plan_down(table(_=used(2, 5)), CONFIG, NOW).changes
    assert plan_down(table(_=used(3, 5)), CONFIG, NOW).code == "no_decreases_left"
    assert plan_down(table(_=used(3, 61)), CONFIG, NOW).changes
    assert plan_down(table(_=used(3, 5)), CONFIG, NOW, reserve=0).changes
    assert plan_down(table(_=used(4, 59)), CONFIG, NOW, reserve=0).code == "no_decreases_left"
    assert plan_down(table(_=used(4, 61)), CONFIG, NOW).changes
    assert plan_down(table(_=used(27, 61)), CONFIG, NOW).code == "no_decreases_left"
    # That was yesterday.
    assert plan_down(table(_=used(27, 13 * 60)), CONFIG, NOW).changes


def test_a_resource_without_decreases_left_does_not_delay_the_others():
    """It is lowered later."""
    plan = plan_down(table(_=used(4, 5), I=(5, 40)), CONFIG, NOW)
    assert plan.changes == {"I": (5, 5)}
    assert plan.again


def test_descriptions_are_read():
    """As DynamoDB gives them, and as a request that changes them."""
    description = {
        "TableName": "t",
        "TableArn": ARN,
        "TableStatus": "ACTIVE",
        "ProvisionedThroughput": {
            "ReadCapacityUnits": 5,
            "WriteCapacityUnits": 6,
            "NumberOfDecreasesToday": 2,
            "LastDecreaseDateTime": NOW,
        },
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "I",
                "IndexStatus": "UPDATING",
                "ProvisionedThroughput": {"ReadCapacityUnits": 7, "WriteCapacityUnits": 8},
            }
        ],
    }
    capacity = read_description(description)
    assert capacity.resources[""] == Resource("", Units(5, 6), 2, None, NOW)
    assert capacity.resources["I"].units == (7, 8)
    assert not capacity.is_active
    on_demand = {**description, "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"}}
    assert read_description(on_demand).is_on_demand
    assert read_description({**description, "Replicas": [{}]}).has_replicas
    assert read_limits({"TableMaxWriteCapacityUnits": 10}) == Quota(40_000, 10)
    assert as_request("t", {"": Units(1, 2), "I": Units(3, 4)}) == {
        "TableName": "t",
        "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 2},
        "GlobalSecondaryIndexUpdates": [
            {
                "Update": {
                    "IndexName": "I",
                    "ProvisionedThroughput": {"ReadCapacityUnits": 3, "WriteCapacityUnits": 4},
                }
            }
        ],
    }


UNITS = st.tuples(st.integers(1, 120), st.integers(1, 120))
TABLES = st.builds(
    lambda own, index, replicas: table(replicas=replicas, _=own, I=index),
    UNITS,
    UNITS,
    st.booleans(),
)
REASONS = st.lists(
    st.builds(reason, st.sampled_from(["Read", "Write"]), st.sampled_from(["", "I"])), min_size=1
)
DEMANDS = st.dictionaries(
    st.tuples(st.sampled_from(["", "I"]), st.sampled_from(["Read", "Write"])), st.floats(0, 500)
)
CONFIGS = st.builds(
    lambda factor, target, read, write: replace(
        CONFIG,
        scale_up_factor=factor,
        target_utilization=target,
        max_read_capacity=read,
        max_write_capacity=write,
    ),
    st.floats(1.01, 5),
    st.floats(0.1, 1),
    st.integers(1, 200),
    st.integers(1, 200),
)


@given(TABLES, REASONS, DEMANDS, CONFIGS)
def test_a_raise_only_raises(capacity, reasons, demand, config):
    """Within the maximum, by the factor at least, and only the kind that was too low."""
    plan = plan_up(capacity, reasons, demand, config)
    kinds = {"Read" if "Read" in each.reason else "Write" for each in reasons}
    most = {"Read": config.max_read_capacity, "Write": config.max_write_capacity}
    for name, units in plan.changes.items():
        before = capacity.resources[name].units
        assert units != before
        for kind in ("Read", "Write"):
            assert units.of(kind) >= before.of(kind)
            if units.of(kind) > before.of(kind):
                assert kind in kinds
                assert units.of(kind) <= most[kind]
                least = min(most[kind], before.of(kind) * config.scale_up_factor)
                assert units.of(kind) >= least
                wanted = demand.get((name, kind), 0) / config.target_utilization - 1e-6
                assert units.of(kind) >= min(most[kind], wanted)
    if capacity.has_replicas:
        assert all(
            units.write == capacity.resources[name].units.write
            for name, units in plan.changes.items()
        )


@given(TABLES, DEMANDS, st.integers(0, 27), st.integers(0, 120))
def test_a_lowering_only_lowers(capacity, need, decreases, minutes):
    """Never below the baseline or what is needed, and never past the budget."""
    resources = {
        name: replace(each, decreases_today=decreases, last_decrease=NOW - minutes * 60)
        for name, each in capacity.resources.items()
    }
    capacity = replace(capacity, resources=resources)
    plan = plan_down(capacity, CONFIG, NOW, need=need)
    base = {"Read": CONFIG.base_read_capacity, "Write": CONFIG.base_write_capacity}
    for name, units in plan.changes.items():
        before = capacity.resources[name]
        assert units != before.units
        assert before.decreases_left(NOW) > 0
        for kind in ("Read", "Write"):
            assert units.of(kind) <= before.units.of(kind)
            if units.of(kind) < before.units.of(kind):
                needed = need.get((name, kind), 0) / CONFIG.target_utilization - 1e-6
                assert units.of(kind) >= max(base[kind], needed)
    is_high = any(
        plan.changes.get(name, each.units).of(kind) > base[kind]
        for name, each in resources.items()
        for kind in ("Read", "Write")
        if not (kind == "Write" and capacity.has_replicas)
    )
    assert plan.again == is_high


def test_the_sentence_names_all_that_was_short():
    """Tables and indexes with the kind of their capacity, in a fixed order."""
    reasons = [reason(index="J"), reason("Read", "I"), reason()]
    plan = plan_up(table(I=(5, 5), J=(5, 5)), reasons, {}, CONFIG)
    assert plan.why == (
        "the demand exceeded the write capacity of the table and the read capacity of the "
        "index I and the write capacity of the index J"
    )


def test_reads_and_writes_are_raised_in_one_change():
    """Each kind from its own units and demand."""
    capacity = table(_=(6, 7), I=(8, 9))
    demand = {("", "Read"): 35.0, ("", "Write"): 28.0, ("I", "Read"): 70.0}
    plan = plan_up(capacity, [reason("Read"), reason("Write")], demand, CONFIG)
    assert (plan.code, plan.again) == ("raised", False)
    assert plan.changes == {"": (50, 40), "I": (8, 18)}


def test_the_kinds_of_the_operations_count_only_without_reasons():
    """Several may be given; all that they spend from is raised."""
    capacity = table(I=(5, 5))
    plan = plan_up(capacity, [], {}, CONFIG, kinds=["Read", "Write"])
    assert plan.changes == {"": (10, 10), "I": (5, 10)}
    plan = plan_up(capacity, [reason("Read", "I")], {}, CONFIG, kinds=["Write"])
    assert plan.changes == {"I": (10, 5)}


def test_what_can_be_cured_is_cured():
    """Also where another reason cannot be."""
    reasons = [reason(ending="KeyRangeThroughputExceeded"), reason("Read"), reason(ending="New")]
    assert plan_up(table(), reasons, {}, CONFIG).changes == {"": (10, 5)}
    reasons = [ThrottlingReason("SomethingNew", ARN), reason(ending="AccountLimitExceeded")]
    assert plan_up(table(), reasons, {}, CONFIG).code == "account_limit"


@pytest.mark.parametrize(
    ("capacity", "reasons", "why"),
    [
        (table(on_demand=True), [reason()], "t is on demand and has no capacity to raise"),
        (
            table(),
            [reason(ending="KeyRangeThroughputExceeded")],
            "a single partition has reached its limit of 3,000 read or 1,000 write units a "
            "second; more capacity would not help",
        ),
        (table(status="UPDATING"), [reason()], "t is being changed already"),
        (
            table(_=(100, 50)),
            [reason()],
            "t is at its maximum of 50 write units (MAX_WRITE_CAPACITY)",
        ),
        (table(), [], "no capacity of t was too low"),
    ],
)
def test_why_nothing_is_raised(capacity, reasons, why):
    """A sentence with the table's name; only a change under way is a reason to look again."""
    plan = plan_up(capacity, reasons, {}, CONFIG)
    assert plan.why == why
    assert plan.again == (not capacity.is_active)


def test_the_maximum_is_the_lower_one_of_settings_and_quota():
    """Of reads and of writes apart."""
    high = table(_=(90, 45))
    both = [reason("Read"), reason("Write")]
    assert plan_up(high, both, {}, CONFIG).changes == {"": (100, 50)}
    assert plan_up(high, both, {}, CONFIG, Quota(95, 48)).changes == {"": (95, 48)}
    assert plan_up(high, both, {}, CONFIG, Quota(95, 400)).changes == {"": (95, 50)}
    plan = plan_up(high, both, {}, CONFIG, Quota(90, 45))
    assert plan.why == (
        "t is at its maximum of 90 read units (the account's quota) and 45 write units "
        "(the account's quota)"
    )


@pytest.mark.parametrize(("units", "is_capped"), [(25, False), (26, True)])
def test_a_raise_that_the_maximum_caps_says_so(units, is_capped):
    """A raise to exactly the maximum is not capped."""
    plan = plan_up(table(_=(5, units)), [reason()], {}, CONFIG)
    assert plan.changes == {"": (5, 50)}
    assert plan.why.endswith("limited by the maximum") is is_capped


def test_a_raise_of_one_kind_may_be_capped_and_not_the_other():
    """The sentence tells so, whichever of them it is."""
    for capacity in (table(_=(90, 5)), table(_=(5, 45))):
        plan = plan_up(capacity, [reason("Read"), reason("Write")], {}, CONFIG)
        assert plan.why.endswith("limited by the maximum")


def test_what_is_above_its_maximum_is_not_lowered_by_a_raise():
    """Of what a write spends from, one may have more than the maximum."""
    plan = plan_up(table(_=(5, 80), I=(5, 5)), [reason(index="I")], {}, CONFIG)
    assert plan.changes == {"I": (5, 10)}


def test_a_kind_at_its_maximum_does_not_hold_up_the_other():
    """Reads are at theirs; writes are raised."""
    plan = plan_up(table(_=(100, 5)), [reason("Read"), reason("Write")], {}, CONFIG)
    assert plan.changes == {"": (100, 10)}


def test_the_baselines_of_reads_and_writes_are_apart():
    """Each kind is lowered to its own."""
    config = replace(CONFIG, base_read_capacity=7, base_write_capacity=3)
    plan = plan_down(table(_=(80, 40), I=(9, 2)), config, NOW)
    assert plan.changes == {"": (7, 3), "I": (7, 2)}
    assert plan.why == "t needs no more than its baseline"
    assert plan_down(table(_=(7, 3)), config, NOW).why == "t is at its baseline"
    plan = plan_down(table(_=(80, 40)), config, NOW, need={("", "Read"): 7.0})
    assert plan.changes == {"": (10, 3)}
    assert plan.why == "t needs less capacity than it has"


def test_the_write_capacity_of_replicas_is_not_lowered():
    """And does not count as above the baseline."""
    plan = plan_down(table(replicas=True, _=(80, 40)), CONFIG, NOW)
    assert (plan.changes, plan.again) == ({"": (5, 40)}, False)
    assert plan_down(table(replicas=True, _=(5, 40)), CONFIG, NOW).code == "at_baseline"


@pytest.mark.parametrize(
    ("seconds", "code"), [(0, "throttled_lately"), (599, "throttled_lately"), (600, "lowered")]
)
def test_nothing_is_lowered_within_the_delay_after_a_throttle(seconds, code):
    """SCALE_DOWN_DELAY, 600 seconds."""
    plan = plan_down(table(_=(80, 40)), CONFIG, NOW, throttled_at={"Write": NOW - seconds})
    assert plan.code == code
    if code != "lowered":
        assert plan.why == f"t was throttled {seconds} s ago"


def test_a_throttle_of_a_kind_that_was_not_raised_delays_nothing():
    """One of a kind that was raised delays both, which take one decrease together."""
    throttled_at, high = {"Write": NOW - 1}, table(_=(80, 40))
    plan = plan_down(high, CONFIG, NOW, throttled_at=throttled_at, floor={("", "Read"): 10})
    assert (plan.changes, plan.again) == ({"": (10, 40)}, False)
    floor = {("", "Read"): 10, ("", "Write"): 10}
    plan = plan_down(high, CONFIG, NOW, throttled_at=throttled_at, floor=floor)
    assert (plan.code, plan.changes, plan.again) == ("throttled_lately", {}, True)


@pytest.mark.parametrize(
    ("capacity", "need", "why"),
    [
        (table(on_demand=True), {}, "t is on demand and has no capacity to lower"),
        (table(status="UPDATING"), {}, "t is being changed already"),
        (table(_=(5, 40)), {("", "Write"): 40.0}, "t needs the capacity that it has"),
    ],
)
def test_why_nothing_is_lowered(capacity, need, why):
    """A sentence with the table's name."""
    assert plan_down(capacity, CONFIG, NOW, need=need).why == why


def test_the_sentence_names_what_has_no_decrease_left():
    """Table and indexes."""
    capacity = table(_=used(4, 5), I=used(4, 5, name="I"), J=(5, 5))
    plan = plan_down(capacity, CONFIG, NOW)
    assert (plan.code, plan.again) == ("no_decreases_left", True)
    assert plan.why.startswith("the budget of decreases of the table, the index I is used up")


def test_a_factor_of_a_capacity_is_rounded_up():
    """A capacity of 1 is raised, too."""
    assert [by_factor(units, replace(CONFIG, scale_up_factor=1.5)) for units in (1, 2, 3)] == [
        2,
        3,
        5,
    ]


def test_what_is_needed_is_rounded_up_but_not_for_floats():
    """21 units at 70 % are 30, though 21 / 0.7 is more by a float."""
    for needed, provisioned in ((21.0, 30), (21.01, 31), (20.99, 30)):
        plan = plan_down(table(_=(5, 40)), CONFIG, NOW, need={("", "Write"): needed})
        assert plan.changes == {"": (5, provisioned)}


def at(hours, minutes=0, seconds=0.0):
    """Return a moment of the day of NOW, in seconds since the epoch."""
    return NOW - 12 * 3600 + hours * 3600 + minutes * 60 + seconds


@pytest.mark.parametrize(
    ("windows", "now", "end"),
    [
        ([], at(3), None),
        (["02:15-04:30"], at(2, 14, 59.9), None),
        (["02:15-04:30"], at(2, 15), at(4, 30)),
        (["02:15-04:30"], at(3, 59), at(4, 30)),
        (["02:15-04:30"], at(4, 29, 59.9), at(4, 30)),
        (["02:15-04:30"], at(4, 30), None),
        (["22:30-06:15"], at(22, 29, 59.9), None),
        (["22:30-06:15"], at(22, 30), at(30, 15)),
        (["22:30-06:15"], at(23, 59, 59.9), at(30, 15)),
        (["22:30-06:15"], at(0), at(6, 15)),
        (["22:30-06:15"], at(6, 14, 59.9), at(6, 15)),
        (["22:30-06:15"], at(6, 15), None),
        (["22:30-06:15"], at(12), None),
        (["00:00-00:01"], at(0, 0, 59.9), at(0, 1)),
        (["23:00-00:00"], at(23, 30), at(24)),
        (["23:00-00:00"], at(0), None),
        (["02:00-03:00", "04:00-05:00"], at(2, 30), at(3)),
        (["02:00-03:00", "04:00-05:00"], at(4, 30), at(5)),
        (["02:00-05:00", "01:00-04:00", "22:00-03:00"], at(2, 30), at(5)),
        (["02:00-05:00", "22:00-06:00"], at(2, 30), at(6)),
    ],
)
def test_the_end_of_maintenance(windows, now, end):
    """Its begin belongs to a window, its end does not; of several windows the last end."""
    assert end_of_maintenance(windows, now) == end


def test_a_baseline_of_one_is_reached():
    """What is not in use needs nothing."""
    config = replace(CONFIG, base_read_capacity=1, base_write_capacity=1)
    assert plan_down(table(_=(8, 4)), config, NOW).changes == {"": (1, 1)}


@pytest.fixture
def new_york(monkeypatch):
    """The time zone of the process, as Django sets it."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


def test_maintenance_windows_are_in_utc(new_york):
    """Whatever the time zone of the process."""
    assert end_of_maintenance(["02:15-04:30"], at(3)) == at(4, 30)
    assert end_of_maintenance(["02:15-04:30"], at(8)) is None


@pytest.mark.parametrize(("kind", "units"), [("Read", (10, 5)), ("Write", (5, 10))])
def test_a_reason_of_an_unknown_index_raises_the_table(kind, units):
    """The index may be new, or gone."""
    plan = plan_up(table(), [reason(kind, "Gone")], {}, CONFIG)
    assert (plan.code, plan.changes) == ("raised", {"": units})
