"""Aliases whose processes report, on tables of their own."""

from __future__ import annotations

import io
import secrets

import boto3
import pytest
from django.core.management import call_command

from dynamo_stores.infrastructure.tables import wanted_tables


@pytest.fixture
def reporting(alias, dynamo_engine):
    """
    ``reporting(REPORTS={…}, …)``: an alias with tables of its own whose calls are reported;
    ``make_tables=False`` leaves the tables out.
    """
    made = []

    def make(REPORTS=None, make_tables=True, **changes):
        using = alias(
            TABLE_PREFIX=f"reports-{secrets.token_hex(4)}-",
            REPORTS={"ENABLED": True, "INTERVAL": 0.5, **(REPORTS or {})},
            **changes,
        )
        names = [spec.name for spec in wanted_tables() if spec.using == using]
        if make_tables:
            call_command("dynamo_create_tables", table=names, stdout=io.StringIO())
            made.extend(names)
        return using

    yield make
    engine = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=dynamo_engine,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    for name in made:
        engine.delete_table(TableName=name)
