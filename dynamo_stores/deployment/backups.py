"""The plan of AWS Backup."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# What AWS Backup needs to make backups, and to restore them.
MANAGED_POLICIES = (
    "service-role/AWSBackupServiceRolePolicyForBackup",
    "service-role/AWSBackupServiceRolePolicyForRestores",
)
_SERVICE = "backup.amazonaws.com"
ASSUME_ROLE = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": _SERVICE},
            "Action": "sts:AssumeRole",
        }
    ],
}


def trusts_backup(policy: Mapping[str, Any]) -> bool:
    """Whether AWS Backup may assume a role with this trust policy, apart from its conditions."""
    return any(
        each["Effect"] == "Allow"
        and not {"sts:AssumeRole", "sts:*", "*"}.isdisjoint(_several(each.get("Action")))
        and isinstance(principal := each.get("Principal"), dict)
        and _SERVICE in _several(principal.get("Service"))
        for each in _several(policy["Statement"])
    )


def _several(value: Any) -> list[Any]:
    # In a policy, a list of one element may be written as the element.
    return value if isinstance(value, list) else [value]


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
