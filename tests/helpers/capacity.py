"""Provisioned tables behind a relay that throttles, and commands about them."""

from __future__ import annotations

import io
import secrets

import pytest
from django.core.management import call_command

from dynamo_stores import clock
from dynamo_stores.calls.control import get_control
from dynamo_stores.capacity.description import TableCapacity
from dynamo_stores.capacity.usage import UsageHistory, minute_of
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import ThrottlingReason


@pytest.fixture
def provisioned(alias, dynamo_capacity):
    """
    ``provisioned(updating=…, SCALING={…})``: an alias whose store table is provisioned, behind a
    relay that throttles; returns the alias, the table's name and the relay.
    """
    made = []

    def make(SCALING=None, using_relay=None, **options):
        relay = using_relay or dynamo_capacity(**{"updating": 0.3, "burst": 2.0, **options})
        using = alias(
            ENDPOINT_URL=relay.url,
            TABLE_PREFIX=f"capacity-{secrets.token_hex(4)}-",
            BILLING_MODE="PROVISIONED",
            SCALING={"ENABLED": True, "SCALE_DOWN_DELAY": 60, **(SCALING or {})},
        )
        name = get_config(using).store_table
        call_command("dynamo_create_tables", table=[name, f"{name}-control"], stdout=io.StringIO())
        made.append((using, name))
        return using, name, relay

    yield make
    for using, name in made:
        for each in (name, f"{name}-control"):
            get_control(using).call("DeleteTable", {"TableName": each})


@pytest.fixture
def run():
    """``run("dynamo_status", …)`` returns what a command printed."""

    def run(command, *args, **options):
        out = io.StringIO()
        call_command(command, *args, stdout=out, **options)
        return out.getvalue()

    return run


def record_use(using, table, use):
    """Record the use of the table and of its index by all processes in the last minute."""
    use_of = {table: use, f"{table}/GSI1": use}
    UsageHistory(using).roll_up({minute_of(clock.now()) - 1: use_of})


def named(table, table_id=""):
    """The capacity of a table of which only the name counts."""
    return TableCapacity(
        table, "", "ACTIVE", is_on_demand=False, has_replicas=False, table_id=table_id
    )


def reason(using, table, text="TableWriteProvisionedThroughputExceeded"):
    return ThrottlingReason(text, f"arn:aws:dynamodb:us-east-1:000000000000:table/{table}")
