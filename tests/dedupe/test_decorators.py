"""@deduplicated and @idempotent: work and requests that are done once."""

from __future__ import annotations

import asyncio
import datetime
import json
import math
import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import RequestFactory
from django.views import View

from dynamo_stores.calls.observer import measuring
from dynamo_stores.decorators import deduplicated, idempotent
from dynamo_stores.exceptions import ConfigurationError, DedupeFailedError
from dynamo_stores.testing import FakeClock

requests = RequestFactory()
pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def key():
    return secrets.token_hex(8)


def test_deduplicated(key):
    """By the arguments that the key names; errors and results reach all."""
    calls = []

    @deduplicated(key="{name}:{day}")
    def report(name, day, force=False):
        calls.append((name, day))
        if day < 0:
            raise LookupError("no such day")
        return {"name": name, "day": day}

    with ThreadPoolExecutor(5) as threads:
        found = list(threads.map(lambda _: report(key, 1), range(5)))
    assert found == [{"name": key, "day": 1}] * 5
    assert report(key, day=1, force=True) == report(key, 1)
    assert report(key, 2)["day"] == 2
    with pytest.raises(LookupError):
        report(key, -1)
    with pytest.raises(DedupeFailedError, match="no such day"):
        report(key, -1)
    assert calls == [(key, 1), (key, 2), (key, -1)]
    assert report.job_key(key, 1).endswith(f"report:{key}:1")
    with pytest.raises(ConfigurationError, match="names 'unknown'"):
        deduplicated(key="{unknown}")(lambda name: None)


def test_deduplicated_without_waiting(key):
    """A call while another one is in progress gets None."""
    began, go_on = threading.Event(), threading.Event()

    @deduplicated(key="{name}", wait=False)
    def work(name):
        began.set()
        go_on.wait(10)
        return "done"

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(work, key)
        began.wait(10)
        assert work(key) is None
        go_on.set()
        assert first.result() == "done"
    assert work(key) == "done"


def test_deduplicated_by_a_key_function(key):
    """It gets the defaults, too, so that a call with the default is the same job."""
    calls = []

    @deduplicated(key=lambda name, month: f"{name}:{month}")
    def report(name, month=1):
        calls.append(month)
        return month

    assert [report(key), report(key, 1), report(name=key, month=1), report(key, 2)] == [1, 1, 1, 2]
    assert calls == [1, 2]


def test_deduplicated_coroutine_functions(key):
    """They stay such."""
    calls = []

    @deduplicated(key="{name}")
    async def work(name):
        calls.append(name)
        await asyncio.sleep(0.2)
        return name

    async def run():
        return await asyncio.gather(*(work(key) for _ in range(5)))

    assert asyncio.run(run()) == [key] * 5
    assert calls == [key]


def test_deduplicated_celery_tasks(key):
    """Under @app.task, by name and by position."""
    from celery import Celery

    app = Celery("test", set_as_current=False)
    calls = []

    @app.task
    @deduplicated(key="{name}")
    def work(name):
        calls.append(name)
        return "done"

    assert [work(key), work(name=key), work.apply(args=[key]).get()] == ["done"] * 3
    assert calls == [key]


NO_SECONDS = ["60", datetime.timedelta(days=1), -1, math.nan, math.inf, True]


@pytest.mark.parametrize("ttl", [*NO_SECONDS, 0])
@pytest.mark.parametrize("decorator", [deduplicated, idempotent])
def test_a_ttl_that_is_no_number_above_0_is_refused(decorator, ttl):
    """When the decorator is applied, so that no work is done whose outcome cannot be stored."""
    arguments = {"key": "{name}"} if decorator is deduplicated else {}
    with pytest.raises(ConfigurationError) as refused:
        decorator(ttl=ttl, **arguments)
    assert str(refused.value) == f"ttl is {ttl!r}; expected a number above 0, in seconds."


@pytest.mark.parametrize("seconds", [1e300, 10**400, 3_153_600_001], ids=["float", "int", "least"])
@pytest.mark.parametrize("decorator", [deduplicated, idempotent])
def test_a_time_over_100_years_is_refused(decorator, seconds):
    """DynamoDB has no number for its end, or no clock reaches it."""
    arguments = {"key": "{name}"} if decorator is deduplicated else {}
    names = ["ttl", "failure_ttl"] if decorator is deduplicated else ["ttl"]
    for name in names:
        with pytest.raises(ConfigurationError, match=f"^{name} is too long; expected at most 31"):
            decorator(**arguments, **{name: seconds})
        decorator(**arguments, **{name: 3_153_600_000})(lambda name: name)


@pytest.mark.parametrize("failure_ttl", NO_SECONDS)
def test_a_failure_ttl_below_0_is_refused(failure_ttl):
    """0 is allowed."""
    with pytest.raises(
        ConfigurationError, match=r"^failure_ttl is .*; expected a number, 0 or more"
    ):
        deduplicated(key="{name}", failure_ttl=failure_ttl)
    deduplicated(key="{name}", failure_ttl=0)(lambda name: name)


@pytest.mark.parametrize("max_bytes", ["1", -1, 1.5, None])
def test_max_bytes_that_are_no_whole_number_are_refused(max_bytes):
    """When the decorator is applied."""
    with pytest.raises(ConfigurationError, match=r"^max_bytes is .*; expected a whole number"):
        idempotent(max_bytes=max_bytes)


class Shop:
    """A view that counts its orders."""

    def __init__(self, answer=None):
        self.orders = 0
        self._answer = answer or (lambda: JsonResponse({"order": self.orders}, status=201))

    def __call__(self, request):
        self.orders += 1
        return self._answer()

    def view(self, **options):
        def order(request):
            return self(request)

        return idempotent(**options)(order)


def post(key=None, body=None, path="/orders", user=1, **extra):
    headers = {} if key is None else {"Idempotency-Key": key}
    request = requests.post(
        path, body or {"n": 1}, content_type="application/json", headers=headers, **extra
    )
    request.user = SimpleNamespace(pk=user, is_authenticated=user is not None)
    return request


def test_the_first_response_is_given_back(key):
    """With its status and headers, marked; the work is not done again."""
    shop = Shop()
    view = shop.view()
    first, second = view(post(key)), view(post(key))
    assert (first.status_code, first.content) == (201, b'{"order": 1}')
    assert (second.status_code, second.content) == (201, b'{"order": 1}')
    assert second["Content-Type"] == "application/json"
    assert second["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first
    assert shop.orders == 1
    with measuring() as measurements:
        view(post(key))
    assert [each.operation for each in measurements] == ["UpdateItem"]


def test_keys_belong_to_a_user(key):
    """Each user and each anonymous client has keys of its own; or each scope."""
    shop = Shop()
    view = shop.view()
    for user in (1, 2):
        view(post(key, user=user))
    for address in ("1.2.3.4", "1.2.3.5"):
        view(post(key, user=None, REMOTE_ADDR=address))
    assert shop.orders == 4
    shared = shop.view(scope=lambda request: "all")
    for user in (1, 2):
        shared(post(key + "s", user=user))
    assert shop.orders == 5


def test_another_payload_is_refused(key):
    """422 for another body or path; forms are compared without their token."""
    shop = Shop()
    view = shop.view(field="once")
    view(post(key, {"n": 1}))
    assert view(post(key, {"n": 2})).status_code == 422
    assert view(post(key, {"n": 1}, path="/orders?x=1")).status_code == 422

    def form(token, **fields):
        file = SimpleUploadedFile("a.txt", fields.pop("content", b"same"))
        data = {"csrfmiddlewaretoken": token, "once": key + "f", "file": file, **fields}
        request = requests.post("/orders", data)
        request.user = SimpleNamespace(pk=1, is_authenticated=True)
        return request

    assert view(form("one", n=1)).status_code == 201
    assert view(form("other", n=1))["Idempotency-Replayed"] == "true"
    assert view(form("one", n=2)).status_code == 422
    assert view(form("one", n=1, content=b"other")).status_code == 422
    assert shop.orders == 2


def test_in_progress(key):
    """409 with a time to come back; afterwards the response."""
    began, go_on = threading.Event(), threading.Event()

    def answer():
        began.set()
        go_on.wait(10)
        return HttpResponse("done")

    view = Shop(answer).view()
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(view, post(key))
        began.wait(10)
        meanwhile = view(post(key))
        assert meanwhile.status_code == 409
        assert 1 <= int(meanwhile["Retry-After"]) <= 60
        assert "in progress" in json.loads(meanwhile.content)["error"]
        go_on.set()
        assert first.result().content == b"done"
    assert view(post(key)).content == b"done"


def test_what_is_not_stored(key):
    """Errors of the server, exceptions and streams: the next request tries again."""

    def fail():
        raise ValueError("no")

    for number, answer in enumerate(
        (lambda: HttpResponse(status=503), lambda: StreamingHttpResponse(["x"]), fail)
    ):
        shop = Shop(answer)
        view = shop.view()
        for _ in range(2):
            try:
                view(post(f"{key}{number}"))
            except ValueError:
                continue
        assert shop.orders == 2
    refused = Shop(lambda: HttpResponse("bad", status=400))
    for _ in range(2):
        assert refused.view()(post(key + "bad")).status_code == 400
    assert refused.orders == 1


def test_without_a_key(key):
    """Done as always, or 400 where it is required; safe methods need none."""
    shop = Shop()
    assert shop.view()(post()).status_code == 201
    assert shop.view(required=True)(post()).status_code == 400
    assert shop.view(required=True)(requests.get("/")).status_code == 201
    for bad in ("", "x" * 256, "a\tb"):
        assert shop.view()(post(bad)).status_code == 400
    assert shop.orders == 2


def test_cookies_are_not_given_back(key):
    """They belong to one client."""

    def answer():
        response = HttpResponse("x")
        response.set_cookie("session", "secret")
        response["Set-Cookie"] = "a=b"
        return response

    view = Shop(answer).view()
    view(post(key))
    replay = view(post(key))
    assert not replay.cookies
    assert "Set-Cookie" not in replay


def test_template_responses(key):
    """Are stored when they are rendered, after the middleware."""
    template = engines["django"].from_string("order {{ n }}")
    calls = []

    @idempotent
    def view(request):
        calls.append(1)
        return TemplateResponse(request, template, {"n": len(calls)})

    view(post(key)).render()
    assert view(post(key)).content == b"order 1"
    assert calls == [1]


def test_classes_and_async(key):
    """On the class, on a method, on coroutine functions."""
    calls = []

    @idempotent
    class OnClass(View):
        def post(self, request):
            calls.append("class")
            return HttpResponse("class")

    class OnMethod(View):
        @idempotent(ttl=60)
        def post(self, request):
            calls.append("method")
            return HttpResponse("method")

    for number, case in enumerate((OnClass, OnMethod)):
        view = case.as_view()
        found = [view(post(f"{key}{number}")).content for _ in range(2)]
        assert len(set(found)) == 1

    @idempotent
    async def coroutine(request):
        calls.append("async")
        return HttpResponse("async")

    async def run():
        return [(await coroutine(post(key + "a"))).content for _ in range(2)]

    assert asyncio.run(run()) == [b"async"] * 2
    assert calls == ["class", "method", "async"]


def test_forgotten_after_its_time(key, dynamo_clock: FakeClock):
    """A day by default."""
    shop = Shop()
    view = shop.view(ttl=60)
    view(post(key))
    dynamo_clock.advance(61)
    view(post(key))
    assert shop.orders == 2


def test_large_responses(key):
    """In parts, the same for all."""
    view = Shop(lambda: HttpResponse(b"\xff" * 900_000)).view()
    assert view(post(key)).content == view(post(key)).content == b"\xff" * 900_000


def test_unavailable(alias, key, dynamo_faults):
    """503 if DynamoDB does not answer; a response that cannot be stored is returned."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    shop = Shop()
    view = shop.view(using=using)
    dynamo_faults.fail(times=1)
    refused = view(post(key))
    assert (refused.status_code, refused["Retry-After"]) == (503, "1")
    assert shop.orders == 0

    def answer():
        dynamo_faults.fail(times=1)
        return HttpResponse("done")

    began_at = time.monotonic()
    assert Shop(answer).view(using=using)(post(key)).content == b"done"
    assert time.monotonic() - began_at < 10
