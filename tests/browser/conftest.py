"""A browser, if there is one, and users."""

from __future__ import annotations

import os
import shutil

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 360, "height": 740}
# Each size and each scheme has one check of accessibility, which takes a second for each page.
BOTH_LOOKS = pytest.mark.parametrize(
    ("viewport", "scheme"), [(WIDE, "light"), (NARROW, "dark")], ids=["wide-light", "narrow-dark"]
)


@pytest.fixture(scope="module")
def chromium():
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("There is no Chromium on this machine.")
    playwright = pytest.importorskip("playwright.sync_api")
    # Playwright runs an event loop in this thread until it is closed: before tests of other modules
    # run loops of their own. The tests' own queries are not within it.
    os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"
    try:
        with playwright.sync_playwright() as started:
            browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
            yield browser
            browser.close()
    finally:
        del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]


@pytest.fixture
def people(transactional_db):
    """Users by name: ``root``, ``watcher`` who may look, and ``staff`` who may not."""
    found = {"root": User.objects.create_superuser("root")}
    for name in ("watcher", "staff"):
        found[name] = User.objects.create_user(name, is_staff=True)
    found["watcher"].user_permissions.add(Permission.objects.get(codename="view_status"))
    return found


@pytest.fixture
def expect(chromium):
    """Assertions that wait until they hold."""
    return pytest.importorskip("playwright.sync_api").expect


@pytest.fixture
def site(settings, reporting, live_server):
    """``site(…)``: one alias with reports and tables; returns the address of the pages."""

    def make(**changes):
        using = reporting(**changes)
        settings.DYNAMO_STORES = {"default": settings.DYNAMO_STORES[using]}
        return f"{live_server.url}/admin/dynamo-stores/"

    settings.MIDDLEWARE = [
        "tests.browser.test_status_pages.WithPolicy",
        *settings.MIDDLEWARE,
    ]
    return make


@pytest.fixture
def visit(chromium, people, live_server, tmp_path):
    """
    ``visit("root")``: a page of a browser in which that user is logged in. Anything that the
    browser complains of, or asks another host for, fails the test.
    """
    contexts, complaints = [], []

    def visit(user, *, viewport=WIDE, scheme="light", scripts=True):
        context = chromium.new_context(
            viewport=viewport, color_scheme=scheme, java_script_enabled=scripts
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda line: line.type == "error" and complaints.append(complaint(line)))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda sent: sent.url.startswith(live_server.url) or complaints.append(sent.url),
        )
        if user is not None:
            client = Client()
            client.force_login(people[user])
            cookie = client.cookies["sessionid"].value
            context.add_cookies([{"name": "sessionid", "value": cookie, "url": live_server.url}])
        return page

    yield visit
    for context in contexts:
        context.close()
    expected = ("403", "favicon.ico")
    assert not [each for each in complaints if not any(part in each for part in expected)]


def complaint(line):
    """Return the text of a line of the browser's console, with its URL."""
    return f"{line.text} {line.location.get('url', '')}"
