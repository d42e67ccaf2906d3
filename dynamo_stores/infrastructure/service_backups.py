"""
DynamoDB's own backups of one alias: on-demand backups, restores, and exports to S3.

They are the service's: their content never passes through this process.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from botocore.exceptions import ClientError

from .. import clock
from ..calls.control import get_control, was_repeated
from ..exceptions import StoreError, code_of
from .live import recovery_window
from .tables import Progress
from .waiting import PATIENCE, Waiting, patiently

_TABLE_EXISTS = ("TableAlreadyExistsException", "TableInUseException")
_AVAILABLE, _COMPLETED, _FAILED = "AVAILABLE", "COMPLETED", "FAILED"


@dataclass(frozen=True)
class Backup:
    """An on-demand backup; ``created`` is in seconds since the epoch, ``size`` in bytes."""

    arn: str
    name: str
    table: str
    created: float
    status: str
    size: int

    @classmethod
    def of(cls, details: Mapping[str, Any], table: str) -> Self:
        """Return the backup that DynamoDB describes so."""
        return cls(
            arn=details["BackupArn"],
            name=details["BackupName"],
            table=table,
            created=clock.as_seconds(details["BackupCreationDateTime"]),
            status=details["BackupStatus"],
            size=int(details.get("BackupSizeBytes") or 0),
        )


@dataclass(frozen=True)
class Source:
    """
    What a table is restored from: an on-demand backup (``arn``), or a table at a time in seconds
    since the epoch (None: the latest possible).
    """

    arn: str | None = None
    table: str | None = None
    at: float | None = None


@dataclass(frozen=True)
class Export:
    """An export to S3; ``items`` and ``size`` (bytes) are known when it is completed."""

    arn: str
    status: str
    items: int | None
    size: int | None
    manifest: str
    failure: str

    @classmethod
    def of(cls, description: Mapping[str, Any]) -> Self:
        """Return the export that DynamoDB describes so."""
        codes = (description.get("FailureCode"), description.get("FailureMessage"))
        return cls(
            arn=description["ExportArn"],
            status=description["ExportStatus"],
            items=description.get("ItemCount"),
            size=description.get("BilledSizeBytes"),
            manifest=description.get("ExportManifest") or "",
            failure=": ".join(each for each in codes if each),
        )


def is_restored_from(description: Mapping[str, Any], source: Source) -> bool:
    """
    Return whether a table is, or is being, restored from ``source``.

    The latest time is another one each time, so a table that was restored to it is only the same
    while it is being restored.
    """
    summary = description.get("RestoreSummary") or {}
    if source.arn is not None:
        return bool(summary.get("SourceBackupArn") == source.arn)
    name = str(summary.get("SourceTableArn", "")).rpartition("/")[2]
    if name != source.table or summary.get("SourceBackupArn"):
        return False
    if source.at is None:
        return bool(description["TableStatus"] == "CREATING")
    return abs(clock.as_seconds(summary.get("RestoreDateTime", 0.0)) - source.at) < 1.0


def _said_of_earlier(status: str) -> str:
    if status == "ACTIVE":
        return (
            "was restored from this before, and its items may have changed since then; nothing is "
            "restored again, and only missing settings are set"
        )
    return "a restore from this was requested before; it is continued"


class ServiceBackups:
    """
    The backups of one alias. ``write`` gets lines about what is waited for, ``timeout`` seconds at
    most (None: until it is done).

    Raises botocore's ClientError if DynamoDB refuses, StoreError otherwise.
    """

    def __init__(self, using: str, write: Progress, *, timeout: float | None = None) -> None:
        self.using = using
        self._write = write
        self._timeout = timeout
        self._control = get_control(using)

    def list(self, table: str | None = None) -> Iterator[Backup]:
        """Yield the backups of every table, or of one; those of AWS Backup, too."""
        request: dict[str, Any] = {"BackupType": "ALL"}
        if table is not None:
            request["TableName"] = table
        while True:
            answer = self._control.call("ListBackups", dict(request))
            for summary in answer.get("BackupSummaries", ()):
                yield Backup.of(summary, summary["TableName"])
            last = answer.get("LastEvaluatedBackupArn")
            if not last:
                return
            request["ExclusiveStartBackupArn"] = last

    def describe(self, arn: str) -> tuple[Backup, dict[str, Any]]:
        """Return a backup, and ``BackupDescription`` of DescribeBackup."""
        answer = self._control.call("DescribeBackup", {"BackupArn": arn})
        description: dict[str, Any] = answer["BackupDescription"]
        table = description["SourceTableDetails"]["TableName"]
        return Backup.of(description["BackupDetails"], table), description

    def create(self, table: str, name: str, *, wait: bool = True) -> Backup:
        """Create a backup, and wait until it can be restored."""
        answer = self._control.call("CreateBackup", {"TableName": table, "BackupName": name})
        backup = Backup.of(answer["BackupDetails"], table)
        waiting = Waiting(table, self._write, self._timeout)

        def read(arn: str = backup.arn) -> Backup:
            return self.describe(arn)[0]

        while wait and backup.status != _AVAILABLE:
            if backup.status == "DELETED":
                raise StoreError(f"The backup {backup.name} of {table} was deleted meanwhile.")
            waiting.go_on(f"the backup {backup.name} is {backup.status}")
            backup = patiently(read, table, self._write)
        return backup

    def delete(self, arn: str) -> Backup:
        """Delete a backup; return what it was."""
        answer = self._control.call("DeleteBackup", {"BackupArn": arn})["BackupDescription"]
        return Backup.of(answer["BackupDetails"], answer["SourceTableDetails"]["TableName"])

    def window(self, table: str) -> tuple[float, float] | None:
        """
        Return the earliest and latest time to which ``table`` can be restored, None if
        point-in-time recovery is off.
        """
        return recovery_window(self._control, table)

    def restore(self, source: Source, target: str) -> dict[str, Any]:
        """
        Restore into the new table ``target``, wait until it is ACTIVE, and return its description.

        A restore from the same source that an earlier run requested is waited for. DynamoDB
        restores items, keys, indexes and capacity, and nothing else.
        """
        existing = self._control.describe(target)
        if existing is None:
            self._request_restore(source, target)
        elif is_restored_from(existing, source):
            self._write(f"{target}: {_said_of_earlier(existing['TableStatus'])}")
        else:
            raise StoreError(
                f"The table {target} exists. DynamoDB restores into a new table: choose another "
                "name."
            )
        return self._until_active(target)

    def export(
        self, table_arn: str, bucket: str, *, prefix: str | None = None, at: float | None = None
    ) -> Export:
        """Start an export of the table to S3; with ``at``, as it was at that time."""
        request: dict[str, Any] = {
            "TableArn": table_arn,
            "S3Bucket": bucket,
            # A repeated request starts one export.
            "ClientToken": str(uuid.uuid4()),
        }
        if prefix is not None:
            request["S3Prefix"] = prefix
        if at is not None:
            request["ExportTime"] = at
        answer = self._control.call("ExportTableToPointInTime", request)
        return Export.of(answer["ExportDescription"])

    def watch(self, arn: str) -> Export:
        """Wait until an export ends, and return it. Raises StoreError if it failed."""
        waiting = Waiting("export", self._write, self._timeout)
        while True:
            export = patiently(lambda: self._export(arn), "export", self._write)
            if export.status == _COMPLETED:
                return export
            if export.status == _FAILED:
                raise StoreError(f"The export {arn} failed: {export.failure or 'no reason given'}.")
            waiting.go_on(f"the export is {export.status}")

    def _export(self, arn: str) -> Export:
        answer = self._control.call("DescribeExport", {"ExportArn": arn})
        return Export.of(answer["ExportDescription"])

    def _request_restore(self, source: Source, target: str) -> None:
        request: dict[str, Any] = {"TargetTableName": target}
        if source.arn is not None:
            operation, request["BackupArn"] = "RestoreTableFromBackup", source.arn
        else:
            operation, request["SourceTableName"] = "RestoreTableToPointInTime", source.table
            if source.at is None:
                request["UseLatestRestorableTime"] = True
            else:
                request["RestoreDateTime"] = source.at
        try:
            self._control.call(operation, request)
        except ClientError as exc:
            # The first attempt, which failed inside DynamoDB, was carried out after all.
            if not (code_of(exc) in _TABLE_EXISTS and was_repeated(exc)):
                raise

    def _until_active(self, table: str) -> dict[str, Any]:
        waiting = Waiting(table, self._write, self._timeout)
        began = clock.monotonic()
        while True:
            found = patiently(lambda: self._control.describe(table), table, self._write)
            if found is None and clock.monotonic() - began > PATIENCE:
                raise StoreError(f"The table {table} does not exist after {PATIENCE:.0f} s.")
            status = found["TableStatus"] if found else "CREATING"
            if found is not None and status == "ACTIVE":
                return found
            if status not in ("CREATING", "UPDATING"):
                raise StoreError(f"The table {table} is {status}; the restore failed.")
            waiting.go_on(f"the table is {status}")
