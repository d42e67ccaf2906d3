"""Whether a table has the items of a backup, by their digests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import closing

from ...calls.background import BackgroundWork, Pace
from ...calls.batches import MAX_READS, batch_get, chunks
from ...calls.connection import get_connection
from ...calls.item_size import KB, MAX_BATCH_BYTES, item_size
from ...concurrency.effects import Wait, run
from ...exceptions import BackupError, StoreUnavailable
from .digests import ItemsDigest, item_digest
from .files import DataFile
from .lines import RawItem, key_of
from .pacing import PATIENCE, read_units
from .scan import Page, TableScan

Progress = Callable[[str, int], None]

# What a strongly consistent read of one unit returns at most.
_UNIT_BYTES = 4 * KB


def table_digest(scan: TableScan, progress: Callable[[int], None]) -> ItemsDigest:
    """Return the digest of all items of a table."""
    total = ItemsDigest()
    lock = threading.Lock()

    def handle(page: Page) -> None:
        nonlocal total
        digest = ItemsDigest.of(page.items)
        with lock:
            total += digest
            progress(total.items)

    scan.run(handle)
    return total


def check_whole(
    using: str,
    table: str,
    expected: ItemsDigest,
    rate: float | None,
    segments: int,
    progress: Progress,
) -> None:
    """Raise BackupError unless the table has exactly the items with that digest."""
    scan = TableScan(using, table, segments=segments, units_per_second=rate)
    found = table_digest(scan, lambda items: progress("Compared", items))
    if found == expected:
        return
    numbers = (
        "the digests of the items differ"
        if found.items == expected.items
        else f"it has {found.items:,} items, expected {expected.items:,}"
    )
    raise BackupError(
        f"{table} differs from the backup: {numbers}. Either another process wrote to the table "
        "meanwhile, or the backup has a key twice. 'manage.py dynamo_verify --with-backup' counts "
        "the differences."
    )


def check_items(
    using: str,
    table: str,
    files: Iterable[DataFile],
    keys: tuple[str, ...],
    rate: float | None,
    progress: Progress,
    *,
    is_equal: bool,
) -> None:
    """
    Raise BackupError unless the table has every item of ``files``: the same with ``is_equal``,
    else one with its key.
    """
    reader = _Reader(using, table, rate)
    missing = different = done = 0
    for file in files:
        with closing(file.read()) as lines:
            for items in chunks(
                lines, MAX_READS, max_bytes=reader.most_bytes, size_of=_consumed_bytes
            ):
                wanted = {item_digest(key_of(each, keys)): each for each in items}
                found = run(
                    reader.read(
                        [key_of(each, keys) for each in wanted.values()],
                        sum(map(_units, wanted.values())),
                    )
                )
                live = {item_digest(key_of(each, keys)): each for each in found}
                missing += sum(key not in live for key in wanted)
                different += is_equal and sum(
                    item_digest(live[key]) != item_digest(each)
                    for key, each in wanted.items()
                    if key in live
                )
                done += len(items)
                progress("Compared", done)
    if missing or different:
        raise BackupError(
            f"{table} differs from the backup: of {done:,} items {missing:,} are missing and "
            f"{different:,} differ. Another process wrote to the table meanwhile."
        )


class _Reader:
    """Reads batches of items by their keys, at most ``rate`` read units a second."""

    def __init__(self, using: str, table: str, rate: float | None) -> None:
        self._connection, self._table = get_connection(using).here, table
        self._work = BackgroundWork(PATIENCE)
        self._pace = None if rate is None else Pace(rate)
        self.most_bytes = (
            MAX_BATCH_BYTES if rate is None else min(MAX_BATCH_BYTES, int(rate * _UNIT_BYTES))
        )

    async def read(self, keys: list[RawItem], units: float) -> list[RawItem]:
        """Return the items of ``keys``, which need about ``units`` read units. A verb."""
        if self._pace is not None:
            await Wait(max(0.0, self._pace.seconds_before(units)))
        found: list[RawItem] = []

        async def batch(left: list[RawItem]) -> tuple[list[RawItem], StoreUnavailable | None]:
            try:
                found.extend(await batch_get(self._connection, self._table, left, consistent=True))
            except StoreUnavailable as exc:
                # What was read is kept: a batch may be over the capacity of many seconds.
                found.extend((exc.responses or {}).get(self._table, []))
                unprocessed = (exc.unprocessed or {}).get(self._table)
                return left if unprocessed is None else unprocessed["Keys"], exc
            return [], None

        await self._work.write_all(keys, batch)
        if self._pace is not None:
            # An item that was not found consumes a unit; a stored one may be larger.
            consumed = sum(map(_units, found)) + len(keys) - len(found)
            self._pace.seconds_for(max(0.0, consumed - units))
        return found


def _units(item: RawItem) -> float:
    return read_units(item_size(item), consistent=True)


def _consumed_bytes(item: RawItem) -> int:
    return int(_units(item)) * _UNIT_BYTES
