"""One deadline for a request, and the response while DynamoDB does not answer."""

from __future__ import annotations

import asyncio
import logging

import pytest
from django.http import HttpResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from dynamo_stores.calls.policy import time_left
from dynamo_stores.exceptions import (
    CircuitBreakerOpenError,
    LockError,
    StoreUnavailable,
    ThrottlingError,
)

errors = {
    "unavailable": StoreUnavailable("GetItem on t got no answer (connection refused)."),
    "open": CircuitBreakerOpenError("The breaker is open.", retry_after=41.2),
    "throttled": ThrottlingError("GetItem on t is throttled.", retry_after=0.2),
    "other": ValueError("other"),
}


def view(request, name):
    if name == "lock":
        raise LockError("The lock was not taken.") from errors["open"]
    if name == "held":
        raise LockError("The lock is held by another owner.")
    if name in errors:
        raise errors[name]
    return HttpResponse("done")


async def aview(request, name):
    return view(request, name)


def show_time(request):
    return HttpResponse(f"{time_left(100.0):.3f}")


async def ashow_time(request):
    return show_time(request)


urlpatterns = [
    path("sync/time", show_time),
    path("async/time", ashow_time),
    path("sync/<name>", view),
    path("async/<name>", aview),
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {
            "loaders": [("django.template.loaders.locmem.Loader", {"503.html": "<p>Later</p>"})]
        },
    }
]


@pytest.fixture(autouse=True)
def project():
    """A project with the middleware."""
    middleware = ["dynamo_stores.middleware.StoreUnavailableMiddleware"]
    with override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=middleware):
        yield


def get(kind, name):
    if kind == "sync":
        return Client(raise_request_exception=False).get(f"/sync/{name}")
    return asyncio.run(AsyncClient(raise_request_exception=False).get(f"/async/{name}"))


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("name", "seconds", "level"),
    [
        ("unavailable", "1", logging.WARNING),
        ("open", "42", logging.DEBUG),
        ("throttled", "1", logging.WARNING),
    ],
)
def test_an_unavailable_store_is_a_503(kind, name, seconds, level, caplog):
    """With the time after which to try again, and one line in the log."""
    caplog.set_level(logging.DEBUG, "dynamo_stores")
    answer = get(kind, name)
    assert (answer.status_code, answer["Retry-After"]) == (503, seconds)
    assert "try again later" in answer.text
    (record,) = [each for each in caplog.records if each.name == "dynamo_stores.middleware"]
    assert (record.levelno, record.getMessage()) == (level, str(errors[name]))
    assert record.exc_info is None


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_other_responses_are_left_alone(kind):
    """Of views that succeed, and of views that fail for another reason."""
    assert get(kind, "done").text == "done"
    assert get(kind, "other").status_code == 500
    assert get(kind, "held").status_code == 500


def test_a_lock_of_an_unavailable_store_is_a_503():
    """With the time of its cause."""
    answer = get("sync", "lock")
    assert (answer.status_code, answer["Retry-After"]) == (503, "42")


def test_a_template_that_fails_is_left_out(caplog):
    """It may need DynamoDB, too."""
    loader = ("django.template.loaders.locmem.Loader", {"503.html": "{% extends missing %}"})
    broken = {**TEMPLATES[0], "OPTIONS": {"loaders": [loader]}}
    with override_settings(TEMPLATES=[broken]):
        answer = get("sync", "unavailable")
    assert answer.status_code == 503
    assert "try again later" in answer.text
    assert "503.html was not rendered" in caplog.text


def test_the_body_is_the_projects_template():
    """As HTML."""
    with override_settings(TEMPLATES=TEMPLATES):
        answer = get("sync", "unavailable")
    assert (answer.text, answer["Content-Type"]) == ("<p>Later</p>", "text/html; charset=utf-8")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_all_calls_of_a_request_have_one_deadline(kind, settings, dynamo_clock):
    """That of the setting, on both kinds of servers; it ends with the request."""
    settings.MIDDLEWARE = ["dynamo_stores.middleware.DeadlineMiddleware", *settings.MIDDLEWARE]
    changed = {**settings.DYNAMO_STORES["default"], "REQUEST_DEADLINE": 2.5}
    settings.DYNAMO_STORES = {**settings.DYNAMO_STORES, "default": changed}
    assert get(kind, "time").text == "2.500"
    assert time_left(100.0) == 100.0
    assert get(kind, "unavailable").status_code == 503


def test_without_the_middleware_calls_have_their_own_deadlines():
    """As before."""
    assert get("sync", "time").text == "100.000"
