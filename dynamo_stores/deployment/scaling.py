"""The targets of Application Auto Scaling for provisioned tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from ..infrastructure.tables import TableSpec

SERVICE = "dynamodb"
POLICY_TYPE = "TargetTrackingScaling"


@dataclass(frozen=True)
class ScalingTarget:
    """
    Read or write units of a table, or of an index, and between which values they are kept:
    ``percent`` is the use that is aimed at. With ``is_shared`` the library raises the minimum, too.
    """

    table: str
    index: str | None
    kind: str
    minimum: int
    maximum: int
    percent: float
    is_shared: bool = False

    @property
    def resource_id(self) -> str:
        """``table/…``, or ``table/…/index/…``."""
        return f"table/{self.table}" + (f"/index/{self.index}" if self.index else "")

    @property
    def dimension(self) -> str:
        """``dynamodb:table:ReadCapacityUnits`` and the like."""
        return f"dynamodb:{'index' if self.index else 'table'}:{self.kind}CapacityUnits"

    @property
    def policy_name(self) -> str:
        """The name of its policy."""
        return f"{self.kind}CapacityUtilization"

    def target_request(self) -> dict[str, Any]:
        """Return the arguments of RegisterScalableTarget."""
        return {
            **self.key(),
            "MinCapacity": self.minimum,
            "MaxCapacity": self.maximum,
        }

    def policy_request(self) -> dict[str, Any]:
        """Return the arguments of PutScalingPolicy."""
        return {
            "PolicyName": self.policy_name,
            **self.key(),
            "PolicyType": POLICY_TYPE,
            "TargetTrackingScalingPolicyConfiguration": self.tracking(),
        }

    def key(self) -> dict[str, str]:
        """Return what names the target."""
        return {
            "ServiceNamespace": SERVICE,
            "ResourceId": self.resource_id,
            "ScalableDimension": self.dimension,
        }

    def tracking(self) -> dict[str, Any]:
        """Return ``TargetTrackingScalingPolicyConfiguration``."""
        return {
            "TargetValue": self.percent,
            "PredefinedMetricSpecification": {
                "PredefinedMetricType": f"DynamoDB{self.kind}CapacityUtilization"
            },
        }


def stands_aside(spec: TableSpec) -> bool:
    """Return whether the library scales the table itself, and not together with the service."""
    scaling = spec.config.scaling
    return scaling.enabled and scaling.auto_scaling == "leave"


def targets_of(spec: TableSpec) -> Iterator[ScalingTarget]:
    """Yield the targets of a provisioned table and its global indexes: from base to maximum."""
    if spec.billing_mode != "PROVISIONED":
        return
    scaling = spec.config.scaling
    percent = round(scaling.target_utilization * 100, 2)
    for index in [None, *(each.name for each in spec.indexes if each.is_global)]:
        for kind, low, high in (
            ("Read", scaling.base_read_capacity, scaling.max_read_capacity),
            ("Write", scaling.base_write_capacity, scaling.max_write_capacity),
        ):
            # The service takes 20 to 90 percent.
            yield ScalingTarget(
                spec.name, index, kind, low, high, min(90.0, max(20.0, percent)), scaling.enabled
            )


def scaling_notes(specs: Iterable[TableSpec]) -> Iterator[str]:
    """Yield sentences about tables without targets."""
    for spec in specs:
        if spec.billing_mode == "PROVISIONED" and stands_aside(spec):
            yield (
                f"{spec.name}: no Application Auto Scaling, because SCALING is enabled and both "
                "would overwrite each other. Set SCALING['AUTO_SCALING'] to 'raise_minimum' to "
                "have both, or ENABLED to False."
            )
