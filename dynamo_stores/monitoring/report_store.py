"""The reports of all processes, an item each in the control table, through the side door."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from pynamodb.attributes import UnicodeAttribute, UnicodeSetAttribute

from .. import clock, keys
from ..item_access import ConditionFailed, DirectStore
from ..models import ControlItem, IntegerAttribute, RawItem
from .report import KEPT, Report, read_report


class StatusItem(ControlItem):
    """
    What one process reports of itself: ``report`` in JSON, ``at`` when, in ms since the epoch;
    ``resets`` are the tables whose breakers it is asked to reset.
    """

    at = IntegerAttribute(null=True, attr_name="a")
    report = UnicodeAttribute(null=True, attr_name="x")
    resets = UnicodeSetAttribute(null=True, attr_name="z")


logger = logging.getLogger(__name__)


class ReportStore(DirectStore[StatusItem]):
    """What the processes of one alias say of themselves. Raises StoreUnavailable at once."""

    kind = StatusItem

    def publish(self, report: Report) -> set[str]:
        """
        Put ``report`` in the place of the last one and return the tables whose breakers somebody
        asked this process to reset; one write.
        """
        key, table = keys.process_status(report.process), self._table
        answer = self._call(
            table,
            "UpdateItem",
            {
                "TableName": table.table_name,
                "Key": {"PK": {"S": key.pk}, "SK": {"S": key.sk}},
                "UpdateExpression": "SET a = :a, x = :x, #ttl = :ttl REMOVE z",
                "ExpressionAttributeNames": {"#ttl": "TTL"},
                "ExpressionAttributeValues": {
                    ":a": {"N": str(int(report.at * 1000))},
                    ":x": {"S": report.as_text()},
                    ":ttl": {"N": str(int(report.at + KEPT) + 1)},
                },
                "ReturnValues": "UPDATED_OLD",
            },
        )
        return set(answer.get("Attributes", {}).get("z", {}).get("SS", ()))

    def latest(self) -> list[Report]:
        """Return the reports of the last hour, by host and process id; one Query for a MB."""
        oldest = clock.now() - KEPT
        return [report for report in self.all() if report.at > oldest]

    def all(self) -> list[Report]:
        """Return those too that are over and that DynamoDB has not deleted yet."""
        request = {
            "KeyConditionExpression": "PK = :pk",
            "ExpressionAttributeValues": {":pk": {"S": keys.STATUS}},
        }
        return [report for item in self._query(request) if (report := _read(item)) is not None]

    def ask_to_reset(self, process: str, tables: Iterable[str]) -> bool:
        """
        Ask a process to reset its breakers of ``tables`` when it reports next; False where there
        is no such process.
        """
        there = StatusItem.report.exists()
        try:
            actions = [StatusItem.resets.add(set(tables))]
            self._update(keys.process_status(process), actions, there)
        except ConditionFailed:
            return False
        return True

    def forget(self, reports: Iterable[Report]) -> None:
        """Delete the items of ``reports`` unless they were written again."""
        for report in reports:
            try:
                unchanged = StatusItem.at == int(report.at * 1000)
                self._delete(keys.process_status(report.process), unchanged)
            except ConditionFailed:
                continue


def _read(item: RawItem) -> Report | None:
    try:
        return read_report(item["x"]["S"])
    except (KeyError, TypeError, ValueError):
        logger.info("A report of a process could not be read; another version wrote it.")
        return None
