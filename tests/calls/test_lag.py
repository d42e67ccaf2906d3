"""The relay's lag: reads that need not be consistent return earlier states."""

from __future__ import annotations

import time

import boto3
import pytest

from dynamo_stores.testing import EmbeddedEngine, FaultProxy

LAG = 1.5


@pytest.fixture(scope="module", params=["us-east-1", "eu-west-1"])
def table(request):
    """A table with an index and one item, behind a relay that lags, in one of two regions."""
    with EmbeddedEngine() as engine, FaultProxy(engine.url) as relay:
        connect(engine.url, request.param).create_table(
            TableName="lags",
            KeySchema=[{"AttributeName": "PK", "KeyType": "HASH"}],
            AttributeDefinitions=[
                {"AttributeName": "PK", "AttributeType": "S"},
                {"AttributeName": "G", "AttributeType": "S"},
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "by-g",
                    "KeySchema": [{"AttributeName": "G", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        connect(engine.url, request.param).put_item(TableName="lags", Item={"PK": {"S": "before"}})
        relay.lag(LAG)
        yield connect(relay.url, request.param)


def connect(url, region):
    return boto3.client(
        "dynamodb",
        endpoint_url=url,
        region_name=region,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )


def get(table, name, **options):
    return table.get_item(TableName="lags", Key={"PK": {"S": name}}, **options).get("Item")


def batch(table, name, **options):
    request = {"lags": {"Keys": [{"PK": {"S": name}}], **options}}
    return table.batch_get_item(RequestItems=request)["Responses"]["lags"]


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_items_from_before_are_there(table):
    """The tables are copied when they are first used."""
    assert get(table, "before") == {"PK": {"S": "before"}}


def test_a_write_is_read_later_unless_consistently(table):
    """By key, by batch, by Scan and by the index."""
    assert get(table, "new") is None
    table.put_item(TableName="lags", Item={"PK": {"S": "new"}, "G": {"S": "g"}})
    started = time.monotonic()
    seen = [get(table, "new"), batch(table, "new")]
    consistent = [get(table, "new", ConsistentRead=True), batch(table, "new", ConsistentRead=True)]
    if time.monotonic() - started < LAG:
        assert seen == [None, []]
    assert all(consistent)
    until(lambda: get(table, "new"))
    assert batch(table, "new")
    query = {"KeyConditionExpression": "G = :g", "ExpressionAttributeValues": {":g": {"S": "g"}}}
    assert table.query(TableName="lags", IndexName="by-g", **query)["Count"] == 1
    assert table.scan(TableName="lags")["Count"] >= 2


@pytest.mark.parametrize("how", ["delete_item", "batch_write_item", "transact_write_items"])
def test_a_deletion_is_read_later(table, how):
    """However it was requested."""
    name = f"gone-{how}"
    table.put_item(TableName="lags", Item={"PK": {"S": name}})
    until(lambda: get(table, name))
    key = {"PK": {"S": name}}
    started = time.monotonic()
    if how == "delete_item":
        table.delete_item(TableName="lags", Key=key)
    elif how == "batch_write_item":
        table.batch_write_item(RequestItems={"lags": [{"DeleteRequest": {"Key": key}}]})
    else:
        table.transact_write_items(TransactItems=[{"Delete": {"TableName": "lags", "Key": key}}])
    seen = get(table, name)
    if time.monotonic() - started < LAG:
        assert seen == key
    assert get(table, name, ConsistentRead=True) is None
    until(lambda: get(table, name) is None)


def test_the_last_of_many_writes_is_read_in_the_end(table):
    """They are copied in their order."""
    for number in range(20):
        table.update_item(
            TableName="lags",
            Key={"PK": {"S": "counter"}},
            UpdateExpression="SET N = :n",
            ExpressionAttributeValues={":n": {"N": str(number)}},
        )
    until(lambda: (get(table, "counter") or {}).get("N") == {"N": "19"})
