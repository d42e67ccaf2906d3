"""The panel of django-debug-toolbar, for sync and async views."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys

import pytest
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import include, path

from dynamo_stores.calls import observer
from dynamo_stores.client import get_dynamodb_client
from dynamo_stores.conf import get_config

PAGE = "<!doctype html><title>t</title><body>Page</body>"


def view(request):
    client = get_dynamodb_client()
    client.put("lines", {"order": "o<1>", "line": 1, "text": "s3cret"})
    for _ in range(2):
        client.get("lines", {"order": "o<1>", "line": 1})
    list(client.query("lines", "#o = :o", names={"#o": "order"}, values={":o": "o<1>"}))
    list(client.scan("posts"))
    return HttpResponse(PAGE)


async def aview(request):
    client = get_dynamodb_client()
    await asyncio.gather(*[client.aget("posts", {"id": each}) for each in "abcde"])
    return HttpResponse(PAGE)


def calm(request):
    return HttpResponse(PAGE)


@pytest.fixture
def toolbar(settings, monkeypatch, empty_tables):
    """The toolbar with this panel alone."""
    pytest.importorskip("debug_toolbar")
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "debug_toolbar"]
    settings.MIDDLEWARE = ["debug_toolbar.middleware.DebugToolbarMiddleware"]
    # The toolbar's models need it in INSTALLED_APPS.
    settings.ROOT_URLCONF = (
        path("sync", view),
        path("async", aview),
        path("calm", calm),
        path("__debug__/", include("debug_toolbar.urls")),
    )
    settings.DEBUG, settings.INTERNAL_IPS = True, ["127.0.0.1"]
    from debug_toolbar.toolbar import DebugToolbar

    from dynamo_stores.monitoring.panel import DynamoDBPanel

    monkeypatch.setattr(DebugToolbar, "_panel_classes", [DynamoDBPanel])
    monkeypatch.setattr(DebugToolbar, "_urlpatterns", None)
    for name in ("posts", "lines"):
        empty_tables.get(name, {"id": "-"} if name == "posts" else {"order": "-", "line": 0})


def visit(where):
    if where == "async":
        return asyncio.run(AsyncClient().get("/async"))
    return Client().get(f"/{where}")


def panel_of(response):
    """Return the page of the panel, as the toolbar's script asks for it."""
    found = re.search(r'data-request-id="(\w+)"', response.text)
    query = {"request_id": found[1], "panel_id": "DynamoDBPanel"}
    return json.loads(Client().get("/__debug__/render_panel/", query).content)["content"]


@pytest.mark.usefixtures("toolbar")
def test_a_sync_view():
    """Its operations in groups, and the findings."""
    response = visit("sync")
    text = panel_of(response)
    lines, posts = get_config().real_name("lines"), get_config().real_name("posts")
    found = re.findall(r"<strong>(\w+)</strong> (\S+)", text)
    assert found == [
        ("PutItem", lines), ("GetItem", lines), ("Query", lines), ("Scan", posts),
    ]  # fmt: skip
    findings = re.findall(r"<strong>(problem|hint): ([\w-]+)</strong>", text)
    assert findings == [("problem", "scan"), ("problem", "repeated-reads")]
    assert f"GetItem on {lines} was made 2 times for 1 answer" in text
    assert "KeyCondition: order = ?" in text
    assert "<code>line=1, order=o&lt;1&gt;</code>" in text
    assert "tests/monitoring/test_panel.py:" in text
    assert " in view</code>" in text
    assert re.search(r"<p>5 operations, [\d.]+ ms, [\d.]+ units\.</p>", text)
    assert "s3cret" not in text
    assert re.search(r"5 operations in [\d.]+ ms, 2 problems", response.text)
    assert re.search(
        r'DynamoDBPanel_operations;dur=[\d.]+;desc="5 DynamoDB operations"',
        response["Server-Timing"],
    )


@pytest.mark.usefixtures("toolbar")
def test_an_async_view():
    """With what its tasks did."""
    text = panel_of(visit("async"))
    assert "reads-one-by-one" in text
    assert "<p>5 operations, " in text


@pytest.mark.usefixtures("toolbar")
def test_a_view_without_operations():
    text = panel_of(visit("calm"))
    assert "<p>None.</p>" in text
    assert "<p>0 operations, 0.0 ms, 0 units.</p>" in text


@pytest.mark.usefixtures("toolbar")
def test_failed_and_throttled_operations(settings, dynamo_faults):
    """Their attempts, and the errors of them."""
    default = settings.DYNAMO_STORES["default"]
    settings.DYNAMO_STORES = {"default": {**default, "ENDPOINT_URL": dynamo_faults.url}}
    dynamo_faults.throttle("PutItem", times=2)
    text = panel_of(visit("sync"))
    assert "<td>3, 2 throttled<br><strong>ThrottlingError, ThrottlingError</strong></td>" in text
    assert "problem: throttled" in text


@pytest.mark.usefixtures("toolbar")
def test_codes_that_are_ignored(settings):
    """As in the log."""
    default = settings.DYNAMO_STORES["default"]
    advice = {"IGNORE": ["scan", "repeated-reads"]}
    settings.DYNAMO_STORES = {"default": {**default, "ADVICE": advice}}
    response = visit("sync")
    assert "<p>None.</p>" in panel_of(response)
    assert "problem" not in response.text


@pytest.mark.usefixtures("toolbar")
def test_a_panel_that_is_off_costs_nothing():
    """By the cookie of its checkbox."""
    client = Client()
    client.cookies["djdtDynamoDBPanel"] = "off"
    assert "operations in" not in client.get("/sync").text
    assert not observer.is_every_operation_observed()


def test_the_package_is_not_imported_without_the_toolbar():
    """Neither by the checks nor by the middleware and the assertions."""
    code = (
        "import sys, django\n"
        "django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('check')\n"
        "import dynamo_stores.middleware, dynamo_stores.testing, dynamo_stores.monitoring.advice\n"
        "print([each for each in sys.modules if each.startswith('debug_toolbar')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]"
