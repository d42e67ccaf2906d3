"""The verbs of the client, against a plain boto3 client."""

from __future__ import annotations

import asyncio
import logging
import secrets
from decimal import Decimal

import pytest
from boto3.dynamodb.conditions import Key
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pynamodb.attributes import NumberAttribute, UnicodeAttribute

from dynamo_stores.calls.observer import measuring
from dynamo_stores.calls.policy import deadline
from dynamo_stores.client import Check, Delete, Get, Put, Update, get_dynamodb_client
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import (
    AnswerError,
    ConditionFailedError,
    ConfigurationError,
    InvalidRequestError,
    ItemTooLargeError,
    StoreError,
    TableMissingError,
    ThrottlingError,
    TransactionCancelledError,
)
from dynamo_stores.models import DynamoModel
from tests.client.test_values import VALUES, plain


class Node(DynamoModel):
    """PynamoDB's expressions need a model; the client needs none."""

    class Meta:
        table_name = "posts"

    id = UnicodeAttribute(hash_key=True)
    title = UnicodeAttribute(null=True)
    count = NumberAttribute(null=True)


def operations(found):
    """Return the operations that were measured, in order."""
    return [each.operation for each in found]


NAMES = st.text(min_size=1, max_size=20).filter(lambda name: name not in ("id", "parent", "at"))


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_items_are_those_of_boto3(client, bare, attributes):
    """What one of them puts, the other gets; one call each."""
    item = {"id": "a", **attributes}
    with measuring() as found:
        client.put("posts", item)
        assert client.get("posts", {"id": "a"}, consistent=True) == item
    assert operations(found) == ["PutItem", "GetItem"]
    assert plain(bare("posts").get_item(Key={"id": "a"})["Item"]) == item
    bare("posts").put_item(Item={**item, "id": "b"})
    assert client.get("posts", {"id": "b"}) == {**item, "id": "b"}


def test_put_and_delete_return_the_old_item_if_asked(client):
    """None without one, and without the question."""
    assert client.put("posts", {"id": "a", "n": 1}, return_old=True) is None
    assert client.put("posts", {"id": "a", "n": 2}) is None
    assert client.put("posts", {"id": "a", "n": 3}, return_old=True) == {"id": "a", "n": 2}
    assert client.delete("posts", {"id": "a"}, return_old=True) == {"id": "a", "n": 3}
    assert client.delete("posts", {"id": "a"}, return_old=True) is None
    assert client.get("posts", {"id": "a"}) is None


def test_update(client):
    """In DynamoDB's language and in PynamoDB's; it returns the named attributes."""
    changed = client.update(
        "posts", {"id": "a"}, "SET #t = :t ADD #c :one",
        names={"#t": "title", "#c": "count"}, values={":t": "first", ":one": 1},
    )  # fmt: skip
    assert changed == {"id": "a", "title": "first", "count": 1}
    changed = client.update(
        "posts", {"id": "a"}, [Node.title.set("second"), Node.count.add(2)],
        condition=Node.count == 1, returns="UPDATED_OLD",
    )  # fmt: skip
    assert changed == {"title": "first", "count": 1}
    assert client.update("posts", {"id": "a"}, Node.title.remove(), returns="NONE") is None
    assert client.get("posts", {"id": "a"}) == {"id": "a", "count": 3}


def test_conditions_in_both_languages_in_one_request(client):
    """Their names and values do not meet."""
    client.put("posts", {"id": "a", "title": "x", "count": 5})
    changed = client.update(
        "posts", {"id": "a"}, "SET #c = :c", condition=(Node.title == "x") & (Node.count > 4),
        names={"#c": "count"}, values={":c": 6},
    )  # fmt: skip
    assert changed["count"] == 6
    with pytest.raises(
        InvalidRequestError, match=r"placeholder :0 is used by an expression of Pyn"
    ):
        client.update(
            "posts", {"id": "a"}, "SET #c = :0", condition=Node.title == "x",
            names={"#c": "count"}, values={":0": 6},
        )  # fmt: skip


def test_projections(client):
    """As text, or as names, paths and attributes."""
    client.put("posts", {"id": "a", "title": "t", "size": 1, "m": {"x": [1, 2], "y": 3}})
    get = client.get
    assert get("posts", {"id": "a"}, projection="id, #s", names={"#s": "size"}) == {
        "id": "a", "size": 1,
    }  # fmt: skip
    assert get("posts", {"id": "a"}, projection=["size", Node.title]) == {"size": 1, "title": "t"}
    assert get("posts", {"id": "a"}, projection=["m.x[1]"]) == {"m": {"x": [2]}}
    assert get("posts", {"id": "a"}, projection={"size"}) == {"size": 1}
    assert get("posts", {"id": "a"}, projection=Node.title) == {"title": "t"}


def test_a_failed_condition_has_the_item_as_it_is(client):
    """For each kind of write; nothing was written."""
    client.put("posts", {"id": "a", "n": 8127364})
    missing = "attribute_not_exists(id)"
    for write in (
        lambda: client.put("posts", {"id": "a", "n": 2}, condition=missing),
        lambda: client.update(
            "posts", {"id": "a"}, "SET n = :n", values={":n": 2}, condition=missing
        ),
        lambda: client.delete("posts", {"id": "a"}, condition=Node.id.does_not_exist()),
    ):
        with pytest.raises(ConditionFailedError) as caught:
            write()
        assert caught.value.item == {"id": "a", "n": 8127364}
        assert caught.value.code == "ConditionalCheckFailedException"
        assert "8127364" not in str(caught.value)
    with pytest.raises(ConditionFailedError) as caught:
        client.put("posts", {"id": "b"}, condition="attribute_exists(id)")
    assert caught.value.item is None
    assert client.get("posts", {"id": "a"}) == {"id": "a", "n": 8127364}


def fill(client, count, **attributes):
    items = [
        {"order": "a", "line": line, "even": line % 2 == 0, **attributes} for line in range(count)
    ]
    client.batch_write("lines", puts=[*items, {"order": "b", "line": 1}])
    return items


def test_query(client):
    """In the order of the sort key or against it, within limits, page after page."""
    items = fill(client, 25)
    condition, values = "#o = :o", {":o": "a"}
    options = {"names": {"#o": "order"}, "values": values}
    assert list(client.query("lines", condition, **options)) == items
    backwards = client.query("lines", condition, **options, descending=True, limit=3)
    assert list(backwards) == items[:21:-1]
    assert backwards.all() == items[:21:-1]
    with measuring() as found:
        assert list(client.query("lines", condition, **options, limit=7, page_size=3)) == items[:7]
        assert list(client.query("lines", condition, **options, limit=7)) == items[:7]
    assert operations(found) == ["Query"] * 4
    some = client.query(
        "lines", "#o = :o AND #l > :l", filter="even = :no", names={"#o": "order", "#l": "line"},
        values={":o": "a", ":l": 3, ":no": False}, projection=["line"], consistent=True, limit=2,
    )  # fmt: skip
    assert list(some) == [{"line": 5}, {"line": 7}]
    assert list(some) == [{"line": 5}, {"line": 7}]


def test_pages_go_on_where_the_last_one_ended(client):
    """By a key of plain values, which may be kept as JSON."""
    items = fill(client, 10)
    found, start, sizes = [], None, []
    while True:
        page = client.query(
            "lines", "#o = :o", names={"#o": "order"}, values={":o": "a"}, page_size=4, start=start
        ).page()
        found += page.items
        sizes.append(len(page.items))
        if (start := page.last_key) is None:
            break
        assert set(start) == {"order", "line"}
    assert found == items
    assert sizes == [4, 4, 2]
    condition = {"condition": "#o = :o", "names": {"#o": "order"}, "values": {":o": "a"}}
    assert len(client.query("lines", **condition, page_size=8, limit=3).page().items) == 3


def test_scan_in_segments(client):
    """Each item is in one of them."""
    fill(client, 40)
    found = [
        each["line"]
        for at in range(3)
        for each in client.scan("lines", segment=at, total_segments=3)
    ]
    assert sorted(found) == sorted([*range(40), 1])
    assert len(list(client.scan("lines", limit=5))) == 5


def test_an_iteration_over_more_than_one_page_of_a_megabyte(client):
    """5 MB; an engine with pages of 1 MB takes at least five requests."""
    items = fill(client, 25, text="x" * 200_000)
    with measuring() as found:
        read = list(client.query("lines", "#o = :o", names={"#o": "order"}, values={":o": "a"}))
    assert read == items
    assert len(found) == 1 or len(found) >= 5


def test_batch_get(client, bare):
    """Keys that are given twice are read once; 100 keys a call."""
    fill(client, 130)
    keys = [{"order": "a", "line": line} for line in range(131)]
    with measuring() as found:
        items = client.batch_get("lines", [*keys, keys[0], {"order": "a", "line": Decimal("3.0")}])
    assert operations(found) == ["BatchGetItem"] * 2
    assert sorted(each["line"] for each in items) == list(range(130))
    assert client.batch_get("lines", []) == []
    lines = client.batch_get("lines", keys[:2], projection=["line"], consistent=True)
    assert sorted(each["line"] for each in lines) == [0, 1]
    with pytest.raises(InvalidRequestError, match="different attributes"):
        client.batch_get("lines", [{"order": "a", "line": 1}, {"order": "a"}])


def test_transactions(client):
    """All or none, on several tables, and reads as of one moment."""
    client.put("posts", {"id": "a", "n": 1})
    client.put("posts", {"id": "gone"})
    with measuring() as found:
        client.transact_write(
            [
                Update("posts", {"id": "a"}, "SET n = n + :one", values={":one": 1}),
                Put("lines", {"order": "a", "line": 1}, condition="attribute_not_exists(line)"),
                Delete("posts", {"id": "gone"}),
                Check("posts", {"id": "none"}, Node.id.does_not_exist()),
            ]
        )
        items = client.transact_get(
            [
                Get("posts", {"id": "a"}),
                Get("posts", {"id": "gone"}),
                Get("lines", {"order": "a", "line": 1}, projection=["line"]),
            ]
        )
    assert operations(found) == ["TransactWriteItems", "TransactGetItems"]
    assert items == [{"id": "a", "n": 2}, None, {"line": 1}]


def test_a_cancelled_transaction_has_its_reasons(client):
    """One for each operation, with the item as it is; nothing was written."""
    client.put("posts", {"id": "a", "n": 1})
    with pytest.raises(TransactionCancelledError, match="1: ConditionalCheckFailed") as caught:
        client.transact_write(
            [
                Put("posts", {"id": "b"}),
                Put("posts", {"id": "a"}, condition=Node.id.does_not_exist()),
            ]
        )
    first, second = caught.value.reasons
    assert (first.code, first.item) == ("", None)
    assert (second.code, second.item) == ("ConditionalCheckFailed", {"id": "a", "n": 1})
    assert client.get("posts", {"id": "b"}) is None


def test_a_transaction_with_a_token_is_carried_out_once(client):
    """The second call with it does nothing."""
    client.put("posts", {"id": "a", "n": 1})
    token = secrets.token_hex(8)
    for _ in range(2):
        client.transact_write(
            [Update("posts", {"id": "a"}, "ADD n :one", values={":one": 1})], token=token
        )
    assert client.get("posts", {"id": "a"})["n"] == 2


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda c: c.put("posts", {"id": 1.5}), r"item\['id'\] is a float"),
        (lambda c: c.get("posts", {"id": "a"}, names={"n": "x"}), "begins with '#'"),
        (
            lambda c: c.update("posts", {"id": "a"}, "SET a = :a", values={"a": 1}),
            "begins with ':'",
        ),
        (lambda c: c.update("posts", {"id": "a"}, ""), "UpdateExpression is empty"),
        (lambda c: c.update("posts", {"id": "a"}, []), "neither text nor actions"),
        (lambda c: c.update("posts", {"id": "a"}, 5), "neither text nor actions"),
        (lambda c: c.get("posts", {"id": "a"}, projection=[]), r"projection is \[\]; expected"),
        (lambda c: c.get("posts", {"id": "a"}, projection=[1]), r"projection is \[1\]; expected"),
        *(
            (
                lambda c, wrong=wrong: c.get("posts", {"id": "a"}, projection=wrong),
                "expected names and paths such as",
            )
            for wrong in ([""], ["a", ""], ["a..b"], ["a["], [UnicodeAttribute()])
        ),
        (lambda c: c.get("posts", {"id": "a"}, names={"#a": 5}), r"names\['#a'\] is 5; expected"),
        *(
            (call, "has half of a character")
            for call in (
                lambda c: c.get("posts", {"id": "a"}, projection="a\ud800"),
                lambda c: c.get("posts", {"id": "a"}, projection=["a\ud800"]),
                lambda c: c.get("posts", {"id": "a"}, projection="#a", names={"#a": "\ud800"}),
                lambda c: c.get("posts", {"id": "a"}, projection="#a", names={"#\ud800": "a"}),
                lambda c: c.update("posts", {"id": "a"}, "SET a = :x\ud800", values={":x": 1}),
                lambda c: c.query("posts", "id = :i", values={":i": "a"}, index="i\ud800"),
                lambda c: c.get("posts\ud800", {"id": "a"}),
            )
        ),
        (lambda c: c.scan("posts", segment="1", total_segments=2), "segment is '1' of 2"),
        (
            lambda c: c.update("posts", {"id": "a"}, "SET a = :a", returns="NEW"),
            "expected one of NO",
        ),
        (lambda c: c.query("posts", 5), "KeyConditionExpression is int"),
        (lambda c: c.query("posts", "id = :i", limit=0), "limit is 0; expected 1 or more"),
        (lambda c: c.scan("posts", segment=2, total_segments=2), "segment is 2 of 2"),
        (lambda c: c.get(None, {"id": "a"}), "table is None; expected its name"),
        (lambda c: c.get("posts", "a"), "key is of the type str; expected a dict"),
        (lambda c: c.transact_write([]), "0 operations; expected 1 to 100"),
        (
            lambda c: c.transact_write([Get("posts", {"id": "a"})]),
            "Operation 0 .* is Get; expected",
        ),
        (lambda c: c.transact_get([Put("posts", {"id": "a"})]), "is Put; expected Get"),
    ],
)
def test_wrong_arguments_are_refused_before_a_call(client, call, words):
    """The message names the argument and what was expected."""
    with measuring() as found, pytest.raises(InvalidRequestError, match=words):
        call(client)
    assert not found


def test_errors_of_dynamodb_are_in_the_error_tree(client, alias, dynamo_faults):
    """Each by its class; botocore's own is the cause."""
    with pytest.raises(TableMissingError, match="does not exist"):
        client.get("no-such-table", {"id": "a"})
    with pytest.raises(InvalidRequestError, match="not valid for DynamoDB") as caught:
        client.get("posts", {"wrong": "a"})
    assert caught.value.__cause__.response["Error"]["Code"] == "ValidationException"
    with pytest.raises(ItemTooLargeError):
        client.put("posts", {"id": "a", "text": "x" * 410_000})
    throttled = get_dynamodb_client(alias(ENDPOINT_URL=dynamo_faults.url, OPERATION_TIMEOUT=0.3))
    with deadline(30.0):
        # The first request makes the client, which takes longer on a busy machine.
        assert throttled.get("posts", {"id": "a"}) is None
    dynamo_faults.throttle("GetItem")
    with pytest.raises(ThrottlingError):
        throttled.get("posts", {"id": "a"})
    dynamo_faults.clear()
    dynamo_faults.fail("PutItem", code="ItemCollectionSizeLimitExceededException", status=400)
    with pytest.raises(AnswerError) as caught:
        throttled.put("posts", {"id": "a"})
    assert caught.value.code == "ItemCollectionSizeLimitExceededException"
    assert isinstance(caught.value, StoreError)


def test_every_verb_has_an_async_twin(client):
    """The same results on an event loop, many at once."""

    async def use():
        await asyncio.gather(*(client.aput("posts", {"id": str(n), "n": n}) for n in range(20)))
        assert await client.aget("posts", {"id": "7"}) == {"id": "7", "n": 7}
        changed = await client.aupdate("posts", {"id": "7"}, "SET n = :n", values={":n": 70})
        assert changed["n"] == 70
        assert await client.adelete("posts", {"id": "7"}, return_old=True) == changed
        found = [item["n"] async for item in client.scan("posts", page_size=6)]
        assert sorted(found) == [n for n in range(20) if n != 7]
        page = await client.scan("posts", page_size=6).apage()
        assert len(page.items) == 6
        assert len(await client.scan("posts", limit=9, page_size=4).aall()) == 9
        assert len(await client.abatch_get("posts", [{"id": "1"}, {"id": "2"}])) == 2
        assert await client.abatch_write("posts", puts=[{"id": "x"}], deletes=[{"id": "1"}]) == 2
        await client.atransact_write([Put("posts", {"id": "y"})])
        assert await client.atransact_get([Get("posts", {"id": "y"})]) == [{"id": "y"}]
        assert await client.ahealth_check("posts")
        tree = await client.aread_tree("posts", "y", children="below")
        assert tree.root.item == {"id": "y"}

    asyncio.run(use())


def test_operations_are_logged_by_option(client, alias, caplog):
    """With their time, and without keys and values."""
    caplog.set_level(logging.INFO, "dynamo_stores.client.requests")
    silent, loud = (get_dynamodb_client(alias(LOG_OPERATIONS=each)) for each in (False, True))
    silent.put("posts", {"id": "secret"})
    assert not caplog.records
    loud.put("posts", {"id": "secret"})
    loud.batch_get("posts", [{"id": "secret"}])
    with pytest.raises(ConditionFailedError):
        loud.put("posts", {"id": "secret"}, condition="attribute_not_exists(id)")
    assert [each.dynamodb_operation for each in caplog.records] == [
        "PutItem", "BatchGetItem", "PutItem",
    ]  # fmt: skip
    assert all(each.dynamodb_seconds >= 0 for each in caplog.records)
    assert "ended in ConditionalCheckFailedException" in caplog.messages[-1]
    assert "secret" not in caplog.text


def test_health_check(client, alias, caplog):
    """True for a table that can be used; the reason for False is logged."""
    assert client.health_check()
    assert client.health_check("posts")
    assert not client.health_check("no-such-table")
    assert "cannot be used: it is missing" in caplog.text
    away = get_dynamodb_client(alias(ENDPOINT_URL="http://127.0.0.1:9", HEALTH={"TIMEOUT": 20.0}))
    assert not away.health_check("posts")
    assert "StoreUnavailable" in caplog.text


def test_messages_that_quote_only_names_are_shown(client):
    """With them a developer knows what to change."""
    with pytest.raises(InvalidRequestError, match="unused in expressions"):
        client.get("posts", {"id": "a"}, projection="id", names={"#x": "x"})
    with pytest.raises(InvalidRequestError, match="multiple operations on one item"):
        client.transact_write([Put("posts", {"id": "a"}), Delete("posts", {"id": "a"})])


@pytest.mark.parametrize(
    ("call", "pattern"),
    [
        (
            lambda client: client.update("posts", {"id": "a"}, "SET total = :n", values={":n": 1}),
            'pass names={"#total": "total"}',
        ),
        (lambda client: client.get("posts", {"id": ""}), "The key attribute 'id' is empty"),
        (
            lambda client: list(client.query("lines", "line = :l", values={":l": 1})),
            # DynamoDB Local does not name the attribute.
            r"The condition does not fit the key( at the attribute 'order')?\. Compare",
        ),
        (
            lambda client: list(client.scan("lines", start={"order": "secret-7"})),
            "Pass last_key of one of its pages as start",
        ),
    ],
)
def test_an_invalid_request_says_what_to_change(client, call, pattern):
    """Each by the kind of mistake; the values are in the cause alone."""
    with pytest.raises(InvalidRequestError, match=pattern) as caught:
        call(client)
    assert "secret-7" not in str(caught.value)


def test_a_value_that_is_nested_too_deeply(client):
    """Whether it is sent and refused, or not sent. A list that contains itself has no end."""
    values = []
    for levels in (*range(300, 481, 20), 5000):
        value = 1
        for level in range(levels):
            value = [value] if level % 2 else {"a": value}
        values.append(value)
    circle = []
    circle.append(circle)
    client.put("posts", {"id": "a"})
    for each in (*values, circle):
        words = "is not valid for DynamoDB|nested too deeply and was not sent.*at most 32 levels"
        with pytest.raises(InvalidRequestError, match=words):
            client.put("posts", {"id": "a", "value": each})
        with pytest.raises(InvalidRequestError, match=words):
            client.update("posts", {"id": "a"}, "SET v = :v", values={":v": each})
        with pytest.raises(InvalidRequestError, match=words):
            client.transact_write([Put("posts", {"id": "a", "value": each})])
    assert client.get("posts", {"id": "a"}) == {"id": "a"}


def test_an_unknown_alias_is_found_at_once():
    """The message names the known ones."""
    with pytest.raises(ConfigurationError, match="no alias 'missing'"):
        get_dynamodb_client("missing")


def test_there_is_one_client_for_each_process_and_alias(client):
    """It outlives destroy(), which closes its connections."""
    assert get_dynamodb_client() is client
    client.put("posts", {"id": "a"})
    client.destroy()
    assert client.get("posts", {"id": "a"}) == {"id": "a"}


def test_a_botocore_client_with_the_policy_of_the_alias(client, alias, dynamo_faults):
    """Its own exceptions, paginators, waiters and the control plane; retries of the policy."""
    name = get_config().real_name("posts")
    used = get_dynamodb_client(alias(ENDPOINT_URL=dynamo_faults.url)).get_client()
    dynamo_faults.throttle("PutItem", times=2)
    used.put_item(TableName=name, Item={"id": {"S": "a"}, "b": {"B": b"\x00"}})
    assert dynamo_faults.requests["PutItem"] == 3
    answer = used.get_item(TableName=name, Key={"id": {"S": "a"}})
    assert answer["Item"]["b"] == {"B": b"\x00"}
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 200
    with pytest.raises(used.exceptions.ConditionalCheckFailedException):
        used.put_item(
            TableName=name, Item={"id": {"S": "a"}}, ConditionExpression="attribute_not_exists(id)"
        )
    assert used.describe_table(TableName=name)["Table"]["TableName"] == name
    used.get_waiter("table_exists").wait(TableName=name)
    pages = used.get_paginator("scan").paginate(TableName=name, PaginationConfig={"PageSize": 1})
    assert sum(len(page["Items"]) for page in pages) == 1


def test_a_document_client(client):
    """Plain values and conditions of boto3, as a table of its resource has them."""
    name = get_config().real_name("lines")
    used = client.get_document_client()
    item = {"order": "a", "line": 1, "price": Decimal("1.5"), "tags": {"x", "y"}}
    used.put_item(TableName=name, Item=item)
    assert item["tags"] == {"x", "y"}
    assert used.get_item(TableName=name, Key={"order": "a", "line": 1})["Item"] == item
    answer = used.query(TableName=name, KeyConditionExpression=Key("order").eq("a"))
    assert answer["Items"] == [item]
    assert client.get("lines", {"order": "a", "line": 1}) == item
