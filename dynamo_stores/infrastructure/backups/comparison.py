"""
Comparison of the items of two tables, or of a table and a backup, in bounded memory.

The keys are divided into buckets by their digests. Both sides are read once for a digest of each
bucket; only if these differ are both read again, for the buckets that differ.
"""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Container, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

from ...calls.batches import chunks
from .digests import item_digest
from .lines import RawItem, key_of
from .scan import TableScan
from .source import Source

_BUCKETS = 2**16
_MODULUS = 2**256
# Items whose digests are kept in memory at most, unless one bucket has more.
MOST_ITEMS = 100_000
_PAGE = 1000

Handle = Callable[[list[RawItem]], None]


class Contents(Protocol):
    """What is compared: ``each`` calls a function with all items, in lists."""

    def each(self, handle: Handle) -> None: ...


@dataclass(frozen=True)
class TableContents:
    """The items of a table, by a Scan."""

    scan: TableScan

    def each(self, handle: Handle) -> None:
        """Call ``handle`` with the items of each page, one call at a time."""
        lock = threading.Lock()

        def one_at_a_time(items: list[RawItem]) -> None:
            with lock:
                handle(items)

        self.scan.run(lambda page: one_at_a_time(page.items))


@dataclass(frozen=True)
class BackupContents:
    """The items of a backup or export. Raises BackupError for a damaged file."""

    source: Source

    def each(self, handle: Handle) -> None:
        """Call ``handle`` with lists of items."""
        for file in self.source.files:
            with closing(file.read()) as lines:
                for items in chunks(lines, _PAGE):
                    handle(items)


@dataclass
class Comparison:
    """
    The numbers of items of both sides, and of those that differ; 0 of them if all are equal.

    Not ``is_complete``: there are more differences than were counted. ``keys`` are the keys of the
    differences, if they were asked for, each with ``left``, ``right`` or ``differs``.
    """

    left: int
    right: int
    only_left: int = 0
    only_right: int = 0
    different: int = 0
    is_complete: bool = True
    keys: list[tuple[str, RawItem]] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Whether both sides have the same items."""
        return not (self.only_left or self.only_right or self.different)


class _Buckets:
    """The number and the digest of the items of each bucket."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.counts = array("Q", bytes(8 * _BUCKETS))
        self.totals = [0] * _BUCKETS
        self._keys = keys

    def add(self, items: Iterable[RawItem]) -> None:
        for item in items:
            bucket = bucket_of(item_digest(key_of(item, self._keys)))
            self.counts[bucket] += 1
            digest = int.from_bytes(item_digest(item))
            self.totals[bucket] = (self.totals[bucket] + digest) % _MODULUS


def bucket_of(key_digest: bytes) -> int:
    """Return the number of the bucket of a key."""
    return int.from_bytes(key_digest[:2])


def compare(
    left: Contents,
    right: Contents,
    keys: tuple[str, ...],
    *,
    with_keys: bool = False,
    most_items: int = MOST_ITEMS,
    progress: Callable[[str, int], None] = lambda phase, items: None,
) -> Comparison:
    """
    Return by which items ``left`` and ``right`` differ; ``keys`` names the key attributes.

    ``progress`` is called with ``Read``, or ``Read again``, and the number of items of both.
    """
    own, other = _Buckets(keys), _Buckets(keys)
    shown = _Shown(progress)
    left.each(shown.counted("Read", own.add))
    right.each(shown.counted("Read", other.add))
    result = Comparison(sum(own.counts), sum(other.counts))
    wrong = [
        bucket
        for bucket in range(_BUCKETS)
        if (own.counts[bucket], own.totals[bucket]) != (other.counts[bucket], other.totals[bucket])
    ]
    chosen: set[int] = set()
    size = 0
    for bucket in wrong:
        size += max(own.counts[bucket], other.counts[bucket])
        if chosen and size > most_items:
            result.is_complete = False
            break
        chosen.add(bucket)
    if chosen:
        _count(left, right, keys, chosen, result, shown, with_keys=with_keys)
    return result


@dataclass
class _Shown:
    """Counts the items that are handled, and tells the progress."""

    progress: Callable[[str, int], None]
    items: int = 0

    def counted(self, phase: str, handle: Handle) -> Handle:
        def count(items: list[RawItem]) -> None:
            handle(items)
            self.items += len(items)
            self.progress(phase, self.items)

        return count


def _count(
    left: Contents,
    right: Contents,
    keys: tuple[str, ...],
    chosen: Container[int],
    result: Comparison,
    shown: _Shown,
    *,
    with_keys: bool,
) -> None:
    waiting: dict[bytes, tuple[bytes, RawItem | None]] = {}

    def note(what: str, key: RawItem | None) -> None:
        if key is not None:
            result.keys.append((what, key))

    def keep(items: list[RawItem]) -> None:
        for item in items:
            key = key_of(item, keys)
            digest = item_digest(key)
            if bucket_of(digest) in chosen:
                waiting[digest] = item_digest(item), key if with_keys else None

    def match(items: list[RawItem]) -> None:
        for item in items:
            key = key_of(item, keys)
            digest = item_digest(key)
            if bucket_of(digest) not in chosen:
                continue
            found = waiting.pop(digest, None)
            if found is None:
                result.only_right += 1
                note("right", key if with_keys else None)
            elif found[0] != item_digest(item):
                result.different += 1
                note("differs", found[1])

    shown.items = 0
    left.each(shown.counted("Read again", keep))
    right.each(shown.counted("Read again", match))
    result.only_left = len(waiting)
    for _, key in waiting.values():
        note("left", key)
