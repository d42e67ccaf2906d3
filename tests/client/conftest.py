"""A client, and a plain boto3 resource to compare it with."""

from __future__ import annotations

import boto3
import pytest

from dynamo_stores.client import get_dynamodb_client
from dynamo_stores.conf import get_config


@pytest.fixture
def client(plain_tables):
    """The client of the alias ``default``; ``posts`` and ``lines`` are empty."""
    found = get_dynamodb_client()
    found.batch_write("posts", deletes=[{"id": each["id"]} for each in found.scan("posts")])
    keys = [{name: each[name] for name in ("order", "line")} for each in found.scan("lines")]
    found.batch_write("lines", deletes=keys)
    return found


@pytest.fixture
def bare(plain_tables, dynamo_engine):
    """``bare("posts")`` is a table of a plain boto3 resource."""
    resource = boto3.resource(
        "dynamodb",
        endpoint_url=dynamo_engine,
        region_name="us-east-1",
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    return lambda name: resource.Table(get_config().real_name(name))
