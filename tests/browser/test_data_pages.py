"""The pages of caches, limits and jobs in a browser."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry

from dynamo_stores.cache import cache_for
from dynamo_stores.stores import AdaptiveRateLimitStore, DedupeStore, RateLimitStore

from .conftest import BOTH_LOOKS, NARROW
from .test_status_pages import is_wider_than_its_window, report_an_hour, serious

pytestmark = pytest.mark.slow
LONG = "catalogue:" + "x" * 200


@pytest.fixture
def filled(site, settings):
    """The address of the pages, with entries, limits and jobs of every kind."""
    settings.CACHES = {
        "default": {
            "BACKEND": "dynamo_stores.cache.DynamoDBCache",
            "KEY_PREFIX": "shop",
            "OPTIONS": {"COMPRESSOR": "zlib", "LOCAL_TIMEOUT": 5},
        },
        "pages": {
            "BACKEND": "dynamo_stores.cache.DynamoDBCache",
            "OPTIONS": {"CLEAR": "generation"},
        },
    }
    address = site(
        RATE_LIMIT={
            "RESOURCES": {"exports": {"RATE": "5/h", "ALGORITHM": "gcra"}, "search": "100/m"},
            "PATHS": {"/api/": {"RATE": "9/m"}},
        },
        DEDUPE={"LEASE": 600},
    )
    report_an_hour()
    cache = cache_for("default")
    cache.set("user:1", "the secret " * 500, 3600, tags=["users", "premium"])
    cache.set(LONG, 1, None)
    limits = RateLimitStore()
    limits.set_resource_config("search", "50/m", everywhere=True)
    for _ in range(6):
        limits.acquire("search", key="1.2.3.4")
        AdaptiveRateLimitStore().acquire("search", key="shared")
    jobs = DedupeStore()
    jobs.register("import:1")
    jobs.fail("import:2", ValueError("no"), fence=jobs.register("import:2"), ttl=600)
    return address


def look_up(page, **fields):
    """Fill in the first form of a page and send it."""
    form = page.locator(".ds-form").first
    for field, value in fields.items():
        form.locator(f"[name={field}]").fill(value)
    form.get_by_role("button", name="Look up").click()
    page.wait_for_selector(".ds-result")
    return page.locator(".ds-result").inner_text()


def is_whole_and_accessible(page):
    """Whether the page is as wide as its window, without violations of accessibility."""
    return not is_wider_than_its_window(page) and serious(page) == []


@BOTH_LOOKS
def test_results_fit_and_are_accessible(filled, visit, scheme, viewport):
    """Wide and narrow, light and dark, with long names."""
    page = visit("root", viewport=viewport, scheme=scheme)
    page.goto(f"{filled}cache/")
    for key in ("user:1", LONG):
        look_up(page, key=key)
        assert is_whole_and_accessible(page)
    page.goto(f"{filled}limits/")
    look_up(page, resource="search", key="shared")
    assert is_whole_and_accessible(page)
    page.goto(f"{filled}jobs/")
    look_up(page, key="import:2")
    assert is_whole_and_accessible(page)
    page.get_by_role("button", name="Read the table").click()
    page.wait_for_selector(".ds-result table")
    assert is_whole_and_accessible(page)


def test_a_key_is_looked_up_and_deleted_without_a_script(filled, visit, expect):
    """By forms alone; the key is in no address."""
    page = visit("root", scripts=False)
    addresses = []
    page.on("request", lambda sent: addresses.append(sent.url))
    page.goto(filled)
    page.click("nav >> text=Cache")
    found = look_up(page, key="user:1")
    assert "live: the cache returns it" in found
    assert "premium, users" in found
    assert "compressed" in found
    assert "secret" not in page.content()
    page.get_by_role("button", name="Delete the key…").click()
    assert "Delete the key 'user:1'" in page.title()
    assert cache_for("default").get("user:1") is not None
    page.locator(".ds-yes").click()
    expect(page.locator(".messagelist")).to_contain_text("The key 'user:1' in version 1")
    assert cache_for("default").get("user:1") is None
    assert "The table has no entry" in look_up(page, key="user:1")
    assert not [each for each in addresses if "user" in each]
    assert LogEntry.objects.count() == 1


def test_keys_of_a_pattern_are_cleared(filled, visit, expect):
    """After they were counted."""
    page = visit("root")
    page.goto(f"{filled}cache/")
    page.get_by_label("Pattern of keys of default").fill("catalogue:*")
    page.get_by_role("button", name="Count and clear keys of default").click()
    assert "1 key in version 1 of cache default match 'catalogue:*'" in page.content()
    assert serious(page) == []
    page.locator(".ds-yes").click()
    expect(page.locator(".messagelist")).to_contain_text("1 key that match 'catalogue:*'")
    assert cache_for("default").keys("*") == ["user:1"]


def test_a_limit_is_changed_and_reset(filled, visit, expect):
    """For all processes; then back to the settings."""
    page = visit("root", scripts=False)
    page.goto(f"{filled}limits/")
    assert "6 of 50" in look_up(page, resource="search", key="1.2.3.4")
    page.get_by_role("button", name="Reset…").click()
    page.locator(".ds-yes").click()
    expect(page.locator(".messagelist")).to_contain_text("is reset")
    assert "0 of 50" in look_up(page, resource="search", key="1.2.3.4")
    page.get_by_label("New rate of search").fill("20/m")
    page.get_by_role("button", name="Change the limit of search").click()
    assert "is 50 in 60 s, and will be 20 in 60 s" in page.locator(".ds-confirm").inner_text()
    page.locator(".ds-yes").click()
    expect(page.locator(".messagelist")).to_contain_text("is 20 in 60 s in all processes")
    row = page.locator("tr", has=page.get_by_role("rowheader", name="search", exact=True))
    expect(row).to_contain_text("instead of 100 in 60 s")
    row.get_by_role("button", name="Use the settings' limit").click()
    page.locator(".ds-yes").click()
    expect(page.locator(".messagelist")).to_contain_text("is that of the settings again")
    assert RateLimitStore().get_stored_configs() == {}


def test_a_job_is_released_from_the_list(filled, visit, expect):
    """The list is read when asked for."""
    page = visit("root", scripts=False)
    page.goto(f"{filled}jobs/")
    assert page.locator(".ds-result").count() == 0
    page.get_by_role("button", name="Read the table").click()
    rows = page.locator(".ds-result tbody tr")
    assert rows.count() == 2
    rows.filter(has_text="in progress").get_by_role("button").click()
    page.locator(".ds-yes").click()
    expect(page.locator(".messagelist")).to_contain_text("is released: the next caller runs it")
    assert not DedupeStore().is_in_progress("import:1")


def test_watchers_see_no_actions(filled, visit):
    """They look things up."""
    page = visit("watcher")
    page.goto(f"{filled}cache/")
    assert "live" in look_up(page, key="user:1")
    page.goto(f"{filled}limits/")
    look_up(page, resource="search", key="1.2.3.4")
    assert page.locator(".ds button").all_inner_texts() == ["Look up"]
    page.goto(f"{filled}jobs/")
    page.get_by_role("button", name="Read the table").click()
    assert page.locator(".ds button").count() == 2


def test_no_column_is_cut_off_on_a_phone(filled, visit):
    """Each row is a card of its own."""
    page = visit("root", viewport=NARROW)
    for name in ("cache/", "limits/"):
        page.goto(f"{filled}{name}")
        assert page.evaluate(
            "[...document.querySelectorAll('.ds tbody td, .ds input:not([type=hidden])')]"
            ".every(cell => cell.getBoundingClientRect().right <= window.innerWidth)"
        )
