"""The reports of all processes, an item each in the control table; uses direct connections."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pynamodb.attributes import UnicodeAttribute, UnicodeSetAttribute

from .. import clock, keys
from ..item_access import ConditionFailed, DirectStore
from ..models import ControlItem, IntegerAttribute, RawItem, string_of, strings_of
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


class ReportStore(DirectStore[StatusItem]):
    """The reports of one alias. Every method raises StoreUnavailable, without retries."""

    kind = StatusItem

    def publish(self, report: Report) -> set[str]:
        """
        Replace the last report by ``report`` and return the tables whose breakers this process is
        requested to reset; one write.
        """
        old = self._update(
            keys.process_status(report.process),
            [
                StatusItem.at.set(int(report.at * 1000)),
                StatusItem.report.set(report.as_text()),
                StatusItem.ttl.set(int(report.at + KEPT) + 1),
                StatusItem.resets.remove(),
            ],
            returns="UPDATED_OLD",
        )
        return set(strings_of(old, StatusItem.resets))

    def latest(self) -> list[Report]:
        """Return the reports of the last hour, by host and process id; one Query for a MB."""
        oldest = clock.now() - KEPT
        return [report for report in self.all() if report.at > oldest]

    def all(self) -> list[Report]:
        """Return all reports, also expired ones that DynamoDB has not deleted yet."""
        request = {
            "KeyConditionExpression": "PK = :pk",
            "ExpressionAttributeValues": {":pk": {"S": keys.STATUS}},
        }
        return [report for item in self._query(request) if (report := _read(item)) is not None]

    def request_reset(self, process: str, tables: Iterable[str]) -> bool:
        """
        Request that a process resets its breakers of ``tables`` at its next report; return False
        if there is no such process.
        """
        exists = StatusItem.report.exists()
        try:
            actions = [StatusItem.resets.add(set(tables))]
            self._update(keys.process_status(process), actions, exists)
        except ConditionFailed:
            return False
        return True

    def delete(self, reports: Iterable[Report]) -> None:
        """Delete the items of ``reports`` unless the processes have reported again."""
        for report in reports:
            try:
                unchanged = StatusItem.at == int(report.at * 1000)
                self._delete(keys.process_status(report.process), unchanged)
            except ConditionFailed:
                continue


def _read(item: RawItem) -> Report | None:
    try:
        return read_report(string_of(item, StatusItem.report))
    except (KeyError, TypeError, ValueError):
        logger.info("A process report was skipped: another version of dynamo-stores wrote it.")
        return None
