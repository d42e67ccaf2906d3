"""Tables of the forum for one test."""

from __future__ import annotations

import io
import secrets

import pytest
from django.core.management import call_command

from dynamo_stores.calls.control import get_control
from dynamo_stores.infrastructure.tables import wanted_tables
from forum.adapters.dynamodb import DynamoDBDatabase
from forum.models import Post, Support, Thread, User


@pytest.fixture
def own_tables(alias, settings):
    """Tables of this test's own, empty."""
    default = settings.DYNAMO_STORES["default"]
    prefix = f"forum-{secrets.token_hex(4)}-"
    settings.DYNAMO_STORES = {"default": {**default, "TABLE_PREFIX": prefix}}
    call_command("dynamo_create_tables", stdout=io.StringIO())
    specs = wanted_tables()
    yield
    for spec in specs:
        get_control().call("DeleteTable", {"TableName": spec.name})


@pytest.fixture
def emptied(tables):
    """The forum's tables of the tests, which are empty afterwards."""
    yield
    database = DynamoDBDatabase()
    for model in (User, Thread, Post, Support):
        adapter = database.adapter(model)
        adapter.delete_all(list(adapter.get_all(attributes=adapter.table.keys)))
