"""The page of costs."""

from __future__ import annotations

import json
import re
import time

import pytest

from dynamo_stores.admin import cost as cost_module
from dynamo_stores.capacity.usage import Usage, minute_of
from dynamo_stores.conf import get_config
from dynamo_stores.monitoring import snapshot
from dynamo_stores.monitoring.periods import Period
from dynamo_stores.monitoring.status import AliasStatus
from dynamo_stores.testing import FakeClock
from tests.helpers.data_pages import sent, sum_up
from tests.helpers.status import page

pytestmark = pytest.mark.django_db
EVIL = '"><script>alert(1)</script>'


@pytest.fixture
def now():
    """Noon, by a clock that only tests move."""
    with FakeClock((time.time() // 86_400) * 86_400 + 43_200) as clock:
        yield clock


@pytest.fixture
def quiet(reporting, settings):
    """``quiet(…)``: the only alias, whose process reports when a test says so."""

    def make(**changes):
        using = reporting(**{"REPORTS": {"INTERVAL": 3600.0}, **changes})
        settings.DYNAMO_STORES = {"default": settings.DYNAMO_STORES[using]}
        return get_config().store_table

    return make


@pytest.fixture
def watcher(log_in):
    return log_in("view_status")


def use(table, clock, hours=30, **more):
    """Figures of so many hours: a million read units in each."""
    found = {table: Usage(1e6, 1e5), f"{table}/GSI1": Usage(0.0, 1e5), **more}
    peak = dict.fromkeys(found, (600.0, 60.0))
    hour = minute_of(clock.now()) // 60
    sum_up("default", hours={hour - back: Period(use=found, peak=peak)
                             for back in range(1, hours + 1)})  # fmt: skip


def read(client):
    (found,) = json.loads(client.get(page("cost", format="json")).content)["costs"]
    return found


def test_costs_of_a_month_and_of_days(quiet, watcher, now):
    """Of each table; with modes, waste, and the days as charts."""
    table = quiet()
    use(table, now)
    found = read(watcher)
    month = 730 * (0.125 + 0.2 * 0.625)
    assert float(found["tables"][table]) == pytest.approx(month, rel=0.01)
    assert found["load"]["measured_hours"] == "30.0000"
    assert [day["hours"] for day in found["days"]] == [18, 12]
    assert {each["mode"] for each in found["modes"]} > {"on_demand", "provisioned", "following"}
    assert [each["code"] for each in found["waste"]].count("unused-index") == 1
    html = watcher.get(page("cost")).text
    assert f"${month:,.2f} a month" in html
    assert "Measured: " in html
    assert "4.1% of a month" in html
    assert "The index was never queried in 30 measured hours" in html
    assert re.search(r"All tables, by day: cost at most \$4\.50", html)
    assert 'href="/admin/dynamo-stores/cost/" aria-current="page"' in html


def test_what_the_page_costs(quiet, watcher, now, dynamo_faults, monkeypatch):
    """One Query more than the overview for 35 days; no call to another service."""
    monkeypatch.setattr(snapshot, "_CACHE_SECONDS", 600.0)
    table = quiet(ENDPOINT_URL=dynamo_faults.url)
    use(table, now, hours=100)
    watcher.get(page("cost"))
    dynamo_faults.requests.clear()
    assert watcher.get(page("cost")).status_code == 200
    assert sent(dynamo_faults) == {"Query": 4, "BatchGetItem": 1}
    assert "DescribeTable" not in dynamo_faults.requests


def test_nothing_measured_says_so(quiet, watcher, now):
    quiet()
    html = watcher.get(page("cost")).text
    assert "Nothing is measured yet" in html
    assert re.search(r"Alias default: \$[\d.]+ a month, without reads and writes", html)
    assert html.count('data-label="Reads a day">not known<') == 2
    assert "by day" not in html


@pytest.mark.parametrize("fault", ["fail", "hang"])
def test_figures_that_were_not_read(fault, quiet, watcher, now, dynamo_faults):
    """The page says so, in time."""
    table = quiet(ENDPOINT_URL=dynamo_faults.url)
    use(table, now)
    getattr(dynamo_faults, fault)("Query")
    found = read(watcher)
    assert found["load"]["measured_hours"] == "0.0000"
    assert any("What was measured was not read: " in each for each in found["problems"])


def test_an_answer_that_is_late_is_not_waited_for(quiet, dynamo_faults, monkeypatch):
    monkeypatch.setattr(cost_module, "_MAX_WAIT", 0.0)
    quiet(ENDPOINT_URL=dynamo_faults.url)
    dynamo_faults.hang("Query")
    nothing = AliasStatus("default", time.time(), (), (), (), (), "")
    found = cost_module.Reading().measured([nothing])["default"]
    assert found.notes == ("What was measured was not read: no answer in 0 s.",)


def test_a_table_that_cannot_be_described_is_not_counted(quiet, watcher, now, dynamo_faults):
    table = quiet(ENDPOINT_URL=dynamo_faults.url)
    use(table, now)
    dynamo_faults.fail("DescribeTable")
    found = read(watcher)
    assert found["tables"] == {}
    assert any(each.startswith("Not known, and not counted: ") for each in found["problems"])
    html = watcher.get(page("cost")).text
    assert "No table is known." in html
    assert "Alias default: not known" in html


def test_a_region_without_prices(quiet, watcher, now, settings):
    """Those of another one are shown, and the page says so; COST sets them."""
    quiet()
    alias = settings.DYNAMO_STORES["default"]
    settings.DYNAMO_STORES = {"default": {**alias, "COST": {"PRICE_REGION": "mars-1"}}}
    html = watcher.get(page("cost")).text
    assert "has no prices of the region mars-1" in html
    assert "The prices of us-east-1 are shown. See the setting COST." in html
    cost = {"PRICE_REGION": "us-west-2", "FACTOR": 1.25}
    settings.DYNAMO_STORES = {"default": {**alias, "COST": cost}}
    html = watcher.get(page("cost")).text
    assert "multiplied by 1.25" in html
    assert "no prices" not in html


def test_names_of_other_software(quiet, watcher, now):
    """Tables without a model are named, and markup is text."""
    table = quiet()
    use(table, now, **{EVIL: Usage(5.0, 5.0)})
    html = watcher.get(page("cost")).text
    assert "<script>alert" not in html
    assert "Tables without a model are not counted: " in html
