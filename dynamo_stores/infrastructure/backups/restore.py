"""The restore of a backup into a table, which can be resumed after a crash."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from ... import clock
from ...calls.background import BackgroundWork, Pace
from ...calls.batches import batch_write
from ...calls.connection import get_connection
from ...calls.control import get_control
from ...calls.item_size import item_size
from ...concurrency.effects import Verb, run
from ...concurrency.together import together
from ...conf.rules import TABLE_NAME
from ...exceptions import (
    CONDITION_FAILED,
    TABLE_IN_USE,
    BackupError,
    StoreUnavailable,
    code_of,
)
from ..tables import await_active
from .digests import ItemsDigest, item_digest
from .files import DataFile
from .journal import Journal
from .lines import RawItem, key_of
from .pacing import PATIENCE, read_rate, write_rate, write_units
from .schema import Schema, table_id
from .source import Source
from .together import Together
from .verification import check_items, check_whole

# Items of one step: four requests of BatchWriteItem at once, or as many conditional puts.
_STEP_ITEMS, _STEP_BYTES = 100, 8 * 2**20
_PUTS_AT_ONCE = 8
_VERSION = 1


class Mode(StrEnum):
    """
    What happens to items of the target: it must be empty, those with equal keys are replaced, or
    they are kept.
    """

    EMPTY = "empty"
    OVERWRITE = "overwrite"
    KEEP = "keep-existing"


@dataclass(frozen=True)
class RestoreJob:
    """
    What to restore, and how. Without a ``mode`` the target must be empty when the restore begins,
    and nobody else may write to it.

    ``schema`` is that of a target that does not exist. The rates are ``share`` of the capacity, or
    ``units`` write units a second. ``journal`` is the file with the progress, in which that of each
    file is saved every ``checkpoint`` seconds.
    """

    source: Source
    table: str
    using: str
    journal: Path
    mode: Mode | None = None
    resume: bool = False
    verify: bool = True
    schema: Schema | None = None
    threads: int = 4
    share: float = 0.5
    units: float | None = None
    checkpoint: float = 10.0

    def __post_init__(self) -> None:
        if not (TABLE_NAME.accepts(self.table) or self.table.startswith("arn:")):
            raise BackupError(
                f"The table is {self.table!r}, and nothing was written; expected "
                f"{TABLE_NAME.expected}, or an ARN."
            )


@dataclass(frozen=True)
class Target:
    """The table before the restore: None as ``description`` if it does not exist."""

    description: dict[str, Any] | None
    is_empty: bool


@dataclass
class Restored:
    """
    The number of items that were written, and of those that were kept. ``missing_ttl`` is the TTL
    attribute of the backup if the restore did not create the table, and its TTL is another, off, or
    could not be read.

    A restore with ``was_resumed`` keeps what it wrote after its progress was last saved, too.
    """

    written: int = 0
    kept: int = 0
    verified: bool = False
    missing_ttl: str | None = None
    was_resumed: bool = False


# Called with what is being done, and the number of items for which it is done.
Progress = Callable[[str, int], None]


def inspect_target(job: RestoreJob) -> Target:
    """Return the state of the target. Raises BackupError if the backup does not fit it."""
    description = get_control(job.using).describe(job.table)
    if description is None:
        if (job.schema or job.source.schema) is None:
            raise BackupError(
                f"The table {job.table} does not exist, and an export of the service has no "
                "schema. Create the table, or say by --like TABLE or --model MODEL how."
            )
        return Target(None, is_empty=True)
    _check_fits(job, description)
    return Target(description, _is_empty(job.using, job.table))


def _check_fits(job: RestoreJob, description: dict[str, Any]) -> None:
    own = job.schema or job.source.schema
    live = Schema.of_description(description, None)
    if own is not None and own.types() != live.types():
        raise BackupError(f"{job.table} does not fit: {own.differences(live)[0]}.")


def item_check(job: RestoreJob) -> Callable[[RawItem], str] | None:
    """
    Return a function that returns the problem of an item, ``""`` without one: what the key or an
    index of the target refuses that the table of the backup did not have. None if there is no such
    key or index. Sizes of keys are not checked.
    """
    description = get_control(job.using).describe(job.table)
    target = job.schema if description is None else Schema.of_description(description, None)
    source = job.source.schema
    if target is None:
        return None
    # A table with another key than the backup's is refused as a whole.
    is_same_key = source is not None and (job.schema is None or source.types() == target.types())
    keys = {} if is_same_key else target.types()
    had = {} if source is None else source.index_keys()
    found = {name: kind for name, kind in target.index_keys().items() if had.get(name) != kind}
    wanted = {**found, **keys}

    def problem_of(item: RawItem) -> str:
        for name, kind in wanted.items():
            what = f"{'the key' if name in keys else 'an index'} of {job.table}"
            if name not in item:
                if name in keys:
                    return f"has no {name!r}, which is an attribute of {what}"
                continue
            value = item[name]
            if kind not in value:
                return f"has {name!r} as {min(value)}; {what} takes {kind} only"
            if not value[kind]:
                return f"has an empty {name!r}, which {what} does not take"
        return ""

    return problem_of if wanted else None


def planned_rate(job: RestoreJob, description: Mapping[str, Any] | None) -> float | None:
    """
    Return the write units a second, None without a limit; ``description`` is that of the target,
    None if the restore creates it.
    """
    schema = job.schema or job.source.schema
    if description is None and schema is not None:
        billing = {"BillingMode": schema.request["BillingMode"]}
        description = {**schema.request, "BillingModeSummary": billing}
    return write_rate(description or {}, job.share, job.units)


def restore(job: RestoreJob, *, progress: Progress = lambda phase, items: None) -> Restored:
    """
    Write all items of the backup to the target and compare; return the numbers.

    All files are checked before anything is written. Raises BackupError for a damaged file, an item
    that the key or an index of the target refuses, a target that is not empty without a ``mode``,
    and a target that differs in the end.
    """
    done = 0
    for file in job.source.check(item_check(job)):
        done += file.items
        progress("Checked", done)
    with Journal(job.journal) as journal:
        if journal.work is not None and not job.resume:
            raise BackupError(
                f"A restore into {job.table} was interrupted; {job.journal} has its progress. "
                "Continue it with --resume, or delete that file to begin again."
            )
        was_resumed = journal.work is not None
        mode, is_created = _begin(job, journal)
        description = _created(job, journal, mode) if is_created else _described(job, journal)
        keys = Schema.of_description(description, None).keys
        writing = _Writing(job, journal, mode, keys, description, progress)
        result = writing.run()
        result.was_resumed = was_resumed
        if job.verify:
            _verify(job, writing, description, progress)
            result.verified = True
        result.missing_ttl = _enable_ttl(job, is_created=is_created)
        journal.delete()
        return result


def _begin(job: RestoreJob, journal: Journal) -> tuple[Mode, bool]:
    """Return the mode, and whether the restore creates the table; write it to the journal."""
    same = {
        "version": _VERSION,
        "backup": job.source.identity,
        "table": job.table,
        "place": get_control(job.using).place,
    }
    if journal.work is not None:
        before = journal.work
        if any(before.get(name) != value for name, value in same.items()):
            raise BackupError(
                f"{job.journal} is of another restore: of another backup, table or endpoint. "
                "Delete it to begin again."
            )
        mode = _mode_of(journal)
        _check_entries(journal)
        if job.mode is not None and mode is not job.mode:
            if mode is not Mode.EMPTY:
                raise BackupError(
                    f"The restore began with --{mode}; continue it without --{job.mode}."
                )
            mode = job.mode
            journal.append({"mode": str(mode)})
        return mode, bool(before["created"])
    target = inspect_target(job)
    if not target.is_empty and job.mode is None:
        raise BackupError(
            f"The table {job.table} is not empty, and nothing was written. --overwrite replaces "
            "items with equal keys, --keep-existing skips them; neither deletes any."
        )
    # Also for an empty target: other processes may write to it before the restore does.
    mode = job.mode or Mode.EMPTY
    is_created = target.description is None
    journal.begin({**same, "mode": str(mode), "created": is_created})
    if target.description is not None:
        journal.append({"table_id": table_id(target.description)})
    return mode, is_created


def _mode_of(journal: Journal) -> Mode:
    """Return the mode of an interrupted restore: the last one that it was continued with."""
    modes = [each["mode"] for each in (journal.work or {}, *journal.entries) if "mode" in each]
    try:
        return Mode(modes[-1])
    except (IndexError, ValueError):
        raise _damaged(journal) from None


def _check_entries(journal: Journal) -> None:
    """Raise BackupError if the journal lacks values, or has others than a restore writes."""
    try:
        _ = (journal.work or {})["created"]
        for each in journal.entries:
            if "file" in each:
                _ = each["file"] + "", each["written"] + each["kept"] + 0
            if "digest" in each:
                _ = ItemsDigest.parse(each["items"], each["digest"])
    except (KeyError, TypeError, ValueError):
        raise _damaged(journal) from None


def _damaged(journal: Journal) -> BackupError:
    return BackupError(f"{journal.path} is damaged. Delete it to begin again.")


def _created(job: RestoreJob, journal: Journal, mode: Mode) -> dict[str, Any]:
    """Create the table unless an interrupted restore did so; return its description."""
    if any("table_id" in each for each in journal.entries):
        return _described(job, journal)
    schema = job.schema or job.source.schema
    if schema is None:
        raise BackupError("An export of the service has no schema. Use --like or --model again.")
    control = get_control(job.using)
    # It may have been created before the interruption, or by another process since then.
    if control.describe(job.table) is None:
        try:
            control.call("CreateTable", {**schema.request, "TableName": job.table})
        except ClientError as exc:
            if code_of(exc) != TABLE_IN_USE:
                raise
    description = await_active(control, job.table)
    _check_fits(job, description)
    if mode is Mode.EMPTY and not _is_empty(job.using, job.table):
        raise BackupError(
            f"{job.table} was created by another process meanwhile, and has items. Delete "
            f"{job.journal}, and begin again."
        )
    journal.append({"table_id": table_id(description)})
    return description


def _described(job: RestoreJob, journal: Journal) -> dict[str, Any]:
    description = get_control(job.using).describe(job.table)
    before = next((each["table_id"] for each in journal.entries if "table_id" in each), None)
    if description is None or table_id(description) != before:
        raise BackupError(
            f"The table {job.table} was deleted since the restore began. Delete {job.journal} to "
            "begin again."
        )
    return description


def _enable_ttl(job: RestoreJob, *, is_created: bool) -> str | None:
    """Enable the TTL of a created table; return its attribute if that of the table may differ."""
    schema = job.schema or job.source.schema
    if schema is None or schema.ttl is None:
        return None
    control = get_control(job.using)
    try:
        found = control.ttl_attribute(job.table)
    except (ClientError, StoreUnavailable):
        if is_created:
            raise
        # The items are there, and the permission to write them does not include this one.
        return schema.ttl
    if found == schema.ttl:
        return None
    if found is not None or not is_created:
        return schema.ttl
    # Last: DynamoDB would delete expired items before they are compared.
    specification = {"AttributeName": schema.ttl, "Enabled": True}
    control.call(
        "UpdateTimeToLive", {"TableName": job.table, "TimeToLiveSpecification": specification}
    )
    return None


def _is_empty(using: str, table: str) -> bool:
    request: dict[str, Any] = {"TableName": table, "Limit": 1, "ConsistentRead": True}
    while True:
        answer = run(get_connection(using).here.call("Scan", dict(request)))
        if answer["Items"]:
            return False
        if not answer.get("LastEvaluatedKey"):
            return True
        request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]


def _verify(
    job: RestoreJob, writing: _Writing, description: dict[str, Any], progress: Progress
) -> None:
    # A limit of write units is one of reads, too; a table with more of them has its own.
    own = read_rate(description, job.share, None)
    rate = min((each for each in (own, job.units) if each is not None), default=None)
    if writing.mode is Mode.EMPTY:
        check_whole(job.using, job.table, writing.expected(), rate, job.threads, progress)
    else:
        is_equal = writing.mode is Mode.OVERWRITE
        files, keys = job.source.files, writing.keys
        check_items(job.using, job.table, files, keys, rate, progress, is_equal=is_equal)


def steps(
    items: Iterable[RawItem], keys: tuple[str, ...], most_units: float
) -> Iterator[list[RawItem]]:
    """
    Yield ``items`` in lists of at most 100, ``most_units`` write units and 8 MB, in which no key
    occurs twice. An item that is over a limit by itself is in a list of its own.
    """
    step: list[RawItem] = []
    known: set[bytes] = set()
    units = size = 0
    for item in items:
        key, own_units, own_size = (
            item_digest(key_of(item, keys)),
            write_units(item),
            item_size(item),
        )
        is_over = units + own_units > most_units or size + own_size > _STEP_BYTES
        if step and (is_over or len(step) >= _STEP_ITEMS or key in known):
            yield step
            step, known, units, size = [], set(), 0, 0
        step.append(item)
        known.add(key)
        units += own_units
        size += own_size
    if step:
        yield step


class _Counted:
    """Items with the digest of all of them; the first ones are read and not given."""

    def __init__(self, items: Iterable[RawItem], skip: int) -> None:
        self._items = items
        self._skip = skip
        self.digest = ItemsDigest()

    def __iter__(self) -> Iterator[RawItem]:
        for number, item in enumerate(self._items):
            self.digest += ItemsDigest.of([item])
            if number >= self._skip:
                yield item


@dataclass
class _Writing:
    """Writes the files that are not done yet, several at a time."""

    job: RestoreJob
    journal: Journal
    mode: Mode
    keys: tuple[str, ...]
    description: dict[str, Any]
    progress: Progress
    _result: Restored = field(default_factory=Restored)
    _items: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> Restored:
        job = self.job
        done: dict[str, dict[str, Any]] = {}
        for entry in self.journal.entries:
            if "file" in entry:
                done[entry["file"]] = entry
        for entry in done.values():
            self._count(entry["written"], entry["kept"])
        todo = [file for file in job.source.files if "digest" not in done.get(file.name, {})]
        rate = write_rate(self.description, job.share, job.units)
        pace = None if rate is None else Pace(rate)
        most_units = float("inf") if rate is None else max(1.0, rate)
        all_files, work = Together(), BackgroundWork(PATIENCE)

        async def write_file(file: DataFile) -> None:
            before = done.get(file.name, {"written": 0, "kept": 0})
            written, kept = before["written"], before["kept"]
            saved_at = clock.monotonic()
            with closing(file.read()) as items:
                counted = _Counted(items, skip=written + kept)
                for step in steps(counted, self.keys, most_units):
                    units = sum(map(write_units, step))
                    await all_files.wait(0.0 if pace is None else pace.seconds_before(units))
                    skipped = await self._write(step, work, all_files)
                    written, kept = written + len(step) - skipped, kept + skipped
                    self._count(len(step) - skipped, skipped)
                    if clock.monotonic() - saved_at >= job.checkpoint:
                        self._save(file, written, kept)
                        saved_at = clock.monotonic()
            self._save(file, written, kept, counted.digest)

        all_files.run(todo, write_file, threads=job.threads)
        return self._result

    def _save(
        self, file: DataFile, written: int, kept: int, digest: ItemsDigest | None = None
    ) -> None:
        """Write to the journal how far ``file`` is written; it is done with a ``digest``."""
        entry = {"file": file.name, "written": written, "kept": kept}
        if digest is not None:
            entry |= {"items": digest.items, "digest": str(digest)}
        with self._lock:
            self.journal.append(entry)

    def expected(self) -> ItemsDigest:
        """Return the digest of all items that were read from the backup."""
        digests = (
            ItemsDigest.parse(each["items"], each["digest"])
            for each in self.journal.entries
            if "digest" in each
        )
        return sum(digests, ItemsDigest())

    def _count(self, written: int, kept: int) -> None:
        with self._lock:
            self._result.written += written
            self._result.kept += kept
            self._items += written + kept
            self.progress("Handled", self._items)

    async def _write(self, items: list[RawItem], work: BackgroundWork, all_files: Together) -> int:
        """Write ``items``; return how many of them were kept as they are in the table."""
        connection, table = get_connection(self.job.using).here, self.job.table
        if self.mode is not Mode.KEEP:

            async def write(
                requests: list[RawItem],
            ) -> tuple[list[RawItem], StoreUnavailable | None]:
                # Also before each repetition of what was throttled.
                all_files.check()
                return await batch_write(connection, table, requests)

            await work.write_all([{"PutRequest": {"Item": each}} for each in items], write)
            return 0

        async def put(item: RawItem) -> bool:
            request = {
                "TableName": table,
                "Item": item,
                "ConditionExpression": "attribute_not_exists(#key)",
                "ExpressionAttributeNames": {"#key": self.keys[0]},
            }

            def send() -> Verb[dict[str, Any]]:
                all_files.check()
                return connection.call("PutItem", dict(request))

            try:
                await work.call(send)
            except ClientError as exc:
                if code_of(exc) != CONDITION_FAILED:
                    raise
                return True
            return False

        return sum(await together(items, put, max_concurrency=_PUTS_AT_ONCE))
