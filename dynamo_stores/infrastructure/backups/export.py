"""The service's own export of a table to S3, as it was at one point in time."""

from __future__ import annotations

import re
import uuid
from typing import Any

from ...calls.control import get_control
from ...exceptions import BackupError

_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?")


def start_export(using: str, description: dict[str, Any], url: str) -> str:
    """
    Start the export of the table of ``description`` to ``url``, ``s3://BUCKET/PREFIX``; return its
    ARN. The export goes on at AWS and consumes no capacity.

    Raises BackupError for another URL, and ClientError if point-in-time recovery is not enabled.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise BackupError(f"{url} is no place in S3; expected s3://BUCKET or s3://BUCKET/PREFIX.")
    bucket, prefix = found.groups()
    request = {
        "TableArn": description["TableArn"],
        "S3Bucket": bucket,
        "ExportFormat": "DYNAMODB_JSON",
        # A request that is sent again starts no second export.
        "ClientToken": str(uuid.uuid4()),
        **({"S3Prefix": prefix.rstrip("/")} if prefix else {}),
    }
    answer = get_control(using).call("ExportTableToPointInTime", request)
    arn: str = answer["ExportDescription"]["ExportArn"]
    return arn
