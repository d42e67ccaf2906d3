"""Pages with an offence each: the middleware logs exactly that finding, sync and async."""

from __future__ import annotations

import asyncio
import logging

import pytest
from asgiref.sync import sync_to_async
from django.core import checks
from django.http import HttpResponse
from django.test import AsyncClient, Client, RequestFactory
from django.urls import path

from dynamo_stores.calls import observer
from dynamo_stores.checks import check_advice
from dynamo_stores.client import get_dynamodb_client
from dynamo_stores.client.operations import Put
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.middleware import AdviceMiddleware
from dynamo_stores.stores import CacheStore

SECRET = "s3cret"
MIDDLEWARE = "dynamo_stores.middleware.AdviceMiddleware"
POSTS = [{"id": f"{SECRET}{number}", "parent": SECRET, "at": number} for number in range(20)]
LINES = [{"order": SECRET, "line": number, "text": "x"} for number in range(20)]
LONG = [{"order": "long", "line": number, "text": "x" * 30_000} for number in range(3)]


def nothing(client):
    client.get("posts", {"id": POSTS[0]["id"]})
    client.batch_get("posts", [{"id": each["id"]} for each in POSTS])
    list(client.query("lines", "#o = :o", names={"#o": "order"}, values={":o": SECRET}))


def scan(client):
    list(client.scan("posts"))


def reads_one_by_one(client):
    for each in POSTS[:5]:
        client.get("posts", {"id": each["id"]})


def writes_one_by_one(client):
    for each in POSTS[:5]:
        client.put("posts", each)


def repeated_reads(client):
    for _ in range(2):
        client.get("posts", {"id": SECRET})


def filtered(client):
    names, values = {"#o": "order", "#t": "text"}, {":o": SECRET, ":t": SECRET}
    list(client.query("lines", "#o = :o", filter="#t = :t", names=names, values=values))


def many_pages(client):
    names, values = {"#o": "order"}, {":o": SECRET}
    for number in range(3):
        start = {"order": SECRET, "line": 10 + number}
        list(client.query("lines", "#o = :o", names=names, values=values, start=start))


def single_transaction(client):
    client.transact_write([Put("posts", POSTS[0])])


def strong_reads(client):
    client.get("posts", {"id": SECRET}, consistent=True)


def wide_reads(client):
    list(client.query("lines", "#o = :o", names={"#o": "order"}, values={":o": "long"}))


def hot_key(client):
    for _ in range(20):
        client.update("posts", {"id": SECRET}, "ADD hits :one", values={":one": 1})


def overwrites(client):
    found = client.get("posts", {"id": POSTS[0]["id"]})
    client.put("posts", {**found, "at": 7})


def unit_boundary(client):
    for number in range(5):
        item = {"id": f"{number}", "text": "x" * 1040}
        client.put("posts", item, condition="attribute_not_exists(id)")


PROBLEMS = [scan, reads_one_by_one, writes_one_by_one, repeated_reads, filtered, many_pages]
HINTS = [single_transaction, strong_reads, wide_reads, hot_key, overwrites, unit_boundary]
PAGES = {each.__name__: each for each in (nothing, *PROBLEMS, *HINTS)}


def view(request, name):
    PAGES[name](get_dynamodb_client())
    return HttpResponse(name)


async def aview(request, name):
    await sync_to_async(PAGES[name])(get_dynamodb_client())
    return HttpResponse(name)


async def own_view(request):
    client = get_dynamodb_client()
    for each in POSTS[:5]:
        await client.aget("posts", {"id": each["id"]})
    return HttpResponse()


def fails(request):
    list(get_dynamodb_client().scan("posts"))
    raise ValueError


urlpatterns = [
    path("sync/<name>", view, name="page"),
    path("async/<name>", aview, name="async-page"),
    path("own", own_view),
    path("fails", fails, name="fails"),
]


@pytest.fixture
def project(settings, empty_tables):
    """A project in development, with items in its tables."""
    settings.DEBUG = True
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [MIDDLEWARE]
    empty_tables.batch_write("posts", puts=POSTS)
    empty_tables.batch_write("lines", puts=[*LINES, *LONG])
    # Their key names are known from then on.
    empty_tables.get("posts", {"id": "-"})
    return settings


@pytest.fixture
def advice(settings):
    """``advice(ENABLED=True)`` sets the group of settings."""

    def change(**changes):
        default = settings.DYNAMO_STORES["default"]
        settings.DYNAMO_STORES = {"default": {**default, "ADVICE": changes}}

    return change


@pytest.fixture
def logged(caplog):
    """``logged()`` returns the records of findings."""
    caplog.set_level(logging.INFO, "dynamo_stores")
    return lambda: [each for each in caplog.records if hasattr(each, "dynamodb_finding")]


def visit(kind, name):
    if kind == "sync":
        return Client(raise_request_exception=False).get(f"/sync/{name}")
    return asyncio.run(AsyncClient(raise_request_exception=False).get(f"/async/{name}"))


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_finding_of_its_offence(project, logged, kind, name):
    """And no other; without keys and values."""
    assert visit(kind, name).status_code == 200
    found = [each.dynamodb_finding for each in logged()]
    assert found == ([] if name == "nothing" else [name.replace("_", "-")])
    for record in logged():
        is_problem = PAGES[name] in PROBLEMS
        assert record.levelno == (logging.WARNING if is_problem else logging.INFO)
        assert record.dynamodb_view == ("page" if kind == "sync" else "async-page")
        assert record.getMessage().startswith(f"{record.dynamodb_view}: ")
        assert SECRET not in record.getMessage()


@pytest.mark.usefixtures("project")
def test_an_async_view_of_its_own(logged):
    """Without a thread; a view without a name is called by its path in Python."""
    asyncio.run(AsyncClient().get("/own"))
    (record,) = logged()
    assert (record.dynamodb_finding, record.dynamodb_count) == ("reads-one-by-one", 5)
    assert record.dynamodb_view == f"{__name__}.own_view"


@pytest.mark.usefixtures("project")
def test_requests_side_by_side_are_apart(logged):
    """Nothing is found about four reads here and four there."""

    async def few(request):
        client = get_dynamodb_client()
        for each in POSTS[request.first : request.first + 4]:
            await client.aget("posts", {"id": each["id"]})
            await asyncio.sleep(0)
        return HttpResponse()

    async def serve():
        middleware = AdviceMiddleware(few)
        requests = [RequestFactory().get("/") for _ in range(3)]
        for number, request in enumerate(requests):
            request.first = 4 * number
        await asyncio.gather(*map(middleware, requests))

    asyncio.run(serve())
    assert logged() == []


@pytest.mark.usefixtures("project")
def test_a_page_that_fails_has_findings_too(logged):
    client = Client(raise_request_exception=False)
    assert client.get("/fails").status_code == 500
    assert [each.dynamodb_finding for each in logged()] == ["scan"]


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize(
    ("fault", "finding", "words"),
    [
        (
            lambda faults: faults.throttle("Query", times=2),
            "throttled",
            "2 attempts of 1 operation",
        ),
        (
            lambda faults: faults.take_in_part("BatchWriteItem", 1, times=1),
            "throttled",
            "1 attempt",
        ),
        (
            lambda faults: faults.fail("Query", times=1),
            "retried",
            "was repeated after StoreUnavailable",
        ),
    ],
    ids=["throttled", "in part", "no answer"],
)
def test_attempts_that_failed(settings, logged, dynamo_faults, fault, finding, words):
    default = settings.DYNAMO_STORES["default"]
    settings.DYNAMO_STORES = {"default": {**default, "ENDPOINT_URL": dynamo_faults.url}}
    fault(dynamo_faults)

    def troubled(client):
        client.batch_write("posts", puts=POSTS[:3])
        list(client.query("lines", "#o = :o", names={"#o": "order"}, values={":o": SECRET}))

    PAGES["troubled"] = troubled
    try:
        visit("sync", "troubled")
    finally:
        del PAGES["troubled"]
    (record,) = logged()
    assert record.dynamodb_finding == finding
    assert words in record.getMessage()


def test_the_same_finding_of_a_view_is_logged_once_in_a_while(
    project, advice, logged, dynamo_clock
):
    advice(INTERVAL=30)
    client = Client()
    client.get("/sync/scan")
    client.get("/sync/scan")
    dynamo_clock.advance(29)
    client.get("/sync/scan")
    assert len(logged()) == 1
    client.get("/sync/repeated_reads")
    assert len(logged()) == 2
    dynamo_clock.advance(1.5)
    client.get("/sync/scan")
    assert len(logged()) == 3


@pytest.mark.usefixtures("project")
def test_settings_of_the_findings(advice, logged):
    """Codes that are ignored, and the number for a batch."""
    advice(IGNORE=["scan"], ONE_BY_ONE=6)
    visit("sync", "scan")
    visit("sync", "reads_one_by_one")
    assert logged() == []


@pytest.mark.parametrize(
    ("debug", "enabled", "is_used"),
    [
        (True, None, True),
        (False, None, False),
        (False, True, True),
        (True, False, False),
    ],
)
def test_where_it_is_used(project, advice, logged, debug, enabled, is_used):
    """With DEBUG, unless the setting says otherwise. Elsewhere nothing is observed."""
    project.DEBUG = debug
    advice(ENABLED=enabled)
    seen = []

    def look(client):
        list(client.scan("posts"))
        seen.append(observer.is_every_operation_observed())

    PAGES["look"] = look
    try:
        visit("sync", "look")
    finally:
        del PAGES["look"]
    assert bool(logged()) == is_used
    assert seen == [is_used]


def test_the_check(settings, advice):
    """It warns where the middleware is on without DEBUG, and nowhere else."""
    settings.MIDDLEWARE = [MIDDLEWARE]
    assert check_advice() == []
    advice(ENABLED=True)
    assert [each.id for each in check_advice()] == ["dynamo_stores.W021"]
    assert "dynamo_stores.W021" in [each.id for each in checks.run_checks()]
    settings.DEBUG = True
    assert check_advice() == []
    settings.DEBUG, settings.MIDDLEWARE = False, []
    assert check_advice() == []


def test_an_unknown_code_is_refused(advice):
    advice(IGNORE=["scans"])
    with pytest.raises(ConfigurationError, match=r"\['IGNORE'\] is \['scans'\]; .* Known: scan, "):
        get_config()


@pytest.mark.usefixtures("project")
def test_the_stores_own_calls(logged):
    """A loop of cache reads is a finding; what the stores decide themselves is not."""
    store = CacheStore()

    def cached(client):
        store.set("a", "v" * 100_000)
        store.get("a")
        for number in range(5):
            store.get(f"missing-{number}")

    PAGES["cached"] = cached
    try:
        visit("sync", "cached")
    finally:
        del PAGES["cached"]
    (record,) = logged()
    assert record.dynamodb_finding == "reads-one-by-one"
    assert get_config().store_table in record.getMessage()
