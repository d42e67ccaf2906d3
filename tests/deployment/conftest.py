"""Projects of several kinds, and engines that have more services than DynamoDB."""

from __future__ import annotations

import io
import itertools
from typing import NamedTuple

import boto3
import pytest
from django.core.management import call_command
from pynamodb.attributes import NumberAttribute, TTLAttribute, UnicodeAttribute
from pynamodb.indexes import (
    AllProjection,
    GlobalSecondaryIndex,
    IncludeProjection,
    LocalSecondaryIndex,
)

from dynamo_stores.models import DynamoModel
from dynamo_stores.testing import EmbeddedEngine

FAKE = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
CLOUDWATCH = "dynamo_stores.monitoring.sinks.cloudwatch.CloudWatchSink"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/mrk-0123456789abcdef0123456789abcdef"
# Everything that the settings of tables know.
EVERYTHING = {
    "REGION": "eu-west-1",
    "ENDPOINT_URL": None,
    "BILLING_MODE": "PROVISIONED",
    "POINT_IN_TIME_RECOVERY": True,
    "STREAM": "NEW_AND_OLD_IMAGES",
    "DELETION_PROTECTION": True,
    "TAGS": {"team": "a ${b} 'c'", "stage": "test"},
    "ENCRYPTION_KEY": KEY,
    "TABLE_CLASS": "STANDARD_INFREQUENT_ACCESS",
    "METRICS": {"SINKS": [CLOUDWATCH], "NAMESPACE": "Shop"},
}
_numbers = itertools.count(1)


class Printed(NamedTuple):
    """What a command printed, on standard output and on standard error."""

    out: str
    err: str


def infrastructure(*arguments, **options):
    """Run the command."""
    out, err = io.StringIO(), io.StringIO()
    call_command("dynamo_infrastructure", *arguments, stdout=out, stderr=err, **options)
    return Printed(out.getvalue(), err.getvalue())


class FullEngine(EmbeddedEngine):
    """ministack with what infrastructure needs."""

    def _environment(self):
        services = (
            "dynamodb,dynamodbstreams,cloudformation,cloudwatch,monitoring,sns,iam,sts,backup"
        )
        return {**super()._environment(), "SERVICES": services}


@pytest.fixture(scope="session")
def ministack():
    """The URL of ministack with the other services."""
    with FullEngine() as engine:
        yield engine.url


@pytest.fixture
def client():
    """``client(service, url)`` makes botocore's client."""

    def make(service, url, region="us-east-1"):
        return boto3.client(service, region_name=region, endpoint_url=url, **FAKE)

    return make


@pytest.fixture
def project(settings, default_alias):
    """``project(**default)``: the settings of the alias ``default``, and those of ``others``."""

    def make(others=None, **changes):
        prefix = f"site{next(_numbers)}-"
        base = {**default_alias, "TABLE_PREFIX": prefix}
        settings.DYNAMO_STORES = {
            "default": {**base, **changes},
            **{name: {**base, **each} for name, each in (others or {}).items()},
        }
        return f"{prefix}dynamo-stores"

    return make


class ByCustomer(GlobalSecondaryIndex["Order"]):
    class Meta:
        index_name = "By.Customer"
        projection = IncludeProjection(["total"])

    customer = UnicodeAttribute(hash_key=True)
    at = NumberAttribute(range_key=True)


class ByTotal(LocalSecondaryIndex["Order"]):
    class Meta:
        index_name = "ByTotal"
        projection = AllProjection()

    number = UnicodeAttribute(hash_key=True)
    total = NumberAttribute(range_key=True)


class Order(DynamoModel):
    """A model of no application, until the fixture ``orders`` installs it."""

    class Meta:
        table_name = "orders"

    number = UnicodeAttribute(hash_key=True)
    at = NumberAttribute(range_key=True)
    customer = UnicodeAttribute()
    total = NumberAttribute()
    ends = TTLAttribute(attr_name="ends")
    by_customer = ByCustomer()
    by_total = ByTotal()


@pytest.fixture
def orders(monkeypatch):
    """The project has a model with a global and a local index, and TTL."""
    monkeypatch.setattr(Order, "__module__", "forum.models")
