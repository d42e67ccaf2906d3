"""The panel of django-debug-toolbar in a browser, under a strict policy."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.request

import pytest
from django.conf import settings

from dynamo_stores.testing import find_free_port

from .conftest import WIDE, complaint

SERVERS = {
    "WSGI": ["manage.py", "runserver", "--noreload", "{port}"],
    "ASGI": ["-m", "uvicorn", "--port", "{port}", "tests.browser.toolbar_site:application"],
}
pytestmark = pytest.mark.slow


@pytest.fixture(params=SERVERS)
def address(request, tables, dynamo_engine, default_alias, tmp_path, until):
    """The address of a running site with the toolbar."""
    pytest.importorskip("debug_toolbar")
    port = find_free_port()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.browser.toolbar_settings",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'db.sqlite3'}",
        "DYNAMODB_ENDPOINT": dynamo_engine,
        "DYNAMODB_TABLE_PREFIX": default_alias["TABLE_PREFIX"],
        "ENV_FILE": os.devnull,
    }
    server = subprocess.Popen(
        [sys.executable, *[each.format(port=port) for each in SERVERS[request.param]]],
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
        yield address
    finally:
        server.terminate()
        server.wait(30)


def test_the_panel_shows_operations_and_findings(address, chromium, expect):
    """Of sync and async views, and of a page of the forum."""
    context = chromium.new_context(viewport=WIDE)
    page, complaints = context.new_page(), []
    page.on("console", lambda line: line.type == "error" and complaints.append(complaint(line)))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    for path in ("offence/sync/", "offence/async/"):
        answer = page.goto(f"{address}/{path}")
        assert answer.headers["content-security-policy"] == "default-src 'self'"
        button = page.locator("#djdt-DynamoDBPanel")
        expect(button).to_contain_text("7 operations in")
        expect(button).to_contain_text("2 problems")
        button.locator("a").click()
        panel = page.locator("#DynamoDBPanel")
        expect(panel.get_by_text("problem: scan")).to_be_visible()
        expect(panel.get_by_text("problem: reads-one-by-one")).to_be_visible()
        key = panel.get_by_text("userId=user-3")
        expect(key).to_be_hidden()
        panel.get_by_text("Show 6").click()
        expect(key).to_be_visible()
        expect(panel.get_by_text("tests/browser/toolbar_site.py").last).to_be_visible()
    page.goto(f"{address}/")
    page.locator("#djdt-DynamoDBPanel a").click()
    expect(page.locator("#DynamoDBPanel").get_by_text("None.")).to_be_visible()
    context.close()
    assert [each for each in complaints if "favicon.ico" not in each] == []
