"""
The manifest of a backup: the table, its schema, and every file with its digests.

It is written last, so a folder with a manifest has a complete backup. Its own digest shows whether
it was changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...exceptions import BackupError
from .digests import ItemsDigest
from .schema import Schema

FILE_NAME = "manifest.json"
# What to do about a damaged file.
ADVICE = "Use another copy of the backup."
VERSION = 1
_FORMAT = "dynamo-stores backup"
# What is no plain name could lead out of the folder.
_DATA_FILE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.json\.gz")


@dataclass(frozen=True)
class FileRecord:
    """A finished file: its items and their digest, and the size and SHA-256 of its bytes."""

    name: str
    items: int
    digest: str
    size: int
    sha256: str

    @property
    def items_digest(self) -> ItemsDigest:
        """The digest of the items."""
        return ItemsDigest.parse(self.items, self.digest)

    def as_json(self) -> dict[str, Any]:
        """Return the record as values of JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Any) -> FileRecord:
        """Return the record that :meth:`as_json` returned. Raises ValueError for other values."""
        try:
            record = cls(**content)
            _ = record.items_digest
        except (TypeError, AttributeError):
            raise ValueError("not a file") from None
        check_name(record.name)
        if not (isinstance(record.items, int) and isinstance(record.size, int)):
            raise ValueError("not a number")
        return record


def check_name(name: Any) -> None:
    """Raise ValueError unless ``name`` is the plain name of a data file."""
    if not isinstance(name, str) or _DATA_FILE.fullmatch(name) is None:
        raise ValueError("not the name of a data file")


@dataclass(frozen=True)
class Manifest:
    """A complete backup. Times are ISO 8601 in UTC; ``consistent`` is that of the Scan."""

    table: str
    schema: Schema
    started: str
    finished: str
    consistent: bool
    segments: int
    files: tuple[FileRecord, ...]

    @property
    def digest(self) -> ItemsDigest:
        """The number of all items, and their digest."""
        return sum((each.items_digest for each in self.files), ItemsDigest())

    def dump(self) -> bytes:
        """Return the content of the file."""
        content: dict[str, Any] = {
            "format": _FORMAT,
            "version": VERSION,
            "table": self.table,
            "started": self.started,
            "finished": self.finished,
            "consistent": self.consistent,
            "segments": self.segments,
            "items": self.digest.items,
            "digest": str(self.digest),
            "schema": self.schema.as_json(),
            "files": [each.as_json() for each in self.files],
        }
        content["manifest_sha256"] = _own_digest(content)
        return json.dumps(content, indent=1).encode() + b"\n"

    @classmethod
    def load(cls, data: bytes, where: Path) -> Manifest:
        """
        Return the manifest in ``data``, the content of the file ``where``. Raises BackupError, with
        that name, if it was changed or is not one.
        """
        try:
            content = json.loads(data)
            if content["format"] != _FORMAT:
                raise ValueError(content["format"])
        except (ValueError, TypeError, KeyError, RecursionError):
            raise BackupError(
                f"{where} is truncated, or not the manifest of a backup. {ADVICE}"
            ) from None
        if content.get("version") != VERSION:
            raise BackupError(
                f"{where} has version {content.get('version')!r}; this release reads version "
                f"{VERSION}. Use the release that wrote the backup."
            )
        if content.pop("manifest_sha256", None) != _own_digest(content):
            raise BackupError(
                f"{where} was altered: its checksum differs from its content. {ADVICE}"
            )
        try:
            manifest = cls(
                table=content["table"],
                schema=Schema.from_json(content["schema"]),
                started=content["started"],
                finished=content["finished"],
                consistent=content["consistent"],
                segments=content["segments"],
                files=tuple(map(FileRecord.from_json, content["files"])),
            )
        except (ValueError, TypeError, KeyError):
            raise BackupError(f"{where} is not the manifest of a backup. {ADVICE}") from None
        if (content["items"], content["digest"]) != (manifest.digest.items, str(manifest.digest)):
            raise BackupError(
                f"{where} is incomplete: its files are not all of its items. {ADVICE}"
            )
        return manifest


def _own_digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
