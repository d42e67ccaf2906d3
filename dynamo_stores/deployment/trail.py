"""The trail of CloudTrail that records reads and writes of items."""

from __future__ import annotations

from typing import Any


def trail_policy(bucket: Any, objects: Any, trail: Any) -> dict[str, Any]:
    """Return the policy of a bucket that lets a trail of CloudTrail write its log files."""
    principal = {"Service": "cloudtrail.amazonaws.com"}
    is_ours = {"aws:SourceArn": trail}
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": principal,
                "Action": "s3:GetBucketAcl",
                "Resource": bucket,
                "Condition": {"StringEquals": is_ours},
            },
            {
                "Effect": "Allow",
                "Principal": principal,
                "Action": "s3:PutObject",
                "Resource": objects,
                "Condition": {
                    "StringEquals": {**is_ours, "s3:x-amz-acl": "bucket-owner-full-control"}
                },
            },
        ],
    }


def event_selectors(tables: list[Any]) -> list[dict[str, Any]]:
    """Return ``EventSelectors`` for the ARNs of tables: reads and writes of their items."""
    return [
        {
            "ReadWriteType": "All",
            "IncludeManagementEvents": False,
            "DataResources": [{"Type": "AWS::DynamoDB::Table", "Values": tables}],
        }
    ]
