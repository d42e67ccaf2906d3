"""Tables with items of every type, written and read as DynamoDB-JSON."""

from __future__ import annotations

import secrets

import pytest

from dynamo_stores.calls.batches import chunks
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.control import get_control
from dynamo_stores.concurrency.effects import run
from dynamo_stores.infrastructure.backups.digests import item_digest

EVERY_TYPE = {
    "id": {"S": "every type"},
    "n": {"N": "0"},
    "empty": {"S": ""},
    "text": {"S": 'quote " \\ line\n\u2028 größe \U0001f600 \x00'},
    "whole": {"N": "12345678901234567890123456789012345678"},
    "small": {"N": "-0.00000000000000000000000000000000000001"},
    "large": {"N": "1E+125"},
    "binary": {"B": bytes(range(256))},
    "no bytes": {"B": b""},
    "yes": {"BOOL": True},
    "no": {"BOOL": False},
    "nothing": {"NULL": True},
    "strings": {"SS": ["a", "b", "ü"]},
    "numbers": {"NS": ["1", "2.5", "-3"]},
    "binaries": {"BS": [b"\x00", b"\xff\xfe"]},
    "list": {"L": [{"B": b"\x01"}, {"L": []}, {"BS": [b"x"]}, {"N": "7"}, {"NULL": True}]},
    "map": {"M": {"B": {"B": b"B"}, "M": {"M": {"S": {"S": "S"}}}, "none": {"M": {}}}},
}


def put_all(using, table, items):
    """Write ``items``, one request each 25."""
    for chunk in chunks(items, 25):
        requests = [{"PutRequest": {"Item": each}} for each in chunk]
        request = {"RequestItems": {table: requests}}
        run(get_connection(using).call("BatchWriteItem", request))


def read_all(using, table):
    """Return all items of ``table`` by their keys' digests, as they are in the answers."""
    found, request = {}, {"TableName": table, "ConsistentRead": True, "Limit": 500}
    while True:
        answer = run(get_connection(using).call("Scan", dict(request)))
        found |= {item_digest({"id": each["id"], "n": each["n"]}): each for each in answer["Items"]}
        if not answer.get("LastEvaluatedKey"):
            return found
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


@pytest.fixture
def make_table(tables):
    """
    ``make_table(using, read=…, write=…, index=…)``: the name of a new table with the key (id, n),
    an index, and, with units, a provisioned capacity. ``make_table.name()`` is one for a table to
    come.
    """
    made = []

    def name(using="default"):
        made.append((using, f"backup-{secrets.token_hex(4)}"))
        return made[-1][1]

    def make(using="default", *, read=None, write=None, index=True):
        table = name(using)
        units = {}
        if read is not None:
            units["ProvisionedThroughput"] = {
                "ReadCapacityUnits": read,
                "WriteCapacityUnits": write,
            }
        by_index = {
            "IndexName": "by-index",
            "KeySchema": [{"AttributeName": "by", "KeyType": "HASH"}],
            "Projection": {"ProjectionType": "KEYS_ONLY"},
            **units,
        }
        get_control(using).call(
            "CreateTable",
            {
                "TableName": table,
                "KeySchema": [
                    {"AttributeName": "id", "KeyType": "HASH"},
                    {"AttributeName": "n", "KeyType": "RANGE"},
                ],
                "AttributeDefinitions": [
                    {"AttributeName": "id", "AttributeType": "S"},
                    {"AttributeName": "n", "AttributeType": "N"},
                    *([{"AttributeName": "by", "AttributeType": "S"}] if index else []),
                ],
                **({"GlobalSecondaryIndexes": [by_index]} if index else {}),
                "BillingMode": "PROVISIONED" if units else "PAY_PER_REQUEST",
                **units,
            },
        )
        return table

    make.name = name
    yield make
    for using, table in made:
        if get_control(using).describe(table) is not None:
            get_control(using).call("DeleteTable", {"TableName": table})
