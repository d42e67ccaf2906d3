"""The status pages without a browser: permissions, cost and failures."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import re
import socket
import time
from dataclasses import replace

import hypothesis
import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings
from django.urls import reverse
from hypothesis import strategies as st

from dynamo_stores import keys
from dynamo_stores.admin.permissions import Status
from dynamo_stores.capacity.history import Decisions
from dynamo_stores.capacity.records import CapacityRecords
from dynamo_stores.capacity.usage import Usage, UsageHistory, minute_of
from dynamo_stores.concurrency.effects import run
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.monitoring import snapshot
from dynamo_stores.monitoring.report import BreakerReport, Calls, Report, Throttling
from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.monitoring.reporter import get_reporter
from dynamo_stores.monitoring.snapshot import get_descriptions
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import FaultProxy
from tests.helpers.capacity import named
from tests.helpers.forking import fork
from tests.helpers.status import HERE, open_breaker, page, read

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
PAGES = ["overview", "breakers", "history", "latency", "cost"]


@pytest.mark.parametrize("name", PAGES)
def test_pages_require_a_permission(name, tables, client, log_in):
    """Staff without the permission is refused, other users are redirected to log in."""
    assert log_in("view_status").get(page(name)).status_code == 200
    assert log_in().get(page(name)).status_code == 403
    for stranger in (client, log_in(is_staff=False), log_in("view_status", is_staff=False)):
        answer = stranger.get(page(name))
        assert (answer.status_code, answer.url.split("?")[0]) == (302, "/admin/login/")
    assert log_in("view_status").post(page(name)).status_code == 405


def test_the_admins_index_lists_it(tables, log_in):
    """For users with the permission; the entry redirects to the overview."""
    watcher = log_in("view_status")
    assert reverse("admin:dynamo_stores_status_changelist") in watcher.get("/admin/").text
    answer = watcher.get(reverse("admin:dynamo_stores_status_changelist"))
    assert answer.url == page("overview")
    assert "dynamo_stores" not in log_in().get("/admin/").text


@pytest.mark.parametrize("name", PAGES)
def test_pages_pass_a_strict_content_security_policy(name, reporting, manager):
    """They have no inline script or style, and nothing of another host."""
    reporting()
    html = manager.get(page(name)).text
    assert not re.search(
        r"<script(?![^>]*\bsrc=)[^>]*>[^<]*\S", html.replace("application/json", "")
    )
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style", html)
    assert not re.findall(r"(?:src|href|action)=\"(?:https?:)?//[^\"]*", html)


def test_the_json_has_all_parts(reporting, manager):
    """Breakers and capacity, processes and decisions, with units and times."""
    using = reporting(BILLING_MODE="PROVISIONED")
    table = get_config(using).store_table
    CacheStore(using).get("k")
    Decisions(using).publish(table, {"at": time.time(), "code": "at_maximum", "why": "enough"})
    CapacityRecords(using).record_raise(
        named(table), time.time() + 60, {"at": time.time() - 9, "code": "raised", "why": "short"}
    )
    found = read(manager, using)
    (breaker,) = [each for each in found["breakers"] if each["table"] == table]
    assert (breaker["process"], breaker["state"], breaker["is_here"]) == (HERE, "closed", True)
    (mine,) = [each for each in found["capacity"] if each["table"] == table]
    assert (mine["status"], mine["is_on_demand"], mine["scaling"]) == ("ACTIVE", False, "off")
    assert mine["comes_down_at"] == pytest.approx(time.time() + 60, abs=40)
    assert mine["decision"]["code"] == "at_maximum"
    own, index = mine["resources"]
    assert (own["write"]["capacity"], own["write"]["baseline"], own["write"]["maximum"]) == (
        5,
        5,
        50,
    )
    assert (index["name"], index["decreases_left"]) == ("GSI1", 4)
    assert len(own["read"]["history"]) == 60
    assert [each["process"] for each in found["processes"]] == [HERE]
    assert [each["code"] for each in found["decisions"]] == ["at_maximum"]
    assert found["problems"] == []
    assert "Scaling is off for this table" in manager.get(page("overview")).text


def test_what_a_page_costs(reporting, manager, dynamo_engine, monkeypatch):
    """
    Three Queries, one BatchGetItem and a DescribeTable a table, with a hundred processes; two
    Queries more for latencies, and for costs without a whole hour.
    """
    # However long the pages take on a busy machine.
    monkeypatch.setattr(snapshot, "_CACHE_SECONDS", 600.0)
    with FaultProxy(dynamo_engine) as faults:
        using = reporting(ENDPOINT_URL=faults.url)
        processes, own = ReportStore(using), get_reporter(using).report()
        tables = [f"t{number}" for number in range(20)]
        breakers = tuple(BreakerReport(table, "closed", 0, "", 0.0) for table in tables)
        for number in range(100):
            processes.publish(replace(own, host=f"host{number}", breakers=breakers))
        for name in PAGES:
            queries = 5 if name in ("latency", "cost") else 3
            get_descriptions(using).clear()
            faults.requests.clear()
            html = manager.get(page(name)).text
            described = faults.requests.pop("DescribeTable")
            assert faults.requests == {"Query": queries, "BatchGetItem": 1}
            assert described == len(read(manager, using)["capacity"])
            faults.requests.clear()
            manager.get(page(name))
            assert faults.requests == {"Query": queries, "BatchGetItem": 1}
        assert "host99" in html or name in ("history", "latency", "cost")
        assert len(read(manager, using)["breakers"]) == 2000


def test_nothing_is_claimed_that_an_unavailable_dynamodb_could_not_tell(reporting, manager):
    """The first line says where, since when and why, and when the next try is; nothing else can."""
    using = reporting(
        make_tables=False,
        ENDPOINT_URL="http://127.0.0.1:9",
        BILLING_MODE="PROVISIONED",
        RETRY={"MAX_RETRIES": 0},
        CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1, "RECOVERY_TIMEOUT": 600.0},
    )
    with override_settings(DYNAMO_STORES={"default": settings.DYNAMO_STORES[using]}):
        began = time.time()
        with pytest.raises(Exception, match="got no answer"):
            CacheStore().get("k")
        for name in PAGES:
            answer = manager.get(page(name))
            assert answer.status_code == 200
            first = answer.context["sentences"][0]
            assert first.startswith(
                "DynamoDB does not answer at endpoint 127.0.0.1:9, region us-east-"
            )
            # With a date, if it is not that of today.
            moment = r"[-\d: ]+ UTC"
            assert re.search(
                rf"since {moment}: connection refused. Calls fail at once; next try at {moment}",
                first,
            )
            for claim in (
                "were no decisions",
                "none yet",
                "Nothing read",
                "On demand",
                "none until",
            ):
                assert claim not in answer.text
            assert not {"Reconcile now…", "Reset everywhere…", "Raise…"} & set(
                re.findall(r">([^<>]+)</button>", answer.text)
            )
        assert "of 1" not in answer.text
        found = read(manager, "default")
        (breaker,) = found["breakers"]
        assert (breaker["state"], breaker["is_here"]) == ("open", True)
        assert {each["status"] for each in found["capacity"]} == {"unknown"}
        assert {each["throttled"] for each in found["capacity"]} == {None}
        (problem,) = found["problems"]
        assert problem["endpoint"] == "endpoint 127.0.0.1:9, region us-east-1"
        assert began <= problem["since"] <= time.time()
        assert problem["next_try"] == pytest.approx(began + 600, abs=60)


def test_the_begin_of_an_outage_that_only_the_pages_meet(reporting, manager, dynamo_faults):
    """It is that of the first page without an answer, until a page is answered."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url)
    dynamo_faults.fail("*")
    (first,), (second,) = read(manager, using)["problems"], read(manager, using)["problems"]
    assert first["since"] == second["since"]
    assert "No circuit breaker of this process is open" in first["problem"]
    dynamo_faults.clear()
    assert read(manager, using)["problems"] == []
    dynamo_faults.fail("*")
    (third,) = read(manager, using)["problems"]
    assert third["since"] > first["since"]


@pytest.mark.parametrize("is_missing", [False, True])
def test_an_answer_to_the_application_ends_an_outage(is_missing, reporting, manager, dynamo_faults):
    """Whatever the answer: that a table is missing is one."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url, make_tables=not is_missing)
    dynamo_faults.fail("*")
    (first,) = read(manager, using)["problems"]
    dynamo_faults.clear()
    answered = time.time()
    with pytest.raises(ConfigurationError) if is_missing else contextlib.nullcontext():
        CacheStore(using).get("k")
    dynamo_faults.fail("*")
    (second,) = read(manager, using)["problems"]
    assert first["since"] < answered < second["since"]


def test_errors_are_answers_to_the_pages(reporting, manager, dynamo_faults):
    """An outage begins after them."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url, make_tables=False)
    assert {each["endpoint"] for each in read(manager, using)["problems"]} == {None}
    answered = time.time()
    dynamo_faults.fail("*")
    (outage,) = read(manager, using)["problems"]
    assert outage["since"] > answered


def test_throttled_pages_meet_no_outage(reporting, manager, dynamo_faults, monkeypatch):
    """Also where the tables were described before."""
    monkeypatch.setattr(snapshot, "_CACHE_SECONDS", 600.0)
    using = reporting(ENDPOINT_URL=dynamo_faults.url)
    assert read(manager, using)["problems"] == []
    dynamo_faults.throttle("*")
    found = read(manager, using)
    assert {each["endpoint"] for each in found["problems"]} == {None}
    assert {each["status"] for each in found["capacity"]} == {"ACTIVE"}


def test_a_breaker_that_stayed_open_is_of_an_earlier_outage(reporting, manager, dynamo_faults):
    """No call has tried its table since then, but the pages were answered."""
    using = reporting(
        ENDPOINT_URL=dynamo_faults.url,
        RETRY={"MAX_RETRIES": 0},
        CIRCUIT_BREAKER={"RECOVERY_TIMEOUT": 600.0},
    )
    open_breaker(using, dynamo_faults)
    dynamo_faults.clear()
    (breaker,) = read(manager, using)["breakers"]
    assert breaker["state"] == "open"
    answered = time.time()
    dynamo_faults.fail("*")
    (outage,) = read(manager, using)["problems"]
    assert outage["since"] > answered > breaker["since"]


def test_without_reports_an_outage_begins_with_the_first_open_breaker(
    reporting, manager, dynamo_faults
):
    """The calls are not counted then."""
    using = reporting(
        ENDPOINT_URL=dynamo_faults.url, REPORTS={"ENABLED": False}, RETRY={"MAX_RETRIES": 0}
    )
    open_breaker(using, dynamo_faults)
    dynamo_faults.fail("*")
    found = read(manager, using)
    (outage,), (breaker,) = found["problems"], found["breakers"]
    assert outage["since"] == breaker["since"]


def test_a_slow_dynamodb_is_reported(reporting, manager, dynamo_faults):
    """Calls that hang are given up; the other results are shown."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url)
    dynamo_faults.hang("Query")
    answer = manager.get(page("overview"))
    assert answer.status_code == 200
    found = read(manager, using)
    assert {each["status"] for each in found["capacity"]} == {"ACTIVE"}
    (problem,) = found["problems"]
    assert "the usage of the last hour and the decisions" in problem["problem"]


def test_the_breaker_of_another_process_is_shown(reporting, manager):
    """As it was reported, with its age; late ones are marked."""
    using = reporting()
    table = get_config(using).store_table
    opened = BreakerReport(table, "open", 5, "ConnectTimeoutError", time.time() - 60)
    other = Report("far", 1, "celery worker", "1", 0.0, time.time() - 400, 60.0, breakers=(opened,))
    ReportStore(using).publish(other)
    html = manager.get(page("breakers")).text
    assert "far#1" in html
    assert "ConnectTimeoutError" in html
    assert "(late)" in html
    (row,) = [each for each in read(manager, using)["breakers"] if each["process"] == "far#1"]
    assert (row["state"], row["failures"], row["is_late"]) == ("open", 5, True)


def test_a_breaker_that_opens_in_another_process_is_shown(reporting, manager, dynamo_faults, until):
    """In another process of this host, by its own report; once killed, it is late."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})

    def work():
        open_breaker(using, dynamo_faults)
        time.sleep(60)

    dynamo_faults.fail("GetItem")
    other = fork.Process(target=work)
    other.start()

    def row():
        found = read(manager, using)["breakers"]
        return next(
            (
                each
                for each in found
                if each["process"].startswith(f"{socket.gethostname()[:64]}#{other.pid}#")
            ),
            None,
        )

    try:
        found = until(lambda: (shown := row()) and shown["state"] == "open" and shown)
        assert (found["failures"], found["is_here"]) == (5, False)
        other.kill()
        until(lambda: row()["is_late"])
    finally:
        other.kill()
        other.join(30)


def test_an_unreadable_item(reporting, manager):
    """Is a problem on the page, and the rest of the page is shown."""
    using = reporting()
    history = UsageHistory(using)
    key = keys.usage(minute_of(time.time()), "t")
    run(history._items.put({"PK": {"S": key.pk}, "SK": {"S": key.sk}, "x": {"S": "what?"}}))
    assert manager.get(page("overview")).status_code == 200
    (problem,) = read(manager, using)["problems"]
    assert "the usage of the last hour: JSONDecodeError" in problem["problem"]


JUNK = st.one_of(
    st.sampled_from([None, True, 1e15, 1e18, -1, "60", "\ud800", "9" * 5000, [], {}, [None]]),
    st.sampled_from(
        [float("nan"), float("inf"), 10**400, {"t": None}, {"t": "1"}, {"t": [1, "1"]}]
    ),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
)


def paths(values, above=()):
    """Return the ways to each part of JSON data, itself first."""
    found = [above]
    parts = enumerate(values) if isinstance(values, list) else getattr(values, "items", tuple)()
    for name, each in parts:
        found += paths(each, (*above, name))
    return found


def replaced(values, path, value):
    """Return a copy of JSON data with another value in one place."""
    if not path:
        return value
    copied = copy.copy(values)
    copied[path[0]] = replaced(values[path[0]], path[1:], value)
    return copied


def odd(values):
    """JSON data with another value in one place."""
    return st.builds(replaced, st.just(values), st.sampled_from(paths(values)), JUNK)


NOW = time.time()
REPORT = json.loads(
    Report(
        "odd",
        1,
        "gunicorn",
        "9",
        NOW - 60,
        NOW,
        60.0,
        breakers=(BreakerReport("t", "open", 5, "E", NOW - 9, NOW + 9),),
        calls={"t": Calls(1, 1, 1)},
        reasons={"t": {"R": 1}},
        use={minute_of(NOW) - 1: {"t": Usage(1.0, 1.0, 1, 1)}},
        throttling={"t": Throttling("Write", NOW - 9, NOW, 6.0, 2.0)},
    )
    .as_text()
    .replace('"t"', '"TABLE"')
)
DECISION = {"at": NOW, "code": "raised", "why": "w", "from": {"": [1, 1]}, "to": {"": [2, 2]}}


@pytest.fixture
def odd_alias(reporting):
    """An alias, once for all examples."""
    return reporting(BILLING_MODE="PROVISIONED", REPORTS={"INTERVAL": 3600.0})


# The threads of reporters use the random module.
@pytest.mark.filterwarnings("ignore:Do not use the .random. module")
@hypothesis.settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.too_slow,
    ],
)
@hypothesis.given(report=odd(REPORT), decision=odd(DECISION), deadline=st.integers(0, 10**25))
def test_no_odd_item_ends_a_page(odd_alias, manager, report, decision, deadline):
    """Reports, decisions and records of other software are shown, or left out and counted."""
    table = get_config(odd_alias).store_table

    def text(value):
        return {"S": json.dumps(value).replace("TABLE", table) or "-"}

    items = [
        (ReportStore(odd_alias), keys.process_status("odd#1"), text(report)),
        (Decisions(odd_alias), keys.decision(int(NOW * 1000), table), text(decision)),
        (CapacityRecords(odd_alias), keys.capacity(table, keys.RECORD), text(decision)),
    ]
    for store, key, value in items:
        item = {"PK": {"S": key.pk}, "SK": {"S": key.sk}, "x": value}
        run(store._items.put({**item, "d": {"N": str(deadline)}}))
    for name in PAGES:
        assert manager.get(page(name)).status_code == 200
    assert manager.get(page("overview", format="json")).status_code == 200


def test_items_that_cannot_be_read_are_counted(reporting, manager):
    """Beside those that can."""
    using = reporting()
    table = get_config(using).store_table
    for number, at in enumerate((time.time(), 1e15)):
        key = keys.decision(int(NOW * 1000) + number, table)
        text = json.dumps({**DECISION, "at": at})
        run(
            Decisions(using)._items.put(
                {"PK": {"S": key.pk}, "SK": {"S": key.sk}, "x": {"S": text}}
            )
        )
    for number in range(2):
        key = keys.process_status(f"odd#{number}")
        text = json.dumps({**REPORT, "interval": "60"})
        run(
            ReportStore(using)._items.put(
                {"PK": {"S": key.pk}, "SK": {"S": key.sk}, "x": {"S": text}}
            )
        )
    sentences = [each["problem"] for each in read(manager, using)["problems"]]
    assert [each.split(":")[0] for each in sentences] == [
        "2 process reports cannot be read",
        "1 decision cannot be read",
    ]
    assert len(read(manager, using)["decisions"]) == 1
    assert manager.get(page("history")).context["level"] == "notice"


def test_a_page_can_refresh_itself(reporting, log_in):
    """Without a script, when switched on."""
    reporting()
    watcher = log_in("view_status")
    assert "http-equiv" not in watcher.get(page("overview")).text
    refreshed = watcher.get(page("overview", refresh="on")).text
    assert '<meta http-equiv="refresh" content="30">' in refreshed
    assert "Stop refreshing" in refreshed


@pytest.mark.django_db
@pytest.mark.parametrize("arguments", [(), ("--all",)])
def test_dumpdata_leaves_the_model_without_a_table_out(arguments):
    """A project that installs the app can still save its database."""
    out = io.StringIO()
    call_command("dumpdata", *arguments, stdout=out)
    assert "dynamo_stores.status" not in out.getvalue()
    assert Status.objects.count() == 0
