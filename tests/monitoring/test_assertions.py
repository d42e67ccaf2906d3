"""Assertions about operations, for tests of projects."""

from __future__ import annotations

import asyncio
import io
import re
import threading
import unittest

import pytest
from django.http import HttpResponse
from django.test import AsyncClient, Client, SimpleTestCase, override_settings
from django.urls import path

from dynamo_stores.client import get_dynamodb_client
from dynamo_stores.client.operations import Put
from dynamo_stores.conf import get_config
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import (
    DynamoDBAssertions,
    assertNoAdvice,
    assertNoScan,
    assertNumOperations,
)

pytestmark = pytest.mark.usefixtures("empty_tables")


def view(request):
    CacheStore().get("s3cret")
    return HttpResponse()


async def aview(request):
    await CacheStore().aget("s3cret")
    return HttpResponse()


urlpatterns = [path("sync", view), path("async", aview)]


def message(assertion, block):
    with pytest.raises(AssertionError) as failed, assertion:
        block()
    return str(failed.value)


def read():
    CacheStore().get("s3cret")


def test_the_right_number_of_operations():
    with assertNumOperations(2) as recorder:
        read()
        CacheStore().set("s3cret", 1)
    assert [each.operation for each in recorder.operations] == ["GetItem", "PutItem"]
    with assertNumOperations(0):
        pass


def test_the_message_lists_the_operations():
    """With their lines; without keys."""
    text = message(assertNumOperations(2), read)
    table = re.escape(get_config().store_table)
    lines = text.splitlines()
    assert lines[0] == "1 operation made, 2 expected:"
    assert re.fullmatch(
        rf"1\. GetItem on {table}, tests/monitoring/test_assertions.py:\d+ in read, .*", lines[1]
    )
    assert "s3cret" not in text
    assert message(assertNumOperations(1), lambda: None) == "0 operations made, 1 expected."


def test_a_long_list_is_cut():
    text = message(assertNumOperations(1), lambda: [read() for _ in range(53)])
    assert text.startswith("53 operations made, 1 expected:")
    assert text.endswith("… and 3 more")


def test_operations_of_one_table_and_kind(alias):
    """By the table's name in the model or in DynamoDB, in batches and transactions too."""
    client, other = get_dynamodb_client(), alias()
    real = get_config().real_name("posts")

    def work():
        client.get("posts", {"id": "a"})
        client.put("lines", {"order": "a", "line": 1})
        client.transact_write([Put("lines", {"order": "a", "line": 1}), Put("posts", {"id": "a"})])
        client.batch_write("posts", puts=[{"id": "b"}])
        CacheStore(other).get("k")

    for number, wanted in (
        (5, {}),
        (3, {"table": "posts"}),
        (3, {"table": real}),
        (2, {"table": "lines"}),
        (1, {"table": "lines", "operation": "TransactWriteItems"}),
        (2, {"operation": "GetItem"}),
        (1, {"using": other}),
        (0, {"table": "no-such"}),
    ):
        with assertNumOperations(number, **wanted):
            work()


def test_scans():
    client = get_dynamodb_client()
    with assertNoScan():
        list(client.query("lines", "#o = :o", names={"#o": "order"}, values={":o": "a"}))
    text = message(assertNoScan(), lambda: list(client.scan("posts")))
    assert text.startswith(
        f"1 operation made, no Scan expected:\n1. Scan on {get_config().real_name('posts')}, tests/"
    )
    with assertNoScan(table="lines"):
        list(client.scan("posts"))


def test_advice():
    """Problems, and hints if they are asked for."""
    client = get_dynamodb_client()

    def scan():
        list(client.scan("posts"))

    def hint():
        client.get("posts", {"id": "a"}, consistent=True)

    text = message(assertNoAdvice(), scan)
    assert text.startswith("Findings about operations:\nscan: ")
    assert re.search(
        r"\n1\. Scan on \S+posts, tests/monitoring/test_assertions.py:\d+ in scan", text
    )
    with assertNoAdvice(ignore=["scan"]):
        scan()
    with assertNoAdvice(table="lines"):
        scan()
    with assertNoAdvice():
        hint()
    assert "\nstrong-reads: " in message(assertNoAdvice(hints=True), hint)

    def one_by_one():
        for each in "abcd":
            client.get("posts", {"id": each})

    with assertNoAdvice():
        one_by_one()
    text = message(assertNoAdvice(one_by_one=4), one_by_one)
    assert "\nreads-one-by-one: " in text
    assert ".:" not in text


def test_an_error_of_the_block_is_raised():
    with pytest.raises(KeyError), assertNumOperations(7):
        raise KeyError


def test_async_code():
    async def work():
        with assertNumOperations(2):
            await asyncio.gather(CacheStore().aget("a"), CacheStore().aget("b"))
        failure = pytest.raises(AssertionError, match="1 operation made, 0 expected")
        with failure, assertNumOperations(0):
            await CacheStore().aget("a")

    asyncio.run(work())


@override_settings(ROOT_URLCONF=__name__, MIDDLEWARE=[])
def test_requests_of_djangos_clients():
    """Sync and async clients, with sync and async views each."""

    async def visit():
        with assertNumOperations(1):
            await AsyncClient().get("/async")
        with assertNumOperations(1):
            await AsyncClient().get("/sync")

    with assertNumOperations(1):
        Client().get("/sync")
    with assertNumOperations(1):
        Client().get("/async")
    asyncio.run(visit())


def test_other_threads_do_not_count():
    with assertNumOperations(0):
        thread = threading.Thread(target=read)
        thread.start()
        thread.join()


class Tests(DynamoDBAssertions, SimpleTestCase):
    """Run by the test below."""

    def right(self):
        with self.assertNumOperations(1), self.assertNoScan(), self.assertNoAdvice():
            read()

    def wrong(self):
        with self.assertNumOperations(2):
            read()


def test_methods_of_a_test_case():
    outcome = unittest.TextTestRunner(stream=io.StringIO()).run(
        unittest.TestSuite([Tests("right"), Tests("wrong")])
    )
    ((failed, text),) = outcome.failures
    assert (outcome.testsRun, outcome.errors) == (2, [])
    assert failed.id().endswith(".wrong")
    assert "1 operation made, 2 expected" in text
