"""The items of deduplication: jobs and the parts of large results."""

from __future__ import annotations

import json

from pynamodb.attributes import BinaryAttribute, UnicodeAttribute

from ..calls.server_time import Times
from ..exceptions import DedupeFailedError
from ..keys import ItemKey
from ..leases import LeaseAttributes
from ..models import IntegerAttribute, RawItem, StoreItem, binary_of, integer_of, string_of

RUNNING, COMPLETED, FAILED = "P", "C", "F"


class DedupeJob(StoreItem):
    """
    A job that runs once. Its ``state`` (``P`` in progress, ``C`` completed, ``F`` failed) is valid
    ``until`` a moment in ms since the epoch: the end of the lease, or the expiry of the result.
    ``fence`` only rises.
    """

    owner = UnicodeAttribute(null=True, attr_name="o")
    fence = IntegerAttribute(null=True, attr_name="f")
    state = UnicodeAttribute(null=True, attr_name="s")
    until = IntegerAttribute(null=True, attr_name="u")
    payload = UnicodeAttribute(null=True, attr_name="h")
    result = BinaryAttribute(null=True, attr_name="r", legacy_encoding=False)
    parts = IntegerAttribute(null=True, attr_name="p")
    error = UnicodeAttribute(null=True, attr_name="e")


class ResultPart(StoreItem):
    """One part of a result that is too large for the job; it belongs to one fence."""

    data = BinaryAttribute(attr_name="v", legacy_encoding=False)

    @staticmethod
    def make_raw(key: ItemKey, data: bytes, ttl: int) -> RawItem:
        """Return a part as DynamoDB writes it; ``ttl`` in seconds since the epoch."""
        return {**key.raw(), "v": {"B": data}, "TTL": {"N": str(ttl)}}


# A job in progress is a lease; the end of any other state is kept in the same attribute.
LEASE = LeaseAttributes(DedupeJob.owner, DedupeJob.until, DedupeJob.fence)


def state_of(item: RawItem) -> str:
    """Return the state of a job, ``""`` without one."""
    return string_of(item, DedupeJob.state)


def seconds_left(item: RawItem, times: Times | None = None) -> float:
    """Return for how many seconds the state of a job may be valid, 0 or less when it has ended."""
    return LEASE.seconds_left(item, times)


def fence_of(item: RawItem) -> int:
    """Return the fence of the job's last owner, 0 without one."""
    return LEASE.fence_of(item)


def payload_of(item: RawItem) -> str:
    """Return the hash of the job's payload, ``""`` without one."""
    return string_of(item, DedupeJob.payload)


def result_of(item: RawItem) -> bytes | None:
    """Return the encoded result that the job itself holds, None without one."""
    return binary_of(item, DedupeJob.result)


def part_count_of(item: RawItem) -> int:
    """Return the number of parts of the result, 0 if the job itself holds it."""
    return integer_of(item, DedupeJob.parts)


def data_of(item: RawItem) -> bytes | None:
    """Return the data of a part, None for an item that is not a part."""
    return binary_of(item, ResultPart.data)


def error_of(item: RawItem) -> DedupeFailedError:
    """Return the error of a failed job."""
    return DedupeFailedError(*json.loads(string_of(item, DedupeJob.error)))


def describe_error(error: BaseException) -> str:
    """Return the error as a failed job stores it, for :func:`error_of`."""
    name = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    return json.dumps([name, str(error)[:1000]])
