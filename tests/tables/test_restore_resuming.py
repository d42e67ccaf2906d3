"""Restores that are interrupted: what goes on, what is refused, and what is said of it."""

from __future__ import annotations

import dataclasses

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from django.core.management import CommandError

from dynamo_stores.calls.control import get_control
from dynamo_stores.exceptions import BackupError, StoreUnavailable
from dynamo_stores.infrastructure.backups.journal import Journal
from dynamo_stores.infrastructure.backups.restore import Mode, RestoreJob, restore
from dynamo_stores.infrastructure.backups.schema import Schema
from dynamo_stores.infrastructure.backups.source import open_source
from tests.helpers.commands import backed_up, run, small
from tests.helpers.items import put_all, read_all


def test_a_restore_into_an_empty_table_is_continued_with_existing_items_kept(make_table, tmp_path):
    """And so is the rest of it, if it is interrupted again."""
    backed_up(make_table, tmp_path / "b", small(250, v={"S": "backup"}))
    target = make_table()

    def interrupt(phase, items):
        if phase == "Handled" and items:
            raise BackupError("interrupted")

    source, state = open_source(tmp_path / "b"), tmp_path / "state"
    job = RestoreJob(source, target, "default", state, threads=1)
    with pytest.raises(BackupError, match="interrupted"):
        restore(job, progress=interrupt)
    put_all("default", target, small(250, v={"S": "new"}))
    kept = dataclasses.replace(job, resume=True, mode=Mode.KEEP)
    with pytest.raises(BackupError, match="interrupted"):
        restore(kept, progress=interrupt)
    with pytest.raises(BackupError, match=r"began with --keep-existing; continue it without"):
        restore(dataclasses.replace(job, resume=True, mode=Mode.OVERWRITE))
    assert restore(dataclasses.replace(job, resume=True)).verified
    assert {each["v"]["S"] for each in read_all("default", target).values()} == {"new"}


def test_a_resumed_restore_says_that_it_keeps_its_own_items(make_table, tmp_path):
    """It ends before its progress is saved, so that it does not know what it wrote."""
    backed_up(make_table, tmp_path / "b", small(250, v={"S": "backup"}))
    target, state = make_table.name(), tmp_path / "state"

    def interrupt(phase, items):
        if phase == "Handled" and items:
            raise BackupError("interrupted")

    source = open_source(tmp_path / "b")
    job = RestoreJob(source, target, "default", state, Mode.KEEP, threads=1, checkpoint=600)
    with pytest.raises(BackupError, match="interrupted"):
        restore(job, progress=interrupt)
    own = len(read_all("default", target))
    restored = run("dynamo_restore", tmp_path / "b", table=target, state=state, resume=True)
    assert own
    assert (
        f"{target}: {250 - own} items written, {own} kept as they were (also items that this "
        "restore wrote just before it was interrupted), compared by digest." in restored
    )


@pytest.mark.parametrize("is_there", [False, True])
def test_a_crash_while_the_table_is_created_is_resumed(make_table, tmp_path, is_there):
    """Before and after CreateTable: the table is filled, and gets its TTL."""
    table = make_table()
    ttl = {"AttributeName": "ttl", "Enabled": True}
    get_control().call("UpdateTimeToLive", {"TableName": table, "TimeToLiveSpecification": ttl})
    put_all("default", table, small(30))
    run("dynamo_backup", table, output=tmp_path / "b")
    source = open_source(tmp_path / "b")
    copy = make_table() if is_there else make_table.name()
    state = tmp_path / "state"
    with Journal(state) as journal:
        journal.begin(
            {
                "version": 1,
                "backup": source.identity,
                "table": copy,
                "place": get_control().place,
                "mode": "empty",
                "created": True,
            }
        )
    restored = run("dynamo_restore", tmp_path / "b", table=copy, state=state, resume=True)
    assert f"{copy}: 30 items written, compared by digest." in restored
    assert get_control().ttl_attribute(copy) == "ttl"
    assert not state.exists()


def test_a_table_that_appears_before_a_resume_must_fit(make_table, tmp_path):
    """CreateTable was refused, and somebody made the table with another key."""
    backed_up(make_table, tmp_path / "b", small(30))
    target = make_table.name()
    state = tmp_path / "state"
    source = open_source(tmp_path / "b")
    job = RestoreJob(source, target, "default", state)
    refused = dataclasses.replace(job, schema=Schema({**source.schema.request, "BillingMode": "?"}))
    with pytest.raises((ClientError, BotoCoreError, StoreUnavailable)):
        restore(refused)
    request = {
        "TableName": target,
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
        "BillingMode": "PAY_PER_REQUEST",
    }
    get_control().call("CreateTable", request)
    with pytest.raises(BackupError, match=r"does not fit: its key is id \(S\), expected"):
        restore(dataclasses.replace(job, resume=True))
    get_control().call("DeleteTable", {"TableName": target})
    assert restore(dataclasses.replace(job, resume=True)).written == 30


@pytest.mark.parametrize(
    "entry",
    [{"mode": "other"}, {"file": "a", "written": 1}, {"file": 1, "written": 1, "kept": 1},
     {"digest": "00", "items": 1}],
)  # fmt: skip
def test_a_damaged_journal_of_a_restore_is_named(make_table, tmp_path, entry):
    """Before anything is written."""
    backed_up(make_table, tmp_path / "b", small(30))
    target = make_table()
    state = tmp_path / "state"
    with Journal(state) as journal:
        journal.begin(
            {
                "version": 1,
                "backup": open_source(tmp_path / "b").identity,
                "table": target,
                "place": get_control().place,
                "mode": "empty",
                "created": False,
            }
        )
        journal.append(entry)
    with pytest.raises(CommandError, match=r"state is damaged\. Delete it to begin again"):
        run("dynamo_restore", tmp_path / "b", table=target, state=state, resume=True)
    assert not read_all("default", target)
