"""What AWS charges for the parts beside the tables, as sentences for who creates them."""

from __future__ import annotations

from collections.abc import Iterator

from .description import Deployment
from .parameters import BACKUPS, CLOUDTRAIL, DASHBOARD

# List prices of us-east-1: https://aws.amazon.com/cloudwatch/pricing/,
# https://aws.amazon.com/backup/pricing/ and https://aws.amazon.com/cloudtrail/pricing/
_ALARM, _DASHBOARD, _BACKUP_GB, _MILLION_EVENTS = 0.10, 3, 0.10, 1
# Three dashboards of so many metrics are free in an account.
_FREE_METRICS = 50


def charges(of: Deployment) -> Iterator[str]:
    """Yield a sentence for each part that costs something; the tables have ``dynamo_cost``."""
    if count := len(of.alarms):
        yield (
            f"{count} alarms cost about {count * _ALARM:.2f} USD a month; --without alarms leaves "
            "them out."
        )
    if of.has(DASHBOARD):
        widgets = of.dashboard("us-east-1")["widgets"]
        metrics = sum(len(each["properties"].get("metrics", ())) for each in widgets)
        if metrics > _FREE_METRICS:
            yield (
                f"The dashboard has {metrics} metrics, and costs about {_DASHBOARD} USD a month; "
                "--without dashboard leaves it out."
            )
    if of.has(BACKUPS) and of.backups is not None:
        yield (
            f"Each backup is a full one, is kept for {of.value('BackupRetentionDays')} days, and "
            f"costs about {_BACKUP_GB:.2f} USD a month for each GB."
        )
    if of.has(CLOUDTRAIL):
        yield (
            f"The trail costs about {_MILLION_EVENTS} USD for a million reads and writes of items, "
            "and the storage of its files."
        )
