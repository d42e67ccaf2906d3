"""Backups and restores that are killed: resumed without loss, at the pace of a small table."""

from __future__ import annotations

import gzip
import json
import os
import signal
import time

import pytest
from django.core.management import CommandError

from dynamo_stores.calls.control import get_control
from dynamo_stores.calls.observer import measuring
from dynamo_stores.infrastructure.backups.restore import RestoreJob, restore
from dynamo_stores.infrastructure.backups.schema import Schema
from dynamo_stores.infrastructure.backups.source import open_source
from tests.helpers.commands import run
from tests.helpers.items import EVERY_TYPE, put_all, read_all

# Read and write units of the small tables.
READ, WRITE = 30, 100
ITEMS = [
    EVERY_TYPE,
    *(
        {"id": {"S": f"p{n}"}, "n": {"N": str(n)}, "data": {"B": bytes([n % 256]) * 1_000}}
        for n in range(400)
    ),
]


@pytest.fixture
def small_table(make_table, dynamo_capacity, alias):
    """A provisioned table with items behind a relay that throttles: alias, URL and name."""
    table = make_table(read=READ, write=WRITE)
    put_all("default", table, ITEMS)
    relay = dynamo_capacity(burst=2.0)
    return alias(ENDPOINT_URL=relay.url), relay.url, table


@pytest.fixture
def start_command(start_process):
    """``start_command(url, "dynamo_backup", …)``: a process of the command."""

    def start(url, *arguments):
        return start_process(
            "django", *map(str, arguments), DYNAMODB_ENDPOINT=url, PYTHONUNBUFFERED="1"
        )

    return start


def lines(path):
    """The number of whole lines in a file."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_a_killed_backup_and_a_killed_restore_go_on_without_loss(
    small_table, start_command, make_table, until, tmp_path
):
    """SIGKILL in the middle of both; the new table is equal byte for byte."""
    using, url, table = small_table
    folder, copy = tmp_path / "b", make_table.name()
    options = ("--share", 1, "--segments", 3, "--checkpoint", 0.2)
    backup = start_command(url, "dynamo_backup", table, "--output", folder, *options)
    until(lambda: lines(folder / "progress.jsonl") >= 4)
    os.killpg(backup.pid, signal.SIGKILL)
    backup.wait(30)
    with pytest.raises(CommandError, match="is incomplete: it was interrupted"):
        run("dynamo_restore", folder, table=copy)
    finished = {path.name: path.stat().st_mtime_ns for path in (folder / "data").glob("*.gz")}
    with measuring() as calls:
        written = run(
            *("dynamo_backup", table),
            **{"output": folder, "using": using, "share": 1.0, "segments": 3, "checkpoint": 0.2},
        )
    assert "Continues the backup of" in written
    assert f"{table}: {len(ITEMS)} items" in written
    # What was finished was neither read nor written again.
    kept = {p.name: p.stat().st_mtime_ns for p in (folder / "data").iterdir()}
    journaled = [name for name in finished if kept[name] == finished[name]]
    assert len(journaled) >= 3
    read_again = sum(sum(each.units.values()) for each in calls if each.operation == "Scan")
    assert read_again < len(ITEMS) / 4 + 20

    restore = ("dynamo_restore", folder, "--table", copy, "--share", 1, "--checkpoint", 0.2)
    state = folder / f"restore-default-{copy}.jsonl"
    process = start_command(url, *restore)
    until(lambda: lines(state) >= 4 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    assert 0 < len(read_all("default", copy)) < len(ITEMS)
    with pytest.raises(CommandError, match=r"was interrupted; .* Continue it with --resume"):
        run("dynamo_restore", folder, table=copy, state=state)
    process = start_command(url, *restore, "--resume")
    assert process.wait(60) == 0, (tmp_path / "process.log").read_text()
    assert (
        f"{copy}: {len(ITEMS)} items written, compared by digest."
        in (tmp_path / "process.log").read_text()
    )
    assert read_all("default", copy) == read_all("default", table)
    assert sorted(path.name for path in folder.iterdir()) == ["data", "manifest.json"]
    assert get_control().describe(copy)["ProvisionedThroughput"]["ReadCapacityUnits"] == READ


def test_large_items_pass_through_a_small_capacity(
    make_table, dynamo_capacity, alias, until, tmp_path
):
    """Items of 390 KB, each of which takes all units of some seconds, in a relay that throttles."""
    table = make_table(read=20, write=40)
    items = [
        {"id": {"S": str(n)}, "n": {"N": "1"}, "data": {"B": bytes([n]) * 390_000}}
        for n in range(5)
    ]
    put_all("default", table, items)
    copy = make_table.name()
    # Ten times as fast, so that an item takes 0.5 s to read and 1 s to write.
    using = alias(ENDPOINT_URL=dynamo_capacity(burst=2.0, speed=10).url, OPERATION_TIMEOUT=20.0)
    run("dynamo_backup", table, output=tmp_path / "b", using=using, units=200.0)
    options = {"table": copy, "using": using, "units": 400.0, "no_verify": True}
    run("dynamo_restore", tmp_path / "b", **options)
    assert read_all("default", copy) == read_all("default", table)


@pytest.mark.parametrize("mode", ["overwrite", "keep_existing"])
def test_merged_items_are_compared_at_the_pace_of_a_small_table(
    make_table, dynamo_capacity, alias, tmp_path, mode
):
    """Although 30 items of six units are more than the table reads in the time of a request."""
    table = make_table(read=40, write=4000)
    items = [
        {"id": {"S": f"p{n}"}, "n": {"N": "1"}, "data": {"B": bytes([n]) * 24_000}}
        for n in range(30)
    ]
    put_all("default", table, items)
    run("dynamo_backup", table, output=tmp_path / "b", segments=1, units=10_000.0)
    using = alias(ENDPOINT_URL=dynamo_capacity(burst=1.0).url, OPERATION_TIMEOUT=2.0)
    with measuring() as calls:
        written = run(
            *("dynamo_restore", tmp_path / "b"),
            **{"table": table, "using": using, "share": 0.9, mode: True},
        )
    assert "compared by digest" in written
    reads = [each for each in calls if each.operation == "BatchGetItem"]
    assert len(reads) > 1
    assert not any(each.throttled for each in reads)


def test_the_comparison_takes_the_units_of_the_restore(make_table, tmp_path):
    """Of an on-demand table, too: 30 items of one unit at 100 units a second."""
    table = make_table()
    items = [
        {"id": {"S": f"p{n}"}, "n": {"N": "1"}, "data": {"B": bytes(4_000)}} for n in range(30)
    ]
    put_all("default", table, items)
    run("dynamo_backup", table, output=tmp_path / "b", segments=1)
    compared = []

    def note(phase, items):
        if phase == "Compared":
            compared.append(time.monotonic())

    source, state = open_source(tmp_path / "b"), tmp_path / "state"
    job = RestoreJob(source, make_table(), "default", state, threads=1, units=100.0)
    restore(job, progress=note)
    assert compared[-1] - compared[0] > 0.15


def test_an_interrupted_backup_says_how_to_go_on(
    small_table, start_command, until, interruptible, tmp_path
):
    """Ctrl-C: one sentence, exit status 130, no half file among the finished ones."""
    _, url, table = small_table
    process = start_command(
        *(url, "dynamo_backup", table, "--output", tmp_path / "b"),
        *("--share", 0.5, "--checkpoint", 0.2),
    )
    until(lambda: lines(tmp_path / "b" / "progress.jsonl") >= 2)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(10) == 130
    log = (tmp_path / "process.log").read_text()
    assert "CommandError: Interrupted. Run the same command again" in log
    assert "Traceback" not in log
    journal = (tmp_path / "b" / "progress.jsonl").read_text().splitlines()
    for entry in map(json.loads, journal[1:]):
        if entry["file"]:
            content = gzip.decompress(
                (tmp_path / "b" / "data" / entry["file"]["name"]).read_bytes()
            )
            assert content.count(b"\n") == entry["file"]["items"]


def test_a_backup_takes_its_share_of_the_capacity(small_table, tmp_path):
    """What is over a second's worth takes its time, and no request is throttled."""
    using, _, table = small_table
    began = time.monotonic()
    with measuring() as calls:
        run("dynamo_backup", table, output=tmp_path / "b", using=using, share=0.8)
    seconds = time.monotonic() - began
    scans = [each for each in calls if each.operation == "Scan"]
    units = sum(sum(each.units.values()) for each in scans)
    assert units >= 100
    # At most the first pages of the segments, a second's worth, were not waited for.
    assert seconds > (units - 0.8 * READ - 5) / (0.8 * READ)
    assert not any(each.throttled for each in scans)


def test_a_resume_of_something_else_is_refused(make_table, tmp_path, dynamo_faults, alias):
    """Another number of segments, another table, a table that was made again, a folder in use."""
    table, other = make_table(), make_table()
    put_all("default", table, ITEMS[:50])
    using = alias(ENDPOINT_URL=dynamo_faults.url, OPERATION_TIMEOUT=1.0)
    folder = tmp_path / "b"
    dynamo_faults.fail("Scan")
    with pytest.raises(CommandError, match="Scan"):
        run("dynamo_backup", table, output=folder, using=using)
    dynamo_faults.clear()
    for options, named in (
        ({"segments": 2}, "began with --segments 4, not 2"),
        ({"eventual": True}, "--eventual"),
    ):
        with pytest.raises(CommandError, match=named):
            run("dynamo_backup", table, output=folder, using=using, **options)
    with pytest.raises(CommandError, match="began with the table"):
        run("dynamo_backup", other, output=folder, using=using)
    with pytest.raises(CommandError, match="began with the endpoint"):
        run("dynamo_backup", table, output=folder)
    control = get_control()
    before = Schema.of_description(control.describe(table), None).request
    by_id = {
        "KeySchema": before["KeySchema"][:1],
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    for schema, change in (
        (before, "it was deleted and created again"),
        (by_id, r"its key is id \(S\), expected id \(S\), n \(N\)"),
    ):
        control.call("DeleteTable", {"TableName": table})
        control.call("CreateTable", {"TableName": table, **schema})
        with pytest.raises(CommandError, match=f"{table} changed since the backup.*: {change}"):
            run("dynamo_backup", table, output=folder, using=using)
    assert "0 items in" in run("dynamo_backup", table, output=folder, using=using, restart=True)


def test_an_interrupted_restore_ends_also_while_it_is_throttled(
    small_table, start_command, make_table, until, interruptible, tmp_path
):
    """Within seconds, although requests wait for half a minute."""
    _, url, table = small_table
    run("dynamo_backup", table, output=tmp_path / "b")
    target = make_table(read=READ, write=1)
    command = ("dynamo_restore", tmp_path / "b", "--table", target, "--units", 1000)
    process = start_command(url, *command)
    state = tmp_path / "b" / f"restore-default-{target}.jsonl"
    until(lambda: lines(state) >= 2 and read_all("default", target))
    time.sleep(1)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(10) == 130
    log = (tmp_path / "process.log").read_text()
    assert "Interrupted. Run the same command with --resume" in log
