"""Replicas in other regions: added, removed, listed, and how far they are behind."""

from __future__ import annotations

import io
import itertools

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from dynamo_stores.calls.control import get_control
from dynamo_stores.conf import get_config
from dynamo_stores.infrastructure import replicas
from dynamo_stores.infrastructure.tables import create_table, table_of
from dynamo_stores.management.commands import dynamo_verify
from dynamo_stores.models import ControlItem, StoreItem
from tests.helpers.replicating import ReplicatingTables

OTHER = "eu-west-1"
_numbers = itertools.count()


@pytest.fixture
def relay(dynamo_engine):
    with ReplicatingTables(dynamo_engine) as found:
        yield found


@pytest.fixture
def replicated(alias, relay):
    """``replicated(**settings)`` returns an alias with a store's table of its own."""
    made = []

    def make(**settings):
        prefix = f"replicated{next(_numbers)}-"
        using = alias(
            ENDPOINT_URL=relay.url,
            TABLE_PREFIX=prefix,
            **{"STREAM": "NEW_AND_OLD_IMAGES", **settings},
        )
        spec = table_of(StoreItem.bound_to(using))
        create_table(spec, lambda line: None)
        other = alias(TABLE_PREFIX=prefix, REGION=OTHER)
        create_table(table_of(StoreItem.bound_to(other)), lambda line: None)
        made.extend([(using, spec.name), (other, spec.name)])
        return using

    yield make
    for using, name in made:
        get_control(using).call("DeleteTable", {"TableName": name})


def run(name, using, *arguments):
    """Run a command on the store's table of ``using``, and return its lines about the table."""
    out, table = io.StringIO(), get_config(using).store_table
    call_command(name, *arguments, "--using", using, "--table", table, stdout=out)
    return [
        line.removeprefix(f"{table}: ")
        for line in out.getvalue().splitlines()
        if line.startswith(f"{table}: ")
    ]


def test_a_replica_is_added_listed_and_removed(replicated, relay):
    """Each waits until DynamoDB is done; what is there already is not requested again."""
    using = replicated()
    assert run("dynamo_replicas", using) == ["no replicas"]
    assert run("dynamo_replicas", using, "--add", OTHER, "--no-input")[-1] == f"{OTHER} ACTIVE"
    assert run("dynamo_replicas", using, "--add", OTHER, "--no-input") == [f"{OTHER} ACTIVE"]
    assert run("dynamo_replicas", using) == [f"{OTHER} ACTIVE"]
    remove = ("--remove", OTHER, "--allow-removal", "--no-input")
    assert run("dynamo_replicas", using, *remove)[-1] == "no replicas"
    assert run("dynamo_replicas", using, *remove) == ["no replicas"]
    assert relay.changes == [("Create", OTHER), ("Delete", OTHER)]


def test_nothing_is_removed_without_permission(replicated, relay):
    """The option is required before anything is asked."""
    using = replicated()
    with pytest.raises(CommandError, match="with their items; add --allow-removal"):
        run("dynamo_replicas", using, "--remove", OTHER)
    assert not relay.changes


@pytest.mark.parametrize(
    ("changes", "region", "words"),
    [
        ({"STREAM": None}, OTHER, "has no stream; replication needs one of NEW_AND_OLD_IMAGES"),
        ({"STREAM": "KEYS_ONLY"}, OTHER, r"has KEYS_ONLY stream; .*dynamo_update_tables"),
        ({}, None, r"is the region of the table .* itself"),
    ],
)
def test_what_cannot_be_replicated(replicated, relay, changes, region, words):
    """The message says what to do, and nothing is requested."""
    using = replicated(**changes)
    description = get_control(using).describe(get_config(using).store_table)
    region = region or replicas.region_of(description)
    with pytest.raises(CommandError, match=words):
        run("dynamo_replicas", using, "--add", region, "--no-input")
    assert not relay.changes


def test_a_replica_that_cannot_be_created(replicated, relay):
    """It is an error, not an endless wait."""
    using = replicated()
    relay.status = "CREATION_FAILED"
    with pytest.raises(CommandError, match="is CREATION_FAILED"):
        run("dynamo_replicas", using, "--add", OTHER, "--no-input")


def test_a_wait_that_takes_too_long(replicated, relay):
    """It goes on in DynamoDB."""
    relay.seconds = 60
    with pytest.raises(CommandError, match="goes on in DynamoDB"):
        run("dynamo_replicas", replicated(), "--add", OTHER, "--no-input", "--timeout", "0.3")


def test_no_replica_is_requested_before_all_tables_are_checked(replicated, relay):
    """The control table, which does not exist here, is only one of them if it is named."""
    using = replicated()
    add = ("--add", OTHER, "--no-input")
    with pytest.raises(CommandError, match=r"(?s)does not exist.*Nothing was requested"):
        run("dynamo_replicas", using, *add, "--table", get_config(using).control_table)
    assert not relay.changes
    out = io.StringIO()
    call_command("dynamo_replicas", *add, "--using", using, stdout=out)
    assert relay.changes == [("Create", OTHER)]
    assert get_config(using).control_table not in out.getvalue()


def test_failover_without_a_replica_is_a_difference(alias, replicated):
    """In the region of the other alias."""
    using = replicated(FAILOVER=alias(REGION=OTHER))
    with pytest.raises(CommandError, match=f"no replica in {OTHER}, the region of FAILOVER"):
        run("dynamo_verify", using, "--replicas")
    run("dynamo_replicas", using, "--add", OTHER, "--no-input")
    (line,) = run("dynamo_verify", using, "--replicas")
    assert line.endswith("s behind")


def test_how_far_a_replica_is_behind(replicated, relay):
    """By an item that is written here and looked for there; it is deleted again."""
    using = replicated()
    run("dynamo_replicas", using, "--add", OTHER, "--no-input")
    (line,) = run("dynamo_verify", using, "--replicas")
    seconds = float(line.removeprefix(f"{OTHER} ACTIVE, ").removesuffix(" s behind"))
    assert 0.2 <= seconds < 20
    model = StoreItem.bound_to(using)
    assert list(model.scan()) == []


def test_a_replica_that_gets_nothing(replicated, relay, monkeypatch):
    """An error after the time-out, for operators and scripts."""
    using = replicated()
    run("dynamo_replicas", using, "--add", OTHER, "--no-input")
    relay.behind = None
    monkeypatch.setattr(
        dynamo_verify, "measure_lag", lambda *args: replicas.measure_lag(*args, timeout=0.3)
    )
    with pytest.raises(CommandError, match="Replicas are missing or behind"):
        run("dynamo_verify", using, "--replicas")


def test_a_replica_that_is_not_active(replicated, relay):
    """Its status is an error, and no item is written for it."""
    using = replicated()
    run("dynamo_replicas", using, "--add", OTHER, "--no-input")
    relay.status = "INACCESSIBLE_ENCRYPTION_CREDENTIALS"
    with pytest.raises(CommandError, match=f"{OTHER} INACCESSIBLE_ENCRYPTION_CREDENTIALS"):
        run("dynamo_verify", using, "--replicas")


def test_an_interrupted_removal_is_waited_for(replicated, relay):
    """The second command requests nothing, which DynamoDB would refuse."""
    using = replicated()
    run("dynamo_replicas", using, "--add", OTHER, "--no-input")
    relay.seconds = 1.5
    remove = ("--remove", OTHER, "--allow-removal", "--no-input")
    with pytest.raises(CommandError, match="goes on in DynamoDB"):
        run("dynamo_replicas", using, *remove, "--timeout", "0.1")
    assert run("dynamo_replicas", using, *remove)[-1] == "no replicas"
    assert relay.changes == [("Create", OTHER), ("Delete", OTHER)]


def test_a_replica_that_is_being_removed_is_added_again(replicated, relay):
    """First the removal is waited for."""
    using = replicated()
    run("dynamo_replicas", using, "--add", OTHER, "--no-input")
    remove = ("--remove", OTHER, "--allow-removal", "--no-input", "--timeout", "0.1")
    with pytest.raises(CommandError, match="goes on in DynamoDB"):
        run("dynamo_replicas", using, *remove)
    lines = run("dynamo_replicas", using, "--add", OTHER, "--no-input")
    assert lines[-1] == f"{OTHER} ACTIVE"
    assert relay.changes == [("Create", OTHER), ("Delete", OTHER), ("Create", OTHER)]


def test_a_removal_that_dynamodb_gives_up(replicated, relay):
    """The replica is active again: an error, not an endless wait."""
    using = replicated()
    run("dynamo_replicas", using, "--add", OTHER, "--no-input")
    relay.keeps = True
    with pytest.raises(CommandError, match=r"did not remove the replica .* it is ACTIVE again"):
        run("dynamo_replicas", using, "--remove", OTHER, "--allow-removal", "--no-input")


def test_a_replica_that_dynamodb_drops(replicated, relay):
    """It was there, and is not any more: an error, not an endless wait."""
    relay.status = None
    with pytest.raises(CommandError, match="did not keep the replica"):
        run("dynamo_replicas", replicated(), "--add", OTHER, "--no-input")


def test_the_control_table_is_replicated_only_by_name(replicated, relay):
    """What it has belongs to one region; a list names it."""
    using = replicated()
    store = get_config(using).store_table
    control = f"{store}-control"
    create_table(table_of(ControlItem.bound_to(using)), lambda line: None)
    try:
        out = io.StringIO()
        call_command("dynamo_replicas", "--using", using, "--add", OTHER, "--no-input", stdout=out)
        assert f"{store}: {OTHER} ACTIVE" in out.getvalue()
        assert control not in out.getvalue()
        call_command("dynamo_replicas", "--using", using, stdout=out)
        assert f"{control}: no replicas" in out.getvalue()
        named = ("--using", using, "--table", control, "--add", OTHER, "--no-input")
        call_command("dynamo_replicas", *named, stdout=out)
        assert f"{control}: {OTHER} ACTIVE" in out.getvalue()
    finally:
        get_control(using).call("DeleteTable", {"TableName": control})
