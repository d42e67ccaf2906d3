"""The plans of capacity changes."""

from __future__ import annotations

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
from dynamo_stores.capacity.planner import plan_down, plan_up
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
        ({}, {"throttled_at": NOW - 599}, "throttled_lately", True),
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
