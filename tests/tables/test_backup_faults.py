"""Backups and restores through faults, and with many items: nothing dropped, little memory."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import pytest
from django.core.management import CommandError

from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.control import get_control
from dynamo_stores.calls.observer import measuring
from dynamo_stores.testing import CannedServer
from tests.helpers.commands import run
from tests.helpers.faults import QUICK
from tests.helpers.items import put_all, read_all

ITEMS = [
    {"id": {"S": f"p{n % 50}"}, "n": {"N": str(n)}, "d": {"B": bytes(n % 300)}} for n in range(600)
]


@pytest.fixture
def faulty(alias, dynamo_faults):
    """An alias behind the proxy that injects faults."""
    return alias(ENDPOINT_URL=dynamo_faults.url, RETRY=QUICK, OPERATION_TIMEOUT=5.0)


def test_nothing_is_dropped_through_faults(make_table, faulty, dynamo_faults, tmp_path):
    """Lost answers, closed connections, throttles, batches that are processed in part."""
    table, copy = make_table(), make_table()
    put_all("default", table, ITEMS)
    dynamo_faults.throttle("Scan", times=3)
    dynamo_faults.reset("Scan", times=1)
    dynamo_faults.cut("Scan", times=1)
    written = run("dynamo_backup", table, output=tmp_path / "b", using=faulty)
    assert f"{table}: 600 items" in written
    dynamo_faults.lose_answer("BatchWriteItem", times=1)
    dynamo_faults.take_in_part("BatchWriteItem", 7, times=10)
    dynamo_faults.throttle("BatchWriteItem", times=3)
    run("dynamo_restore", tmp_path / "b", table=copy, using=faulty)
    assert read_all("default", copy) == read_all("default", table)


def test_what_is_left_at_a_deadline_is_written_again(make_table, alias, dynamo_faults, tmp_path):
    """A batch that is processed in part until its request has no time left."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY=QUICK, OPERATION_TIMEOUT=0.2)
    table, copy = make_table(), make_table()
    put_all("default", table, ITEMS[:100])
    run("dynamo_backup", table, output=tmp_path / "b", segments=1)
    dynamo_faults.take_in_part("BatchWriteItem", 1, times=40)
    out = run("dynamo_restore", tmp_path / "b", table=copy, using=using, no_verify=True)
    assert f"{copy}: 100 items written, not compared." in out
    assert read_all("default", copy) == read_all("default", table)


def test_a_comparison_of_merged_items_keeps_what_was_read(
    make_table, alias, dynamo_faults, tmp_path
):
    """A batch of which each request reads one item, and that takes longer than a call may take."""
    using = alias(ENDPOINT_URL=dynamo_faults.url, RETRY=QUICK, OPERATION_TIMEOUT=1.5)
    table = make_table()
    put_all("default", table, ITEMS[:40])
    run("dynamo_backup", table, output=tmp_path / "b", segments=1)
    dynamo_faults.take_in_part("BatchGetItem", 1)
    with measuring() as calls:
        out = run("dynamo_restore", tmp_path / "b", table=table, using=using, overwrite=True)
    assert f"{table}: 40 items written, compared by digest." in out
    assert sum(each.operation == "BatchGetItem" for each in calls) < 80


@pytest.mark.parametrize("mode", [{"keep_existing": True}, {"overwrite": True}])
def test_a_merge_that_an_outage_interrupts_is_resumed(
    make_table, faulty, dynamo_faults, tmp_path, mode
):
    """With the way to merge that it began with; what was there stays, or is replaced."""
    table, target = make_table(), make_table()
    put_all("default", table, ITEMS)
    live = [{**item, "d": {"S": "live"}} for item in ITEMS[:100]]
    put_all("default", target, live)
    run("dynamo_backup", table, output=tmp_path / "b", checkpoint=0.001, segments=2)
    operation = "PutItem" if "keep_existing" in mode else "BatchWriteItem"
    options = {"table": target, "using": faulty, "segments": 1}
    dynamo_faults.delay(0, operation, times=3)
    dynamo_faults.fail(operation)
    with pytest.raises(CommandError, match="Run the same command with --resume"):
        run("dynamo_restore", tmp_path / "b", **options, **mode)
    dynamo_faults.clear()
    other = {"overwrite": True} if "keep_existing" in mode else {"keep_existing": True}
    with pytest.raises(CommandError, match="The restore began with --"):
        run("dynamo_restore", tmp_path / "b", resume=True, **options, **other)
    # The breaker of the table is of the alias.
    get_connection(faulty).policy_for(target).breaker.reset()
    run("dynamo_restore", tmp_path / "b", resume=True, **options)
    found = read_all("default", target)
    assert len(found) == 600
    kept = sum("S" in item["d"] for item in found.values())
    assert kept == (100 if "keep_existing" in mode else 0)


def test_a_resumed_restore_writes_no_step_of_a_file_again(
    make_table, faulty, dynamo_faults, tmp_path
):
    """Of one file with 600 items, 200 were written: 16 requests write the others."""
    table, target = make_table(), make_table()
    put_all("default", table, ITEMS)
    run("dynamo_backup", table, output=tmp_path / "b", segments=1)
    options = {"table": target, "using": faulty, "checkpoint": 1e-9}
    dynamo_faults.delay(0, "BatchWriteItem", times=8)
    dynamo_faults.fail("BatchWriteItem")
    with pytest.raises(CommandError, match="Run the same command with --resume"):
        run("dynamo_restore", tmp_path / "b", **options)
    dynamo_faults.clear()
    get_connection(faulty).policy_for(target).breaker.reset()
    with measuring() as calls:
        written = run("dynamo_restore", tmp_path / "b", resume=True, **options)
    assert f"{target}: 600 items written, compared by digest." in written
    assert sum(each.operation == "BatchWriteItem" for each in calls) == 16
    assert read_all("default", target) == read_all("default", table)


def test_a_resume_of_another_restore_is_refused(make_table, faulty, dynamo_faults, tmp_path):
    """Of another backup, or into a table that was made again."""
    first, second, target = make_table(), make_table(), make_table()
    put_all("default", first, ITEMS[:50])
    put_all("default", second, ITEMS[50:90])
    for name, table in (("a", first), ("b", second)):
        run("dynamo_backup", table, output=tmp_path / name)
    state = tmp_path / "state.jsonl"
    options = {"table": target, "using": faulty, "state": state}
    dynamo_faults.fail("BatchWriteItem")
    with pytest.raises(CommandError, match="BatchWriteItem"):
        run("dynamo_restore", tmp_path / "a", **options)
    dynamo_faults.clear()
    with pytest.raises(CommandError, match="is of another restore"):
        run("dynamo_restore", tmp_path / "b", resume=True, **options)
    get_control().call("DeleteTable", {"TableName": target})
    with pytest.raises(CommandError, match="was deleted since the restore began"):
        run("dynamo_restore", tmp_path / "a", resume=True, **options)
    state.unlink()
    assert "50 items written" in run("dynamo_restore", tmp_path / "a", table=target)


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_table(alias, start_process, tmp_path):
    """28 MB of items more take less than 12 MB more: backup, restore and comparison."""

    def peak(server, *arguments):
        """The most memory that a process of the command had, in MB."""
        # One segment: how many pages are in memory at a time is no matter of chance.
        words = ["django", *map(str, arguments), "--segments", "1"]
        process = start_process(*words, DYNAMODB_ENDPOINT=server.url)
        most = 0
        while process.poll() is None:
            # Of the program, where getrusage has the parent's; a zombie has none.
            with contextlib.suppress(OSError, TypeError):
                status = Path(f"/proc/{process.pid}/status").read_text()
                most = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
            time.sleep(0.01)
        assert process.returncode == 0, (tmp_path / "process.log").read_text()
        return most / 1024

    def peaks(server, count):
        using = alias(ENDPOINT_URL=server.url)
        table = f"items-{count}"
        get_control(using).call(
            "CreateTable",
            {
                "TableName": table,
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                "BillingMode": "PAY_PER_REQUEST",
            },
        )
        items = ({"id": {"S": str(n)}, "d": {"S": f"{n:2000}"}} for n in range(count))
        put_all(using, table, items)
        folder = tmp_path / table
        return [
            peak(server, "dynamo_backup", table, "--output", folder),
            peak(server, "dynamo_restore", folder, "--table", f"copy-{count}"),
            peak(server, "dynamo_verify", "--table", table, "--with", f"copy-{count}"),
        ]

    with CannedServer() as server:
        few, many = peaks(server, 3_000), peaks(server, 17_000)
    assert (
        "copy-17000: 17,000 items written, compared by digest"
        in (tmp_path / "process.log").read_text()
    )
    growth = [after - before for before, after in zip(few, many, strict=True)]
    print("memory in MB:", few, many)
    assert max(growth) < 12
