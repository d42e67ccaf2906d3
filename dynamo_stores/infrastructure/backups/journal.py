"""
A journal of finished work, from which an interrupted command is resumed.

A file of JSON lines: the first says what the work is, each other one what was finished. A line is
on the disk before the next one begins. A line that a crash cut off counts as not written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from ...exceptions import BackupError
from .files import sync, sync_folder

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


# How the first line begins, so that no other file is taken for a journal.
_FORMAT = "dynamo-stores journal"
_HEAD = json.dumps({"format": _FORMAT}, separators=(",", ":")).encode()[:-1]


class Journal:
    """
    The journal in one file, for one process at a time.

    ``work`` is what the first line says, None if the journal is new; ``entries`` are the others.
    Raises BackupError if the file is in use, damaged, or neither empty nor a journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work: dict[str, Any] | None = None
        self.entries: list[dict[str, Any]] = []
        self._file, self._is_own = self._opened()
        try:
            self._load()
        except BaseException:
            self._file.close()
            raise

    def begin(self, work: Mapping[str, Any]) -> None:
        """Forget all entries, and write what the work is."""
        self._file.truncate(0)
        self._append({"format": _FORMAT, **work})
        sync_folder(self.path.parent)
        self.work, self.entries = dict(work), []

    def append(self, entry: Mapping[str, Any]) -> None:
        """Write an entry; return when it is on the disk."""
        self._append(entry)
        self.entries.append(dict(entry))

    def delete(self) -> None:
        """Delete the file: the work is done."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the file, and let other processes open it. A new one without work is deleted."""
        if not self._file.closed:
            if self._is_own and self.work is None:
                self.path.unlink(missing_ok=True)
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        sync(self._file)

    def _opened(self) -> tuple[BinaryIO, bool]:
        """Return the file, locked, and whether this process made it."""
        while True:
            try:
                file, is_own = self._open()
            except OSError as exc:
                raise BackupError(
                    f"{self.path} cannot be written: {exc.strerror}. Name another place for it."
                ) from exc
            try:
                self._lock(file)
                if self._is_at_path(file):
                    return file, is_own
            except BaseException:
                file.close()
                raise
            # Another process deleted it before it was locked: its work is done.
            file.close()

    def _open(self) -> tuple[BinaryIO, bool]:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        try:
            return os.fdopen(os.open(self.path, flags | os.O_EXCL, 0o600), "a+b"), True
        except FileExistsError:
            return os.fdopen(os.open(self.path, flags, 0o600), "a+b"), False

    def _is_at_path(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), self.path.stat())
        except FileNotFoundError:
            return False

    def _lock(self, file: BinaryIO) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BackupError(
                f"{self.path} is in use by another process. Wait for its end, or use another "
                "folder."
            ) from None

    def _load(self) -> None:
        self._file.seek(0)
        begin = self._file.read(len(_HEAD))
        if begin != _HEAD[: len(begin)]:
            raise BackupError(
                f"{self.path} is neither empty nor the progress of a backup or restore, and was "
                "not changed. Name another place for it."
            )
        self._file.seek(0)
        whole = 0
        lines: list[dict[str, Any]] = []
        for line in self._file:
            if not line.endswith(b"\n"):
                break
            whole += len(line)
            try:
                lines.append(dict(json.loads(line)))
            except (ValueError, TypeError, RecursionError):
                raise BackupError(
                    f"{self.path} is damaged at line {len(lines) + 1}. Delete it to begin again."
                ) from None
        self._file.truncate(whole)
        self._file.seek(0, 2)
        if lines:
            self.work, *self.entries = lines
            del self.work["format"]
