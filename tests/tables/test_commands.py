"""The commands about tables: create once, never change, compare with the models."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from dynamo_stores import clock
from dynamo_stores.calls.control import get_control
from dynamo_stores.capacity.usage import minute_of
from dynamo_stores.conf import get_config
from dynamo_stores.infrastructure.tables import table_of, wanted_tables
from dynamo_stores.management.commands.dynamo_local import _default_port
from dynamo_stores.models import ControlItem, StoreItem
from dynamo_stores.monitoring.report import Calls
from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.monitoring.reporter import get_reporter
from dynamo_stores.testing import EmbeddedEngine, find_free_port
from tests.helpers.commands import run

NAN, INFINITE = float("nan"), float("inf")


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
    planned = run("dynamo_create_tables", table=[name], dry_run=True)
    assert re.match(rf"Alias {using}: endpoint 127\.0\.0\.1:\d+, region us-east-1\n", planned)
    assert f"{name}: would be created" in planned
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


@pytest.mark.parametrize("is_short", [True, False])
def test_commands_take_the_name_in_a_model_and_that_in_dynamodb(fresh, is_short, tmp_path):
    """All name the table by its name in DynamoDB; a table of no model has only that name."""
    using, full = fresh()
    name, folder = "dynamo-stores" if is_short else full, tmp_path / "backup"
    run("dynamo_create_tables", table=[name], using=[using])
    assert f"{full}: matches" in run("dynamo_verify", table=[name], using=using)
    assert f"{full}: 0 items in" in run("dynamo_backup", name, output=folder, using=using)
    assert f"{full} and" in run("dynamo_verify", table=[name], using=[using], with_backup=folder)
    assert f"{full}: 0 items written" in run("dynamo_restore", folder, table=name, using=using)
    with pytest.raises(CommandError, match="There is no table other at"):
        run("dynamo_backup", "other", output=tmp_path / "c", using=using)


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
        "forum-support",
    ]


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("dynamo_local", "port", 99999),
        ("dynamo_local", "port", -1),
        ("dynamo_local", "updating", -1.0),
        ("dynamo_local", "updating", NAN),
        ("dynamo_local", "burst", 0.0),
        ("dynamo_local", "burst", INFINITE),
        ("dynamo_benchmark", "calls", 0),
        ("dynamo_benchmark", "calls", -3),
        ("dynamo_benchmark", "rounds", 0),
        ("dynamo_benchmark", "bytes", -1),
        ("dynamo_benchmark", "bytes", 400_000),
        ("dynamo_benchmark", "processes", 0),
        ("dynamo_benchmark", "items", -1),
        ("dynamo_benchmark", "items", 1_000_001),
        ("dynamo_benchmark", "rate", 0),
        ("dynamo_benchmark", "seconds", NAN),
        ("dynamo_benchmark", "seconds", -1.0),
        ("dynamo_status", "watch", 0.0),
        ("dynamo_status", "watch", NAN),
        ("dynamo_status", "watch", INFINITE),
        ("dynamo_cleanup", "segments", 0),
        ("dynamo_cleanup", "segments", 1_000_001),
        ("dynamo_cleanup", "units_per_second", 0.0),
        ("dynamo_cleanup", "units_per_second", NAN),
        ("dynamo_cleanup", "units_per_second", INFINITE),
    ],
)
def test_wrong_numbers_are_named_before_any_work(command, option, value):
    """The error has the option, its value and what was expected."""
    name = option.replace("_", "-")
    with pytest.raises(CommandError, match=f"^--{name} is {value}; expected "):
        call_command(command, **{option: value})


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("dynamo_create_tables", {"using": ["defualt"]}),
        ("dynamo_verify", {"using": ["default", "defualt"]}),
        ("dynamo_benchmark", {"using": "defualt"}),
        ("dynamo_cleanup", {"using": ["defualt"]}),
        ("dynamo_reconcile", {"using": ["defualt"]}),
        ("dynamo_status", {"using": ["defualt"]}),
        ("dynamo_update_tables", {"using": ["defualt"]}),
    ],
)
def test_an_unknown_alias_is_named_with_the_nearest(tables, command, options):
    """And the others are listed."""
    with pytest.raises(CommandError, match="no alias 'defualt'; did you mean 'default'"):
        run(command, **options)


def test_a_folder_that_cannot_be_used_is_a_sentence(tmp_path):
    """A file, a folder within a file, a place where none can be made."""
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "data", Path("/proc/nope")):
        with pytest.raises(CommandError, match=f"The folder for the data, {folder}, cannot be"):
            call_command("dynamo_local", data_dir=folder)


def test_a_state_file_that_cannot_be_used_is_a_sentence(tables, settings, tmp_path):
    """A folder, a place that takes no files, a file of another program or shape."""
    settings.CACHES = {"default": {"BACKEND": "dynamo_stores.cache.DynamoDBCache"}}
    for state in (tmp_path, Path("/proc/nope")):
        with pytest.raises(CommandError, match=f"^--state is {state}; expected a file that can"):
            run("dynamo_cleanup", state=state)
    state = tmp_path / "state.json"
    arguments = {"segments": 1, "scan": False, "dry_run": False}
    for position in (5, [1], {"a": None}, {"7": None}, {"0": {"PK": "x"}}, {"0": 3}):
        state.write_text(json.dumps({"default": {"arguments": arguments, "position": position}}))
        with pytest.raises(CommandError, match="is not a file that --state wrote"):
            run("dynamo_cleanup", state=state)
    for content in ("", "null", "3", '{"default": 3}', '{"default": null}', "\x00", "\udcff"):
        state.write_text(content, errors="surrogateescape")
        with pytest.raises(CommandError, match="is not a file that --state wrote"):
            run("dynamo_cleanup", state=state)


@pytest.mark.parametrize("command", ["dynamo_create_tables", "dynamo_verify"])
def test_other_aliases_go_on_when_one_does_not_answer(alias, command, dynamo_engine):
    """Its first table takes the time of an attempt, its others none; the end names it."""
    dead = alias(ENDPOINT_URL="http://127.0.0.1:9", TABLE_PREFIX="nowhere-")
    using = alias(TABLE_PREFIX=f"fresh-{secrets.token_hex(4)}-")
    names = [model.bound_to(using).Meta.table_name for model in (StoreItem, ControlItem)]
    if command == "dynamo_verify":
        run("dynamo_create_tables", using=[using])
    out = io.StringIO()
    with pytest.raises(CommandError) as failed:
        call_command(command, stdout=out, using=[using, dead])
    assert f"nowhere-dynamo-stores of alias '{dead}': DescribeTable" in str(failed.value)
    assert "nowhere-dynamo-stores-control" not in str(failed.value)
    for name in names:
        done = "matches its model" if command == "dynamo_verify" else "created"
        assert f"{name}: {done}" in out.getvalue()
        get_control(using).call("DeleteTable", {"TableName": name})


def test_only_the_tables_of_the_chosen_aliases(alias, default_alias):
    """Also those that an alias shares with another one, which are listed once."""
    shared, other = alias(), alias(TABLE_PREFIX="other-")

    def listed(*using):
        out = run("dynamo_create_tables", using=list(using), dry_run=True)
        lines = [line for line in out.splitlines() if not line.startswith("Alias ")]
        return [line.partition(":")[0] for line in lines]

    prefix = default_alias["TABLE_PREFIX"]
    assert listed(shared) == [f"{prefix}dynamo-stores", f"{prefix}dynamo-stores-control"]
    assert listed(other) == ["other-dynamo-stores", "other-dynamo-stores-control"]
    assert listed(shared, other) == listed(shared) + listed(other)


def test_a_benchmark_that_is_terminated_deletes_its_tables(dynamo_engine):
    """SIGTERM while it measures."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "dynamo_benchmark", "-v2", "--rounds", "100000"],
        env={
            **os.environ,
            "ENV_FILE": os.devnull,
            "DYNAMODB_ENDPOINT": dynamo_engine,
            "AWS_REGION": "us-east-1",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        prefix = process.stderr.readline().removeprefix("the tables ").strip().removesuffix("*")
        control = get_control()
        names = [f"{prefix}dynamo-stores", f"{prefix}dynamo-stores-control"]
        assert all(control.describe(name) for name in names)
        assert "process 1 of 3" in process.stderr.readline()
        process.terminate()
        process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert not any(control.describe(name) for name in names)


def test_tables_are_created_as_soon_as_a_local_engine_answers(default_alias, capsys):
    """The two commands of the quickstart can be pasted together."""
    port = find_free_port()
    engine = EmbeddedEngine(port)
    starting = threading.Timer(1.5, engine.start)
    own = {**default_alias, "ENDPOINT_URL": f"http://127.0.0.1:{port}"}
    try:
        with override_settings(DYNAMO_STORES={"default": own}):
            starting.start()
            call_command("dynamo_create_tables", table=[get_config().store_table])
            assert get_control().describe(get_config().store_table) is not None
    finally:
        starting.join()
        engine.stop()
    assert f"Waiting for DynamoDB at http://127.0.0.1:{port}." in capsys.readouterr().out


def test_the_local_engine_has_the_port_of_the_settings():
    """That of a local ENDPOINT_URL, and otherwise one that runserver does not use."""
    with override_settings(DYNAMO_STORES={"default": {"ENDPOINT_URL": "http://127.0.0.1:8017"}}):
        assert _default_port() == 8017
    with override_settings(DYNAMO_STORES={"default": {"REGION": "eu-west-1"}}):
        assert _default_port() == 8400


def test_cleanup_goes_on_with_other_aliases(alias, settings, tmp_path):
    """The alias that does not answer is named; the position of a cleanup that failed is kept."""
    dead, using = alias(ENDPOINT_URL="http://127.0.0.1:9"), alias()
    backend = "dynamo_stores.cache.DynamoDBCache"
    settings.CACHES = {
        "dead": {"BACKEND": backend, "LOCATION": dead, "OPTIONS": {"OPERATION_TIMEOUT": 0.3}},
        "own": {"BACKEND": backend, "LOCATION": using, "KEY_PREFIX": secrets.token_hex(4)},
    }
    state = tmp_path / "state.json"
    arguments = {"segments": 1, "scan": False, "dry_run": False}
    key = {"PK": {"S": "k"}, "SK": {"S": "ENTRY"}}
    kept = {"dead": {"arguments": arguments, "position": {"0": key}}}
    state.write_text(json.dumps(kept))
    out = io.StringIO()
    with pytest.raises(CommandError, match=f"^Alias '{dead}': .* got no answer"):
        call_command("dynamo_cleanup", stdout=out, state=state)
    # A slow engine makes it write its progress, too.
    assert out.getvalue().splitlines()[-1] == "own: 0 expired items removed"
    assert json.loads(state.read_text()) == kept
    removed = run("dynamo_cleanup", using=[using])
    assert removed.splitlines()[-1] == "own: 0 expired items removed"
    assert (
        run("dynamo_cleanup", using=["default"]) == "No cache of CACHES uses the alias default.\n"
    )
    with pytest.raises(CommandError, match=f"The cache 'dead' is of the alias '{dead}'; expected"):
        run("dynamo_cleanup", cache=["dead"], using=[using])


def test_reconcile_goes_on_with_other_aliases(alias):
    """The alias that does not answer is named, an alias that does not exist ends it before."""
    dead, using = alias(ENDPOINT_URL="http://127.0.0.1:9", OPERATION_TIMEOUT=0.3), alias()
    with pytest.raises(CommandError, match=f"^Alias '{dead}': ") as failed:
        run("dynamo_reconcile", using=[dead, using])
    assert using not in str(failed.value)
    assert run("dynamo_reconcile", using=[using]) == "No table is due.\n"


def test_scale_goes_on_with_other_aliases(alias):
    """Each alias that fails has a line of its own."""
    dead, using = alias(ENDPOINT_URL="http://127.0.0.1:9", OPERATION_TIMEOUT=0.3), alias()
    with pytest.raises(CommandError) as failed:
        call_command("dynamo_scale", "none", "up", using=[dead, using])
    first, second = str(failed.value).splitlines()
    assert first.startswith(f"Alias '{dead}': ")
    assert second.startswith(f"Alias '{using}': ")
    assert "has no table none. Known tables: " in second
    with pytest.raises(CommandError, match="no alias 'defualt'; did you mean 'default'"):
        call_command("dynamo_scale", "none", "up", using=[using, "defualt"])


def test_status_shows_the_chosen_aliases(alias):
    """Those that answer are shown, those that do not are named at the end."""
    dead = alias(ENDPOINT_URL="http://127.0.0.1:9", TABLE_PREFIX="nowhere-")
    using = alias(TABLE_PREFIX=f"fresh-{secrets.token_hex(4)}-")
    names = [model.bound_to(using).Meta.table_name for model in (StoreItem, ControlItem)]
    run("dynamo_create_tables", using=[using])
    shown = run("dynamo_status", using=[using])
    assert f"{names[0]}: ACTIVE" in shown
    assert "nowhere" not in shown
    out = io.StringIO()
    with pytest.raises(CommandError, match=f"^Alias '{dead}': DynamoDB does not answer"):
        call_command("dynamo_status", stdout=out, using=[dead, using])
    assert f"{names[0]}: ACTIVE" in out.getvalue()
    report = replace(get_reporter(using).report(), token="other")
    latency = {names[0]: {"GetItem": {40: 99, 60: 1}}}
    minutes = {minute_of(clock.now()): latency}
    ReportStore(using).publish(replace(report, latencies=minutes, calls={names[0]: Calls(100)}))
    shown = run("dynamo_status", using=[using])
    assert "  GetItem: 0.94 ms (p50), 0.94 ms (p95), 0.94 ms (p99), 100 calls in five" in shown
    for name in names:
        get_control(using).call("DeleteTable", {"TableName": name})
