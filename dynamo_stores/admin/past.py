"""The minutes and hours of every alias, read for a page while its snapshot is read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from .. import clock
from ..calls.direct import DIRECT_SECONDS
from ..capacity.usage import HOUR, MINUTES, minute_of
from ..conf import aliases, get_config
from ..exceptions import CALL_ERRORS
from ..monitoring.formatting import clock_time
from ..monitoring.history import History
from ..monitoring.periods import Period, minutes_of, total
from ..monitoring.snapshot import NoAnswerInTime, reason_of
from ..monitoring.status import AliasStatus

logger = logging.getLogger(__name__)

DAY = 24
_TO_DO = (
    "the task dynamo_stores.roll_up_status must run each minute (Celery beat). Without it only the "
    "last five minutes are known."
)
# Seconds for which answers are waited for, as long as for those of the snapshot.
_MAX_WAIT = 2 * DIRECT_SECONDS + 0.5
# A minute that ended so many minutes ago should be summed up: the task runs each minute.
_LATE = 3

Periods = Mapping[int, Period]


@dataclass(frozen=True)
class Past:
    """
    What all processes of an alias counted: ``minutes`` and ``hours`` since the epoch, the present
    ones among them. ``knows_minutes`` and ``knows_hours``: whether they could be read; without them
    there are those of the reports, the last five minutes. ``problems`` are sentences about what is
    not known.
    """

    using: str
    now: float
    minutes: Periods = field(default_factory=dict)
    hours: Periods = field(default_factory=dict)
    knows_minutes: bool = True
    knows_hours: bool = True
    unknown_after: int | None = None
    problems: tuple[str, ...] = ()

    @property
    def last_hour(self) -> range:
        """The last sixty minutes, the present one among them."""
        return range(minute_of(self.now) - HOUR + 1, minute_of(self.now) + 1)

    @property
    def last_day(self) -> range:
        """The last 24 hours, the present one among them."""
        hour = minute_of(self.now) // HOUR
        return range(hour - DAY + 1, hour + 1)

    def minute(self, minute: int) -> Period | None:
        """Return what was counted in a minute, None if that is not known."""
        if minute in self.minutes:
            return self.minutes[minute]
        after = self.unknown_after
        is_unknown = after is not None and after < minute < minute_of(self.now) - MINUTES
        return None if is_unknown else Period()

    def hour(self, hour: int) -> Period | None:
        """Return what was counted in an hour, None if that is not known."""
        return self.hours.get(hour)

    def of_hour(self) -> Period | None:
        """Return the sum of the last hour, None if it was not read."""
        return total(self._found(self.minutes, self.last_hour)) if self.knows_minutes else None

    def of_day(self) -> Period | None:
        """Return the sum of the last day, None if it was not read."""
        return total(self._found(self.hours, self.last_day)) if self.knows_hours else None

    def _found(self, periods: Periods, times: range) -> Iterable[Period]:
        return [periods[each] for each in times if each in periods]


class Reading:
    """
    Reads the minutes of every alias in threads, and with ``day`` its hours: one Query each for a
    megabyte, over direct connections.
    """

    def __init__(self, *, day: bool) -> None:
        names = aliases()
        self._day = day
        self._began = clock.monotonic()
        self._threads = ThreadPoolExecutor(2 * len(names), "dynamo-stores-past")
        now = minute_of(clock.now())
        hour = now // HOUR
        # The hour before this one may not be summed up yet.
        first = (hour - 1) * HOUR if day else now - HOUR + 1
        self._minutes = {
            name: self._threads.submit(History(name).minutes, first, now) for name in names
        }
        self._hours = {
            name: self._threads.submit(History(name).hours, hour - DAY + 1, hour - 1)
            for name in names
            if day
        }

    def past(self, statuses: Sequence[AliasStatus]) -> list[Past]:
        """
        Return what was read, with the last minutes of the reports in ``statuses``. Errors are in
        the ``problems``, never raised. Ends about five seconds after the reading began at most.
        """
        try:
            futures = [*self._minutes.values(), *self._hours.values()]
            wait(futures, timeout=max(0.0, _MAX_WAIT - (clock.monotonic() - self._began)))
            return [self._past(status) for status in statuses]
        finally:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _past(self, status: AliasStatus) -> Past:
        using, now = status.using, minute_of(status.at)
        summed, failure = _result(self._minutes[using])
        hours, hours_failure = _result(self._hours[using]) if self._day else ({}, "")
        reported = {
            minute: each
            for minute, each in minutes_of(status.reports).items()
            if now - MINUTES <= minute <= now
        }
        minutes = dict(summed or {})
        for minute, each in reported.items():
            minutes[minute] = each.at_least(minutes.get(minute, Period()))
        # Other software may have written a key that reads as a later number.
        latest = max((each for each in summed or {} if each <= now), default=0)
        is_behind = any(latest < each <= now - _LATE for each in reported)
        problems = []
        if failure:
            problems.append(f"The minutes of the last hour were not read: {failure}.")
        elif not summed:
            problems.append(f"No minute is summed up: {_TO_DO}")
        elif is_behind:
            since = clock_time((latest + 1) * 60.0, status.at)
            problems.append(f"No minute is summed up since {since}: {_TO_DO}")
        if hours_failure:
            problems.append(f"The hours of the last day were not read: {hours_failure}.")
        elif self._day and summed and not hours:
            problems.append("No hour is summed up yet: the last day is known from then on.")
        return Past(
            using,
            status.at,
            minutes,
            _with_minutes(hours or {}, minutes, now // HOUR),
            summed is not None,
            hours is not None,
            latest if is_behind or not summed else None,
            (*problems, *_of_reports(status)),
        )


def _of_reports(status: AliasStatus) -> Iterator[str]:
    if not get_config(status.using).reports.enabled:
        yield (
            f"This process reports nothing: DYNAMO_STORES[{status.using!r}]['REPORTS']['ENABLED'] "
            "is False."
        )
    if not status.knows_others:
        yield "The other processes were not read: the last five minutes are those of this one."


def _with_minutes(hours: Periods, minutes: Periods, now: int) -> Periods:
    """Return ``hours`` with the present one, and the one before if it is not summed up yet."""
    found = dict(hours)
    for hour in (now - 1, now):
        if hour not in found:
            each = [minutes[at] for at in range(hour * HOUR, (hour + 1) * HOUR) if at in minutes]
            if each:
                found[hour] = total(each)
    return found


def _result(future: Future[dict[int, Period]]) -> tuple[dict[int, Period] | None, str]:
    """Return what was read, None if it was not, and why."""
    if not future.done():
        return None, reason_of(NoAnswerInTime(f"no answer in {_MAX_WAIT:g} s"))
    try:
        return future.result(), ""
    except CALL_ERRORS as exc:
        return None, reason_of(exc)
    except Exception as exc:
        # For example an item written by other software; the rest of the page is shown.
        logger.exception("The status pages could not read what was summed up.")
        return None, reason_of(exc)
