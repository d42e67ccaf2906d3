"""The relay that throttles: real requests, DynamoDB's errors."""

from __future__ import annotations

import json
import secrets
import time
import urllib.request

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from dynamo_stores.exceptions import ThrottlingError
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing.engine import EngineError
from dynamo_stores.testing.throttling.buckets import Partitions
from dynamo_stores.testing.throttling.relay import CapacityRelay


@pytest.fixture
def make(dynamo_capacity):
    """``make(5, 5)``: a relay, a bare client of it, and a table of so many units with an index."""
    made = []

    def make(read, write, index=None, *, billing="PROVISIONED", **options):
        relay = dynamo_capacity(**{"updating": 1.0, "burst": 2.0, **options})
        client = boto3.client(
            "dynamodb",
            region_name="us-east-1",
            endpoint_url=relay.url,
            aws_access_key_id="local",
            aws_secret_access_key="local",
            config=Config(retries={"total_max_attempts": 1, "mode": "standard"}),
        )
        name = f"test-relay-{secrets.token_hex(4)}"
        throughput = {"ReadCapacityUnits": read, "WriteCapacityUnits": write}
        index_throughput = dict(zip(throughput, index or (read, write), strict=True))
        provisioned = billing == "PROVISIONED"
        client.create_table(
            TableName=name,
            AttributeDefinitions=[
                {"AttributeName": each, "AttributeType": "S"} for each in ("PK", "SK", "G")
            ],
            KeySchema=[
                {"AttributeName": "PK", "KeyType": "HASH"},
                {"AttributeName": "SK", "KeyType": "RANGE"},
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "ByG",
                    "KeySchema": [{"AttributeName": "G", "KeyType": "HASH"}],
                    "Projection": {"ProjectionType": "ALL"},
                    **({"ProvisionedThroughput": index_throughput} if provisioned else {}),
                }
            ],
            BillingMode=billing,
            **({"ProvisionedThroughput": throughput} if provisioned else {}),
        )
        made.append((client, name))
        return relay, client, name

    yield make
    for client, name in made:
        client.delete_table(TableName=name)


def put(client, name, number, **attributes):
    item = {"PK": {"S": f"p{number}"}, "SK": {"S": "s"}, **attributes}
    return client.put_item(TableName=name, Item=item)


# So slow a clock fills no bucket while a busy machine thinks.
ALMOST_STILL = {"speed": 0.001}


def until_throttled(call, most=200):
    """Call until it is throttled; return how often it was done, and the error."""
    for count in range(most):
        try:
            call(count)
        except ClientError as exc:
            return count, exc.response
    raise AssertionError("It was never throttled.")


def test_writes_beyond_the_burst_are_throttled(make):
    """With the reason and the table's ARN; a while later they are served again."""
    _, client, name = make(5, 5)
    began_at = time.monotonic()
    done, response = until_throttled(lambda n: put(client, name, n))
    assert 10 <= done <= 11 + 5 * (time.monotonic() - began_at)
    assert response["Error"]["Code"] == "ProvisionedThroughputExceededException"
    (reason,) = response["ThrottlingReasons"]
    assert reason["reason"] == "TableWriteProvisionedThroughputExceeded"
    assert reason["resource"].endswith(f":table/{name}")
    assert client.get_item(TableName=name, Key={"PK": {"S": "p0"}, "SK": {"S": "s"}})["Item"]
    time.sleep(1.0)
    put(client, name, 0)


def test_an_index_throttles_its_tables_writes(make):
    """Those of items that are in it, and no others."""
    _, client, name = make(100, 100, index=(5, 2), **ALMOST_STILL)
    inside = {"G": {"S": "g"}}
    done, response = until_throttled(lambda n: put(client, name, n, **inside))
    assert 4 <= done <= 5
    (reason,) = response["ThrottlingReasons"]
    assert reason["reason"] == "IndexWriteProvisionedThroughputExceeded"
    assert reason["resource"].endswith(f":table/{name}/index/ByG")
    for number in range(20):
        put(client, name, f"outside{number}")


def test_reads_cost_by_size_and_consistency(make):
    """As ConsumedCapacity shows, which is in the answer only on request."""
    _, client, name = make(100, 100, **ALMOST_STILL)
    put(client, name, 1, v={"B": b"x" * 5000})
    key = {"PK": {"S": "p1"}, "SK": {"S": "s"}}

    def get(**options):
        return client.get_item(TableName=name, Key=key, **options)

    total = {"ReturnConsumedCapacity": "TOTAL"}
    assert "ConsumedCapacity" not in get()
    assert get(**total)["ConsumedCapacity"]["CapacityUnits"] == 1.0
    assert get(ConsistentRead=True, **total)["ConsumedCapacity"]["CapacityUnits"] == 2.0
    found = client.update_item(
        TableName=name,
        Key=key,
        UpdateExpression="SET G = :g",
        ExpressionAttributeValues={":g": {"S": "g"}},
        ReturnConsumedCapacity="INDEXES",
    )
    assert "Attributes" not in found
    assert found["ConsumedCapacity"]["Table"]["CapacityUnits"] == 5.0
    assert found["ConsumedCapacity"]["GlobalSecondaryIndexes"]["ByG"]["CapacityUnits"] == 5.0
    _, response = until_throttled(lambda _: get(ConsistentRead=True))
    assert response["ThrottlingReasons"][0]["reason"] == "TableReadProvisionedThroughputExceeded"


def test_a_batch_is_taken_in_part(make):
    """What does not fit comes back; only when nothing fits it is an error."""
    _, client, name = make(5, 5, **ALMOST_STILL)
    requests = [
        {"PutRequest": {"Item": {"PK": {"S": f"p{n}"}, "SK": {"S": "s"}}}} for n in range(25)
    ]
    left = client.batch_write_item(RequestItems={name: requests})["UnprocessedItems"][name]
    assert 10 <= len(left) <= 15
    with pytest.raises(ClientError, match="ProvisionedThroughputExceeded"):
        client.batch_write_item(RequestItems={name: left})
    keys = [{"PK": {"S": f"p{n}"}, "SK": {"S": "s"}} for n in range(100)]
    answer = client.batch_get_item(RequestItems={name: {"Keys": keys, "ConsistentRead": True}})
    assert 85 <= len(answer["UnprocessedKeys"][name]["Keys"]) <= 90


def test_a_transaction_is_cancelled(make):
    """With the reason at the action that was short."""
    _, client, name = make(5, 2, **ALMOST_STILL)
    until_throttled(lambda n: put(client, name, n))
    item = {"PK": {"S": "x"}, "SK": {"S": "s"}}
    with pytest.raises(ClientError) as caught:
        client.transact_write_items(TransactItems=[{"Put": {"TableName": name, "Item": item}}])
    assert caught.value.response["Error"]["Code"] == "TransactionCanceledException"
    (reason,) = caught.value.response["CancellationReasons"]
    assert reason["Code"] == "ThrottlingError"


def test_an_update_takes_its_time(make):
    """UPDATING with the old rates, then ACTIVE with the new ones; unchanged values are refused."""
    relay, client, name = make(5, 5, updating=2.0)

    def until_active():
        while described()[0] != "ACTIVE":
            time.sleep(0.05)

    def update(read, write):
        throughput = {"ReadCapacityUnits": read, "WriteCapacityUnits": write}
        return client.update_table(TableName=name, ProvisionedThroughput=throughput)

    def described():
        table = client.describe_table(TableName=name)["Table"]
        return table["TableStatus"], table["ProvisionedThroughput"]["WriteCapacityUnits"]

    with pytest.raises(ClientError, match="will not change"):
        update(5, 5)
    began_at = time.monotonic()
    assert update(5, 50)["TableDescription"]["TableStatus"] == "UPDATING"
    assert described() == ("UPDATING", 5)
    with pytest.raises(ClientError, match="ResourceInUse"):
        update(5, 60)
    until_active()
    assert time.monotonic() - began_at >= 2.0
    assert described() == ("ACTIVE", 50)
    update(5, 5)
    until_active()
    table = client.describe_table(TableName=name)["Table"]["ProvisionedThroughput"]
    assert table["NumberOfDecreasesToday"] == 1
    assert {"LastIncreaseDateTime", "LastDecreaseDateTime"} <= table.keys()
    assert relay.status()["tables"][name]["updates"] == 2


def test_a_hot_partition(make):
    """Its own limit, whatever the table has, and a reason of its own."""
    _, client, name = make(1000, 1000, partitions=Partitions(read=5, write=5))
    _, response = until_throttled(lambda n: put(client, name, "hot", v={"N": str(n)}))
    (reason,) = response["ThrottlingReasons"]
    assert reason["reason"] == "TableWriteKeyRangeThroughputExceeded"
    put(client, name, "cold")


def test_tables_on_demand_are_left_alone(make):
    """They take what comes."""
    relay, client, name = make(0, 0, billing="PAY_PER_REQUEST")
    for number in range(50):
        put(client, name, number)
    assert relay.status()["tables"][name] == "on demand"


def test_the_clock_can_go_faster(make):
    """An hour in seconds."""
    _, client, name = make(5, 5, speed=100.0, updating=50.0)
    throughput = {"ReadCapacityUnits": 5, "WriteCapacityUnits": 9}
    client.update_table(TableName=name, ProvisionedThroughput=throughput)
    time.sleep(0.7)
    assert client.describe_table(TableName=name)["Table"]["TableStatus"] == "ACTIVE"


def test_the_status_page(make):
    """Its buckets, for people and programs."""
    relay, client, name = make(5, 5)
    put(client, name, 1)
    with urllib.request.urlopen(relay.url) as response:
        shown = json.load(response)
    assert shown["tables"][name]["resources"]["(table)"]["Write"]["rate"] == 5
    assert shown["requests"]["PutItem"] == 1


def test_only_engines_on_this_machine():
    """Changed requests would be refused elsewhere, and cost money."""
    with pytest.raises(EngineError, match="not on this machine"):
        CapacityRelay("https://dynamodb.us-east-1.amazonaws.com")


def test_the_stores_read_its_reasons(make, alias):
    """The stores see throttling as they would at the service."""
    relay, _, name = make(1, 1)
    using = alias(
        ENDPOINT_URL=relay.url,
        TABLES={"dynamo-stores": {"TABLE_NAME": name}},
        RETRY={"THROTTLE_RETRIES": 0},
    )
    store = CacheStore(using, prefix="p")
    with pytest.raises(ThrottlingError) as caught:
        list(map(store.set, map(str, range(20)), "v" * 20))
    (reason,) = caught.value.reasons
    assert (reason.table, reason.reason) == (name, "TableWriteProvisionedThroughputExceeded")
