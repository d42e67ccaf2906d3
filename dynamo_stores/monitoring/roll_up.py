"""What beat does every minute for the status pages: sum up, and delete what is over."""

from __future__ import annotations

from typing import NamedTuple

from .. import clock, keys
from ..calls.batches import MAX_WRITES, chunks
from ..capacity.history import KEPT as DECISIONS_KEPT
from ..item_access import DirectStore
from ..keys import ItemKey
from ..models import ControlItem, RawItem
from .report import KEPT, total_use
from .report_store import ReportStore
from .usage import HOUR, UseHistory, minute_of

# Old items that are deleted in one go; the next go takes more.
_MOST = 100


class RolledUp(NamedTuple):
    """How many items of use were written, and how many of any kind were deleted."""

    written: int
    deleted: int


class Cleaner(DirectStore[ControlItem]):
    """Deletes what is over in a partition that is sorted by time; DynamoDB's TTL comes late."""

    kind = ControlItem

    def delete_before(self, first: ItemKey) -> int:
        """Delete the oldest items before ``first``; return how many."""
        table = self._table
        request = {
            "TableName": table.table_name,
            "KeyConditionExpression": "PK = :pk AND SK < :sk",
            "ExpressionAttributeValues": {":pk": {"S": first.pk}, ":sk": {"S": first.sk}},
            "ProjectionExpression": "PK, SK",
            "Limit": _MOST,
        }
        found: list[RawItem] = self._call(table, "Query", request)["Items"]
        for some in chunks(found, MAX_WRITES):
            deletes = [{"DeleteRequest": {"Key": key}} for key in some]
            self._call(table, "BatchWriteItem", {"RequestItems": {table.table_name: deletes}})
        return len(found)


def roll_up(using: str) -> RolledUp:
    """
    Sum up the use of the last minutes, and delete what is over. Raises StoreUnavailable.

    Every number comes out of the reports again, so two beats at once do no harm.
    """
    now = clock.now()
    processes, cleaner = ReportStore(using), Cleaner(using)
    reports = processes.all()
    gone = [report for report in reports if report.at <= now - KEPT]
    written = UseHistory(using).roll_up(total_use(reports))
    processes.forget(gone)
    deleted = len(gone)
    deleted += cleaner.delete_before(keys.use(minute_of(now) - 2 * HOUR))
    deleted += cleaner.delete_before(keys.decision(int((now - DECISIONS_KEPT) * 1000)))
    return RolledUp(written, deleted)
