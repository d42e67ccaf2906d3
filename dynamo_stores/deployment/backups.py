"""The plan of AWS Backup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# What AWS Backup needs to make backups, and to restore them.
MANAGED_POLICIES = (
    "service-role/AWSBackupServiceRolePolicyForBackup",
    "service-role/AWSBackupServiceRolePolicyForRestores",
)
ASSUME_ROLE = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "backup.amazonaws.com"},
            "Action": "sts:AssumeRole",
        }
    ],
}


@dataclass(frozen=True)
class BackupPlan:
    """The ``name`` of plan, vault, selection and role, and the names of the ``tables``."""

    name: str
    tables: tuple[str, ...]

    def as_request(
        self, vault: Any, schedule: Any, days: Any, copy_to: Any | None
    ) -> dict[str, Any]:
        """Return ``BackupPlan`` of CreateBackupPlan; ``copy_to`` is the ARN of another vault."""
        lifecycle = {"DeleteAfterDays": days}
        rule: dict[str, Any] = {
            "RuleName": self.name,
            "TargetBackupVaultName": vault,
            "ScheduleExpression": schedule,
            "Lifecycle": lifecycle,
        }
        if copy_to is not None:
            rule["CopyActions"] = [{"DestinationBackupVaultArn": copy_to, "Lifecycle": lifecycle}]
        return {"BackupPlanName": self.name, "Rules": [rule]}
