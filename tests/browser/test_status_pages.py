"""The status pages in a browser."""

from __future__ import annotations

import contextlib
import secrets
import time

import pytest
from django.contrib.admin.models import LogEntry

from dynamo_stores.cache.options import CacheOptions
from dynamo_stores.capacity.scale_up import get_scaler
from dynamo_stores.capacity.usage import Usage, UsageHistory, minute_of
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.monitoring.report import BreakerReport, Calls, Report
from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.stores import CacheStore

from .conftest import BOTH_LOOKS, NARROW, WIDE

PAGES = ["", "breakers/", "history/", "latency/", "cost/", "cache/", "limits/", "jobs/"]
pytestmark = pytest.mark.slow
POLICY = "default-src 'self'; form-action 'self'; frame-ancestors 'none'"


class WithPolicy:
    """The strictest policy that a project may have."""

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        response["Content-Security-Policy"] = POLICY
        return response


def report_an_hour(using="default"):
    """Publish an hour of usage, and three processes: one with an open breaker, one late."""
    table = get_config(using).store_table
    now, history = minute_of(time.time()), UsageHistory(using)
    for back in range(1, 6):
        history.roll_up({now - back: {table: Usage(90.0 * back, 40.0, 0, int(back == 4))}})
    for pid, role, age, state in (
        (11, "gunicorn", 20, "closed"),
        (12, "celery worker", 20, "open"),
        (13, "gunicorn", 400, "closed"),
    ):
        at = time.time() - age
        opened = BreakerReport(table, state, 5, "ConnectTimeoutError", at - 60)
        calls = {table: Calls(1200, 3, 12)}
        ReportStore(using).publish(
            Report("web-1", pid, role, "0.1.0", at - 9000, at, 60.0, False, (opened,), calls)
        )
    return table


def is_wider_than_its_window(page):
    return page.evaluate("document.documentElement.scrollWidth > window.innerWidth + 1")


def serious(page):
    """Return the serious violations that an accessibility check finds."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page, context=".ds").response["violations"]
    return [each["id"] for each in found if each["impact"] in ("serious", "critical")]


@BOTH_LOOKS
def test_pages_fit_and_are_accessible(site, visit, scheme, viewport):
    """Wide and narrow, light and dark, without serious violations of accessibility."""
    address = site(BILLING_MODE="PROVISIONED")
    report_an_hour()
    page = visit("root", viewport=viewport, scheme=scheme)
    for name in PAGES:
        page.goto(address + name)
        assert page.locator(".ds-summary").is_visible()
        assert not is_wider_than_its_window(page)
        assert serious(page) == []


def test_an_incident_is_visible_on_the_overview(site, visit):
    """The breaker, its process, age and error; a bar and a chart with their times."""
    address = site(BILLING_MODE="PROVISIONED")
    table = report_an_hour()
    page = visit("watcher")
    page.goto(address)
    summary = page.locator(".ds-summary").inner_text()
    assert "Attention" in summary
    # The process that serves the page may not have reported yet.
    assert f"The circuit breaker of {table} is open in 1 process of " in summary
    card = page.locator("article", has=page.get_by_role("heading", name=table, exact=True))
    bar = card.get_by_role("img", name="write units a second used of 5; baseline 5, maximum 50")
    assert bar.count() == 2
    assert card.get_by_role("img", name="Reads in the last hour: at most 7.5 units").count() == 1
    assert "1 in the last hour" in card.inner_text()
    assert "0 to 7.5 units a second" in card.inner_text()
    assert card.get_by_text("Scaling is off for this table: set").is_visible()
    page.click("nav >> text=Breakers")
    first = page.locator(".ds tbody tr").first.inner_text()
    assert "open" in first
    assert "web-1#12" in first
    assert "1 minute ago" in first


def test_who_sees_what(site, visit):
    """Superusers see all, watchers no buttons, other staff nothing."""
    address = site(BILLING_MODE="PROVISIONED")
    root, watcher, staff = visit("root"), visit("watcher"), visit("staff")
    root.goto(address)
    assert root.get_by_role("button", name="Raise").count() == 0
    root.get_by_role("heading", name=get_config().store_table, exact=True).click()
    assert root.get_by_role("button", name="Raise").count() == 1
    watcher.goto(address)
    assert watcher.locator(".ds-card").count() > 0
    assert watcher.locator(".ds button").count() == 0
    assert staff.goto(address).status == 403
    stranger = visit(None)
    stranger.goto(address)
    assert "/admin/login/" in stranger.url


def test_acting_without_a_script(site, visit, until, expect):
    """By forms alone, after a confirmation; a double click acts once."""
    address = site(BILLING_MODE="PROVISIONED", SCALING={"ENABLED": True})
    table = get_config().store_table
    page = visit("root", scripts=False)
    page.goto(address)
    page.get_by_role("heading", name=table, exact=True).click()
    page.get_by_role("button", name=f"Raise {table}", exact=True).click()
    assert f"Raise the capacity of {table}" in page.locator("h1, h2").all_inner_texts()[-1] + (
        page.title()
    )
    page.locator(".ds-yes").dblclick()
    # The second click may abort the navigation of the first, which wait_for_url takes for an error.
    expect(page).to_have_url(address)
    # The second click of the two may be answered first.
    until(LogEntry.objects.exists)
    entry = LogEntry.objects.get()
    assert "changes to 10 RCU and 10 WCU, index GSI1 10 RCU and 10 WCU" in entry.change_message
    expect(page.locator(".messagelist")).to_be_visible()
    page.reload()
    assert "by_hand" in page.locator("article", has_text=table).first.inner_text()
    page.goto(f"{address}history/")
    assert page.locator(".ds tbody tr").count() == 1


def test_a_throttled_table(site, visit, dynamo_capacity, until):
    """Behind the throttling relay: it is raised, and the page has the reason."""
    relay = dynamo_capacity(updating=1.0, burst=1.0)
    address = site(
        ENDPOINT_URL=relay.url,
        BILLING_MODE="PROVISIONED",
        SCALING={"ENABLED": True, "SCALE_DOWN_DELAY": 600},
    )
    table = get_config().store_table
    store = CacheStore(options=CacheOptions(operation_timeout=0.5))

    def is_raised():
        with contextlib.suppress(StoreUnavailable):
            store.set(secrets.token_hex(8), "v" * 4000)
        return relay.status()["tables"][table]["updates"]

    until(is_raised)
    until(lambda: get_scaler("default")._paused_until.get((table, None)))
    page = visit("watcher")
    page.goto(address)
    summary = page.locator(".ds-summary").inner_text()
    assert f"Table {table} is throttled since" in summary
    assert "write units a second asked for" in summary
    assert "TableWriteProvisionedThroughputExceeded" in summary
    assert "because the demand exceeded the write capacity of the table" in summary
    assert "It will be lowered 10 minutes after the last throttle at the earliest" in summary
    page.goto(f"{address}history/")
    assert "raised" in page.locator(".ds tbody tr").first.inner_text()


def test_a_dead_dynamodb(site, visit):
    """The page shows this process from memory, and lists the calls that failed."""
    address = site(
        make_tables=False,
        ENDPOINT_URL="http://127.0.0.1:9",
        RETRY={"MAX_RETRIES": 0},
        CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1},
    )
    with pytest.raises(StoreUnavailable):
        CacheStore().get("k")
    page = visit("root")
    for name in PAGES:
        assert page.goto(address + name).status == 200
        first = page.locator(".ds-summary li").first.inner_text()
        assert first.startswith("DynamoDB does not answer at endpoint 127.0.0.1:9")
        assert serious(page) == []
    page.goto(f"{address}breakers/")
    row = page.locator(".ds tbody tr").first
    assert "this one" in row.inner_text()
    assert row.get_by_role("button", name="Reset everywhere").count() == 0
    row.get_by_role("button").click()
    page.locator(".ds-yes").click()
    message = page.locator(".messagelist").inner_text()
    assert "is reset in this process" in message
    row = page.locator(".ds tbody tr").first
    assert "closed" in row.inner_text()


def test_calm_tables_are_one_line_each(site, visit, until):
    """Which opens by a click, also without a script and on a phone."""
    address = site(BILLING_MODE="PROVISIONED")
    table = get_config().store_table
    for viewport in (WIDE, NARROW):
        page = visit("watcher", viewport=viewport, scripts=False)
        page.goto(address)
        card = page.locator("article", has=page.get_by_role("heading", name=table, exact=True))
        assert card.bounding_box()["height"] < 120
        # The page does not wait longer than its own deadline for the capacity of a table.
        until(lambda p=page, c=card: p.reload() and "5 RCU, 5 WCU" in c.inner_text())
        card.locator("summary").click()
        assert "of capacity left now" in card.inner_text()


def test_no_column_is_cut_off_on_a_phone(site, visit):
    """Each row is a card of its own, with the names of its columns."""
    address = site(BILLING_MODE="PROVISIONED")
    report_an_hour()
    page = visit("root", viewport=NARROW)
    for name, last in (("breakers/", "Action"), ("", "Version")):
        page.goto(address + name)
        assert page.evaluate(
            "[...document.querySelectorAll('.ds tbody td')]"
            ".every(cell => cell.getBoundingClientRect().right <= window.innerWidth)"
        )
        cell = page.locator(f".ds tbody td[data-label='{last}']").first
        assert cell.is_visible()
        assert cell.evaluate("cell => getComputedStyle(cell, '::before').content") == f'"{last}"'
