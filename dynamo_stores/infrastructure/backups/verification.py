"""Whether a table has the items of a backup, by their digests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from contextlib import closing

from ...calls.background import BackgroundWork, Pace
from ...calls.batches import MAX_READS, batch_get, chunks
from ...calls.connection import get_connection
from ...calls.item_size import item_size
from ...concurrency.effects import Verb, run
from ...exceptions import BackupError
from .digests import ItemsDigest, item_digest
from .files import DataFile
from .lines import RawItem, key_of
from .pacing import PATIENCE, read_units
from .scan import Page, TableScan

Progress = Callable[[str, int], None]


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
    connection, work = get_connection(using).here, BackgroundWork(PATIENCE)
    pace = None if rate is None else Pace(rate)
    missing = different = done = 0

    async def read(wanted: list[RawItem]) -> list[RawItem]:
        def batch() -> Verb[list[RawItem]]:
            return batch_get(connection, table, wanted, consistent=True)

        found = await work.call(batch)
        if pace is not None:
            sizes = [item_size(each) for each in found]
            await pace.consumed(sum(read_units(each, consistent=True) for each in sizes))
        return found

    for file in files:
        with closing(file.read()) as lines:
            for items in chunks(lines, MAX_READS):
                wanted = {item_digest(key_of(each, keys)): each for each in items}
                found = run(read([key_of(each, keys) for each in wanted.values()]))
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
