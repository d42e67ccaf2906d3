"""The cards and sentences of the status pages."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dynamo_stores.admin.cards import cards, describe_change, processes, summary
from dynamo_stores.admin.charts import bar, sparkline
from dynamo_stores.capacity.history import CapacityDecision
from dynamo_stores.monitoring.formatting import ago, count_of, exact, number, span
from dynamo_stores.monitoring.report import BreakerReport, Calls, Report
from dynamo_stores.monitoring.status import (
    AliasStatus,
    ResourceStatus,
    TableStatus,
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
        comes_down_at=NOW + 600,
    )
    status = replace(ALL_OK, tables=(replace(TABLE, table="a"), table))
    assert [card.status.table for card in cards(status)] == ["posts", "a"]
    level, (sentence,) = summary([status])
    assert level == "alarm"
    assert sentence == (
        "Table posts is throttled: 3 attempts in 5 minutes (TableWriteProvisionedThroughput"
        "Exceeded). Last decision 1 minute ago: 5 → 20 WCU, because it was short. It will be "
        "lowered in 10 minutes."
    )


def test_earlier_throttles_are_not_in_the_summary():
    """They stay in the figures of the hour."""
    status = replace(ALL_OK, tables=(throttled(20),))
    assert summary([status])[0] == "ok"
    assert status.tables[0].throttled == 3


def test_an_open_breaker_is_an_alarm():
    """In how many processes, since when, after what."""
    opened = BreakerReport("posts", "open", 5, "ConnectTimeoutError", NOW - 125)
    other = replace(HERE, pid=2, breakers=(opened,))
    level, (sentence,) = summary([replace(ALL_OK, reports=(HERE, other))])
    assert level == "alarm"
    assert sentence == (
        "The circuit breaker of posts is open in 1 process of 2, for 2 minutes, after "
        "ConnectTimeoutError."
    )


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
    assert summary([replace(ALL_OK, reports=(HERE, old))])[0] == "ok"


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
    assert exact(0) == "1970-01-01 00:00:00 UTC"


def test_as_json():
    """Flat lists, each part with its alias."""
    found = as_json([ALL_OK])
    assert set(found) == {"at", "problems", "breakers", "capacity", "processes", "decisions"}
    (table,) = found["capacity"]
    assert (table["using"], table["table"], table["throttled"]) == ("default", "posts", 0)
    assert table["resources"][0]["write"]["capacity"] == 10
