"""What a table in DynamoDB is: its description, TTL, point-in-time recovery, tags, encryption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .. import clock
from ..calls.control import ControlPlane, get_control
from .encryption import key_arn
from .options import TableOptions

# The states of TTL in which it is on, or soon will be.
_ON = ("ENABLED", "ENABLING")
# The states of encryption without a key in KMS.
_NO_KEY = ("DISABLED", "DISABLING")
_CHANGING = ("CREATING", "UPDATING", "DELETING", "ENABLING", "DISABLING")


@dataclass(frozen=True)
class LiveTable:
    """
    A table as DynamoDB describes it.

    ``description`` is ``Table`` of DescribeTable, ``ttl`` the TTL attribute (None: TTL is off),
    ``ttl_status`` its state. What was not asked for is None: ``point_in_time_recovery``, ``tags``,
    and ``wanted_key``, which is the ARN of the key that ``ENCRYPTION_KEY`` names.
    """

    description: Mapping[str, Any]
    ttl: str | None = None
    ttl_status: str = "DISABLED"
    point_in_time_recovery: bool | None = None
    tags: Mapping[str, str] | None = None
    wanted_key: str | None = None

    @property
    def status(self) -> str:
        """``ACTIVE``, ``UPDATING``, …"""
        return str(self.description["TableStatus"])

    @property
    def billing_mode(self) -> str:
        """``PROVISIONED`` or ``PAY_PER_REQUEST``."""
        summary = self.description.get("BillingModeSummary") or {}
        return str(summary.get("BillingMode", "PROVISIONED"))

    @property
    def stream(self) -> str | None:
        """The view type of the stream, None without a stream."""
        specification = self.description.get("StreamSpecification") or {}
        is_on = specification.get("StreamEnabled", False)
        return str(specification.get("StreamViewType")) if is_on else None

    @property
    def deletion_protection(self) -> bool:
        """Whether DynamoDB refuses to delete the table."""
        return bool(self.description.get("DeletionProtectionEnabled", False))

    @property
    def encryption_key(self) -> str | None:
        """The ARN of the key in KMS, None for the key that AWS owns."""
        encryption = self.description.get("SSEDescription") or {}
        if encryption.get("SSEType") != "KMS" or encryption.get("Status") in _NO_KEY:
            return None
        return str(encryption.get("KMSMasterKeyArn") or "")

    @property
    def table_class(self) -> str:
        """``STANDARD`` or ``STANDARD_INFREQUENT_ACCESS``."""
        summary = self.description.get("TableClassSummary") or {}
        return str(summary.get("TableClass", "STANDARD"))

    def under_way(self) -> list[str]:
        """Return what DynamoDB is changing now, as phrases with the progress that it reports."""
        found = [] if self.status == "ACTIVE" else [f"the table is {self.status}"]
        items = self.description.get("ItemCount") or 0
        for index in self.description.get("GlobalSecondaryIndexes") or ():
            if (status := index.get("IndexStatus", "ACTIVE")) == "ACTIVE":
                continue
            phrase = f"the index {index['IndexName']} is {status}"
            if index.get("Backfilling"):
                phrase += ", backfilling"
            if done := index.get("ItemCount"):
                share = f" ({min(1.0, done / items):.0%})" if items else ""
                phrase += f", {done:,} items in it of {items:,} in the table{share}"
            found.append(phrase)
        for replica in self.description.get("Replicas") or ():
            if (status := replica.get("ReplicaStatus", "ACTIVE")) in _CHANGING:
                found.append(f"the replica in {replica.get('RegionName')} is {status}")
        status = (self.description.get("SSEDescription") or {}).get("Status", "")
        if status in _CHANGING:
            found.append(f"the encryption is {status}")
        summary = self.description.get("RestoreSummary") or {}
        if summary.get("RestoreInProgress") and self.status == "CREATING":
            found.append("its items are being restored")
        return found


def read_live(
    using: str,
    table: str,
    options: TableOptions,
    *,
    with_ttl: bool = True,
    control: ControlPlane | None = None,
) -> LiveTable | None:
    """
    Return the table, None if it does not exist. What no option manages is not asked for.

    Takes one call of the control plane, and one more each for TTL, point-in-time recovery and tags.
    Raises StoreError if the alias of the key in ``ENCRYPTION_KEY`` cannot be resolved.
    """
    control = control or get_control(using)
    description = control.describe(table)
    if description is None:
        return None
    status, ttl = control.ttl(table) if with_ttl else ("DISABLED", None)
    recovery = tags = None
    if options.point_in_time_recovery is not None:
        recovery = read_recovery(control, table)
    if options.tags is not None:
        tags = read_tags(control, description["TableArn"])
    return LiveTable(
        description=description,
        ttl=ttl if status in _ON else None,
        ttl_status=status,
        point_in_time_recovery=recovery,
        tags=tags,
        wanted_key=key_arn(using, options.encryption_key),
    )


def read_recovery(control: ControlPlane, table: str) -> bool:
    """Return whether point-in-time recovery is on."""
    return recovery_window(control, table) is not None


def recovery_window(control: ControlPlane, table: str) -> tuple[float, float] | None:
    """
    Return the earliest and latest time to which the table can be restored, in seconds since the
    epoch, or None if point-in-time recovery is off.
    """
    answer = control.call("DescribeContinuousBackups", {"TableName": table})
    recovery = answer["ContinuousBackupsDescription"].get("PointInTimeRecoveryDescription", {})
    if recovery.get("PointInTimeRecoveryStatus") != "ENABLED":
        return None
    return tuple(  # type: ignore[return-value]
        clock.as_seconds(recovery.get(f"{which}RestorableDateTime", 0.0))
        for which in ("Earliest", "Latest")
    )


def read_tags(control: ControlPlane, arn: str) -> dict[str, str]:
    """Return the tags of the table with this ARN."""
    found: dict[str, str] = {}
    request = {"ResourceArn": arn}
    while True:
        answer = control.call("ListTagsOfResource", request)
        found |= {tag["Key"]: tag["Value"] for tag in answer.get("Tags", ())}
        if not answer.get("NextToken"):
            return found
        request = {"ResourceArn": arn, "NextToken": answer["NextToken"]}
