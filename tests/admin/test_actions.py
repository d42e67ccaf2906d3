"""The actions of the status pages: confirmed first, carried out once, and logged."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace

import pytest
from django.contrib.admin.models import LogEntry

from dynamo_stores.admin.actions import Receipts
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.conf import get_config
from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.monitoring.reporter import get_reporter
from tests.helpers.status import HERE, act, open_breaker, page, read

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


def test_a_breaker_of_this_process_is_reset_at_once(reporting, manager, dynamo_faults):
    """Also where its store does not answer; the log has the user."""
    using = reporting(
        ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}, REPORTS={"INTERVAL": 3600.0}
    )
    open_breaker(using, dynamo_faults)
    dynamo_faults.fail("*", status=500)
    table = get_config(using).store_table
    breaker = get_connection(using).policy_for(table).breaker
    message, _ = act(manager, action="reset", using=using, table=table, process=HERE)
    assert message == [f"The circuit breaker of {table} is reset in this process."]
    assert breaker.state == "closed"
    entry = LogEntry.objects.get()
    assert (entry.object_id, entry.user.pk) == (table, int(manager.session["_auth_user_id"]))
    assert entry.change_message.startswith("Reset the breaker: The circuit breaker of")
    assert manager.get(entry.get_admin_url()).url == page("overview")


def test_others_are_asked_to_reset(reporting, manager):
    """One process, all of them, or a process that does not exist."""
    using = reporting()
    table = get_config(using).store_table
    processes, own = ReportStore(using), get_reporter(using).report()
    far = [replace(own, host=name) for name in ("far", "farther")]
    for each in far:
        processes.publish(each)
    (message,), _ = act(manager, action="reset", using=using, table=table, process=far[0].process)
    assert "will be reset in 1 other process at the next report" in message
    assert processes.publish(far[0]) == {table}
    (message,), _ = act(manager, action="reset", using=using, table=table, process="*")
    assert "is reset in this process. It will be reset in 2 other processes" in message
    assert [processes.publish(each) for each in far] == [{table}, {table}]
    (message,), _ = act(manager, action="reset", using=using, table=table, process="gone#1")
    assert "The process gone#1 has no report" in message


def test_a_reset_everywhere_without_other_processes_names_none(reporting, manager):
    """Only this process reports."""
    using = reporting()
    table = get_config(using).store_table
    (message,), _ = act(manager, action="reset", using=using, table=table, process="*")
    assert message == f"The circuit breaker of {table} is reset in this process."


def test_capacity_is_changed_once(reporting, manager):
    """Up and down; a form that is sent twice is carried out once."""
    using = reporting(BILLING_MODE="PROVISIONED", SCALING={"SCALE_DOWN_DELAY": 60})
    table = get_config(using).store_table
    fields = {"action": "raise", "using": using, "table": table}
    (message,), token = act(manager, **fields)
    assert f"{table} changes to 10 RCU and 10 WCU, index GSI1 10 RCU and 10 WCU." in message
    again = manager.post(page("act"), {**fields, "token": token}, follow=True)
    assert "already carried out" in str(next(iter(again.context["messages"])))
    assert LogEntry.objects.count() == 1
    table_now = next(each for each in read(manager, using)["capacity"] if each["table"] == table)
    assert table_now["resources"][0]["write"]["capacity"] == 10
    assert table_now["comes_down_at"] == pytest.approx(time.time() + 60, abs=40)
    assert "5 → 10 RCU" in manager.get(page("history")).text
    (message,), _ = act(manager, action="lower", using=using, table=table)
    assert f"{table} changes to 5 RCU and 5 WCU" in message
    by = f"requested by {LogEntry.objects.first().user.get_username()}"
    decisions = manager.get(page("history")).text
    assert f"manual change, {by}" in decisions.replace("Manual", "manual")
    assert f"needs no more than its baseline, {by}" in decisions
    (message,), _ = act(manager, action="reconcile", using=using)
    assert "No table is due" in message


def test_a_change_of_capacity_is_confirmed_with_its_numbers(reporting, manager):
    """What the table has, will have, and for how long; a change of nothing has no button."""
    using = reporting(BILLING_MODE="PROVISIONED", SCALING={"SCALE_DOWN_DELAY": 120})
    table = get_config(using).store_table
    fields = {"using": using, "table": table}
    html = manager.post(page("act"), {"action": "raise", **fields}).text
    assert f"Table {table} has 5 RCU and 5 WCU, index GSI1 5 RCU and 5 WCU." in html
    assert f"Table {table} would be changed to 10 RCU and 10 WCU, index GSI1 10 RCU" in html
    assert "It is lowered 2 minutes later" in html
    html = manager.post(page("act"), {"action": "lower", **fields}).text
    assert "Nothing would change" in html
    assert "ds-yes" not in html
    act(manager, action="raise", **fields)
    html = manager.post(page("act"), {"action": "lower", **fields}).text
    assert f"Table {table} would be changed to 5 RCU and 5 WCU" in html
    assert "ds-yes" in html


def test_a_message_begins_with_no_name_of_a_table(reporting, manager):
    """Because the admin capitalises the first letter."""
    using = reporting(BILLING_MODE="PROVISIONED", SCALING={"MAX_WRITE_CAPACITY": 5})
    table = get_config(using).store_table
    fields = {"action": "lower", "using": using, "table": table, "token": secrets.token_urlsafe(24)}
    answer = manager.post(page("act"), fields, follow=True)
    assert f"Table {table} was not changed: " in answer.text


def test_a_failed_action_is_reported(reporting, manager, dynamo_faults):
    """As an error on the page, and in the log."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url, BILLING_MODE="PROVISIONED")
    dynamo_faults.fail("UpdateTable", status=400, code="AccessDeniedException")
    (message,), _ = act(manager, action="raise", using=using, table=get_config(using).store_table)
    assert "dynamodb:UpdateTable is missing" in message
    assert "UpdateTable is missing" in LogEntry.objects.get().change_message


def test_actions_require_their_own_permission(reporting, log_in):
    """A permission of its own, a POST and a CSRF token are required."""
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
        {"using": "unknown"},
        {"table": "nothing"},
        {"action": "reset", "process": ""},
    ],
)
def test_invalid_forms_are_refused(reporting, manager, wrong):
    """The answer is 400 with a sentence that names what is wrong."""
    using = reporting()
    fields = {"action": "raise", "using": using, "table": get_config(using).store_table, **wrong}
    answer = manager.post(page("act"), fields)
    assert answer.status_code == 400
    assert len(answer.text) > 10


def test_a_form_counts_once_in_all_processes(reporting, dynamo_faults):
    """By the control table, or by the process where the table is unavailable."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url)
    token = secrets.token_urlsafe(24)
    assert [Receipts(using).take(token) for _ in range(2)] == [True, False]
    dynamo_faults.fail("PutItem")
    token = secrets.token_urlsafe(24)
    assert [Receipts(using).take(token) for _ in range(2)] == [True, False]
