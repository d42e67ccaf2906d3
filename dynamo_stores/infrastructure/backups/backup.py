"""The backup of a table to a folder, which can be resumed after a crash."""

from __future__ import annotations

import datetime
import re
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ... import clock
from ...calls.control import get_control
from ...exceptions import BackupError
from . import manifest as manifests
from .files import UNFINISHED, DataFile, FileWriter, sync_folder, write_whole
from .journal import Journal
from .lines import RawItem, dump_item, load_item
from .manifest import FileRecord, Manifest
from .pacing import mean_item_bytes
from .scan import Page, TableScan
from .schema import Schema, table_id
from .source import DATA, PROGRESS

# A file is finished after so many bytes of lines, or seconds: what a crash loses at most.
FILE_BYTES = 64 * 2**20
FILE_SECONDS = 60.0
_VERSION = 1
# A file of a segment, also an unfinished one. Nothing else in the folder is deleted.
_DATA_FILE = re.compile(r"[0-9]{4}-[0-9]{6,}\.json\.gz(\.part)?")

# Called with the number of items that are in the backup so far.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class BackupJob:
    """
    What to back up, and how: at most ``units_per_second`` read units, in ``segments`` threads.

    With ``consistent`` the Scan is strongly consistent and costs twice as much.
    """

    table: str
    folder: Path
    using: str
    segments: int = 4
    units_per_second: float | None = None
    consistent: bool = True
    file_bytes: int = FILE_BYTES
    file_seconds: float = FILE_SECONDS


def describe(using: str, table: str) -> dict[str, Any]:
    """Return the description of ``table``. Raises BackupError if there is none."""
    control = get_control(using)
    description = control.describe(table)
    if description is None:
        raise BackupError(
            f"There is no table {table} at {control.place}. A table of no model is named as it is "
            "in DynamoDB, with its prefix."
        )
    return description


def schema_of(using: str, description: dict[str, Any]) -> Schema:
    """Return the schema of a table that was described, with its TTL attribute."""
    ttl = get_control(using).ttl_attribute(description["TableName"])
    return Schema.of_description(description, ttl)


def back_up(
    job: BackupJob, *, progress: Progress = lambda items: None, restart: bool = False
) -> Manifest:
    """
    Back up the table, or continue the backup that was interrupted; return the manifest. If that
    lacked only the removal of its progress, nothing is read again.

    With ``restart`` an interrupted backup is deleted first. Raises BackupError if the folder is
    neither empty nor that of the same backup.
    """
    description = describe(job.using, job.table)
    schema = schema_of(job.using, description)
    folder = job.folder
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise BackupError(
            f"The folder {folder} cannot be made: {exc.strerror}. Name another one."
        ) from exc
    _check_folder(folder, has_journal=(folder / PROGRESS).exists(), restart=restart)
    with Journal(folder / PROGRESS) as journal:
        # Again: until this process had the journal, another one may have ended its backup.
        _check_folder(folder, has_journal=journal.work is not None, restart=restart)
        _close_to_others(folder)
        work = {
            "version": _VERSION,
            "table": job.table,
            "place": get_control(job.using).place,
            "table_id": table_id(description),
            "segments": job.segments,
            "consistent": job.consistent,
            "schema": schema.as_json(),
            "started": _now(),
        }
        manifest = folder / manifests.FILE_NAME
        # Beside a journal: a crash came between the two last steps of a backup.
        is_finished = manifest.exists()
        same = ("table", "place", "table_id")
        if is_finished and any((journal.work or {}).get(name) != work[name] for name in same):
            raise BackupError(
                f"{folder} has a complete backup of another table, of another endpoint or region, "
                "or of this table before it was deleted and created again. Name another folder."
            )
        if journal.work is None or restart:
            # The manifest goes first, so that none is ever beside the journal of another backup.
            manifest.unlink(missing_ok=True)
            sync_folder(folder)
            journal.begin(work)
        elif is_finished:
            finished = Manifest.load(manifest.read_bytes(), manifest)
            journal.delete()
            return finished
        else:
            _check_same(folder, journal.work, work, schema)
        (folder / DATA).mkdir(mode=0o700, exist_ok=True)
        run = _Run(job, journal, progress)
        run.scan(mean_item_bytes(description))
        return run.finish()


def interrupted(folder: Path) -> tuple[str, int] | None:
    """Return when the interrupted backup in ``folder`` began, and its items; None without one."""
    path = folder / PROGRESS
    if not path.exists() or (folder / manifests.FILE_NAME).exists():
        return None
    with Journal(path) as journal:
        if journal.work is None:
            return None
        return str(journal.work.get("started")), sum(each.items for each in _records(journal))


def _check_folder(folder: Path, *, has_journal: bool, restart: bool) -> None:
    """Raise BackupError unless ``folder`` is empty, or has only files of an interrupted backup."""
    if (folder / manifests.FILE_NAME).exists() and not has_journal:
        raise BackupError(f"{folder} has a complete backup already. Name another folder.")
    known = {DATA, PROGRESS, manifests.FILE_NAME, manifests.FILE_NAME + UNFINISHED}
    data = folder / DATA
    strangers = [each for each in folder.iterdir() if each.name not in known]
    if data.is_dir():
        strangers += [each for each in data.iterdir() if not _is_own(each)]
    elif data.exists():
        strangers.append(data)
    if strangers:
        raise BackupError(
            f"{folder} is not empty: it has {min(strangers).relative_to(folder)}. Name a new or an "
            "empty folder."
        )
    if data.exists() and not (restart or has_journal):
        raise BackupError(
            f"{folder} has files of a backup without {PROGRESS}. Name a new or an empty folder, or "
            "use --restart."
        )


def _is_own(path: Path) -> bool:
    return _DATA_FILE.fullmatch(path.name) is not None and not path.is_dir()


def _close_to_others(folder: Path) -> None:
    """Let only the owner read ``folder``, which may have been made by somebody else."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if not mode & 0o077:
        return
    try:
        folder.chmod(mode & ~0o077)
    except OSError as exc:
        raise BackupError(
            f"{folder} can be read by others, and that cannot be changed: {exc.strerror}. Name a "
            "new folder, or one that you own."
        ) from exc


def _check_same(folder: Path, before: dict[str, Any], now: dict[str, Any], schema: Schema) -> None:
    names = {
        "version": "the format",
        "table": "the table",
        "place": "the endpoint and region",
        "segments": "--segments",
        "consistent": "ConsistentRead (--eventual)",
    }
    for name, shown in names.items():
        if before.get(name) != now[name]:
            raise BackupError(
                f"The backup in {folder} was interrupted. It began with {shown} "
                f"{before.get(name)}, not {now[name]}. Use the same, another folder, or --restart."
            )
    try:
        kept = Schema.from_json(before["schema"])
        _ = before["started"]
    except KeyError:
        raise BackupError(f"{folder / PROGRESS} is damaged. Use --restart.") from None
    changes = kept.differences(schema) or schema.differences(kept)
    if not changes and before.get("table_id") != now["table_id"]:
        changes = ["it was deleted and created again"]
    if changes:
        raise BackupError(
            f"The table {now['table']} changed since the backup in {folder} began: {changes[0]}. "
            "Use another folder, or --restart."
        )


@dataclass
class _Segment:
    """The file of a segment that is being written, and the number of its finished files."""

    files: int = 0
    writer: FileWriter | None = None
    began: float = 0.0


@dataclass
class _Run:
    job: BackupJob
    journal: Journal
    progress: Progress
    _segments: dict[int, _Segment] = field(default_factory=dict)
    _items: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def scan(self, mean_bytes: float | None) -> None:
        """Read the segments that are not done, each from its last finished file on."""
        positions: dict[int, RawItem | None] = {}
        for entry in _entries(self.journal):
            positions[entry["segment"]] = entry["next"]
            segment = self._segments.setdefault(entry["segment"], _Segment())
            segment.files += entry["file"] is not None
        for record in _records(self.journal):
            self._check_kept(record)
            self._items += record.items
        self.progress(self._items)
        job = self.job
        try:
            TableScan(
                job.using,
                job.table,
                segments=job.segments,
                units_per_second=job.units_per_second,
                consistent=job.consistent,
                mean_bytes=mean_bytes,
            ).run(self._handle, positions)
        except BaseException:
            for segment in list(self._segments.values()):
                if segment.writer is not None:
                    segment.writer.discard()
            raise

    def finish(self) -> Manifest:
        """Write the manifest, and delete what a crash left."""
        job, work = self.job, self.journal.work or {}
        records = _records(self.journal)
        manifest = Manifest(
            table=job.table,
            schema=Schema.from_json(work["schema"]),
            started=work["started"],
            finished=_now(),
            consistent=job.consistent,
            segments=job.segments,
            files=tuple(sorted(records, key=lambda each: each.name)),
        )
        known = {each.name for each in records}
        for path in (job.folder / DATA).iterdir():
            if path.name not in known and _is_own(path):
                path.unlink()
        write_whole(job.folder / manifests.FILE_NAME, manifest.dump())
        self.journal.delete()
        return manifest

    def _handle(self, page: Page) -> None:
        segment = self._segments.setdefault(page.segment, _Segment())
        if page.items:
            if segment.writer is None:
                name = f"{page.segment:04}-{segment.files:06}.json.gz"
                segment.writer = FileWriter(self.job.folder / DATA / name)
                segment.began = clock.monotonic()
            segment.writer.add(page.items)
        writer = segment.writer
        is_last = page.next_key is None
        if is_last or (writer is not None and self._is_full(writer, segment.began)):
            record = None if writer is None else writer.finish()
            segment.writer = None
            segment.files += record is not None
            with self._lock:
                self.journal.append(
                    {
                        "segment": page.segment,
                        "file": None if record is None else record.as_json(),
                        "next": _dump_key(page.next_key),
                    }
                )
        with self._lock:
            self._items += len(page.items)
            self.progress(self._items)

    def _is_full(self, writer: FileWriter, began: float) -> bool:
        is_late = clock.monotonic() - began >= self.job.file_seconds
        return writer.size >= self.job.file_bytes or is_late

    def _check_kept(self, record: FileRecord) -> None:
        path = self.job.folder / DATA / record.name
        try:
            DataFile(path, record.items, record.digest, record.size, record.sha256).check()
        except BackupError as exc:
            raise BackupError(f"{exc} The backup cannot be continued. Use --restart.") from None


def _entries(journal: Journal) -> list[dict[str, Any]]:
    """Return the entries of ``journal`` as values. Raises BackupError if it is damaged."""
    try:
        return [
            {
                "segment": int(each["segment"]),
                "file": None if each["file"] is None else FileRecord.from_json(each["file"]),
                "next": _load_key(each["next"]),
            }
            for each in journal.entries
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BackupError(f"{journal.path} is damaged. Use --restart, or another folder.") from None


def _records(journal: Journal) -> list[FileRecord]:
    return [each["file"] for each in _entries(journal) if each["file"] is not None]


def _dump_key(key: RawItem | None) -> str | None:
    return None if key is None else dump_item(key).decode().strip()


def _load_key(line: str | None) -> RawItem | None:
    return None if line is None else load_item(line.encode())


def _now() -> str:
    now = datetime.datetime.fromtimestamp(clock.now(), datetime.UTC)
    return now.isoformat(timespec="seconds")
