"""What all processes counted, by minute for the last hours and by hour for 35 days."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from pynamodb.attributes import UnicodeAttribute

from .. import clock, keys
from ..capacity.usage import MINUTES, UsageHistory, minute_of
from ..concurrency.effects import run
from ..conf import DEFAULT_ALIAS
from ..expressions import missing
from ..item_access import ConditionFailed, Items
from ..keys import ItemKey
from ..models import ControlItem, RawItem, string_of
from .periods import Period, hour_of, read_period

logger = logging.getLogger(__name__)

HOUR = 60
# Minutes for which minutes are kept: an hour can be summed up, as a whole, in the hour after it.
MINUTES_KEPT = 3 * HOUR + MINUTES
# Hours for which hours are kept: 35 days.
HOURS_KEPT = 35 * 24


class PeriodItem(ControlItem):
    """A minute or an hour of all processes, in JSON."""

    period = UnicodeAttribute(null=True, attr_name="x")


class History:
    """The minutes and hours of one alias, an item each in its control table."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(PeriodItem, using, direct=True)

    def minutes(self, first: int, last: int) -> dict[int, Period]:
        """Return the minutes from ``first`` to ``last``, since the epoch; one Query for a MB."""
        return self._between(keys.metrics_minute(first), keys.metrics_minute(last))

    def hours(self, first: int, last: int) -> dict[int, Period]:
        """Return the hours from ``first`` to ``last``, since the epoch; one Query for a MB."""
        return self._between(keys.metrics_hour(first), keys.metrics_hour(last))

    def roll_up(self, minutes: Mapping[int, Period]) -> int:
        """
        Write the minutes that are over and changed, and the last hours if they are complete and
        missing; return how many items were written. Repeated and concurrent calls are safe.
        """
        now = minute_of(clock.now())
        known = self.minutes(now - MINUTES, now - 1)
        written = 0
        for minute in range(now - MINUTES, now):
            if minute in minutes:
                found = minutes[minute].at_least(known.get(minute, Period()))
                if found != known.get(minute):
                    key = keys.metrics_minute(minute)
                    run(self._items.put(_item(key, found, (minute + MINUTES_KEPT) * 60)))
                    written += 1
        return written + self._roll_up_hours(now)

    def _roll_up_hours(self, now: int) -> int:
        # Reports of a minute may be that late.
        last = (now - MINUTES) // HOUR - 1
        first = last - 1
        known, written = self.hours(first, last), 0
        for hour in range(first, last + 1):
            if hour in known:
                continue
            begin, end = hour * HOUR, hour * HOUR + HOUR - 1
            minutes = self.minutes(begin, end)
            use = UsageHistory(self.using).between(begin, end)
            if not minutes and not any(use.values()):
                continue
            key = keys.metrics_hour(hour)
            found = hour_of(minutes.values(), use)
            try:
                item = _item(key, found, (hour + HOURS_KEPT) * 3600)
                run(self._items.put(item, missing(PeriodItem.period)))
            except ConditionFailed:
                continue
            written += 1
        return written

    def _between(self, first: ItemKey, last: ItemKey) -> dict[int, Period]:
        request = {
            "KeyConditionExpression": "PK = :pk AND SK BETWEEN :first AND :last",
            "ExpressionAttributeValues": {
                ":pk": {"S": first.pk},
                ":first": {"S": first.sk},
                ":last": {"S": last.sk},
            },
        }
        found: dict[int, Period] = {}
        for item in run(self._items.query(request)):
            try:
                found[int(item["SK"]["S"])] = read_period(string_of(item, PeriodItem.period))
            except (ArithmeticError, LookupError, TypeError, ValueError, RecursionError):
                logger.info("Figures of a minute or an hour were skipped: they cannot be read.")
        return found


def _item(key: ItemKey, period: Period, ttl: int) -> RawItem:
    return PeriodItem(key.pk, key.sk, ttl=ttl, period=period.as_text()).serialize()
