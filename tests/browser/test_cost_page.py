"""The page of costs in a browser."""

from __future__ import annotations

import random
import time

import pytest

from dynamo_stores.capacity.usage import Usage, minute_of
from dynamo_stores.conf import get_config
from dynamo_stores.monitoring.periods import Period
from tests.helpers.data_pages import sum_up

from .conftest import BOTH_LOOKS
from .test_status_pages import is_wider_than_its_window, serious

pytestmark = pytest.mark.slow


@pytest.fixture
def measured(site):
    """The address of the pages, with two weeks of figures."""
    address = site(REPORTS={"INTERVAL": 3600.0})
    dice, hour, table = random.Random(7), minute_of(time.time()) // 60, get_config().store_table

    def period(hour):
        busy = dice.randrange(80, 120) * (3 if 8 < hour % 24 < 20 else 1)
        use = {
            table: Usage(busy * 20_000.0, busy * 4_000.0),
            f"{table}/GSI1": Usage(0.0, busy * 500.0),
        }
        peak = {name: (each.read / 2000, each.write / 2000) for name, each in use.items()}
        return Period(use=use, peak=peak)

    sum_up("default", hours={hour - back: period(hour - back) for back in range(1, 24 * 14)})
    return address


@BOTH_LOOKS
def test_costs_fit_and_are_accessible(measured, visit, scheme, viewport):
    """Wide and narrow, light and dark, with all details open."""
    page = visit("watcher", viewport=viewport, scheme=scheme)
    page.goto(f"{measured}cost/")
    assert page.locator(".ds-chart").count() >= 2
    for summary in page.locator(".ds-part summary").all():
        summary.click()
    assert page.get_by_text("1 node of cache").first.is_visible()
    assert page.get_by_text("/ 1,000,000").first.is_visible()
    assert not is_wider_than_its_window(page)
    assert serious(page) == []


def test_costs_without_a_script(measured, visit):
    """By the navigation; the table has its cost, and the index that nobody queries is named."""
    page = visit("watcher", scripts=False)
    page.goto(measured)
    page.click("nav >> text=Cost")
    assert "a month" in page.locator("h2", has_text="Alias default").inner_text()
    assert "on demand" in page.locator(".ds tbody tr").first.inner_text()
    assert page.get_by_text("never queried in 335 measured hours").is_visible()
    assert page.get_by_role("img", name="All tables, by day: cost at most $").count() == 1
