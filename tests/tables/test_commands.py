"""The commands about tables: create once, never change, compare with the models."""

from __future__ import annotations

import io
import secrets

import pytest
from django.core.management import CommandError, call_command

from dynamo_stores.calls.control import get_control
from dynamo_stores.infrastructure.tables import table_of, wanted_tables
from dynamo_stores.models import StoreItem


def run(command, **options):
    """Return what ``command`` printed."""
    out = io.StringIO()
    call_command(command, stdout=out, **options)
    return out.getvalue()


@pytest.fixture
def fresh(alias):
    """``fresh(**changes)``: an alias whose store table does not exist; returns both names."""
    made = []

    def make(**changes):
        using = alias(TABLE_PREFIX=f"fresh-{secrets.token_hex(4)}-", **changes)
        name = StoreItem.bound_to(using).Meta.table_name
        made.append((using, name))
        return using, name

    yield make
    for using, name in made:
        control = get_control(using)
        if control.describe(name):
            control.call("DeleteTable", {"TableName": name})


def test_tables_are_made_once(fresh):
    """Created with index and TTL, then left alone; --dry-run creates nothing."""
    using, name = fresh()
    assert f"{name}: would be created" in run("dynamo_create_tables", table=[name], dry_run=True)
    assert get_control(using).describe(name) is None
    assert f"{name}: created, key (PK, SK), GSI1, TTL on TTL, on demand" in run(
        "dynamo_create_tables", table=[name]
    )
    description = get_control(using).describe(name)
    assert description["TableStatus"] == "ACTIVE"
    assert get_control(using).ttl_attribute(name) == "TTL"
    assert f"{name}: exists (ACTIVE)" in run("dynamo_create_tables", table=[name])
    assert f"{name}: matches its model" in run("dynamo_verify", table=[name])


def test_provisioned_tables_start_at_their_baseline(fresh):
    """Table and index get the baselines of the settings."""
    using, name = fresh(
        BILLING_MODE="PROVISIONED", SCALING={"BASE_READ_CAPACITY": 7, "BASE_WRITE_CAPACITY": 3}
    )
    assert "7 RCU and 3 WCU" in run("dynamo_create_tables", table=[name])
    description = get_control(using).describe(name)
    for each in (description, *description["GlobalSecondaryIndexes"]):
        throughput = each["ProvisionedThroughput"]
        assert (throughput["ReadCapacityUnits"], throughput["WriteCapacityUnits"]) == (7, 3)


def test_an_existing_table_that_differs_is_named_and_not_changed(fresh):
    """Keys, index, TTL, billing: all named, nothing touched, exit status not 0."""
    using, name = fresh()
    get_control(using).call(
        "CreateTable",
        {
            "TableName": name,
            "KeySchema": [{"AttributeName": "PK", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "PK", "AttributeType": "N"}],
            "ProvisionedThroughput": {"ReadCapacityUnits": 1, "WriteCapacityUnits": 1},
        },
    )
    before = get_control(using).describe(name)
    for command in ("dynamo_create_tables", "dynamo_verify"):
        with pytest.raises(CommandError) as refused:
            run(command, table=[name])
        for part in (
            "its key is (PK), expected (PK, SK)",
            "the key attribute PK is of type N, expected S",
            "the index GSI1 is missing",
            "its TTL is off, expected on for the attribute TTL",
            "its billing mode is PROVISIONED, expected PAY_PER_REQUEST",
        ):
            assert f"{name}: {part}" in str(refused.value)
    after = get_control(using).describe(name)
    assert after["KeySchema"] == before["KeySchema"]


def test_a_table_made_by_the_documented_commands_works(fresh, make_cache):
    """The shape of an existing single table, as it is made with the AWS command line."""
    using, name = fresh()
    control = get_control(using)
    keys = ("PK", "SK", "GSI1PK", "GSI1SK")
    control.call(
        "CreateTable",
        {
            "TableName": name,
            "AttributeDefinitions": [{"AttributeName": k, "AttributeType": "S"} for k in keys],
            "KeySchema": [
                {"AttributeName": "PK", "KeyType": "HASH"},
                {"AttributeName": "SK", "KeyType": "RANGE"},
            ],
            "GlobalSecondaryIndexes": [
                {
                    "IndexName": "GSI1",
                    "KeySchema": [
                        {"AttributeName": "GSI1PK", "KeyType": "HASH"},
                        {"AttributeName": "GSI1SK", "KeyType": "RANGE"},
                    ],
                    "Projection": {"ProjectionType": "ALL"},
                }
            ],
            "BillingMode": "PAY_PER_REQUEST",
        },
    )
    specification = {"AttributeName": "TTL", "Enabled": True}
    control.call("UpdateTimeToLive", {"TableName": name, "TimeToLiveSpecification": specification})
    assert "exists (ACTIVE)" in run("dynamo_create_tables", table=[name])
    cache = make_cache(using)
    cache.set("k", "v")
    assert cache.get("k") == "v"


def test_missing_tables_are_named(fresh):
    """dynamo_verify names the missing table."""
    _, name = fresh()
    with pytest.raises(CommandError, match=f"{name}: does not exist"):
        run("dynamo_verify", table=[name])


def test_unknown_names_are_refused_with_the_known_ones(tables):
    """--table with a typing mistake."""
    with pytest.raises(CommandError, match=r"No model or alias has the table typo\. Known tables:"):
        run("dynamo_verify", table=["typo"])


def test_an_unreachable_engine_is_a_sentence(alias):
    """No traceback: one CommandError."""
    using = alias(ENDPOINT_URL="http://127.0.0.1:9", TABLE_PREFIX="nowhere-")
    name = table_of(StoreItem.bound_to(using)).name
    with pytest.raises(CommandError, match=r"DescribeTable on nowhere-dynamo-stores got no answer"):
        run("dynamo_create_tables", table=[name])


def test_every_table_of_the_project_is_found(tables, dynamo_prefix):
    """The store's and the forum's, each once."""
    names = [spec.name.removeprefix(dynamo_prefix) for spec in wanted_tables()]
    assert names == [
        "dynamo-stores",
        "dynamo-stores-control",
        "forum-users",
        "forum-threads",
        "forum-posts",
    ]


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("dynamo_local", "port", 99999),
        ("dynamo_local", "port", -1),
        ("dynamo_benchmark", "calls", 0),
        ("dynamo_benchmark", "rounds", 0),
    ],
)
def test_wrong_numbers_are_named_before_any_work(command, option, value):
    """The error has the option, its value and what was expected."""
    with pytest.raises(CommandError, match=f"^--{option} is {value}; expected "):
        call_command(command, **{option: value})
