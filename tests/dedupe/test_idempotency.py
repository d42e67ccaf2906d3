"""@idempotent: whose response it is, what is stored, and that no request stays unfinished."""

from __future__ import annotations

import asyncio
import gc
import secrets
import threading
from types import SimpleNamespace

import pytest
from django.contrib.auth.models import User
from django.core.signals import got_request_exception
from django.db import IntegrityError, transaction
from django.http import HttpResponse, JsonResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.test import RequestFactory
from django.views import View

from dynamo_stores import keys
from dynamo_stores.concurrency import effects
from dynamo_stores.decorators import idempotent
from dynamo_stores.dedupe.items import DedupeJob, fence_of
from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.stores import DedupeStore

requests = RequestFactory()
pytestmark = pytest.mark.usefixtures("tables")


@pytest.fixture
def key():
    return secrets.token_hex(8)


def post(key, *, user=None, path="/orders", **extra):
    headers = {"Idempotency-Key": key, **extra.pop("headers", {})}
    request = requests.post(path, {"n": 1}, "application/json", headers=headers, **extra)
    if user is not None:
        request.user = SimpleNamespace(pk=user, is_authenticated=True)
    return request


class Counting:
    """A view that counts its calls, and returns the number."""

    def __init__(self, respond=None, **options):
        self.calls = 0
        self._respond = respond or (lambda number: JsonResponse({"call": number}))
        self.view = idempotent(**options)(self._view)

    def _view(self, request):
        self.calls += 1
        return self._respond(self.calls)


def renewals():
    return [each for each in threading.enumerate() if each.name == "dynamo-stores-job"]


def test_credentials_are_part_of_the_scope(key):
    """Requests with other tokens, keys or sessions never get each other's response."""
    shop = Counting()
    owners = [
        {"headers": {"Authorization": "Token alice"}},
        {"headers": {"Authorization": "Token mallory"}},
        {"headers": {"X-API-Key": "alice"}},
        {"HTTP_COOKIE": "sessionid=alice"},
        {"HTTP_COOKIE": "sessionid=mallory"},
        {},
        {"REMOTE_ADDR": "1.2.3.4"},
        {"user": 1},
        {"user": 1, "HTTP_HOST": "localhost"},
    ]
    first = [shop.view(post(key, **owner)).content for owner in owners]
    assert len(set(first)) == len(owners)
    assert [shop.view(post(key, **owner)).content for owner in owners] == first
    assert shop.calls == len(owners)


def test_other_cookies_are_not_credentials(key):
    """They may change between a request and its retry."""
    shop = Counting()
    for cookie in ("sessionid=s; csrftoken=a", "csrftoken=b; sessionid=s; seen=1"):
        shop.view(post(key, HTTP_COOKIE=cookie))
    assert shop.calls == 1


def test_the_headers_with_credentials_are_a_setting(alias, key):
    """CREDENTIAL_HEADERS names them; Authorization is always one."""
    using = alias(DEDUPE={"CREDENTIAL_HEADERS": ["X-Tenant"]})
    shop = Counting(using=using)
    for tenant in ("a", "b"):
        shop.view(post(key, headers={"X-Tenant": tenant, "X-API-Key": tenant}))
    assert shop.calls == 2
    for number in range(2):
        shop.view(post(key, headers={"X-API-Key": str(number)}))
    assert shop.calls == 3


def test_a_rest_framework_class_authenticates_first(key, settings, until):
    """Two tokens have a response each, and no token has none."""
    from rest_framework.authentication import BaseAuthentication
    from rest_framework.exceptions import AuthenticationFailed
    from rest_framework.permissions import IsAuthenticated
    from rest_framework.response import Response
    from rest_framework.views import APIView

    class Tokens(BaseAuthentication):
        def authenticate(self, request):
            name = request.headers.get("Authorization", "")
            if name == "revoked":
                raise AuthenticationFailed("revoked")
            return (SimpleNamespace(pk=name, is_authenticated=True), name) if name else None

        def authenticate_header(self, request):
            return "Token"

    calls = []

    @idempotent
    class Pay(APIView):
        authentication_classes = (Tokens,)
        permission_classes = (IsAuthenticated,)

        def post(self, request):
            calls.append(request.user.pk)
            return Response({"account": request.user.pk}, status=201)

    view = Pay.as_view()

    def pay(token):
        headers = {"Authorization": token} if token else {}
        return view(post(key, headers=headers)).render()

    assert pay("alice").data == {"account": "alice"}
    assert pay("mallory").data == {"account": "mallory"}
    again = view(post(key, headers={"Authorization": "alice"}))
    assert again["Idempotency-Replayed"] == "true"
    assert b"alice" in again.content
    assert (pay("").status_code, pay("revoked").status_code) == (401, 401)
    assert calls == ["alice", "mallory"]
    until(lambda: not renewals())


def test_a_class_authenticates_before_its_handler(key):
    """What dispatch() refuses is refused again, and nothing is replayed to it."""
    calls = []

    class Base(View):
        def dispatch(self, request, *args, **kwargs):
            if request.headers.get("Authorization") != "good":
                return HttpResponse(status=403)
            return super().dispatch(request, *args, **kwargs)

    @idempotent
    class Pay(Base):
        def post(self, request):
            calls.append(1)
            return HttpResponse("paid")

    @idempotent(scope=lambda request: "all")
    class PayAll(Pay):
        pass

    for view in (Pay.as_view(), PayAll.as_view()):
        calls.clear()
        good = {"headers": {"Authorization": "good"}}
        assert view(post(key, **good)).content == b"paid"
        assert view(post(key)).status_code == 403
        assert view(post(key, **good)).content == b"paid"
        assert calls == [1]
    with pytest.raises(ConfigurationError, match="not a subclass of django"):
        idempotent(type("Plain", (), {}))


@pytest.mark.parametrize("client", [None, ""])
def test_a_scope_without_a_client_is_an_error(key, client):
    """All clients would share their responses."""
    shop = Counting(scope=lambda request: client)
    with pytest.raises(ConfigurationError, match=f"^scope of @idempotent returned {client!r}; exp"):
        shop.view(post(key))
    assert shop.calls == 0


def test_an_async_class_runs_once(key, until):
    """As its async methods do."""
    calls = []

    @idempotent
    class Once(View):
        async def post(self, request):
            calls.append(1)
            return JsonResponse({"n": len(calls)})

    async def run():
        view = Once.as_view()
        return [(await view(post(key, user=1))).content for _ in range(3)]

    assert asyncio.run(run()) == [b'{"n": 1}'] * 3
    until(lambda: not renewals())


@pytest.mark.parametrize("status", [401, 403, 408, 409, 423, 425, 429, 500, 503])
def test_responses_that_ask_to_try_again_are_not_stored(key, status):
    """The next request runs the view."""
    shop = Counting(lambda number: HttpResponse(status=status if number == 1 else 201))
    assert [shop.view(post(key)).status_code for _ in range(3)] == [status, 201, 201]
    assert shop.calls == 2


def test_limits_of_the_moment_are_not_replayed(key):
    """Retry-After and the headers of rate limits are of the first request."""

    def respond(number):
        names = ("Retry-After", "RateLimit", "RateLimit-Policy", "X-RateLimit-Remaining")
        return HttpResponse("x", headers={**dict.fromkeys(names, "1"), "X-Kept": "1"})

    shop = Counting(respond)
    shop.view(post(key))
    replay = shop.view(post(key))
    assert set(replay.headers) == {"Content-Type", "X-Kept", "Idempotency-Replayed"}


def test_a_body_over_max_bytes_is_left_out(key):
    """The status and the headers are replayed, and the client is told."""
    shop = Counting(lambda number: HttpResponse("x" * 11, status=201), max_bytes=10)
    assert len(shop.view(post(key)).content) == 11
    replay = shop.view(post(key))
    assert (replay.status_code, replay.content) == (201, b"")
    assert replay["Idempotency-Body-Omitted"] == "true"
    assert shop.calls == 1


@pytest.mark.parametrize(
    "error", [{"status": 500}, {"status": 400, "code": "AccessDeniedException"}]
)
def test_a_response_that_cannot_be_stored_is_not_processed_again(
    alias, key, dynamo_faults, until, error
):
    """Its body is lost, and the request counts as processed; renewed until that is stored."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    shop = Counting(lambda number: HttpResponse(b"\xff" * 20_000, status=201), using=using)
    dynamo_faults.fail("BatchWriteItem", times=1, **error)
    assert shop.view(post(key)).status_code == 201
    until(lambda: not renewals())
    replay = shop.view(post(key))
    assert (replay.status_code, replay["Idempotency-Body-Omitted"]) == (201, "true")
    assert shop.calls == 1


def test_the_error_of_a_view_is_not_stored(key):
    """It may hold what nobody but its developers should read."""

    def respond(number):
        raise ValueError("secret")

    shop = Counting(respond, scope=lambda request: "all")
    with pytest.raises(ValueError, match="secret"):
        shop.view(post(key))
    pk = keys.dedupe_job(f"idempotent:all:{key}").pk
    assert DedupeJob.get(pk, keys.JOB).error is None


def test_a_quoted_key_is_the_bare_key(key):
    """The draft's header is a quoted string."""
    shop = Counting()
    for each in (key, f'"{key}"'):
        shop.view(post(each))
    assert shop.calls == 1


def test_a_client_that_goes_away_leaves_nothing_running(alias, key, dynamo_faults, until):
    """While the job is taken and while the view runs; the next request is processed."""
    using = alias(ENDPOINT_URL=dynamo_faults.url)
    started = []

    @idempotent(using=using)
    async def slow(request):
        started.append(1)
        if len(started) == 1:
            await asyncio.sleep(60)
        return HttpResponse("done")

    async def run():
        dynamo_faults.delay(1.0, "UpdateItem", times=1)
        task = asyncio.ensure_future(slow(post(key, user=1)))
        while not dynamo_faults.requests["UpdateItem"]:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert started == []

    asyncio.run(run())
    until(lambda: not renewals())
    # DynamoDB carries the request out all the same.
    jobs = DedupeStore(using).jobs
    until(lambda: (job := effects.run(jobs.get_job(_job(key)))) is not None and fence_of(job))
    until(lambda: not DedupeStore(using).is_in_progress(_job(key)))

    async def run_again():
        task = asyncio.ensure_future(slow(post(key, user=1)))
        while not started:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run_again())
    until(lambda: not renewals())
    until(lambda: not DedupeStore(using).is_in_progress(_job(key)))
    assert asyncio.run(slow(post(key, user=1))).content == b"done"
    assert len(started) == 2


def _job(key):
    return f"idempotent:testserver:user:1:{key}"


@pytest.mark.django_db
def test_a_rendering_that_fails_frees_the_request(key, until):
    """And a response that is replaced before it is rendered."""
    template = engines["django"].from_string("{{ fail }}")

    class Failing:
        def __str__(self):
            raise ValueError("no")

    shop = Counting(lambda number: TemplateResponse(None, template, {"fail": Failing()}))
    kept = [post(key) for _ in range(3)]
    with pytest.raises(ValueError, match="no"):
        shop.view(kept[0]).render()
    replaced = shop.view(kept[1])
    replaced.close()
    shop.view(kept[2])
    assert shop.calls == 3
    del kept, replaced
    gc.collect()
    until(lambda: not renewals())


def test_a_request_that_is_dropped_frees_its_job(key, until):
    """Whatever became of its response."""
    template = engines["django"].from_string("x")
    shop = Counting(lambda number: TemplateResponse(None, template))
    shop.view(post(key))
    gc.collect()
    until(lambda: not renewals())
    until(
        lambda: not DedupeStore().is_in_progress(f"idempotent:testserver:address:127.0.0.1:{key}")
    )
    assert shop.view(post(key)).render().content == b"x"
    assert shop.calls == 2


@pytest.mark.django_db(transaction=True)
def test_a_response_is_stored_when_the_transaction_is_committed(key):
    """Not before: another request is told that this one is in progress."""
    shop = Counting()
    with transaction.atomic():
        response = shop.view(post(key))
        assert shop.view(post(key)).status_code == 409
    response.close()
    assert shop.view(post(key)).content == response.content
    assert shop.calls == 1


@pytest.mark.django_db(transaction=True)
def test_a_response_of_a_transaction_that_is_rolled_back_is_not_stored(key, until):
    """The request is freed when its response is closed, or at the error of the commit."""
    shop = Counting()
    first, request = post(key), post(key)
    with transaction.atomic():
        response = shop.view(first)
        transaction.set_rollback(True)
    response.close()

    def fail_at_commit():
        with transaction.atomic():
            shop.view(request)
            raise IntegrityError

    with pytest.raises(IntegrityError):
        fail_at_commit()
    got_request_exception.send(sender=None, request=request)
    until(lambda: not renewals())
    with transaction.atomic():
        third = post(key)
        last = shop.view(third)
    assert shop.view(post(key)).content == last.content
    assert shop.calls == 3


@pytest.mark.django_db(transaction=True)
def test_work_of_an_inner_block_is_stored_with_its_request(key):
    """A view with a transaction of its own has committed it when it returns."""

    def respond(number):
        with transaction.atomic():
            User.objects.create_user(f"user{number}")
        return HttpResponse("made")

    shop = Counting(respond)
    assert [shop.view(post(key)).content for _ in range(2)] == [b"made"] * 2
    assert User.objects.count() == 1


@pytest.mark.django_db
def test_inside_testcase_a_response_is_stored_at_once(key):
    """The transaction of TestCase is never committed."""
    shop = Counting()
    for _ in range(2):
        shop.view(post(key))
    assert shop.calls == 1
