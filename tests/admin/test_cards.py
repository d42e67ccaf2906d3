"""The cards and sentences of the status pages."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from dynamo_stores.admin.cards import cards, describe_change, processes, summary
from dynamo_stores.admin.charts import bar, sparkline
from dynamo_stores.capacity.history import CapacityDecision
from dynamo_stores.monitoring.formatting import ago, clock_time, count_of, exact, number, span
from dynamo_stores.monitoring.latency import Latency
from dynamo_stores.monitoring.report import BreakerReport, Calls, Report
from dynamo_stores.monitoring.status import (
    AliasStatus,
    BreakerRow,
    Outage,
    ResourceStatus,
    TableStatus,
    ThrottledTime,
    ThroughputStatus,
    as_json,
)

NOW = 1_000_000.0
QUIET = ThroughputStatus(10, 5, 50, 2.0, (0.0,) * 59 + (2.0,), (0,) * 60)
TABLE = TableStatus(
    using="default",
    table="posts",
    status="ACTIVE",
    status_at=NOW,
    is_on_demand=False,
    scaling="on",
    resources=(ResourceStatus("", QUIET, QUIET, 4, 0),),
    reasons={},
    decision=None,
    comes_down_at=None,
    used_at=NOW,
)
HERE = Report("web", 1, "gunicorn", "1", NOW - 60, NOW, 60.0, calls={"posts": Calls(9, 1, 2)})
ALL_OK = AliasStatus("default", NOW, (), (HERE,), (TABLE,), (), HERE.process)


def throttled(minutes_ago, count=3):
    line = replace(
        QUIET, throttled=tuple(count if each == 59 - minutes_ago else 0 for each in range(60))
    )
    return replace(TABLE, resources=(ResourceStatus("", QUIET, line, 4, 0),))


def test_no_problems_are_one_sentence():
    """With the number of tables and processes."""
    assert summary([ALL_OK]) == (
        "ok",
        ["No problems: 1 table, 1 process, no open breaker, no throttling in the last 5 minutes."],
    )


def test_a_throttled_table_comes_first_with_its_decision():
    """The throttles, their reason, the last decision and when the table will be lowered."""
    decision = CapacityDecision(
        "posts", NOW - 90, "raised", "it was short", {"": (5, 5)}, {"": (5, 20)}
    )
    table = replace(
        throttled(2),
        reasons={"TableWriteProvisionedThroughputExceeded": 3},
        decision=decision,
        change=decision,
        throttling=ThrottledTime("Write", NOW - 180, NOW - 20, 60.2, 20.4),
        comes_down_at=NOW + 600,
        scale_down_delay=600.0,
    )
    status = replace(ALL_OK, tables=(replace(TABLE, table="a"), table))
    assert [card.status.table for card in cards(status)] == ["posts", "a"]
    level, (sentence,) = summary([status])
    assert level == "alarm"
    assert sentence == (
        "Table posts is throttled since 13:43:40 UTC, for 3 minutes: 60 write units a second asked "
        "for, 20 served (3 attempts in 5 minutes, TableWriteProvisionedThroughputExceeded). "
        "Changed 5 → 20 WCU at 13:45:10 UTC, because it was short. It will be lowered 10 minutes "
        "after the last throttle at the earliest."
    )


def test_a_throttled_table_at_its_maximum_names_the_setting():
    """And says what to do; the time is over after some minutes without throttling."""
    time = ThrottledTime("Write", NOW - 280, NOW - 200, 60.0, 50.0)
    line = replace(throttled(3).resources[0].write, capacity=50)
    resource = ResourceStatus("", QUIET, line, 4, 0)
    table = replace(throttled(3), resources=(resource,), throttling=time)
    _, (sentence,) = summary([replace(ALL_OK, tables=(table,))])
    assert "Table posts was throttled from 13:42:00 UTC to 13:43:20 UTC: 60 write" in sentence
    assert "50 WCU is MAX_WRITE_CAPACITY: raise that setting, or send fewer requests." in sentence
    off = replace(throttled(1), scaling="off", throttling=time)
    _, (sentence,) = summary([replace(ALL_OK, tables=(off,))])
    assert "Scaling is off: raise the table, or send fewer requests." in sentence


def test_a_table_that_is_not_lowered_in_time_is_an_alarm():
    """Nothing lowers it; a deadline of just now is not overdue."""
    late = replace(TABLE, comes_down_at=NOW - 780)
    level, (sentence,) = summary([replace(ALL_OK, tables=(late,))])
    assert level == "alarm"
    assert sentence == (
        "Table posts should have been lowered 13 minutes ago: nothing runs dynamo_reconcile."
    )
    assert cards(replace(ALL_OK, tables=(late,)))[0].state == "not lowered in time"
    due = replace(TABLE, comes_down_at=NOW - 60)
    assert summary([replace(ALL_OK, tables=(due,))])[0] == "ok"


def test_the_symbol_of_a_card_fits_its_state():
    """And a card is open where there is something to see."""
    found = {}
    for table in (
        TABLE,
        throttled(1),
        replace(TABLE, status="UPDATING"),
        replace(TABLE, status="unknown", not_known=frozenset(["capacity"])),
        replace(TABLE, comes_down_at=NOW + 60),
    ):
        (card,) = cards(replace(ALL_OK, tables=(table,)))
        found[len(found)] = (card.symbol, card.state, card.is_open)
    assert list(found.values()) == [
        ("●", "active", False),
        ("▲", "throttled", True),
        ("◆", "updating", True),
        ("◆", "not known", False),
        ("●", "active", True),
    ]


def test_only_what_can_be_done_is_offered():
    """A table at its baseline is not lowered; one that is changed, or on demand, not changed."""

    def offered(**changes):
        (card,) = cards(replace(ALL_OK, tables=(replace(TABLE, **changes),)))
        return [name for name, _ in card.actions]

    base = replace(QUIET, capacity=5)
    assert offered() == ["raise", "lower"]
    assert offered(resources=(ResourceStatus("", base, base, 4, 0),)) == ["raise"]
    assert offered(status="UPDATING") == offered(is_on_demand=True) == []


def test_an_outage_comes_first():
    """What is not known of tables is not claimed."""
    outage = Outage("endpoint e:1", NOW - 60, "connection refused", NOW + 30, False)
    sentence = outage.sentence(NOW)
    assert sentence == (
        "DynamoDB does not answer at endpoint e:1, since 13:45:40 UTC: connection refused. "
        "Calls fail at once; next try at 13:47:10 UTC."
    )
    table = replace(
        throttled(1), status="unknown", not_known=frozenset(["capacity", "usage", "decision"])
    )
    status = replace(ALL_OK, tables=(table,), outage=outage, problems=(sentence.removesuffix("."),))
    assert summary([status]) == ("alarm", [sentence])
    (capacity,) = as_json([status])["capacity"]
    assert (capacity["throttled"], capacity["resources"][0]["read"]["used"]) == (None, None)
    (problem,) = as_json([status])["problems"]
    assert (problem["since"], problem["next_try"]) == (NOW - 60, NOW + 30)
    assert "the next call is a try" in replace(outage, next_try=NOW).sentence(NOW)
    assert "its calls are sent" in replace(outage, next_try=None).sentence(NOW)
    assert replace(outage, since=None).sentence(NOW) == (
        "DynamoDB does not answer at endpoint e:1: connection refused."
    )
    assert "refuses the requests" in replace(outage, is_refusal=True).sentence(NOW)


def test_earlier_throttles_are_not_in_the_summary():
    """They stay in the figures of the hour."""
    status = replace(ALL_OK, tables=(throttled(20),))
    assert summary([status])[0] == "ok"
    assert status.tables[0].throttled == 3


def test_an_open_breaker_is_an_alarm():
    """In how many processes, since when, after what."""
    opened = BreakerReport("posts", "open", 5, "ConnectTimeoutError", NOW - 125, NOW + 40)
    other = replace(HERE, pid=2, breakers=(opened,))
    level, (sentence,) = summary([replace(ALL_OK, reports=(HERE, other))])
    assert level == "alarm"
    assert sentence == (
        "The circuit breaker of posts is open in 1 process of 2 since 13:44:35 UTC, for 2 minutes, "
        "after ConnectTimeoutError; next try at 13:47:20 UTC."
    )
    (sentence,) = summary([replace(ALL_OK, reports=(other,), knows_others=False)])[1]
    assert "is open in this process since" in sentence


def test_late_and_ended_processes():
    """A late one is reported for a while; one that ended is not, nor are its breakers."""
    late = replace(HERE, pid=2, at=NOW - 300)
    gone = replace(
        HERE, pid=3, has_ended=True, breakers=(BreakerReport("posts", "open", 5, "E", NOW),)
    )
    status = replace(ALL_OK, reports=(gone, late, HERE))
    level, (sentence,) = summary([status])
    assert (level, sentence.split(" did")[0]) == ("notice", "1 process")
    assert [row.report.pid for row in processes(status)] == [1, 2, 3]
    old = replace(late, at=NOW - 1000)
    level, (sentence,) = summary([replace(ALL_OK, reports=(HERE, old))])
    assert level == "ok"
    assert "1 table, 1 process," in sentence


@pytest.mark.parametrize(
    ("changes", "level", "part"),
    [
        ({"status": "missing"}, "alarm", "dynamo_create_tables"),
        ({"status": "UPDATING"}, "notice", "UPDATING"),
    ],
)
def test_tables_that_are_not_active(changes, level, part):
    """Each with what it means."""
    found, (sentence,) = summary([replace(ALL_OK, tables=(replace(TABLE, **changes),))])
    assert found == level
    assert part in sentence


def test_failed_calls_are_in_the_summary():
    """As an alarm."""
    problem = "DynamoDB did not return the decisions: ConnectTimeoutError"
    assert summary([replace(ALL_OK, problems=(problem,))]) == ("alarm", [f"{problem}."])


def test_a_table_without_scaling_has_advice_how_to_enable_it():
    """By the name of its alias."""
    (card,) = cards(replace(ALL_OK, tables=(replace(TABLE, scaling="off"),)))
    assert card.advice == (
        "Scaling is off for this table: set DYNAMO_STORES['default']['SCALING'] = "
        "{'ENABLED': True}."
    )


def test_describe_change():
    """Only what changed, with its unit."""
    changed = CapacityDecision(
        "t", 0, "raised", "", {"": (5, 5), "I": (5, 5)}, {"": (5, 20), "I": (10, 20)}
    )
    assert describe_change(changed) == "5 → 20 WCU, I: 5 → 10 RCU, I: 5 → 20 WCU"
    assert describe_change(CapacityDecision("t", 0, "at_maximum", "", {}, {})) == "not changed"


def test_bars_and_lines():
    """Within their size, with a description for screen readers."""
    found = bar(replace(QUIET, used=9.5), "read")
    assert (found.baseline, found.capacity, found.used, found.is_full) == (30, 60, 57, True)
    assert found.words == ("9.5 read units a second used of 10; baseline 5, maximum 50")
    assert bar(replace(QUIET, capacity=None), "read") is None
    over = bar(replace(QUIET, capacity=100, used=200.0), "read")
    assert (over.capacity, over.used) == (150, 300)
    assert sparkline([0, 4, 2], [0, 0, 0], "Writes", 8.0).points == "0,39 150,21 300,30"
    line = sparkline([0, 4, 2], [0, 0, 7], "Writes")
    assert line.points == "0,39 150,3 300,21"
    assert line.marks == (300,)
    assert line.words == ("Writes in the last hour: at most 4 units a second, 7 attempts throttled")


def test_formatting():
    """Numbers and times as readable text."""
    assert [span(each) for each in (0, 1, 59, 61, 7200, 90_000)] == [
        "0 seconds", "1 second", "59 seconds", "1 minute", "2 hours", "1 day",
    ]  # fmt: skip
    assert [ago(each, 100.0) for each in (100.4, 40.0, 160.0)] == [
        "just now", "1 minute ago", "in 1 minute",
    ]  # fmt: skip
    assert [number(each) for each in (0.0, 0.01, 0.44, 5.0, 12.4, 3400)] == [
        "0", "under 0.1", "0.4", "5", "12", "3,400",
    ]  # fmt: skip
    assert [count_of(1, "process"), count_of(2, "process"), count_of(1000, "table")] == [
        "1 process", "2 processes", "1,000 tables",
    ]  # fmt: skip
    assert [clock_time(0, now) for now in (10, 90_000)] == [
        "00:00:00 UTC", "1970-01-01 00:00:00 UTC",
    ]  # fmt: skip
    assert exact(0) == "1970-01-01 00:00:00 UTC"


def test_as_json():
    """Flat lists, each part with its alias."""
    found = as_json([ALL_OK])
    assert set(found) == {"at", "problems", "breakers", "capacity", "processes", "decisions"}
    (table,) = found["capacity"]
    assert (table["using"], table["table"], table["throttled"]) == ("default", "posts", 0)
    assert table["resources"][0]["write"]["capacity"] == 10


def test_the_fields_of_the_json_are_documented():
    text = Path(__file__, "../../../docs/status.md").resolve().read_text()
    section = text.partition("### JSON")[2].partition("\n### ")[0]
    made_of = (
        BreakerRow, TableStatus, ResourceStatus, ThroughputStatus, ThrottledTime, Latency, Report,
        CapacityDecision,
    )  # fmt: skip
    names = {each.name for cls in made_of for each in fields(cls)} | set(as_json([ALL_OK]))
    assert not [name for name in names if f"`{name}`" not in section]
