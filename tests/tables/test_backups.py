"""Backups: what is in the files comes back exactly, and what was damaged is refused."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import json
import stat
from collections import Counter
from pathlib import Path

import pytest
from django.core.management import CommandError

from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.control import get_control
from dynamo_stores.calls.observer import measuring
from dynamo_stores.concurrency.effects import run as run_verb
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import BackupError
from dynamo_stores.infrastructure.backups import backup
from dynamo_stores.infrastructure.backups.journal import Journal
from dynamo_stores.infrastructure.backups.manifest import Manifest
from dynamo_stores.infrastructure.backups.restore import Mode, RestoreJob, restore
from dynamo_stores.infrastructure.backups.source import open_source
from dynamo_stores.testing import find_free_port
from tests.helpers.commands import backed_up, cut, flip, run, small
from tests.helpers.items import EVERY_TYPE, put_all, read_all


def test_every_type_and_large_items_come_back_exactly(make_table, tmp_path):
    """A new table has the same items in the same bytes, the same keys, index and TTL."""
    table, copy = make_table(), make_table.name()
    ttl = {"AttributeName": "ttl", "Enabled": True}
    get_control().call("UpdateTimeToLive", {"TableName": table, "TimeToLiveSpecification": ttl})
    large = [
        {"id": {"S": "large"}, "n": {"N": str(n)}, "data": {"B": bytes([n]) * 390_000}}
        for n in range(8)
    ]
    items = [EVERY_TYPE, *large, *small(200, ttl={"N": "1"}, by={"S": "someone"})]
    put_all("default", table, items)
    written = run("dynamo_backup", table, output=tmp_path / "b")
    assert f"{table}: {len(items)} items" in written
    restored = run("dynamo_restore", tmp_path / "b", table=copy)
    assert f"{copy}: {len(items)} items written, compared by digest." in restored
    assert read_all("default", copy) == read_all("default", table)
    old, new = get_control().describe(table), get_control().describe(copy)
    assert new["KeySchema"] == old["KeySchema"]
    assert new["GlobalSecondaryIndexes"][0]["KeySchema"] == [
        {"AttributeName": "by", "KeyType": "HASH"}
    ]
    assert get_control().ttl_attribute(copy) == "ttl"


@pytest.mark.parametrize("value", [{"N": "5"}, {"S": ""}], ids=["type", "empty"])
def test_an_item_that_an_index_of_the_table_refuses_is_found_first(make_table, tmp_path, value):
    """Also by a dry run; nothing is written."""
    plain, indexed = make_table(index=False), make_table()
    put_all("default", plain, [*small(30), {"id": {"S": "x"}, "n": {"N": "1"}, "by": value}])
    run("dynamo_backup", plain, output=tmp_path / "b")
    for dry_run in (True, False):
        with pytest.raises(CommandError, match=r"line \d+ has .*'by'.* index of .*Nothing was"):
            run("dynamo_restore", tmp_path / "b", table=indexed, dry_run=dry_run)
    assert not read_all("default", indexed)
    run("dynamo_restore", tmp_path / "b", table=make_table(index=False))


def test_an_item_without_the_key_of_the_table_is_found_first(make_table, tmp_path):
    """The table of --like may have another key than the backup; no table is created."""
    table, other, copy = make_table(), get_config().store_table, make_table.name()
    put_all("default", table, small(30))
    run("dynamo_backup", table, output=tmp_path / "b")
    for dry_run in (True, False):
        with pytest.raises(CommandError, match=r"line 1 has no 'PK'.* the key of .*Nothing was"):
            run("dynamo_restore", tmp_path / "b", table=copy, like=other, dry_run=dry_run)
    assert get_control().describe(copy) is None
    assert not list((tmp_path / "b").glob("restore-*"))


def test_a_table_that_exists_without_the_ttl_of_the_backup_is_named(make_table, tmp_path, capsys):
    """As one that an interrupted restore created, whose progress was deleted."""
    table = make_table()
    ttl = {"AttributeName": "ttl", "Enabled": True}
    get_control().call("UpdateTimeToLive", {"TableName": table, "TimeToLiveSpecification": ttl})
    put_all("default", table, small(3))
    run("dynamo_backup", table, output=tmp_path / "b")
    for target, is_missing in ((make_table(), True), (make_table.name(), False)):
        run("dynamo_restore", tmp_path / "b", table=target)
        words = (
            f"{target} existed already. Its TTL could not be read, or is not on the attribute ttl"
        )
        assert (words in capsys.readouterr().err) == is_missing


def test_the_ttl_of_a_table_that_exists_may_not_be_readable(
    make_table, tmp_path, capsys, alias, dynamo_faults
):
    """The items are restored, and the warning says so. Without a TTL in the backup none is read."""
    table, targets = make_table(), [make_table(), make_table()]
    put_all("default", table, small(3))
    faulty = alias(ENDPOINT_URL=dynamo_faults.url)
    run("dynamo_backup", table, output=tmp_path / "without")
    ttl = {"AttributeName": "ttl", "Enabled": True}
    get_control().call("UpdateTimeToLive", {"TableName": table, "TimeToLiveSpecification": ttl})
    run("dynamo_backup", table, output=tmp_path / "with")
    dynamo_faults.fail("DescribeTimeToLive", status=400, code="AccessDeniedException")
    for name, target in zip(("without", "with"), targets, strict=True):
        out = run("dynamo_restore", tmp_path / name, table=target, using=[faulty])
        assert "3 items written, compared by digest" in out
        assert ("could not be read" in capsys.readouterr().err) == (name == "with")
        assert not list((tmp_path / name).glob("restore-*"))
    assert dynamo_faults.requests["DescribeTimeToLive"] == 1


DAMAGE = [
    (flip, "was altered: its checksum differs"),
    (cut, r"is truncated: it has \d+ bytes, expected \d+"),
    (Path.unlink, "is incomplete: the file .* is missing"),
]


@pytest.mark.parametrize(("damage", "named"), DAMAGE)
def test_a_damaged_file_is_named_before_anything_is_written(make_table, tmp_path, damage, named):
    """A flipped bit, a truncated file, a missing one: no table is created."""
    backed_up(make_table, tmp_path / "b", small(60))
    damage(sorted((tmp_path / "b" / "data").iterdir())[-1])
    copy = make_table.name()
    for options in ({}, {"dry_run": True}):
        with pytest.raises(CommandError, match=named) as found:
            run("dynamo_restore", tmp_path / "b", table=copy, **options)
        assert str(tmp_path / "b" / "data") in str(found.value)
        assert str(found.value).endswith("Use another copy of the backup. Nothing was written.")
    assert get_control().describe(copy) is None


def test_a_damaged_manifest_is_named(make_table, tmp_path):
    """A changed number, a truncated manifest, a version of the future, none at all."""
    backed_up(make_table, tmp_path / "b", small(5))
    manifest = tmp_path / "b" / "manifest.json"
    good = manifest.read_text()
    for text, named in (
        (good.replace('"items": 5', '"items": 4'), "manifest.json was altered: its checksum"),
        (good[:-30], "manifest.json is truncated"),
        (good.replace('"version": 1', '"version": 2'), "has version 2; this release reads"),
        ("[]", "manifest.json is truncated, or not"),
    ):
        manifest.write_text(text)
        with pytest.raises(CommandError, match=named):
            run("dynamo_restore", tmp_path / "b", table=make_table.name())
    manifest.unlink()
    with pytest.raises(CommandError, match=r"manifest\.json is missing. Use another copy of"):
        run("dynamo_restore", tmp_path / "b", table=make_table.name())
    with pytest.raises(CommandError, match="has no backup; expected a folder with"):
        run("dynamo_restore", tmp_path, table=make_table.name())


def test_a_manifest_names_no_file_outside_of_its_folder(make_table, tmp_path):
    """Also with a checksum that fits."""
    backed_up(make_table, tmp_path / "b", small(5))
    content = (tmp_path / "b" / "manifest.json").read_bytes()
    manifest = Manifest.load(content, tmp_path / "b" / "manifest.json")
    record = dataclasses.replace(manifest.files[0], name="../../secret.json.gz")
    hostile = dataclasses.replace(manifest, files=(record,))
    with pytest.raises(BackupError, match="is not the manifest of a backup"):
        Manifest.load(hostile.dump(), tmp_path / "b" / "manifest.json")


def test_a_table_that_is_not_empty_is_refused_unless_told_how_to_merge(make_table, tmp_path):
    """Nothing is written; --overwrite replaces, --keep-existing skips, neither deletes."""
    backed_up(make_table, tmp_path / "b", small(30, v={"S": "backup"}))
    other = [*small(10, v={"S": "live"}), {"id": {"S": "own"}, "n": {"N": "1"}}]
    target = make_table()
    put_all("default", target, other)
    before = read_all("default", target)
    with pytest.raises(CommandError, match=r"is not empty.*--overwrite .*--keep-existing"):
        run("dynamo_restore", tmp_path / "b", table=target)
    assert read_all("default", target) == before
    kept = run("dynamo_restore", tmp_path / "b", table=target, keep_existing=True)
    assert f"{target}: 20 items written, 10 kept as they were, compared by digest." in kept
    values = Counter(each.get("v", {}).get("S") for each in read_all("default", target).values())
    assert values == {"live": 10, "backup": 20, None: 1}
    run("dynamo_restore", tmp_path / "b", table=target, overwrite=True)
    values = Counter(each.get("v", {}).get("S") for each in read_all("default", target).values())
    assert values == {"backup": 30, None: 1}


def test_an_empty_table_is_accepted_and_one_with_another_key_refused(make_table, tmp_path):
    """The key is that of the backup, by name and type."""
    table = backed_up(make_table, tmp_path / "b", small(30))
    target = make_table()
    assert "30 items written" in run("dynamo_restore", tmp_path / "b", table=target)
    assert read_all("default", target) == read_all("default", table)
    with pytest.raises(CommandError, match=r"does not fit: its key is PK \(S\), SK \(S\)"):
        run("dynamo_restore", tmp_path / "b", table=get_config().store_table)


def test_a_dry_run_checks_and_writes_nothing(make_table, tmp_path):
    """Neither of a backup nor of a restore."""
    table = make_table()
    put_all("default", table, small(30))
    assert "Would read" in run("dynamo_backup", table, output=tmp_path / "b", dry_run=True)
    assert not (tmp_path / "b").exists()
    run("dynamo_backup", table, output=tmp_path / "b")
    copy = make_table.name()
    planned = run("dynamo_restore", tmp_path / "b", table=copy, dry_run=True)
    assert f"Would create {copy}, and write 30 items." in planned
    assert get_control().describe(copy) is None
    assert sorted(each.name for each in (tmp_path / "b").iterdir()) == ["data", "manifest.json"]


def test_a_restore_says_its_pace(make_table, tmp_path):
    """That of the target's capacity, or of the capacity with which it is created."""
    table = make_table(read=10, write=6)
    put_all("default", table, small(2))
    run("dynamo_backup", table, output=tmp_path / "b")
    copy = make_table.name()
    planned = run("dynamo_restore", tmp_path / "b", table=copy, dry_run=True)
    assert f"Would write to {copy}, at most 3 write units a second." in planned
    written = run("dynamo_restore", tmp_path / "b", table=copy, share=1.0)
    assert f"Writes to {copy}, at most 6 write units a second." in written
    free = make_table()
    assert f"Writes to {free}, not paced." in run("dynamo_restore", tmp_path / "b", table=free)


def test_a_restore_into_a_table_with_a_stream_is_warned_of(make_table, tmp_path):
    """Its consumers get each written item as a change."""
    backed_up(make_table, tmp_path / "b", small(2))
    for stream, is_warned_of in (("NEW_IMAGE", True), ("OFF", False)):
        target, err = make_table(), io.StringIO()
        if is_warned_of:
            specification = {"StreamEnabled": True, "StreamViewType": stream}
            request = {"TableName": target, "StreamSpecification": specification}
            get_control().call("UpdateTable", request)
        run("dynamo_restore", tmp_path / "b", table=target, dry_run=True, stderr=err)
        assert (f"{target} has a stream of NEW_IMAGE" in err.getvalue()) is is_warned_of


def test_a_dry_run_prints_what_the_new_table_will_cost(make_table, tmp_path):
    """The billing mode, and the capacity of the table and its indexes."""
    run("dynamo_backup", make_table(read=3, write=2_000), output=tmp_path / "b")
    planned = run("dynamo_restore", tmp_path / "b", table=make_table.name(), dry_run=True)
    units = "3 read units a second, 2,000 write units a second"
    assert f"Its billing: PROVISIONED; {units}; index by-index: {units}." in planned


def test_a_folder_that_is_in_use_is_refused(make_table, tmp_path):
    """Another's files, a complete backup, a backup of another process that is running."""
    table = make_table()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "notes.txt").touch()
    with pytest.raises(CommandError, match=r"is not empty: it has notes\.txt"):
        run("dynamo_backup", table, output=tmp_path / "b")
    (tmp_path / "b" / "notes.txt").unlink()
    with (
        Journal(tmp_path / "b" / "progress.jsonl"),
        pytest.raises(CommandError, match="is in use by another process"),
    ):
        run("dynamo_backup", table, output=tmp_path / "b")
    run("dynamo_backup", table, output=tmp_path / "b")
    with pytest.raises(CommandError, match="has a complete backup already"):
        run("dynamo_backup", table, output=tmp_path / "b")
    with pytest.raises(CommandError, match=r"There is no table nowhere at endpoint 127"):
        run("dynamo_backup", "nowhere", output=tmp_path / "c")
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match="file"):
        run("dynamo_backup", table, output=tmp_path / "file")


@pytest.fixture
def interrupted(make_table, tmp_path):
    """``interrupted(at)``: the table and folder of a backup that a crash ended before a step."""

    def make(at, items=400):
        table, folder = make_table(), tmp_path / "b"
        put_all("default", table, small(items))

        def crash(*args):
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*at, crash)
            with pytest.raises(CommandError, match="Interrupted"):
                run("dynamo_backup", table, output=folder)
        return table, folder

    return make


def test_a_backup_that_lacks_only_its_last_step_is_completed(interrupted, make_table):
    """A manifest beside a journal is of its table and of no other one; --restart begins again."""
    table, folder = interrupted((Journal, "delete"))
    other = make_table()
    for restart in (False, True):
        with pytest.raises(CommandError, match="has a complete backup of another table"):
            run("dynamo_backup", other, output=folder, restart=restart)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backup, "table_id", lambda description: "another")
        with pytest.raises(CommandError, match="before it was deleted and created again"):
            run("dynamo_backup", table, output=folder)
    put_all("default", table, small(1, v={"S": "later"}))
    with (
        Journal(folder / "progress.jsonl"),
        pytest.raises(CommandError, match="is in use by another process"),
    ):
        run("dynamo_backup", table, output=folder)
    printed = run("dynamo_backup", table, output=folder)
    started = json.loads((folder / "manifest.json").read_text())["started"]
    assert f"{table}: 400 items" in printed
    assert f"read from {started} to " in printed
    assert sorted(each.name for each in folder.iterdir()) == ["data", "manifest.json"]
    with pytest.raises(CommandError, match="differ"):
        run("dynamo_verify", table=[table], with_backup=folder)


def test_a_backup_that_lacks_only_its_last_step_is_begun_again_with_restart(interrupted):
    """It has what was written since then."""
    table, folder = interrupted((Journal, "delete"))
    put_all("default", table, small(401, v={"S": "later"}))
    assert f"{table}: 401 items" in run("dynamo_backup", table, output=folder, restart=True)
    run("dynamo_verify", table=[table], with_backup=folder)


def test_a_backup_that_another_process_ends_meanwhile_is_not_changed(
    make_table, tmp_path, monkeypatch
):
    """Between the look into the folder and the lock."""
    table = make_table()
    put_all("default", table, small(30))
    lock = fcntl.flock

    def late(file, how):
        monkeypatch.setattr(fcntl, "flock", lock)
        run("dynamo_backup", table, output=tmp_path / "b")
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(CommandError, match="has a complete backup already"):
        run("dynamo_backup", table, output=tmp_path / "b")
    assert sorted(each.name for each in (tmp_path / "b").iterdir()) == ["data", "manifest.json"]


def test_a_file_that_is_altered_before_a_backup_goes_on_is_named(interrupted):
    """Also if it has its size."""
    table, folder = interrupted((Manifest, "dump"))
    flip(min((folder / "data").iterdir()))
    with pytest.raises(CommandError, match=r"was altered.* Use --restart"):
        run("dynamo_backup", table, output=folder)
    assert f"{table}: 400 items" in run("dynamo_backup", table, output=folder, restart=True)


def test_a_journal_that_lacks_values_is_named(interrupted):
    """By the command that continues it."""
    table, folder = interrupted((Manifest, "dump"))
    with Journal(folder / "progress.jsonl") as journal:
        journal.append({"segment": 0})
    with pytest.raises(CommandError, match=r"progress\.jsonl is damaged\. Use --restart"):
        run("dynamo_backup", table, output=folder)
    assert f"{table}: 400 items" in run("dynamo_backup", table, output=folder, restart=True)


@pytest.mark.parametrize("name", ["thesis.docx", ".snapshot/", "notes.json.gz"])
@pytest.mark.parametrize("restart", [False, True])
def test_what_is_not_of_a_backup_is_never_deleted(make_table, tmp_path, name, restart):
    """The command refuses it before it reads the table."""
    table, data = make_table(), tmp_path / "b" / "data"
    stranger = data / name
    stranger.parent.mkdir(parents=True)
    stranger.mkdir() if name.endswith("/") else stranger.touch()
    with measuring() as calls, pytest.raises(CommandError, match="is not empty: it has data/"):
        run("dynamo_backup", table, output=tmp_path / "b", restart=restart)
    assert not any(each.operation == "Scan" for each in calls)
    assert [each.name for each in data.iterdir()] == [stranger.name]


def test_only_the_owner_can_read_a_backup(make_table, tmp_path):
    """Also in an empty folder that others could read; a folder with other files is not changed."""
    table, folder = make_table(), tmp_path / "b"
    put_all("default", table, small(30))
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "notes.txt").touch()
    with pytest.raises(CommandError, match="is not empty"):
        run("dynamo_backup", table, output=folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    (folder / "notes.txt").unlink()
    run("dynamo_backup", table, output=folder)
    found = {each: stat.S_IMODE(each.stat().st_mode) for each in (folder, *folder.rglob("*"))}
    assert set(found.values()) == {0o700, 0o600}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in found.items())


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(make_table, tmp_path, name):
    """Nothing is said about continuing a backup that has not begun."""
    (tmp_path / "file").touch()
    with pytest.raises(CommandError, match=r"cannot be made: .*\. Name another one\.$"):
        run("dynamo_backup", make_table(), output=tmp_path / name)


def test_one_command_is_for_several_aliases(alias, make_table, tmp_path):
    """One that fails is named in the end, and the others go on."""
    dead = alias(ENDPOINT_URL=f"http://127.0.0.1:{find_free_port()}", RETRY={"MAX_RETRIES": 0})
    west, folder = alias(), tmp_path / "b"
    table = make_table()
    put_all("default", table, small(3))
    names = ["--using", dead, "--using", "default", "--using", west]
    with pytest.raises(CommandError, match=f"^Alias '{dead}': .* got no answer") as failed:
        run("dynamo_backup", table, *names, output=folder)
    assert len(str(failed.value).splitlines()) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(["default", west])
    with pytest.raises(CommandError, match=f"^Alias '{dead}': .* got no answer"):
        run("dynamo_restore", folder / west, "--overwrite", *names, table=table)
    with pytest.raises(CommandError, match="--state is the progress of one restore"):
        run("dynamo_restore", folder / west, *names[2:], table=table, state=tmp_path / "s")


def test_a_file_of_state_that_is_no_progress_is_not_taken_for_one(make_table, tmp_path):
    """Nobody is told to delete it."""
    backed_up(make_table, tmp_path / "b", small(3))
    state, target = tmp_path / "secrets.env", make_table()
    state.write_text("SECRET_KEY=abc")
    with pytest.raises(CommandError, match=r"secrets\.env is neither empty nor the progress of"):
        run("dynamo_restore", tmp_path / "b", table=target, state=state)
    assert state.read_text() == "SECRET_KEY=abc"
    assert not read_all("default", target)


def test_an_empty_table_is_backed_up_and_restored(make_table, tmp_path):
    """No file, no item, no error."""
    backed_up(make_table, tmp_path / "b", [])
    assert "0 items written" in run("dynamo_restore", tmp_path / "b", table=make_table.name())


def test_the_target_is_compared_by_digest_and_not_by_count(make_table, tmp_path, dynamo_engine):
    """A write of another process to an item that was restored already is found."""
    backed_up(make_table, tmp_path / "b", small(30))
    target = make_table()

    def meddle(phase, items):
        if (phase, items) == ("Handled", 30):
            put_all("default", target, small(1, v={"S": "other"}))

    job = RestoreJob(open_source(tmp_path / "b"), target, "default", tmp_path / "state")
    with pytest.raises(BackupError, match="differs from the backup: the digests of the items"):
        restore(job, progress=meddle)


@pytest.mark.parametrize(
    ("mode", "named"),
    [
        (Mode.OVERWRITE, "of 30 items 1 are missing and 1 differ"),
        (Mode.KEEP, "of 30 items 1 are missing and 0 differ"),
    ],
)
def test_after_a_merge_each_item_is_compared(make_table, tmp_path, mode, named):
    """Items that another process changes and deletes after they were written."""
    backed_up(make_table, tmp_path / "b", small(30))
    target = make_table()
    put_all("default", target, [EVERY_TYPE])

    def meddle(phase, items):
        if (phase, items) == ("Handled", 30):
            put_all("default", target, small(1, v={"S": "other"}))
            key = small(2)[1]
            verb = get_connection().call("DeleteItem", {"TableName": target, "Key": key})
            run_verb(verb)

    job = RestoreJob(open_source(tmp_path / "b"), target, "default", tmp_path / "state", mode)
    with pytest.raises(BackupError, match=named):
        restore(job, progress=meddle)


@pytest.mark.parametrize("is_there", [False, True])
def test_items_that_appear_in_an_empty_or_new_table_are_kept_if_asked_for(
    make_table, tmp_path, is_there
):
    """Another process writes all items after the first of them were restored."""
    backed_up(make_table, tmp_path / "b", small(250, v={"S": "backup"}))
    target = make_table() if is_there else make_table.name()
    was_written = False

    def meddle(phase, items):
        nonlocal was_written
        if phase == "Handled" and items and not was_written:
            was_written = True
            put_all("default", target, small(250, v={"S": "new"}))

    source, state = open_source(tmp_path / "b"), tmp_path / "state"
    job = RestoreJob(source, target, "default", state, Mode.KEEP, threads=1)
    assert 0 < restore(job, progress=meddle).kept < 250
    assert {each["v"]["S"] for each in read_all("default", target).values()} == {"new"}


@pytest.mark.parametrize("name", ["ab", "a b c", "x" * 256, "größe"])
@pytest.mark.parametrize("dry_run", [True, False])
def test_a_table_name_that_dynamodb_refuses(make_table, tmp_path, name, dry_run):
    """It is found before anything is written, also the progress beside the backup."""
    backed_up(make_table, tmp_path / "b", small(3))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CommandError, match=f"The table is {name!r}.*expected 3 to 255 of A-Z"):
        run("dynamo_restore", tmp_path / "b", table=name, dry_run=dry_run)
    assert sorted(tmp_path.rglob("*")) == before
