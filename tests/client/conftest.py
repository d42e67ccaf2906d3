"""A client, and a plain boto3 resource to compare it with."""

from __future__ import annotations

import boto3
import pytest

from dynamo_stores.conf import get_config


@pytest.fixture
def client(empty_tables):
    """The client of the alias ``default``; ``posts`` and ``lines`` are empty."""
    return empty_tables


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
