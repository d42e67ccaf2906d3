"""Records of a stream, from the streams API and from an event of AWS Lambda."""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from ..models import RawItem

# The principal that deletes expired items.
TTL_PRINCIPAL = "dynamodb.amazonaws.com"


@dataclass(frozen=True)
class StreamRecord:
    """
    One change of an item.

    ``event_name`` is ``INSERT``, ``MODIFY`` or ``REMOVE``. ``raw_keys``, ``raw_old_image`` and
    ``raw_new_image`` are the item as DynamoDB writes it, with bytes for ``B``; an image is None if
    there was no item, or if the stream's view type leaves it out. ``created_at`` is in seconds
    since the epoch, approximately. ``sequence_number`` rises with each change of one key; it is
    text of digits, so compare it as ``int``. ``is_expiry`` is whether DynamoDB deleted the item
    because of its TTL.
    """

    event_id: str
    event_name: str
    table: str
    sequence_number: str
    created_at: float
    raw_keys: RawItem
    raw_old_image: RawItem | None = None
    raw_new_image: RawItem | None = None
    view_type: str = ""
    is_expiry: bool = False
    stream_arn: str = ""

    def __repr__(self) -> str:
        # Keys and values must not get into logs.
        return f"<StreamRecord {self.event_name} {self.sequence_number} of {self.table}>"

    @functools.cached_property
    def keys(self) -> dict[str, Any]:
        """The key as plain Python values."""
        return plain_item(self.raw_keys)

    @functools.cached_property
    def old_image(self) -> dict[str, Any] | None:
        """The item before the change as plain Python values."""
        return None if self.raw_old_image is None else plain_item(self.raw_old_image)

    @functools.cached_property
    def new_image(self) -> dict[str, Any] | None:
        """The item after the change as plain Python values."""
        return None if self.raw_new_image is None else plain_item(self.raw_new_image)

    @classmethod
    def from_api(cls, record: Mapping[str, Any], stream_arn: str = "") -> StreamRecord:
        """Return a record of botocore's ``GetRecords``."""
        return _record(record, stream_arn, dict)

    @classmethod
    def from_lambda(cls, record: Mapping[str, Any]) -> StreamRecord:
        """Return a record of ``event["Records"]``, in which bytes are text in base64."""
        return _record(record, record.get("eventSourceARN", ""), _decoded_item)


def table_of_arn(arn: str) -> str:
    """Return the table's name in the ARN of a stream (``…:table/NAME/stream/LABEL``), or ""."""
    parts = arn.rpartition(":table/")[2].split("/") if ":table/" in arn else [""]
    return parts[0]


def label_of_arn(arn: str) -> str:
    """Return the label in the ARN of a stream: the time at which it was enabled, or ""."""
    return arn.partition("/stream/")[2]


def plain_item(item: RawItem) -> dict[str, Any]:
    """
    Return an item as plain Python values: int for whole numbers and Decimal for others, bytes, sets
    for sets.
    """
    return {name: _plain(value) for name, value in item.items()}


def _record(
    record: Mapping[str, Any], stream_arn: str, read: Callable[[Mapping[str, Any]], RawItem]
) -> StreamRecord:
    change = record["dynamodb"]
    created = change.get("ApproximateCreationDateTime", 0)
    old, new = change.get("OldImage"), change.get("NewImage")
    identity = record.get("userIdentity") or {}
    principal = identity.get("PrincipalId") or identity.get("principalId")
    return StreamRecord(
        event_id=str(record.get("eventID", "")),
        event_name=str(record["eventName"]),
        table=table_of_arn(stream_arn),
        sequence_number=str(change["SequenceNumber"]),
        created_at=created.timestamp() if isinstance(created, datetime) else float(created),
        raw_keys=read(change["Keys"]),
        raw_old_image=None if old is None else read(old),
        raw_new_image=None if new is None else read(new),
        view_type=str(change.get("StreamViewType", "")),
        is_expiry=principal == TTL_PRINCIPAL,
        stream_arn=stream_arn,
    )


def _plain(value: Mapping[str, Any]) -> Any:
    ((kind, content),) = value.items()
    match kind:
        case "NULL":
            return None
        case "N":
            return _number(content)
        case "NS":
            return {_number(each) for each in content}
        case "SS" | "BS":
            return set(content)
        case "L":
            return [_plain(each) for each in content]
        case "M":
            return plain_item(content)
    return content


def _number(text: str) -> int | Decimal:
    exact = Decimal(text)
    # A number such as 1E+100 has no more digits than DynamoDB keeps.
    return int(exact) if exact == exact.to_integral_value() else exact


def _decoded_item(item: Mapping[str, Any]) -> RawItem:
    return {name: _decoded(value) for name, value in item.items()}


def _decoded(value: Mapping[str, Any]) -> dict[str, Any]:
    ((kind, content),) = value.items()
    match kind:
        case "B":
            return {"B": base64.b64decode(content)}
        case "BS":
            return {"BS": [base64.b64decode(each) for each in content]}
        case "L":
            return {"L": [_decoded(each) for each in content]}
        case "M":
            return {"M": _decoded_item(content)}
    return {kind: content}
