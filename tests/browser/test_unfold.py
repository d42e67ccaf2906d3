"""The status pages under django-unfold, a popular theme of the admin."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import urllib.request

import pytest
from django.conf import settings

from dynamo_stores.testing import find_free_port

from .conftest import NARROW, WIDE
from .test_status_pages import PAGES, is_wider_than_its_window, serious


@pytest.fixture
def themed(tables, dynamo_engine, default_alias, tmp_path, until):
    """The address of a running site, and the password of its ``root``."""
    pytest.importorskip("unfold")
    port, password = find_free_port(), secrets.token_urlsafe(12)
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.browser.unfold_settings",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "DJANGO_SUPERUSER_PASSWORD": password,
        "DYNAMODB_ENDPOINT": dynamo_engine,
        "DYNAMODB_TABLE_PREFIX": default_alias["TABLE_PREFIX"],
        "ENV_FILE": os.devnull,
    }
    manage = [sys.executable, "manage.py"]
    for command in (
        ["migrate", "--verbosity", "0"],
        ["createsuperuser", "--noinput", "--username", "root", "--email", "root@example.com"],
    ):
        subprocess.run([*manage, *command], cwd=settings.BASE_DIR, env=environment, check=True)
    server = subprocess.Popen(
        [*manage, "runserver", "--noreload", str(port)],
        cwd=settings.BASE_DIR,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"

    def answers():
        assert server.poll() is None
        try:
            return urllib.request.urlopen(f"{address}/dynamo-stores/health/live").status
        except OSError:
            return None

    try:
        until(answers, 60)
        yield address, password
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.slow
def test_the_pages_stand_in_its_frame(themed, chromium):
    """Whole and readable, wide and narrow, light and dark."""
    address, password = themed
    for viewport, scheme in ((WIDE, "light"), (WIDE, "dark"), (NARROW, "light")):
        context = chromium.new_context(viewport=viewport, color_scheme=scheme)
        page = context.new_page()
        page.goto(f"{address}/admin/login/?next=/admin/dynamo-stores/")
        page.fill("#id_username", "root")
        page.fill("#id_password", password)
        page.press("#id_password", "Enter")
        page.wait_for_url(f"{address}/admin/dynamo-stores/")
        for name in PAGES:
            assert page.goto(f"{address}/admin/dynamo-stores/{name}").status == 200
            assert page.locator(".ds-summary").is_visible()
            assert not is_wider_than_its_window(page)
            assert serious(page) == []
        context.close()
