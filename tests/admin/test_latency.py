"""The page of latencies, and the charts of what stores counted."""

from __future__ import annotations

import json
import time

import pytest

from dynamo_stores import keys
from dynamo_stores.admin import past as past_module
from dynamo_stores.admin.charts import SOLID, Series, line_chart
from dynamo_stores.capacity.usage import minute_of
from dynamo_stores.concurrency.effects import run
from dynamo_stores.conf import get_config
from dynamo_stores.monitoring import snapshot
from dynamo_stores.monitoring.history import History, PeriodItem
from dynamo_stores.monitoring.periods import Period
from dynamo_stores.monitoring.report import Report
from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.monitoring.status import AliasStatus
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import FakeClock
from tests.helpers.data_pages import sent, sum_up
from tests.helpers.status import page

pytestmark = pytest.mark.django_db
# Buckets 30 and 60 are about 0.17 ms and 30 ms.
FAST, SLOW = 30, 60
EVIL = '"><script>alert(1)</script>'
ROLL_UP = "the task dynamo_stores.roll_up_status must run each minute"


@pytest.fixture
def now():
    """Half past an hour."""
    with FakeClock((time.time() // 3600) * 3600 + 1800) as clock:
        yield clock


@pytest.fixture
def quiet(reporting, settings):
    """``quiet(…)``: the only alias, whose process reports when a test says so."""

    def make(**changes):
        using = reporting(**{"REPORTS": {"INTERVAL": 3600.0}, **changes})
        settings.DYNAMO_STORES = {"default": settings.DYNAMO_STORES[using]}
        return "default"

    return make


@pytest.fixture
def watcher(log_in):
    return log_in("view_status")


def found(client, name, using, **query):
    """The JSON of a page, of one alias."""
    parts = {"latency": "latency", "cache": "lookups", "limits": "refusals", "jobs": "counts"}
    data = json.loads(client.get(page(name, format="json", **query)).content)
    (mine,) = [each for each in data[parts[name]] if each["using"] == using]
    return mine


def calls(operation="GetItem", table="posts", bucket=FAST, count=10, **events):
    return Period({table: {operation: {bucket: count}}}, events)


def report(using, clock, minutes):
    ReportStore(using).publish(
        Report(
            "h", 7, "test", "1", clock.now(), clock.now(), 60.0,
            latencies={minute: each.latencies for minute, each in minutes.items()},
            events={minute: each.events for minute, each in minutes.items()},
        )
    )  # fmt: skip


def operations(data):
    return [(each["table"], each["operation"]) for each in data["operations"]]


def test_latencies_of_the_last_hour_and_day(quiet, watcher, now):
    """Of minutes, of hours, and of what was reported since; each call once."""
    using, minute = quiet(), minute_of(now.now())
    sum_up(
        using,
        {minute - 2: calls(count=99), minute - 50: calls(bucket=SLOW, count=1),
         minute - 80: calls(count=1000)},
        {minute // 60 - 1: calls(count=2000), minute // 60 - 5: calls("PutItem", count=7),
         minute // 60 - 24: calls("Scan")},
    )  # fmt: skip
    report(using, now, {minute - 2: calls(count=40), minute - 1: calls(count=100)})
    data = found(watcher, "latency", using)
    read, put = data["operations"]
    assert (read["operation"], read["hour"]["calls"], read["day"]["calls"]) == (
        "GetItem",
        200,
        2199,
    )
    assert read["hour"]["p50"] == read["hour"]["p95"] == pytest.approx(0.00018, rel=0.2)
    assert read["hour"]["p99"] == pytest.approx(0.00018, rel=0.2)
    assert [(each["at"], each["calls"]) for each in read["minutes"]] == [
        ((minute - 50) * 60.0, 1),
        ((minute - 2) * 60.0, 99),
        ((minute - 1) * 60.0, 100),
    ]
    assert [each["calls"] for each in read["hours"]] == [2000, 199]
    assert (put["hour"], put["day"]["calls"]) == (None, 7)
    assert (data["problems"], data["knows_hour"], data["knows_day"]) == ([], True, True)


def test_an_hour_that_is_not_summed_up_yet_is_that_of_its_minutes(quiet, watcher, now):
    """The task does so some minutes after its end."""
    using, minute = quiet(), minute_of(now.now())
    sum_up(using, {minute - 80: calls(count=3), minute - 1: calls(count=4)})
    (read,) = found(watcher, "latency", using)["operations"]
    assert (read["hour"]["calls"], read["day"]["calls"]) == (4, 7)


def test_the_busiest_or_the_slowest_operations_come_first(quiet, watcher, now):
    """By choice; and those of one table."""
    using, minute = quiet(), minute_of(now.now())
    tables = {
        "posts": {"GetItem": {FAST: 50}, "Query": {SLOW: 5}},
        "my table&x": {"PutItem": {FAST + 4: 9}},
    }
    sum_up(using, {minute - 1: Period(tables)})
    busiest = [("posts", "GetItem"), ("my table&x", "PutItem"), ("posts", "Query")]
    slowest = [("posts", "Query"), ("my table&x", "PutItem"), ("posts", "GetItem")]
    assert operations(found(watcher, "latency", using)) == busiest
    assert operations(found(watcher, "latency", using, sort="slowest")) == slowest
    assert operations(found(watcher, "latency", using, sort=EVIL)) == busiest
    assert operations(found(watcher, "latency", using, table="posts")) == [busiest[0], busiest[2]]
    html = watcher.get(page("latency", sort="slowest", table="my%20table%26x")).text
    assert 'href="?sort=slowest&amp;table=my+table%26x&amp;format=json"' in html
    assert "of this table" not in html
    assert "of this table" in watcher.get(page("latency", table="none")).text


def test_many_operations_are_cut(quiet, watcher, now):
    """Those with the fewest calls; only the first have charts."""
    using, minute = quiet(), minute_of(now.now())
    many = {f"op{number}": {FAST: 1 + number} for number in range(150)}
    sum_up(using, {minute - 1: Period({"t": many})})
    data = found(watcher, "latency", using)
    assert (data["count"], len(data["operations"])) == (150, 100)
    assert operations(data)[0] == ("t", "op149")
    html = watcher.get(page("latency")).text
    assert "The first 100 of 150 operations" in html
    assert html.count('class="ds-operation"') == 12


def test_what_is_not_summed_up_is_said(quiet, watcher, now):
    """Nothing at all, or nothing since a time; the task is named."""
    using, minute = quiet(), minute_of(now.now())
    data = found(watcher, "latency", using)
    assert (operations(data), len(data["problems"])) == ([], 1)
    assert ROLL_UP in data["problems"][0]
    assert "No process has reported a call" in watcher.get(page("latency")).text
    report(using, now, {minute - 4: calls(count=3, hit=1)})
    data = found(watcher, "latency", using)
    assert data["operations"][0]["hour"]["calls"] == 3
    assert data["problems"][0].startswith("No minute is summed up: ")
    lookups = found(watcher, "cache", using)
    assert [each["hits"] for each in lookups["minutes"]] == [0, 1, 0, 0, 0]
    sum_up(using, {minute - 20: calls()}, {minute // 60 - 1: calls()})
    (problem,) = found(watcher, "latency", using)["problems"]
    assert problem.startswith("No minute is summed up since ")
    assert ROLL_UP in problem
    assert len(found(watcher, "cache", using)["minutes"]) == 59 - (20 - 6)
    sum_up(using, {minute - 4: calls(count=3)})
    assert found(watcher, "latency", using)["problems"] == []


def test_an_alias_that_reports_nothing_says_so(quiet, watcher):
    using = quiet(REPORTS={"ENABLED": False})
    problems = found(watcher, "latency", using)["problems"]
    assert any("['REPORTS']['ENABLED'] is False" in each for each in problems)


def test_lookups_refusals_and_jobs_by_minute(quiet, watcher, now):
    """With the sums of the hour, and of lookups those of the day."""
    using, minute = quiet(), minute_of(now.now())
    events = {"hit": 30, "miss": 10, "refused": 1234, "jobs.begun": 5, "jobs.completed": 3,
              "jobs.failed": 2}  # fmt: skip
    sum_up(
        using,
        {minute - 3: Period({}, events)},
        {minute // 60 - 2: Period({}, {"hit": 60})},
    )
    at = (minute - 3) * 60.0
    for name, expected in (
        ("cache", {"at": at, "hits": 30, "misses": 10}),
        ("limits", {"at": at, "refused": 1234}),
        ("jobs", {"at": at, "begun": 5, "completed": 3, "failed": 2}),
    ):
        minutes = found(watcher, name, using)["minutes"]
        assert expected in minutes
        assert len(minutes) == 59
        assert sum(value for each in minutes for key, value in each.items() if key != "at") == sum(
            value for key, value in expected.items() if key != "at"
        )
    assert found(watcher, "cache", using)["hours"] == [
        {"at": (minute // 60 - 2) * 3600.0, "hits": 60, "misses": 0},
        {"at": minute // 60 * 3600.0, "hits": 30, "misses": 10},
    ]
    cache = watcher.get(page("cache")).text
    assert "<b>75 %</b> hits in the last hour: <b>30</b> hits, <b>10</b> misses." in cache
    assert "<b>90 %</b> hits in the last day" in cache
    assert "Hit rate, last hour, by minute: hit rate at most 75 %" in cache
    assert "In the last hour: <b>1,234</b> refused." in watcher.get(page("limits")).text
    jobs = watcher.get(page("jobs")).text
    assert "Jobs, last hour, by minute: begun at most 5, completed at most 3, failed at most 2" in (
        jobs
    )


def test_the_busiest_operation_of_a_table_is_on_its_card(quiet, watcher, now):
    """Also on the line of a calm table, with a link to its latencies."""
    using = quiet()
    table = get_config(using).store_table
    report(using, now, {minute_of(now.now()) - 1: calls("Query", table, SLOW)})
    html = watcher.get(page("overview")).text
    assert "· Query p99 30.0 ms" in html
    assert "p99 <b>30.0 ms</b>, Query" in html
    assert f'href="/admin/dynamo-stores/latency/?table={table}"' in html


@pytest.mark.parametrize(("name", "queries"), [("latency", 2), ("cache", 2), ("jobs", 1)])
def test_what_the_charts_cost(name, queries, quiet, watcher, now, dynamo_faults, monkeypatch):
    """At most two Queries of an alias, with all minutes and hours."""
    monkeypatch.setattr(snapshot, "_CACHE_SECONDS", 600.0)
    using, minute = quiet(ENDPOINT_URL=dynamo_faults.url), minute_of(now.now())
    many = Period({"t": {f"op{n}": {FAST: 9} for n in range(20)}}, {"hit": 1})
    sum_up(
        using,
        {minute - back: many for back in range(110)},
        {minute // 60 - back: many for back in range(30)},
    )
    watcher.get(page(name))
    dynamo_faults.requests.clear()
    watcher.get(page(name))
    assert sent(dynamo_faults) == {"Query": 3 + queries, "BatchGetItem": 1}


@pytest.mark.parametrize("fault", ["fail", "throttle", "hang"])
def test_pages_say_that_the_past_was_not_read(fault, quiet, watcher, now, dynamo_faults):
    """In time; this process's own calls are shown."""
    using = quiet(ENDPOINT_URL=dynamo_faults.url)
    sum_up(using, {minute_of(now.now()) - 9: calls()})
    CacheStore(using).get("k")
    getattr(dynamo_faults, fault)("Query")
    data = found(watcher, "latency", using)
    minutes, hours, others = data["problems"]
    assert minutes.startswith("The minutes of the last hour were not read: ")
    assert hours.startswith("The hours of the last day were not read: ")
    assert others.startswith("The other processes were not read")
    assert (data["knows_hour"], data["knows_day"]) == (False, False)
    assert "posts" not in {each["table"] for each in data["operations"]}
    html = watcher.get(page("latency")).text
    assert "No process has reported" not in html
    for name, part in (
        ("cache", "Hits and misses"),
        ("limits", "Look up a limit"),
        ("jobs", "Look up a job"),
    ):
        html = watcher.get(page(name)).text
        assert "The minutes of the last hour were not read" in html
        assert part in html


def test_an_answer_that_is_late_is_not_waited_for(quiet, dynamo_faults, monkeypatch):
    """The page says so."""
    monkeypatch.setattr(past_module, "_MAX_WAIT", 0.0)
    using = quiet(ENDPOINT_URL=dynamo_faults.url)
    dynamo_faults.hang("Query")
    nothing = AliasStatus(using, time.time(), (), (), (), (), "")
    (past,) = past_module.Reading(day=True).past([nothing])
    assert past.problems == (
        "The minutes of the last hour were not read: no answer in 0 s.",
        "The hours of the last day were not read: no answer in 0 s.",
    )


@pytest.mark.parametrize(
    "text",
    [
        "not JSON",
        "[" * 100_000,
        "[]",
        '{"latencies": {"t": {"GetItem": [0, -1]}}}',
        '{"latencies": {"t": {"GetItem": [1000, 1]}}}',
        '{"events": {"hit": "many"}}',
        '{"events": {"hit": 1e400}}',
    ],
)
def test_items_of_other_software_are_left_out(text, quiet, watcher, now):
    """The other minutes are shown."""
    using, minute = quiet(), minute_of(now.now())
    sum_up(using, {minute - 2: text, minute - 3: calls()}, {minute // 60 - 2: text})
    data = found(watcher, "latency", using)
    assert [each["hour"]["calls"] for each in data["operations"]] == [10]
    for name in ("latency", "cache", "limits", "jobs"):
        assert watcher.get(page(name)).status_code == 200


def test_items_of_other_kinds_and_names(quiet, watcher, now):
    """Without a text, with other keys, with markup and events in place of ours."""
    using, minute = quiet(), minute_of(now.now())
    items, key = History(using)._items, keys.metrics_minute(minute - 5)
    run(items.put(PeriodItem(*key).serialize()))
    for sort_key in (f"{key.sk}_1", f"{key.sk}x"):
        run(items.put(PeriodItem(key.pk, sort_key, period=calls().as_text()).serialize()))
    evil = Period({EVIL: {EVIL: {FAST: 3}}}, {EVIL: 3, "hit": 10**15})
    sum_up(using, {minute - 6: evil})
    assert operations(found(watcher, "latency", using)) == [(EVIL, EVIL)]
    for name in ("latency", "cache", "limits", "jobs"):
        html = watcher.get(page(name)).text
        assert "<script>alert" not in html


def test_the_points_of_a_chart():
    """Gaps end a line; a point of its own is a short one; nothing known is no line."""
    values = [0.0, 1.0, None, 2.0]
    chart = line_chart("T", [0.0, 60.0, 120.0, 180.0], [Series("a", SOLID, values)], str, now=180.0)
    (line,) = chart.lines
    assert line.strokes == ("0,39 100,21", "298.5,3 300,3")
    assert chart.words == "T: a at most 2.0"
    assert (chart.first, chart.last, chart.top) == ("00:00:00 UTC", "00:03:00 UTC", "2.0")
    assert [each for each, _ in chart.rows] == ["00:00:00 UTC", "00:01:00 UTC", "00:03:00 UTC"]
    flat = line_chart("T", [0.0, 60.0], [Series("a", SOLID, [0, 0])], str, now=60.0, top=1.0)
    assert flat.lines[0].strokes == ("0,39 300,39",)
    empty = line_chart("T", [0.0, 60.0], [Series("a", SOLID, [None, None])], str, now=60.0)
    assert (empty.lines[0].strokes, empty.rows) == ((), ())
    assert empty.words == "T: nothing is known"
