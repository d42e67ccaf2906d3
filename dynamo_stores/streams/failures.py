"""Records that were set aside: items of the control table, to be handled again by people."""

from __future__ import annotations

import base64
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from pynamodb.attributes import UnicodeAttribute

from .. import clock, keys
from ..calls.connection import get_connection
from ..concurrency.effects import InThread, arun, run, twins
from ..conf import DEFAULT_ALIAS, get_config
from ..item_access import Items
from ..models import ControlItem, IntegerAttribute, RawItem, integer_of, string_of
from .records import TTL_PRINCIPAL, StreamRecord

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
    using: str = field(repr=False)
    key: keys.ItemKey = field(repr=False)

    @property
    def lacks_images(self) -> bool:
        """Whether the record had an image that was not kept."""
        record = self.record
        had_image = {
            "NEW_AND_OLD_IMAGES": True,
            "NEW_IMAGE": record.event_name != "REMOVE",
            "OLD_IMAGE": record.event_name != "INSERT",
        }.get(record.view_type, False)
        return had_image and not _has_images(record)

    async def _delete(self) -> None:
        """
        Delete the record from the control table, so that it is not listed any more; does nothing if
        it is not there. Raises StoreUnavailable.
        """
        await Items(FailedItem, self.using).delete(self.key)

    delete, adelete = twins(_delete)


def kept(record: StreamRecord, *, keeps_images: bool) -> StreamRecord:
    """
    Return ``record`` as it is set aside: without its images unless ``keeps_images``, and without
    those that are too large.
    """
    if not _has_images(record):
        return record
    if keeps_images and len(json.dumps(as_event(record)).encode()) <= MAX_IMAGES:
        return record
    return dataclasses.replace(record, raw_old_image=None, raw_new_image=None)


def failed_item(key: keys.ItemKey, record: StreamRecord, error: BaseException) -> RawItem:
    """Return the item of a record that is set aside, with the images that it has."""
    return {
        **key.raw(),
        FailedItem.at.attr_name: {"N": str(clock.now_ms())},
        FailedItem.error.attr_name: {"S": type(error).__name__},
        FailedItem.record.attr_name: {"S": json.dumps(as_event(record))},
        FailedItem.ttl.attr_name: {"N": str(int(clock.now()) + _KEPT)},
    }


def failed_records(table: str, consumer: str, using: str = DEFAULT_ALIAS) -> list[FailedRecord]:
    """
    Return the records of ``table`` that ``consumer`` has set aside in the last 30 days in the
    region of ``using``, in the order in which it did. ``table`` may be the name that a model has
    for it.
    """
    return run(_failed_records(table, consumer, using))


async def afailed_records(
    table: str, consumer: str, using: str = DEFAULT_ALIAS
) -> list[FailedRecord]:
    """Return what :func:`failed_records` returns, on the event loop."""
    return await arun(_failed_records(table, consumer, using))


async def _failed_records(table: str, consumer: str, using: str) -> list[FailedRecord]:
    name = get_config(using).name_in_dynamodb(table)
    region = await InThread(using, lambda: get_connection(using).region_name)
    request = {
        "KeyConditionExpression": "PK = :pk",
        "ExpressionAttributeValues": {
            ":pk": {"S": keys.stream_failed(region, name, consumer, "", "", "").pk}
        },
    }
    found = [
        FailedRecord(
            shard=item["SK"]["S"].split("#")[1],
            at=integer_of(item, FailedItem.at) / 1000,
            error=string_of(item, FailedItem.error),
            record=StreamRecord.from_lambda(json.loads(string_of(item, FailedItem.record))),
            using=using,
            key=keys.ItemKey(item["PK"]["S"], item["SK"]["S"]),
        )
        for item in await Items(FailedItem, using).query(request)
    ]
    return _in_order(found)


def _in_order(found: list[FailedRecord]) -> list[FailedRecord]:
    """Sort by time, so that parents come before children; records of one shard stay as they are."""
    latest: dict[str, float] = {}
    times: list[float] = []
    # Of one shard, records of one millisecond and times of several clocks say nothing.
    for each in found:
        latest[each.shard] = max(each.at, latest.get(each.shard, 0.0))
        times.append(latest[each.shard])
    order = sorted(range(len(found)), key=times.__getitem__)
    return [found[position] for position in order]


def as_event(record: StreamRecord) -> dict[str, Any]:
    """Return a record as an event of AWS Lambda has it."""
    change: dict[str, Any] = {
        "Keys": _encoded_item(record.raw_keys),
        "SequenceNumber": record.sequence_number,
        "ApproximateCreationDateTime": record.created_at,
        "StreamViewType": record.view_type,
    }
    images = (("OldImage", record.raw_old_image), ("NewImage", record.raw_new_image))
    change |= {name: _encoded_item(image) for name, image in images if image is not None}
    event: dict[str, Any] = {
        "eventID": record.event_id,
        "eventName": record.event_name,
        "eventSourceARN": record.stream_arn,
        "dynamodb": change,
    }
    if record.is_expiry:
        event["userIdentity"] = {"type": "Service", "principalId": TTL_PRINCIPAL}
    return event


def _has_images(record: StreamRecord) -> bool:
    return record.raw_old_image is not None or record.raw_new_image is not None


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
