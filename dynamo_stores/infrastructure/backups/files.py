"""
The files of a backup: compressed lines, written whole or not at all, and read with their digests.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ...exceptions import BackupError
from .digests import ItemsDigest
from .lines import MAX_LINE_BYTES, RawItem, dump_item, load_item
from .manifest import ADVICE, FileRecord

UNFINISHED = ".part"
_BLOCK = 2**20


def create(path: Path) -> BinaryIO:
    """Open ``path`` to be written; a new file can be read by its owner only."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path``, which has all of it or is unchanged after a crash."""
    unfinished = path.with_name(path.name + UNFINISHED)
    with create(unfinished) as file:
        file.write(content)
        sync(file)
    _finish(unfinished, path)


def sync(file: BinaryIO) -> None:
    """Return when the content of ``file`` is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Return when the names in ``folder`` are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _finish(unfinished: Path, path: Path) -> None:
    unfinished.replace(path)
    sync_folder(path.parent)


class FileWriter:
    """
    Writes the items of one file. It has its name after :meth:`finish`; until then, also after a
    crash, it is ``<name>.part``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unfinished = path.with_name(path.name + UNFINISHED)
        self._raw = _Measured(create(self._unfinished))
        # No name and no time: equal items are equal bytes.
        self._gzip = gzip.GzipFile("", "wb", 6, self._raw, mtime=0)
        self._digest = ItemsDigest()
        self.size = 0

    def add(self, items: list[RawItem]) -> int:
        """Write ``items``; return the bytes of their lines. ``size`` is the sum of these."""
        lines = b"".join(map(dump_item, items))
        self._gzip.write(lines)
        self._digest += ItemsDigest.of(items)
        self.size += len(lines)
        return len(lines)

    def finish(self) -> FileRecord:
        """Complete the file, give it its name and return its record."""
        self._gzip.close()
        sync(self._raw.file)
        self._raw.file.close()
        _finish(self._unfinished, self._path)
        return FileRecord(
            self._path.name,
            self._digest.items,
            str(self._digest),
            self._raw.size,
            self._raw.sha256.hexdigest(),
        )

    def discard(self) -> None:
        """Delete the unfinished file."""
        self._raw.file.close()
        self._unfinished.unlink(missing_ok=True)


class _Measured:
    """A file with the size and the digests of what was written to it, or read from it."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.size = 0
        self.sha256 = hashlib.sha256()
        self.md5 = hashlib.md5(usedforsecurity=False)

    def write(self, data: bytes) -> int:
        self.file.write(data)
        self.size += len(data)
        self.sha256.update(data)
        return len(data)

    def flush(self) -> None:
        self.file.flush()

    def read(self, size: int = -1) -> bytes:
        data: bytes = self.file.read(size)
        self.size += len(data)
        self.sha256.update(data)
        self.md5.update(data)
        return data


@dataclass(frozen=True)
class DataFile:
    """
    A file to be read, with what is known of it: a backup's manifest has the digest of the items,
    the size and the SHA-256, an export of the service the number of items and the MD5.
    """

    path: Path
    items: int
    digest: str | None = None
    size: int | None = None
    sha256: str | None = None
    md5: str | None = None

    @property
    def name(self) -> str:
        """The name of the file."""
        return self.path.name

    def check(self, problem_of: Callable[[RawItem], str] | None = None) -> None:
        """
        Read the whole file. Raises BackupError if it is missing, truncated or altered, or if
        ``problem_of`` returns a problem of an item.
        """
        if self.size is None or problem_of is not None:
            # Without a size, only the compressed data say how long the file is.
            for number, item in enumerate(self.read(), 1):
                if problem_of is not None and (problem := problem_of(item)):
                    raise BackupError(f"{self.path}: line {number} {problem}.")
            return
        with self._open() as file:
            measured = _Measured(file)
            while measured.read(_BLOCK):
                pass
        self._compare(measured)

    def read(self) -> Generator[RawItem, None, None]:
        """
        Yield the items. Raises BackupError at the first line that is not an item, and at the end if
        the bytes, or the items, are not those of the manifest.
        """
        digest = ItemsDigest()
        with self._open() as file:
            measured = _Measured(file)
            for number, line in enumerate(self._lines(measured), 1):
                try:
                    item = load_item(line)
                except ValueError as exc:
                    raise BackupError(f"{self.path}: line {number} {exc}. {ADVICE}") from None
                digest += ItemsDigest.of([item])
                yield item
            while measured.read(_BLOCK):
                pass
        self._compare(measured)
        if digest.items != self.items:
            raise BackupError(
                f"{self.path} is incomplete: it has {digest.items} items, expected {self.items}. "
                f"{ADVICE}"
            )
        if self.digest is not None and str(digest) != self.digest:
            raise BackupError(
                f"{self.path} was altered: the checksum of its items differs. {ADVICE}"
            )

    def _open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except FileNotFoundError:
            raise BackupError(
                f"The backup is incomplete: the file {self.path} is missing. {ADVICE}"
            ) from None

    def _lines(self, measured: _Measured) -> Iterable[bytes]:
        try:
            with gzip.GzipFile("", "rb", fileobj=measured) as lines:
                while line := lines.readline(MAX_LINE_BYTES):
                    if line.strip():
                        yield line
        except EOFError:
            raise BackupError(
                f"{self.path} is truncated: its compressed data end early. {ADVICE}"
            ) from None
        except (gzip.BadGzipFile, zlib.error):
            raise BackupError(
                f"{self.path} was altered: it cannot be decompressed. {ADVICE}"
            ) from None

    def _compare(self, measured: _Measured) -> None:
        if self.size is not None and measured.size < self.size:
            raise BackupError(
                f"{self.path} is truncated: it has {measured.size} bytes, expected {self.size}. "
                f"{ADVICE}"
            )
        found, expected = (
            (base64.b64encode(measured.md5.digest()).decode(), self.md5)
            if self.sha256 is None
            else (measured.sha256.hexdigest(), self.sha256)
        )
        if expected is not None and found != expected:
            raise BackupError(
                f"{self.path} was altered: its checksum differs from that of the manifest. {ADVICE}"
            )
