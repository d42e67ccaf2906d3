"""Two tables of no model."""

from __future__ import annotations

import pytest

from dynamo_stores.calls.control import get_control
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
