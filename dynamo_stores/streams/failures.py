"""Records that were set aside: items of the control table, to be looked at by people."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import Any

from pynamodb.attributes import UnicodeAttribute

from .. import clock, keys
from ..concurrency.effects import run
from ..conf import DEFAULT_ALIAS, get_config
from ..item_access import Items
from ..models import ControlItem, IntegerAttribute, RawItem, integer_of, string_of
from .records import StreamRecord
from .shards import ShardId

# Seconds for which a record that was set aside is kept.
_KEPT = 30 * 86_400
# Images of more bytes than this are left out: an item has 400 KB at most.
MAX_IMAGES = 300_000


class FailedItem(ControlItem):
    """
    A record that was set aside ``at`` a moment (ms since the epoch) because of ``error``, the name
    of a class. ``record`` is the record in JSON as an event of AWS Lambda has it.
    """

    at = IntegerAttribute(null=True, attr_name="a")
    error = UnicodeAttribute(null=True, attr_name="e")
    record = UnicodeAttribute(null=True, attr_name="r")


@dataclass(frozen=True)
class FailedRecord:
    """
    A record that was set aside ``at`` a moment, in seconds since the epoch; ``error`` is the name
    of the class of the handler's last error. The images of ``record`` are None unless they were
    kept.
    """

    shard: str
    at: float
    error: str
    record: StreamRecord


def failed_item(
    record: StreamRecord,
    shard: ShardId,
    consumer: str,
    error: BaseException,
    *,
    keeps_images: bool,
) -> RawItem:
    """Return the item of a record that is set aside; without images that are too large."""
    text = json.dumps(as_event(record, keeps_images))
    if len(text.encode()) > MAX_IMAGES:
        text = json.dumps(as_event(record, False))
    key = keys.stream_failed(
        record.table, consumer, shard.label, shard.name, record.sequence_number
    )
    return {
        **key.raw(),
        FailedItem.at.attr_name: {"N": str(clock.now_ms())},
        FailedItem.error.attr_name: {"S": type(error).__name__},
        FailedItem.record.attr_name: {"S": text},
        FailedItem.ttl.attr_name: {"N": str(int(clock.now()) + _KEPT)},
    }


def failed_records(table: str, consumer: str, using: str = DEFAULT_ALIAS) -> list[FailedRecord]:
    """
    Return the records of ``table`` that ``consumer`` has set aside in the last 30 days, by shard
    and in their order. ``table`` may be the name that a model has for it.
    """
    name = get_config(using).name_in_dynamodb(table)
    request = {
        "KeyConditionExpression": "PK = :pk",
        "ExpressionAttributeValues": {
            ":pk": {"S": keys.stream_failed(name, consumer, "", "", "").pk}
        },
    }
    found = run(Items(FailedItem, using).query(request))
    return [
        FailedRecord(
            shard=item["SK"]["S"].split("#")[1],
            at=integer_of(item, FailedItem.at) / 1000,
            error=string_of(item, FailedItem.error),
            record=StreamRecord.from_lambda(json.loads(string_of(item, FailedItem.record))),
        )
        for item in found
    ]


def as_event(record: StreamRecord, keeps_images: bool) -> dict[str, Any]:
    """Return a record as an event of AWS Lambda has it; with its images or only with its key."""
    change: dict[str, Any] = {
        "Keys": _encoded_item(record.raw_keys),
        "SequenceNumber": record.sequence_number,
        "ApproximateCreationDateTime": record.created_at,
        "StreamViewType": record.view_type,
    }
    if keeps_images:
        images = (("OldImage", record.raw_old_image), ("NewImage", record.raw_new_image))
        change |= {name: _encoded_item(image) for name, image in images if image is not None}
    return {
        "eventID": record.event_id,
        "eventName": record.event_name,
        "eventSourceARN": record.stream_arn,
        "dynamodb": change,
    }


def _encoded_item(item: RawItem) -> dict[str, Any]:
    return {name: _encoded(value) for name, value in item.items()}


def _encoded(value: dict[str, Any]) -> dict[str, Any]:
    ((kind, content),) = value.items()
    match kind:
        case "B":
            return {"B": base64.b64encode(content).decode()}
        case "BS":
            return {"BS": [base64.b64encode(each).decode() for each in content]}
        case "L":
            return {"L": [_encoded(each) for each in content]}
        case "M":
            return {"M": _encoded_item(content)}
    return {kind: content}
