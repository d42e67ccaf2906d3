"""A browser, where there is one, and who looks."""

from __future__ import annotations

import os
import secrets
import shutil

import pytest
from django.contrib.auth.models import Permission, User

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium."""
    if CHROMIUM is None:
        pytest.skip("There is no Chromium on this machine.")
    playwright = pytest.importorskip("playwright.sync_api")
    # Playwright runs an event loop in this thread; the tests' own queries are not within it.
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
    """Users by name, and the password of all: ``root``, ``watcher``, ``staff`` and ``stranger``."""
    password = secrets.token_urlsafe(12)
    found = {"root": User.objects.create_superuser("root", password=password)}
    for name in ("watcher", "staff", "stranger"):
        found[name] = User.objects.create_user(name, password=password, is_staff=name != "stranger")
    found["watcher"].user_permissions.add(Permission.objects.get(codename="view_status"))
    return found, password
