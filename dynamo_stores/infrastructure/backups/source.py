"""What is in a folder: a backup of this package, or an export of DynamoDB to S3."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...exceptions import BackupError
from . import manifest as own
from .digests import ItemsDigest
from .files import DataFile
from .lines import RawItem
from .manifest import Manifest, check_name
from .schema import Schema

DATA = "data"
PROGRESS = "progress.jsonl"
_SUMMARY, _FILES = "manifest-summary.json", "manifest-files.json"


@dataclass(frozen=True)
class Source:
    """
    A complete backup to read from.

    ``digest`` and ``schema`` are None for an export of the service, which has none. ``identity``
    is a digest of the manifests; ``taken`` is when the items were read, as ISO 8601.
    """

    path: Path
    table: str
    taken: str
    items: int
    files: tuple[DataFile, ...]
    identity: str
    digest: ItemsDigest | None = None
    schema: Schema | None = None

    @property
    def is_export(self) -> bool:
        """Whether DynamoDB itself wrote it."""
        return self.schema is None

    def check(self, problem_of: Callable[[RawItem], str] | None = None) -> Iterator[DataFile]:
        """
        Yield each file once it was checked. Raises BackupError for the first damaged one, or one
        with an item for which ``problem_of`` returns a problem.
        """
        for file in self.files:
            with _nothing_written():
                file.check(problem_of)
            yield file


def open_source(path: Path) -> Source:
    """
    Return what is in the folder ``path``: a backup, an export, or a folder that has one export.

    Raises BackupError if there is none, if it is incomplete, or if a manifest was altered.
    """
    with _nothing_written():
        return _opened(path)


@contextmanager
def _nothing_written() -> Iterator[None]:
    try:
        yield
    except BackupError as exc:
        raise BackupError(f"{exc} Nothing was written.") from None


def _opened(path: Path) -> Source:
    if not path.is_dir():
        raise BackupError(f"{path} is no folder; expected the folder of a backup.")
    if (path / own.FILE_NAME).exists():
        return _backup(path)
    if (path / PROGRESS).exists():
        raise BackupError(
            f"The backup in {path} is incomplete: it was interrupted. Run the same dynamo_backup "
            "again, which continues it."
        )
    exports = _exports(path)
    if len(exports) > 1:
        raise BackupError(
            f"{path} has {len(exports)} exports; expected one. Name one of the folders: "
            f"{', '.join(each.name for each in exports)}."
        )
    if exports:
        return _export(exports[0])
    if (path / DATA).is_dir():
        raise BackupError(
            f"The backup in {path} is incomplete: {own.FILE_NAME} is missing. {own.ADVICE}"
        )
    raise BackupError(
        f"{path} has no backup; expected a folder with {own.FILE_NAME}, or with {_SUMMARY} of an "
        "export to S3."
    )


def _backup(path: Path) -> Source:
    content = (path / own.FILE_NAME).read_bytes()
    manifest = Manifest.load(content, path / own.FILE_NAME)
    return Source(
        path=path,
        table=manifest.table,
        taken=manifest.started,
        items=manifest.digest.items,
        files=tuple(
            DataFile(path / DATA / each.name, each.items, each.digest, each.size, each.sha256)
            for each in manifest.files
        ),
        identity=hashlib.sha256(content).hexdigest(),
        digest=manifest.digest,
        schema=manifest.schema,
    )


def _exports(path: Path) -> list[Path]:
    for folder in (path, path / "AWSDynamoDB"):
        if (folder / _SUMMARY).exists() or (folder / _FILES).exists():
            return [folder]
        if folder.is_dir():
            found = sorted({each.parent for each in folder.glob(f"*/{_SUMMARY}")})
            if found:
                return found
    return []


def _export(path: Path) -> Source:
    summary_bytes = _manifest(path / _SUMMARY)
    summary = _parsed(summary_bytes, path / _SUMMARY)
    if summary.get("outputFormat", "DYNAMODB_JSON") != "DYNAMODB_JSON":
        raise BackupError(
            f"{path} is an export in the format {summary['outputFormat']}; expected DYNAMODB_JSON. "
            "Export the table again with that format."
        )
    if summary.get("exportType", "FULL_EXPORT") != "FULL_EXPORT":
        raise BackupError(
            f"{path} is an incremental export, which has changes and no items; expected a full one."
        )
    lines = _manifest(path / _FILES)
    files = tuple(
        _data_file(path, _parsed(line, path / _FILES))
        for line in lines.splitlines()
        if line.strip()
    )
    items = sum(each.items for each in files)
    if summary.get("itemCount", items) != items:
        raise BackupError(
            f"{path / _FILES} is incomplete: its files have {items} items, but {_SUMMARY} has "
            f"{summary['itemCount']}. {own.ADVICE}"
        )
    return Source(
        path=path,
        table=str(summary.get("tableArn", "")).rpartition("/")[2] or "unknown",
        taken=str(summary.get("exportTime", "unknown")),
        items=items,
        files=files,
        identity=hashlib.sha256(summary_bytes + lines).hexdigest(),
    )


def _manifest(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise BackupError(f"The export is incomplete: {path} is missing. {own.ADVICE}") from None
    # The documentation says .checksum, the service writes .md5.
    for ending in (".md5", ".checksum"):
        checksum = path.with_suffix(ending)
        if checksum.exists():
            found = hashlib.md5(content, usedforsecurity=False).digest()
            expected = checksum.read_text(errors="replace").strip()
            if expected not in (base64.b64encode(found).decode(), found.hex()):
                raise BackupError(
                    f"{path} was altered: its checksum differs from {checksum.name}. {own.ADVICE}"
                )
    return content


def _parsed(content: bytes, where: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(content))
    except (ValueError, TypeError, RecursionError):
        raise BackupError(
            f"{where} is truncated, or not the manifest of an export. {own.ADVICE}"
        ) from None


def _data_file(path: Path, entry: dict[str, Any]) -> DataFile:
    try:
        name = str(entry["dataFileS3Key"]).rpartition("/")[2]
        check_name(name)
        md5 = entry["md5Checksum"]
        base64.b64decode(md5, validate=True)
        items = int(entry["itemCount"])
    except (KeyError, TypeError, ValueError, binascii.Error):
        raise BackupError(
            f"{path / _FILES} has an entry that is not of a data file. {own.ADVICE}"
        ) from None
    return DataFile(path / DATA / name, items, md5=md5)
