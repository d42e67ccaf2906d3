"""The reports of all processes, an item each in the control table; uses direct connections."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pynamodb.attributes import UnicodeAttribute, UnicodeSetAttribute

from .. import clock, keys
from ..concurrency.effects import run
from ..conf import DEFAULT_ALIAS
from ..expressions import add, equals, exists, put, remove
from ..item_access import ConditionFailed, Items
from ..models import ControlItem, IntegerAttribute, RawItem, integer_of, string_of, strings_of
from .report import KEPT, Report, read_report


class StatusItem(ControlItem):
    """
    The last report of one process: ``report`` in JSON, ``at`` its time in ms since the epoch;
    ``resets`` are the tables whose breakers it is requested to reset.
    """

    at = IntegerAttribute(null=True, attr_name="a")
    report = UnicodeAttribute(null=True, attr_name="x")
    resets = UnicodeSetAttribute(null=True, attr_name="z")


logger = logging.getLogger(__name__)


class ReportStore:
    """The reports of one alias. Every method raises StoreUnavailable, without retries."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(StatusItem, using, direct=True)

    def publish(self, report: Report) -> set[str]:
        """
        Replace the last report by ``report`` and return the tables whose breakers this process is
        requested to reset; one write.
        """
        old = run(
            self._items.update(
                keys.process_status(report.process),
                put(StatusItem.at, int(report.at * 1000))
                + put(StatusItem.report, report.as_text())
                + put(StatusItem.ttl, int(report.at + KEPT) + 1)
                + remove(StatusItem.resets),
                returns="UPDATED_OLD",
            )
        )
        return set(strings_of(old, StatusItem.resets))

    def latest(self) -> list[Report]:
        """Return the reports of the last hour, by host and process id; one Query for a MB."""
        return self.latest_and_unreadable()[0]

    def latest_and_unreadable(self) -> tuple[list[Report], int]:
        """Return the reports of the last hour, and how many others cannot be read; see latest."""
        now = clock.now()
        found: list[Report] = []
        unreadable = 0
        for item in self._items_of_all():
            report = _read(item)
            if report is not None and report.at > now - KEPT:
                found.append(report)
            elif report is None and not _is_expired(item, now):
                unreadable += 1
        return found, unreadable

    def all(self) -> list[Report]:
        """Return all reports, also expired ones that DynamoDB has not deleted yet."""
        return [report for item in self._items_of_all() if (report := _read(item)) is not None]

    def _items_of_all(self) -> list[RawItem]:
        request = {
            "KeyConditionExpression": "PK = :pk",
            "ExpressionAttributeValues": {":pk": {"S": keys.STATUS}},
        }
        return run(self._items.query(request))

    def request_reset(self, process: str, tables: Iterable[str]) -> bool:
        """
        Request that a process resets its breakers of ``tables`` at its next report; return False
        if there is no such process.
        """
        change = add(StatusItem.resets, set(tables))
        try:
            run(self._items.update(keys.process_status(process), change, exists(StatusItem.report)))
        except ConditionFailed:
            return False
        return True

    def delete(self, reports: Iterable[Report]) -> None:
        """Delete the items of ``reports`` unless the processes have reported again."""
        for report in reports:
            try:
                unchanged = equals(StatusItem.at, int(report.at * 1000))
                run(self._items.delete(keys.process_status(report.process), unchanged))
            except ConditionFailed:
                continue


def _read(item: RawItem) -> Report | None:
    try:
        return read_report(string_of(item, StatusItem.report))
    except (ArithmeticError, KeyError, TypeError, ValueError, RecursionError):
        logger.info("A process report was skipped: another version of dynamo-stores wrote it.")
        return None


def _is_expired(item: RawItem, now: float) -> bool:
    return 0 < integer_of(item, StatusItem.ttl) < now
