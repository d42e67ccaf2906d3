"""The periodic work for the status pages: sum up usage, and delete old items."""

from __future__ import annotations

from typing import NamedTuple

from .. import keys
from ..capacity.history import KEPT as DECISIONS_KEPT
from ..capacity.usage import HOUR, UsageHistory, minute_of
from ..concurrency.effects import run
from ..conf import DEFAULT_ALIAS
from ..item_access import Items
from ..keys import ItemKey
from ..models import ControlItem, RawItem
from .history import HOURS_KEPT, MINUTES_KEPT, History
from .periods import minutes_of
from .report import KEPT, total_usage
from .report_store import ReportStore

# Old items deleted by one run at most; the next run deletes more.
_MAX_DELETES = 100


class RolledUp(NamedTuple):
    """How many minutes and hours were written, and how many items of any kind were deleted."""

    written: int
    deleted: int


class Cleaner:
    """Deletes old items of a partition sorted by time; DynamoDB's TTL may be days late."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(ControlItem, using, direct=True)

    def now(self) -> float:
        """Return DynamoDB's time, at the earliest that it may be, in seconds since the epoch."""
        return run(self._items.learned_times(keys.usage(0))).low

    def delete_before(self, first: ItemKey) -> int:
        """Delete the oldest items before ``first``; return how many."""
        request = {
            "KeyConditionExpression": "PK = :pk AND SK < :sk",
            "ExpressionAttributeValues": {":pk": {"S": first.pk}, ":sk": {"S": first.sk}},
            "ProjectionExpression": "PK, SK",
            "Limit": _MAX_DELETES,
        }
        found: list[RawItem] = run(self._items.call("Query", request))["Items"]
        _, error = run(self._items.write_many({"DeleteRequest": {"Key": key}} for key in found))
        if error is not None:
            raise error
        return len(found)


def roll_up(using: str) -> RolledUp:
    """
    Sum up the last minutes, the last hour when it is over, and delete old items.

    Every sum is computed from the reports again, so concurrent runs are safe. What is old is so by
    DynamoDB's time. Raises StoreUnavailable.
    """
    store, cleaner = ReportStore(using), Cleaner(using)
    reports = store.all()
    now = cleaner.now()
    old = [report for report in reports if report.at <= now - KEPT]
    written = UsageHistory(using).roll_up(total_usage(reports))
    written += History(using).roll_up(minutes_of(reports))
    store.delete(old)
    deleted = len(old)
    deleted += cleaner.delete_before(keys.usage(minute_of(now) - 2 * HOUR))
    deleted += cleaner.delete_before(keys.metrics_minute(minute_of(now) - MINUTES_KEPT))
    deleted += cleaner.delete_before(keys.metrics_hour(minute_of(now) // 60 - HOURS_KEPT))
    deleted += cleaner.delete_before(keys.decision(int((now - DECISIONS_KEPT) * 1000)))
    return RolledUp(written, deleted)
