"""
A journal of finished work, from which an interrupted command is resumed.

A file of JSON lines: the first says what the work is, each other one what was finished. A line is
on the disk before the next one begins. A line that a crash cut off counts as not written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from ...exceptions import BackupError
from .files import sync, sync_folder

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


class Journal:
    """
    The journal in one file, for one process at a time.

    ``work`` is what the first line says, None if the journal is new; ``entries`` are the others.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.work: dict[str, Any] | None = None
        self.entries: list[dict[str, Any]] = []
        try:
            self._file = path.open("a+b")
        except OSError as exc:
            raise BackupError(
                f"{path} cannot be written: {exc.strerror}. Name another place for it."
            ) from exc
        try:
            self._lock()
            self._load()
        except BaseException:
            self._file.close()
            raise

    def begin(self, work: Mapping[str, Any]) -> None:
        """Forget all entries, and write what the work is."""
        self._file.truncate(0)
        self._append(work)
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
        """Close the file, and let other processes open it. A journal without work is deleted."""
        if not self._file.closed:
            if self.work is None:
                self.path.unlink(missing_ok=True)
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _append(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        sync(self._file)

    def _lock(self) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BackupError(
                f"{self.path} is in use by another process. Wait for its end, or use another "
                "folder."
            ) from None

    def _load(self) -> None:
        self._file.seek(0)
        whole = 0
        lines = []
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
