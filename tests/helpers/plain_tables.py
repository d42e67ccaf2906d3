"""Two tables of no model."""

from __future__ import annotations

import pytest

from dynamo_stores.calls.control import get_control
from dynamo_stores.client import get_dynamodb_client
from dynamo_stores.conf import get_config

TABLES = {
    "posts": {
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "AttributeDefinitions": [
            {"AttributeName": "id", "AttributeType": "S"},
            {"AttributeName": "parent", "AttributeType": "S"},
            {"AttributeName": "at", "AttributeType": "N"},
        ],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "by-parent",
                "KeySchema": [
                    {"AttributeName": "parent", "KeyType": "HASH"},
                    {"AttributeName": "at", "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "ALL"},
            }
        ],
    },
    "lines": {
        "KeySchema": [
            {"AttributeName": "order", "KeyType": "HASH"},
            {"AttributeName": "line", "KeyType": "RANGE"},
        ],
        "AttributeDefinitions": [
            {"AttributeName": "order", "AttributeType": "S"},
            {"AttributeName": "line", "AttributeType": "N"},
        ],
    },
}


@pytest.fixture(scope="session")
def plain_tables(tables):
    """``posts`` and ``lines``."""
    control, config = get_control(), get_config()
    for name, specification in TABLES.items():
        request = {"TableName": config.real_name(name), "BillingMode": "PAY_PER_REQUEST"}
        control.call("CreateTable", request | specification)
    for name in TABLES:
        while control.describe(config.real_name(name))["TableStatus"] != "ACTIVE":
            pass
    yield
    for name in TABLES:
        control.call("DeleteTable", {"TableName": config.real_name(name)})


@pytest.fixture
def empty_tables(plain_tables):
    """A client for ``posts`` and ``lines``, which are empty."""
    client = get_dynamodb_client()
    for table, names in (("posts", ["id"]), ("lines", ["order", "line"])):
        keys = [{name: each[name] for name in names} for each in client.scan(table)]
        client.batch_write(table, deletes=keys)
    return client
