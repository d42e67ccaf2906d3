"""The usage of each table by minute for the last hour, rolled up from the reports."""

from __future__ import annotations

import json
import operator
from collections.abc import Mapping
from typing import NamedTuple

from pynamodb.attributes import UnicodeAttribute

from .. import clock, keys
from ..concurrency.effects import run
from ..conf import DEFAULT_ALIAS
from ..item_access import Items
from ..models import ControlItem, RawItem, string_of

# So many minutes of usage are in a report, so a roll-up may be that late.
MINUTES = 5
# Minutes in a chart; an item is kept for twice as long.
HOUR = 60


class Usage(NamedTuple):
    """
    Capacity units that a table or index used in one minute, and its throttled attempts.

    ``incurable_reads`` and ``incurable_writes`` are the throttled attempts that more capacity does
    not cure, such as those on a hot partition.
    """

    read: float = 0.0
    write: float = 0.0
    throttled_reads: int = 0
    throttled_writes: int = 0
    incurable_reads: int = 0
    incurable_writes: int = 0

    def plus(self, other: Usage) -> Usage:
        """Return the sum of both."""
        return Usage._make(map(operator.add, self, other))

    def at_least(self, other: Usage) -> Usage:
        """Return the higher value of each field."""
        return Usage._make(map(max, self, other))


# By minute since the epoch, then by "table" or "table/index".
UsageByMinute = Mapping[int, Mapping[str, Usage]]


class RecentUse(NamedTuple):
    """
    The highest use of a table's resources (units a second, by resource and kind), and the ends of
    the last minutes in which it was throttled for lack of capacity (seconds since the epoch, by
    kind); ``is_known`` is False if nothing is recorded.
    """

    need: Mapping[tuple[str, str], float]
    throttled_at: Mapping[str, float]
    is_known: bool


def use_since(history: UsageByMinute, table: str, now: float, seconds: float) -> RecentUse:
    """
    Return the use of ``table`` in the last ``seconds``, but in two minutes at least, because the
    last minute may not be summed up yet. It is known if ``history`` has a minute of the table.
    ``now`` is DynamoDB's time.
    """
    first = minute_of(now - max(seconds, 120.0))
    need: dict[tuple[str, str], float] = {}
    throttled_at: dict[str, float] = {}
    is_known = False
    for minute, resources in history.items():
        for name, use in resources.items():
            of_table, _, index = name.partition("/")
            if of_table != table:
                continue
            is_known = True
            if minute < first:
                continue
            end = min(now, (minute + 1) * 60.0)
            for kind, units, throttled in (
                ("Read", use.read, use.throttled_reads - use.incurable_reads),
                ("Write", use.write, use.throttled_writes - use.incurable_writes),
            ):
                need[index, kind] = max(need.get((index, kind), 0.0), units / 60)
                if throttled > 0:
                    throttled_at[kind] = max(throttled_at.get(kind, 0.0), end)
    return RecentUse(need, throttled_at, is_known)


class UsageItem(ControlItem):
    """The usage of one table by all processes in one minute, in JSON."""

    use = UnicodeAttribute(null=True, attr_name="x")


class UsageHistory:
    """The usage of one alias's tables, an item per minute and table in its control table."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(UsageItem, using, direct=True)

    def last_hour(self, now: float | None = None) -> UsageByMinute:
        """
        Return the usage of the last 60 minutes by minute and resource; one Query for a MB.

        Without ``now``, which is seconds since the epoch, they end by the clock of this machine.
        """
        last = minute_of(clock.now() if now is None else now)
        return self.between(last - HOUR, last)

    def roll_up(self, use: Mapping[int, Mapping[str, Usage]]) -> int:
        """
        Write the sums of minutes that changed and are over by DynamoDB's time; return how many
        items were written. Repeated and concurrent calls write the same.
        """
        now = minute_of(run(self._items.learned_times(keys.usage(0))).low)
        known = self.between(now - MINUTES, now)
        written = 0
        for minute in range(now - MINUTES, now):
            by_table: dict[str, dict[str, Usage]] = {}
            for name, each in use.get(minute, {}).items():
                by_table.setdefault(name.partition("/")[0], {})[name] = each
            for table, resources in by_table.items():
                if all(known.get(minute, {}).get(name) == each for name, each in resources.items()):
                    continue
                run(self._items.put(_item(minute, table, resources)))
                written += 1
        return written

    def between(self, first: int, last: int) -> dict[int, dict[str, Usage]]:
        """
        Return the usage of the minutes from ``first`` to ``last`` by minute and resource, as far as
        it is kept: two hours. One Query for a MB.
        """
        request = {
            "KeyConditionExpression": "PK = :pk AND SK BETWEEN :first AND :last",
            "ExpressionAttributeValues": {
                ":pk": {"S": keys.USAGE},
                ":first": {"S": keys.usage(first).sk},
                ":last": {"S": keys.usage(last + 1).sk},
            },
        }
        found: dict[int, dict[str, Usage]] = {}
        for item in run(self._items.query(request)):
            minute = int(item["SK"]["S"].partition("#")[0])
            resources = json.loads(string_of(item, UsageItem.use))
            found.setdefault(minute, {}).update(
                {name: Usage(*each[: len(Usage._fields)]) for name, each in resources.items()}
            )
        return found


def minute_of(moment: float) -> int:
    """Return the minute since the epoch in which ``moment`` is."""
    return int(moment // 60)


def merged(*histories: UsageByMinute) -> dict[int, dict[str, Usage]]:
    """Return all histories in one: of two sums of a minute the higher, which is the later."""
    found: dict[int, dict[str, Usage]] = {}
    for history in histories:
        for minute, resources in history.items():
            known = found.setdefault(minute, {})
            for name, use in resources.items():
                known[name] = use.at_least(known.get(name, Usage()))
    return found


def _item(minute: int, table: str, resources: Mapping[str, Usage]) -> RawItem:
    key = keys.usage(minute, table)
    ttl = (minute + 2 * HOUR) * 60
    return UsageItem(key.pk, key.sk, ttl=ttl, use=json.dumps(resources)).serialize()
