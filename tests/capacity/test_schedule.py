"""Minimums by hour of the week: given, learnt, and the plans for them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from dynamo_stores.capacity.description import Quota
from dynamo_stores.capacity.planner import plan_down
from dynamo_stores.capacity.schedule import (
    EVERY,
    Schedule,
    given,
    hour_of_week,
    learn,
    next_hour,
    percentile,
    plan_scheduled,
    read_schedule,
    spans_of,
)
from dynamo_stores.conf.groups import ScalingConfig
from dynamo_stores.conf.rules import HOURS_OF_WEEK, parse_hours_of_week, schedule_error
from tests.capacity.test_planner import table

# A Monday.
MONDAY = datetime(2033, 5, 16, tzinfo=UTC).timestamp()
HOUR, DAY, WEEK = 3600.0, 86_400.0, 7 * 86_400.0
OFFICE = {"mon-fri 08:00-18:00": {"READ": 50, "WRITE": 20}}


def config(schedule=None, **changes):
    return ScalingConfig(schedule=schedule, **changes)


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("mon 00:00-02:00", {0, 1}),
        ("tue,thu 12:00-13:00", {36, 84}),
        ("sat-sun 00:00-24:00", set(range(120, 168))),
        ("sun 23:00-01:00", {167, 0}),
        ("fri-mon 05:00-06:00", {101, 125, 149, 5}),
        ("daily 22:00-24:00", {day * 24 + hour for day in range(7) for hour in (22, 23)}),
    ],
)
def test_spans_of_the_week(text, hours):
    """Days in a row, by themselves or all; over midnight, and over the end of the week."""
    assert parse_hours_of_week(text) == hours


@pytest.mark.parametrize(
    "text",
    ["", "mon", "08:00-18:00", "mon 08:30-18:00", "mon 8:00-9:00", "may 08:00-09:00",
     "mon 08:00-08:00", "mon 24:00-08:00", "mon- 08:00-09:00", "mon 08:00-25:00",
     "Mon 08:00-09:00"],
)  # fmt: skip
def test_what_is_no_span(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the value is all there is
        parse_hours_of_week(text)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, ""),
        ("learnt", ""),
        (OFFICE, ""),
        ({}, ""),
        ("learned", "Expected a dict, got str"),
        ({"mon": {"READ": 1}}, "'mon' is no span"),
        ({5: {"READ": 1}}, "5 is no span"),
        ({"mon 08:00-09:00": 5}, "has no dict with READ or WRITE"),
        ({"mon 08:00-09:00": {}}, "has no dict with READ or WRITE"),
        ({"mon 08:00-09:00": {"REED": 1}}, "did you mean 'READ'"),
        ({"mon 08:00-09:00": {"READ": 0}}, "READ of 'mon 08:00-09:00' is 0"),
        ({"mon 08:00-09:00": {"WRITE": 1.5}}, "is 1.5; expected a whole number, 1 or more"),
    ],
)
def test_wrong_schedules_are_named(value, error):
    found = schedule_error(value)
    assert error in found
    assert bool(error) == bool(found)


def test_a_given_schedule_is_for_the_table_and_all_indexes():
    """Overlapping spans have the higher minimum; hours without one have none."""
    schedule = given(config({**OFFICE, "mon 09:00-10:00": {"READ": 80}}))
    capacity = table(I=(5, 5))
    assert schedule.at(capacity, MONDAY + 7 * HOUR) == {}
    assert schedule.at(capacity, MONDAY + 9 * HOUR) == {
        ("", "Read"): 80, ("", "Write"): 20, ("I", "Read"): 80, ("I", "Write"): 20,
    }  # fmt: skip
    assert schedule.at(capacity, MONDAY + 5 * DAY + 9 * HOUR) == {}
    assert given(config("learnt")) is None
    assert given(config()) is None


def test_a_minimum_applies_ahead_of_its_hour_and_to_its_end():
    schedule, capacity = given(config(OFFICE)), table()
    assert schedule.soon(capacity, MONDAY + 8 * HOUR - 601) == {}
    assert schedule.soon(capacity, MONDAY + 8 * HOUR - 599)["", "Read"] == 50
    assert schedule.soon(capacity, MONDAY + 18 * HOUR - 1)["", "Read"] == 50
    assert schedule.soon(capacity, MONDAY + 18 * HOUR) == {}
    assert schedule.lower_at(capacity, MONDAY + 8 * HOUR - 599) == MONDAY + 18 * HOUR
    assert schedule.lower_at(capacity, MONDAY + 12.3 * HOUR) == MONDAY + 18 * HOUR
    constant = given(config({"daily 00:00-24:00": {"READ": 9}}))
    assert constant.lower_at(capacity, MONDAY) == MONDAY + WEEK + HOUR


def test_hours_are_those_of_the_time_zone():
    """Also where it changes between winter and summer, and is off by half an hour."""
    summer, winter = datetime(2026, 7, 6, 6, tzinfo=UTC), datetime(2026, 1, 5, 7, tzinfo=UTC)
    assert hour_of_week(summer.timestamp(), "Europe/Vienna") == 8
    assert hour_of_week(winter.timestamp(), "Europe/Vienna") == 8
    assert next_hour(MONDAY + 100, "Asia/Kolkata") == MONDAY + 1800
    assert next_hour(MONDAY + 100, "UTC") == MONDAY + HOUR


def peaks(weeks, used):
    """Hours of so many weeks before MONDAY: ``used(week, hour_of_week)`` by resource."""
    first = int(MONDAY // HOUR) - weeks * HOURS_OF_WEEK
    return {
        first + week * HOURS_OF_WEEK + hour: used(week, hour)
        for week in range(weeks)
        for hour in range(HOURS_OF_WEEK)
    }


def test_learnt_from_the_same_hours_of_past_weeks():
    """The busiest minute at the target utilization, within base and maximum; by resource."""

    def used(week, hour):
        return {"t": (14.0, 35.1), "t/I": (0.0, 1000.0)} if hour == 9 else {"t": (1.0, 0.0)}

    schedule = learn(peaks(2, used), "t", ["", "I"], config("learnt"))
    capacity = table(I=(5, 5))
    assert schedule.at(capacity, MONDAY + 9 * HOUR) == {
        ("", "Read"): 20, ("", "Write"): 50, ("I", "Write"): 50,
    }  # fmt: skip
    assert schedule.at(capacity, MONDAY + 10 * HOUR) == {}
    assert read_schedule(schedule.as_text()) == schedule


def test_hours_that_begin_at_half_past_are_learnt():
    """02:30 to 03:30 in UTC is the hour from 08:00 on in Kolkata: both hours of UTC count."""
    busy = MONDAY + 2 * HOUR - WEEK

    def used(week, hour):
        return {"t": (14.0 if hour == 2 else 1.0, 0.0)}

    schedule = learn(peaks(2, used), "t", [""], config("learnt", schedule_time_zone="Asia/Kolkata"))
    for moment in (busy + 1, busy + 1801, busy + HOUR - 1):
        assert schedule.at(table(), moment) == {("", "Read"): 20}
    assert schedule.at(table(), busy - 1801) == schedule.at(table(), busy + HOUR + 1801) == {}


def test_an_hour_that_came_twice_is_of_one_week():
    """On 31 October 2032, 02:00 comes twice in Vienna."""
    twice = datetime(2032, 10, 31, 0, tzinfo=UTC).timestamp()
    found = {int(twice // HOUR) + hour: {"t": (50.0, 0.0)} for hour in (0, 1)}
    vienna = config("learnt", schedule_time_zone="Europe/Vienna")
    assert learn(found, "t", [""], vienna).at(table(), twice) == {}
    found[int((twice - WEEK) // HOUR)] = {"t": (50.0, 0.0)}
    assert learn(found, "t", [""], vienna).at(table(), twice) == {("", "Read"): 72}


def test_one_week_in_five_that_was_busier_does_not_count():
    """Two weeks do; and an hour that was measured in one week only has no minimum."""

    def used(busy):
        return lambda week, hour: {"t": (70.0, 0.0)} if week in busy else {"t": (7.0, 0.0)}

    def read_units(found):
        return learn(found, "t", [""], config("learnt")).at(table(), MONDAY).get(("", "Read"))

    assert read_units(peaks(5, used({2}))) == 10
    assert read_units(peaks(5, used({2, 4}))) == 100
    assert read_units(peaks(1, used({0}))) is None
    missing = peaks(3, used({0, 1, 2}))
    slot = [hour for hour in missing if hour_of_week(hour * HOUR, "UTC") == 0]
    for hour in slot[:2]:
        del missing[hour]
    assert read_units(missing) is None
    assert read_units({}) is None
    assert [percentile([1.0] * n + [9.0]) for n in (0, 1, 3, 4)] == [9.0, 9.0, 9.0, 1.0]


@examples(st.lists(st.floats(0, 1e6), min_size=2, max_size=5), st.integers(0, 167))
def test_what_is_learnt_is_within_base_and_maximum(values, slot):
    """And enough for the percentile at the target, unless the maximum is less."""
    hours = {
        int(MONDAY // HOUR) + slot - week * HOURS_OF_WEEK: {"t": (value, value)}
        for week, value in enumerate(values)
    }
    found = learn(hours, "t", [""], config("learnt")).minima[""][slot]
    for units, base, most in zip(found, (5, 5), (100, 50), strict=True):
        assert units == 0 or base < units <= most
        assert max(units, base) * 0.7 + 1e-6 >= percentile(values) or units == most


def test_a_plan_raises_what_is_below_the_minimum():
    """Up to the maximum and the quota; nothing else is changed, and nothing lowered."""
    settings = config(OFFICE)
    minimums = {("", "Read"): 50, ("", "Write"): 200, ("I", "Read"): 5, ("I", "Write"): 20}
    plan = plan_scheduled(table(_=(80, 5), I=(5, 10)), minimums, settings, Quota())
    assert (plan.code, plan.changes) == ("scheduled", {"": (80, 50), "I": (5, 20)})
    of_table = {each: units for each, units in minimums.items() if not each[0]}
    assert plan_scheduled(table(), of_table, settings, Quota(30, 8)).changes == {"": (30, 8)}


def test_plans_without_changes():
    settings, minimums = config(OFFICE), {("", "Read"): 50, ("", "Write"): 20}
    assert plan_scheduled(table(_=(50, 20)), minimums, settings, Quota()).code == "nothing"
    assert plan_scheduled(table(), {}, settings, Quota()).code == "nothing"
    assert plan_scheduled(table(on_demand=True), minimums, settings, Quota()).code == "on_demand"
    assert plan_scheduled(table("UPDATING"), minimums, settings, Quota()).code == "in_progress"
    assert plan_scheduled(table(replicas=True), minimums, settings, Quota()).changes == {
        "": (50, 5)
    }


def test_a_minimum_is_a_floor_of_lowering():
    """It is kept until it ends, and the record stays open until then."""
    floor = {("", "Read"): 5, ("", "Write"): 5}
    minimums = {("", "Read"): 50, ("", "Write"): 20}
    plan = plan_down(table(_=(100, 20)), config(), MONDAY, floor=floor, minimums=minimums)
    assert (plan.code, plan.changes, plan.again) == ("lowered", {"": (50, 20)}, True)
    plan = plan_down(table(_=(50, 20)), config(), MONDAY, floor=floor, minimums=minimums)
    assert (plan.code, plan.changes, plan.again) == ("scheduled", {}, True)
    plan = plan_down(table(_=(50, 20)), config(), MONDAY, floor=floor)
    assert (plan.code, plan.changes, plan.again) == ("lowered", {"": (5, 5)}, False)
    need = {("", "Read"): 42.0}
    plan = plan_down(table(_=(60, 20)), config(), MONDAY, floor=floor, minimums=minimums, need=need)
    assert (plan.code, plan.again) == ("needed", True)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"minima": 1, "zone": "UTC"}', '{"minima": {"": [[1]]}, "zone": ""}',
             '{"minima": {"": [[1, 2]]}, "zone": "UTC"}', '{"minima": {}, "zone": "Mars/Olympus"}',
             '{"minima": {}, "zone": "../UTC"}', '{"minima": {}, "zone": ""}'],
)  # fmt: skip
def test_another_text_is_no_schedule(text):
    with pytest.raises(ValueError):  # noqa: PT011 - any of them
        read_schedule(text)


def test_a_schedule_is_shown_in_the_form_of_the_setting():
    """Days in a row as a span; read back, it is the same."""
    hours = {**OFFICE, "sat,mon 20:00-24:00": {"READ": 7}, "sun 00:00-01:00": {"WRITE": 9}}
    schedule = given(config(hours))
    shown = spans_of(schedule, EVERY)
    assert shown == {
        "mon,sat 20:00-24:00": {"READ": 7},
        "mon-fri 08:00-18:00": {"READ": 50, "WRITE": 20},
        "sun 00:00-01:00": {"WRITE": 9},
    }
    assert given(config(shown)) == schedule
    assert spans_of(schedule, "none") == {}


def test_every_resource_or_its_own():
    one = tuple((3, 0) for _ in range(HOURS_OF_WEEK))
    assert Schedule({EVERY: one}).at(table(I=(1, 1)), MONDAY) == {
        ("", "Read"): 3, ("I", "Read"): 3,
    }  # fmt: skip
    assert Schedule({"I": one}).at(table(I=(1, 1)), MONDAY) == {("I", "Read"): 3}
