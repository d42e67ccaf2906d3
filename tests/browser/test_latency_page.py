"""The page of latencies, and the charts of what stores counted, in a browser."""

from __future__ import annotations

import random
import time

import pytest

from dynamo_stores.capacity.usage import minute_of
from dynamo_stores.conf import get_config
from dynamo_stores.monitoring.periods import Period
from tests.helpers.data_pages import sum_up

from .conftest import BOTH_LOOKS, NARROW
from .test_status_pages import is_wider_than_its_window, report_an_hour, serious

pytestmark = pytest.mark.slow


@pytest.fixture
def measured(site):
    """The address of the pages, with a day of latencies and events."""
    address = site()
    report_an_hour()
    dice, now = random.Random(7), minute_of(time.time())
    table = get_config().store_table

    def period(scale):
        def buckets(middle):
            return {middle + each: dice.randrange(1, 20) * scale for each in range(-4, 9)}

        return Period(
            {
                table: {
                    "GetItem": buckets(46),
                    "UpdateItem": buckets(50),
                    "Query": {70: 3 * scale},
                },
                "an-application-table-with-a-very-long-name-" + "x" * 80: {"PutItem": buckets(52)},
            },
            {
                "hit": dice.randrange(400, 500) * scale,
                "miss": dice.randrange(5, 90) * scale,
                "refused": dice.randrange(9) * scale,
                "jobs.begun": dice.randrange(5, 9) * scale,
                "jobs.completed": dice.randrange(3, 6) * scale,
                "jobs.failed": dice.randrange(2) * scale,
            },
        )

    sum_up(
        "default",
        {now - back: period(1) for back in range(1, 70) if not 20 < back < 28},
        {now // 60 - back: period(60) for back in range(1, 24)},
    )
    return address


@BOTH_LOOKS
def test_charts_fit_and_are_accessible(measured, visit, scheme, viewport):
    """Wide and narrow, light and dark, with their figures open."""
    page = visit("watcher", viewport=viewport, scheme=scheme)
    for name, charts in (("latency/", 8), ("cache/", 4), ("limits/", 1), ("jobs/", 1), ("", 0)):
        page.goto(measured + name)
        assert page.locator(".ds-chart").count() == charts
        if charts:
            page.locator(".ds-figures summary").first.click()
            assert page.locator(".ds-figures td").first.is_visible()
        assert not is_wider_than_its_window(page)
        assert serious(page) == []


def test_latencies_without_a_script(measured, visit):
    """From the card of a table to its latencies, the slowest first."""
    page = visit("watcher", scripts=False)
    page.goto(measured)
    page.click("nav >> text=Latency")
    rows = page.locator(".ds-part tbody").first.locator("tr")
    page.get_by_role("link", name="the slowest first").click()
    assert "Query" in rows.first.inner_text()
    assert "170 ms" in rows.first.inner_text()
    table = get_config().store_table
    rows.first.get_by_role("link", name=table).click()
    assert f"Only table {table}" in page.locator(".ds-sort").inner_text()
    assert page.locator(".ds-operation").count() == 3
    chart = page.get_by_role("img", name="Last hour, by minute: p50 at most 170 ms, p99 at most")
    assert chart.count() == 1
    assert page.locator(".ds-operation").first.locator("polyline").count() > 2
    page.goto(measured)
    card = page.locator("article", has=page.get_by_role("heading", name=table, exact=True))
    card.get_by_role("link", name=f"latency of {table}").click()
    assert f"Only table {table}" in page.locator(".ds-sort").inner_text()


def test_no_column_is_cut_off_on_a_phone(measured, visit):
    """Each row is a card of its own."""
    page = visit("watcher", viewport=NARROW)
    page.goto(f"{measured}latency/")
    assert page.evaluate(
        "[...document.querySelectorAll('.ds tbody td, .ds svg')]"
        ".every(each => each.getBoundingClientRect().right <= window.innerWidth)"
    )
