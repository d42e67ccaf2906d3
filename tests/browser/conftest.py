"""A browser, if there is one, and users."""

from __future__ import annotations

import os
import shutil

import pytest
from django.contrib.auth.models import Permission, User

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
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
