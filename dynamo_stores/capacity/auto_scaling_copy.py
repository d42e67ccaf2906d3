"""The targets and policies of Application Auto Scaling, set again for a restored table."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ..exceptions import StoreError, code_of
from .auto_scaling import get_auto_scaling

_NAMESPACE = {"ServiceNamespace": "dynamodb"}
_OF_TARGET = ("ScalableDimension", "MinCapacity", "MaxCapacity", "SuspendedState")
_OF_POLICY = (
    "PolicyName",
    "ScalableDimension",
    "PolicyType",
    "StepScalingPolicyConfiguration",
    "TargetTrackingScalingPolicyConfiguration",
    "PredictiveScalingPolicyConfiguration",
)


def copy_auto_scaling(using: str, source: str, target: str, indexes: list[str]) -> list[str]:
    """
    Give ``target`` and its ``indexes`` the targets and policies of the table ``source``.

    Return the resources that have some, such as ``table/invoices/index/ByDate``; a resource with
    the same targets and policies stays as it is. Raises StoreError if Application Auto Scaling
    refuses or does not answer.
    """
    try:
        client = get_auto_scaling(using).client_for(source)
        if client is None:
            return []
        suffixes = ["", *(f"/index/{name}" for name in indexes)]
        return [
            f"table/{target}{suffix}"
            for suffix in suffixes
            if _copy(client, f"table/{source}{suffix}", f"table/{target}{suffix}")
        ]
    except (BotoCoreError, ClientError) as exc:
        raise StoreError(
            f"Application Auto Scaling of {source} could not be set again for {target} "
            f"({code_of(exc) or type(exc).__name__}). Set it in AWS, or allow "
            "application-autoscaling:DescribeScalableTargets, DescribeScalingPolicies, "
            "RegisterScalableTarget and PutScalingPolicy, and run the command again."
        ) from exc


def _copy(client: Any, source: str, target: str) -> bool:
    answer = client.describe_scalable_targets(**_NAMESPACE, ResourceIds=[source])
    for found in answer["ScalableTargets"]:
        client.register_scalable_target(
            **_NAMESPACE,
            ResourceId=target,
            **{name: found[name] for name in _OF_TARGET if name in found},
        )
    pages = client.get_paginator("describe_scaling_policies").paginate(
        **_NAMESPACE, ResourceId=source
    )
    for page in pages:
        for policy in page["ScalingPolicies"]:
            # Engines may also return those of the indexes.
            if policy["ResourceId"] != source:
                continue
            client.put_scaling_policy(
                **_NAMESPACE,
                ResourceId=target,
                **{name: policy[name] for name in _OF_POLICY if name in policy},
            )
    return bool(answer["ScalableTargets"])
