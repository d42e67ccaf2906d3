"""The status pages without a browser: who may see what, at what price, and what if it fails."""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import replace

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from dynamo_stores import keys
from dynamo_stores.admin.actions import Receipts
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.capacity.decisions import Decisions
from dynamo_stores.capacity.records import CapacityRecords
from dynamo_stores.conf import get_config
from dynamo_stores.monitoring.processes import Processes
from dynamo_stores.monitoring.report import BreakerReport, Report
from dynamo_stores.monitoring.snapshot import get_descriptions
from dynamo_stores.monitoring.use import UseHistory, minute_of
from dynamo_stores.reports import get_reporter
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import FaultProxy
from tests.stores.test_processes import fork

from .test_reports import HERE, open_breaker

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
PAGES = ["overview", "breakers", "history"]


def page(name, **query):
    url = reverse(f"dynamo_stores_admin:{name}")
    return f"{url}?{'&'.join(f'{k}={v}' for k, v in query.items())}" if query else url


@pytest.fixture
def log_in(client):
    """``log_in("view_status", …)``: a client logged in as staff with these permissions."""

    def log_in(*permissions, is_staff=True, csrf=False):
        user = User.objects.create_user(secrets.token_hex(4), is_staff=is_staff)
        for permission in permissions:
            user.user_permissions.add(Permission.objects.get(codename=permission))
        found = Client(enforce_csrf_checks=csrf)
        found.force_login(user)
        return found

    return log_in


@pytest.fixture
def manager(log_in):
    return log_in("view_status", "manage_capacity")


def read(client, using=None):
    found = json.loads(client.get(page("overview", format="json")).content)
    return found if using is None else only(found, using)


def only(found, using):
    """The parts of one alias."""
    return {
        name: [each for each in part if each["using"] == using]
        for name, part in found.items()
        if name != "at"
    }


@pytest.mark.parametrize("name", PAGES)
def test_who_may_look(name, tables, client, log_in):
    """Whoever has the permission; other staff is refused, a stranger is asked to log in."""
    assert log_in("view_status").get(page(name)).status_code == 200
    assert log_in().get(page(name)).status_code == 403
    for stranger in (client, log_in(is_staff=False), log_in("view_status", is_staff=False)):
        answer = stranger.get(page(name))
        assert (answer.status_code, answer.url.split("?")[0]) == (302, "/admin/login/")
    assert log_in("view_status").post(page(name)).status_code == 405


def test_the_admins_index_lists_it(tables, log_in):
    """For those who may look; the entry leads to the overview."""
    watcher = log_in("view_status")
    assert reverse("admin:dynamo_stores_status_changelist") in watcher.get("/admin/").text
    answer = watcher.get(reverse("admin:dynamo_stores_status_changelist"))
    assert answer.url == page("overview")
    assert "dynamo_stores" not in log_in().get("/admin/").text


@pytest.mark.parametrize("name", PAGES)
def test_pages_need_nothing_from_elsewhere(name, reporting, manager):
    """No script or style inside, nothing of another host: a strict policy lets all of it pass."""
    reporting()
    html = manager.get(page(name)).text
    assert not re.search(
        r"<script(?![^>]*\bsrc=)[^>]*>[^<]*\S", html.replace("application/json", "")
    )
    assert not re.search(r"\sstyle=|\son[a-z]+=|<style", html)
    assert not re.findall(r"(?:src|href|action)=\"(?:https?:)?//[^\"]*", html)


def test_what_the_json_says(reporting, manager):
    """Breakers and capacity, processes and decisions, with units and times."""
    using = reporting(BILLING_MODE="PROVISIONED")
    table = get_config(using).store_table
    CacheStore(using).get("k")
    Decisions(using).tell(table, {"at": time.time(), "code": "at_maximum", "why": "enough"})
    CapacityRecords(using).raised(
        table, time.time() + 60, {"at": time.time() - 9, "code": "raised", "why": "short"}
    )
    found = read(manager, using)
    (breaker,) = [each for each in found["breakers"] if each["table"] == table]
    assert (breaker["process"], breaker["state"], breaker["is_here"]) == (HERE, "closed", True)
    (mine,) = [each for each in found["capacity"] if each["table"] == table]
    assert (mine["status"], mine["is_on_demand"], mine["scaling"]) == ("ACTIVE", False, "off")
    assert mine["comes_down_at"] == pytest.approx(time.time() + 60, abs=10)
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


def test_what_a_page_costs(reporting, manager, dynamo_engine):
    """Three Queries, one BatchGetItem and a DescribeTable a table, with a hundred processes."""
    with FaultProxy(dynamo_engine) as faults:
        using = reporting(ENDPOINT_URL=faults.url)
        processes, own = Processes(using), get_reporter(using).report()
        tables = [f"t{number}" for number in range(20)]
        breakers = tuple(BreakerReport(table, "closed", 0, "", 0.0) for table in tables)
        for number in range(100):
            processes.tell(replace(own, host=f"host{number}", breakers=breakers))
        for name in PAGES:
            get_descriptions(using).clear()
            faults.requests.clear()
            html = manager.get(page(name)).text
            described = faults.requests.pop("DescribeTable")
            assert faults.requests == {"Query": 3, "BatchGetItem": 1}
            assert described == len(read(manager, using)["capacity"])
            faults.requests.clear()
            manager.get(page(name))
            assert faults.requests == {"Query": 3, "BatchGetItem": 1}
        assert "host99" in html or name == "history"
        assert len(read(manager, using)["breakers"]) == 2000


def test_a_dead_dynamodb_is_said(reporting, manager):
    """The pages are there, with this process from memory, and what cannot be known."""
    using = reporting(
        make_tables=False,
        ENDPOINT_URL="http://127.0.0.1:9",
        RETRY={"MAX_RETRIES": 0},
        CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1},
    )
    with pytest.raises(Exception, match="got no answer"):
        CacheStore(using).get("k")
    for name in PAGES:
        answer = manager.get(page(name))
        assert answer.status_code == 200
        assert "DynamoDB could not be asked for what other processes report" in answer.text
    found = read(manager, using)
    (breaker,) = found["breakers"]
    assert (breaker["state"], breaker["is_here"]) == ("open", True)
    assert {each["status"] for each in found["capacity"]} == {"unknown"}
    (problem,) = found["problems"]
    assert "EndpointConnectionError" in problem["problem"]


def test_a_slow_dynamodb_is_said(reporting, manager, dynamo_faults):
    """What hangs is given up, and what answers is shown."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url)
    dynamo_faults.hang("Query")
    answer = manager.get(page("overview"))
    assert answer.status_code == 200
    found = read(manager, using)
    assert {each["status"] for each in found["capacity"]} == {"ACTIVE"}
    (problem,) = found["problems"]
    assert "the use of the last hour and the decisions" in problem["problem"]


def test_another_processs_breaker_shows(reporting, manager):
    """As it was reported, with its age; late ones say so."""
    using = reporting()
    table = get_config(using).store_table
    opened = BreakerReport(table, "open", 5, "ConnectTimeoutError", time.time() - 60)
    other = Report("far", 1, "celery worker", "1", 0.0, time.time() - 400, 60.0, breakers=(opened,))
    Processes(using).tell(other)
    html = manager.get(page("breakers")).text
    assert "far#1" in html
    assert "ConnectTimeoutError" in html
    assert "(late)" in html
    (row,) = [each for each in read(manager, using)["breakers"] if each["process"] == "far#1"]
    assert (row["state"], row["failures"], row["is_late"]) == ("open", 5, True)


def test_a_breaker_that_opens_elsewhere_shows(reporting, manager, dynamo_faults, until):
    """In another process of this host, by its own report; when that is killed, it goes late."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})

    def work():
        open_breaker(using, dynamo_faults)
        time.sleep(60)

    dynamo_faults.fail("GetItem")
    other = fork.Process(target=work)
    other.start()

    def row():
        found = read(manager, using)["breakers"]
        return next((each for each in found if each["process"].endswith(f"#{other.pid}")), None)

    try:
        found = until(lambda: (shown := row()) and shown["state"] == "open" and shown)
        assert (found["failures"], found["is_here"]) == (5, False)
        other.kill()
        until(lambda: row()["is_late"])
    finally:
        other.kill()
        other.join(30)


def test_an_item_that_nobody_can_read(reporting, manager):
    """Costs its part of the page, and not the page."""
    using = reporting()
    history = UseHistory(using)
    key = keys.use(minute_of(time.time()), "t")
    history._put({"PK": {"S": key.pk}, "SK": {"S": key.sk}, "x": {"S": "what?"}})
    assert manager.get(page("overview")).status_code == 200
    (problem,) = read(manager, using)["problems"]
    assert "the use of the last hour: JSONDecodeError" in problem["problem"]


def ask(client, **fields):
    """Send the first form; return the token of the page that asks."""
    answer = client.post(page("act"), fields)
    assert answer.status_code == 200, answer.text
    return re.search(r'name="token" value="([^"]+)"', answer.text).group(1)


def act(client, **fields):
    """Go both steps and return what the next page says."""
    token = ask(client, **fields)
    answer = client.post(page("act"), {**fields, "token": token}, follow=True)
    return [str(message) for message in answer.context["messages"]], token


def test_a_breaker_of_this_process_is_reset_at_once(reporting, manager, dynamo_faults):
    """Also where its store is dead, and it is on the log who did it."""
    using = reporting(
        ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}, REPORTS={"INTERVAL": 3600.0}
    )
    open_breaker(using, dynamo_faults)
    dynamo_faults.fail("*", status=500)
    table = get_config(using).store_table
    breaker = get_connection(using).policy_for(table).breaker
    said, _ = act(manager, action="reset", using=using, table=table, process=HERE)
    assert said == [f"The circuit breaker of {table} is reset in this process."]
    assert breaker.state == "closed"
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.user.pk) == (table, int(manager.session["_auth_user_id"]))
    assert entry.change_message.startswith("Reset the breaker: The circuit breaker of")
    assert manager.get(entry.get_admin_url()).url == page("overview")


def test_others_are_asked_to_reset(reporting, manager):
    """One, all, or nobody of that name."""
    using = reporting()
    table = get_config(using).store_table
    processes, own = Processes(using), get_reporter(using).report()
    far = [replace(own, host=name) for name in ("far", "farther")]
    for each in far:
        processes.tell(each)
    (said,), _ = act(manager, action="reset", using=using, table=table, process=far[0].process)
    assert "is reset in 1 other at the next report" in said
    assert processes.tell(far[0]) == {table}
    (said,), _ = act(manager, action="reset", using=using, table=table, process="*")
    assert "is reset in this process, and is reset in 2 others" in said
    assert [processes.tell(each) for each in far] == [{table}, {table}]
    (said,), _ = act(manager, action="reset", using=using, table=table, process="gone#1")
    assert "it is gone" in said


def test_capacity_is_changed_once(reporting, manager):
    """Up and down; a form that is sent twice is carried out once."""
    using = reporting(BILLING_MODE="PROVISIONED", SCALING={"SCALE_DOWN_DELAY": 60})
    table = get_config(using).store_table
    fields = {"action": "raise", "using": using, "table": table}
    (said,), token = act(manager, **fields)
    assert f"{table} goes to 10 RCU and 10 WCU, index GSI1 10 RCU and 10 WCU." in said
    again = manager.post(page("act"), {**fields, "token": token}, follow=True)
    assert "not done twice" in str(next(iter(again.context["messages"])))
    assert LogEntry.objects.count() == 1
    table_now = next(each for each in read(manager, using)["capacity"] if each["table"] == table)
    assert table_now["resources"][0]["write"]["capacity"] == 10
    assert table_now["comes_down_at"] == pytest.approx(time.time() + 60, abs=10)
    assert "5 → 10 RCU" in manager.get(page("history")).text
    (said,), _ = act(manager, action="lower", using=using, table=table)
    assert f"{table} goes to 5 RCU and 5 WCU" in said
    (said,), _ = act(manager, action="reconcile", using=using)
    assert "Nothing was due" in said


def test_what_fails_is_said(reporting, manager, dynamo_faults):
    """As an error on the page, and on the log."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url, BILLING_MODE="PROVISIONED")
    dynamo_faults.fail("UpdateTable", status=400, code="AccessDeniedException")
    (said,), _ = act(manager, action="raise", using=using, table=get_config(using).store_table)
    assert "dynamodb:UpdateTable is missing" in said
    assert "UpdateTable is missing" in LogEntry.objects.get().change_message


def test_acting_takes_more_than_looking(reporting, log_in):
    """A permission of its own, a POST, and a token against forgery; nothing happens without."""
    using = reporting(BILLING_MODE="PROVISIONED")
    table = get_config(using).store_table
    fields = {"action": "raise", "using": using, "table": table, "token": secrets.token_urlsafe()}
    watcher, manager = log_in("view_status"), log_in("view_status", "manage_capacity")
    assert watcher.post(page("act"), fields).status_code == 403
    assert log_in("manage_capacity").post(page("act"), fields).status_code == 403
    assert manager.get(page("act")).status_code == 405
    forged = log_in("view_status", "manage_capacity", csrf=True).post(page("act"), fields)
    assert forged.status_code == 403
    assert LogEntry.objects.count() == 0
    html = watcher.get(page("overview")).text + watcher.get(page("breakers")).text
    assert "<button" not in html.split('id="content"')[1].split("</main>")[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"action": "drop"},
        {"using": "nobody"},
        {"table": "nothing"},
        {"action": "reset", "process": ""},
    ],
)
def test_forms_that_name_nothing(reporting, manager, wrong):
    """A sentence that says what, and 400."""
    using = reporting()
    fields = {"action": "raise", "using": using, "table": get_config(using).store_table, **wrong}
    answer = manager.post(page("act"), fields)
    assert answer.status_code == 400
    assert len(answer.text) > 10


def test_a_form_counts_once_in_all_processes(reporting, dynamo_faults):
    """By the control table, and where that is dead by the process."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url)
    token = secrets.token_urlsafe(24)
    assert [Receipts(using).take(token) for _ in range(2)] == [True, False]
    dynamo_faults.fail("PutItem")
    token = secrets.token_urlsafe(24)
    assert [Receipts(using).take(token) for _ in range(2)] == [True, False]


def test_a_page_can_refresh_itself(reporting, log_in):
    """Without a script, when switched on."""
    reporting()
    watcher = log_in("view_status")
    assert "http-equiv" not in watcher.get(page("overview")).text
    refreshed = watcher.get(page("overview", refresh="on")).text
    assert '<meta http-equiv="refresh" content="30">' in refreshed
    assert "Stop refreshing" in refreshed
