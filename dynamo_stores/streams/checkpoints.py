"""
What the workers of a consumer share, in the control table: positions, leases, and who is there.

A position is written on condition that its shard's lease has the same owner and fence, so that a
worker whose lease was taken over changes nothing any more.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from pynamodb.attributes import UnicodeAttribute

from .. import clock, keys
from ..calls.connection import get_connection
from ..concurrency.effects import run
from ..expressions import (
    NO_CHANGE,
    Change,
    Condition,
    equals,
    missing,
    put,
    remove,
    to_arguments,
)
from ..item_access import ConditionFailed, Items
from ..leases import Lease, LeaseAttributes, end_after, new_owner
from ..models import ControlItem, IntegerAttribute, RawItem, integer_of, string_of
from .shards import Known, Shard, ShardId

# Seconds after its last write for which a position is kept, and that of a shard that was read to
# its end. DynamoDB lists a shard while it has records, for 24 hours.
_KEPT, _KEPT_FINISHED = 7 * 86_400, 3 * 86_400
_REFUSED = "ConditionalCheckFailed"


class StartItem(ControlItem):
    """Says that a consumer has begun; ``begun`` is when, in ms since the epoch."""

    begun = IntegerAttribute(null=True, attr_name="b")


class WorkerItem(ControlItem):
    """A worker, which is there until ``until`` (ms since the epoch)."""

    until = IntegerAttribute(null=True, attr_name="u")


class ShardItem(ControlItem):
    """
    The position of a consumer in a shard, and the lease of the worker that reads it.

    ``position`` is the sequence number of the last record that was handled. Without one reading
    begins at ``iterator`` while that is valid, and else at the oldest record; those from before
    ``since`` (ms since the epoch) are left out then. ``finished`` is when the end was reached.
    ``registered`` is a moment before which the shard had no record that is to be read, ``opened``
    when the shard was last seen open.
    """

    position = UnicodeAttribute(null=True, attr_name="s")
    iterator = UnicodeAttribute(null=True, attr_name="i")
    since = IntegerAttribute(null=True, attr_name="b")
    parent = UnicodeAttribute(null=True, attr_name="p")
    finished = IntegerAttribute(null=True, attr_name="d")
    registered = IntegerAttribute(null=True, attr_name="r")
    opened = IntegerAttribute(null=True, attr_name="n")
    owner = UnicodeAttribute(null=True, attr_name="o")
    lease_end = IntegerAttribute(null=True, attr_name="l")
    fence = IntegerAttribute(null=True, attr_name="f")


_LEASE = LeaseAttributes(ShardItem.owner, ShardItem.lease_end, ShardItem.fence)
_RELEASE = put(ShardItem.lease_end, 0) + remove(ShardItem.owner)


@dataclass(frozen=True)
class Start:
    """Where reading a shard begins: see :class:`ShardItem`. Times in seconds, 0 without one."""

    position: str | None = None
    iterator: str | None = None
    since: float = 0.0
    registered: float = 0.0
    opened: float = 0.0


@dataclass(frozen=True)
class State:
    """What is stored for a consumer: whether it has begun, its shards, the workers that live."""

    is_begun: bool
    shards: Mapping[ShardId, Known]
    workers: frozenset[str]

    @property
    def seen(self) -> float:
        """When the streams were last looked at, in seconds since the epoch; 0 if it is unknown."""
        # A stream that is enabled always has an open shard.
        return max((each.opened for each in self.shards.values()), default=0.0)


class LeaseLostError(Exception):
    """Another worker has taken the shard; nothing was written."""


class Checkpoints:
    """
    The shared state of the workers of one consumer of one table. ``worker`` is this one's name;
    ``seconds`` are those of a lease.

    Methods raise StoreUnavailable when DynamoDB cannot answer.
    """

    def __init__(self, table: str, consumer: str, using: str, seconds: float) -> None:
        self.table = table
        self.consumer = consumer
        self.using = using
        self.seconds = seconds
        self.worker = new_owner()
        self._items = Items(ShardItem, using)

    @functools.cached_property
    def _names(self) -> tuple[str, str, str]:
        return get_connection(self.using).region_name, self.table, self.consumer

    def read(self) -> State:
        """Return what is stored, by a strongly consistent Query."""
        key = keys.stream_start(*self._names)
        request = {
            "KeyConditionExpression": "PK = :pk",
            "ExpressionAttributeValues": {":pk": {"S": key.pk}},
            "ConsistentRead": True,
        }
        items = run(self._items.query(request))
        now = int(run(self._items.learned_times(key)).low * 1000)
        shards, workers, is_begun = {}, set(), False
        for item in items:
            kind, _, rest = item["SK"]["S"].partition("#")
            if kind == keys.STREAM_START:
                is_begun = True
            elif kind == keys.STREAM_WORKER and integer_of(item, WorkerItem.until) > now:
                workers.add(rest)
            elif kind == keys.STREAM_SHARD:
                label, _, name = rest.partition("#")
                shards[ShardId(label, name)] = _known(label, item, now)
        return State(is_begun, shards, frozenset(workers))

    def begin(self, starts: Iterable[tuple[Shard, Start | None]]) -> None:
        """
        Register all shards that there are when the consumer begins, unless they are registered. A
        start of None is for shards that are not read.
        """
        now = int(self.now() * 1000)
        for shard, start in starts:
            change = self._kept(_KEPT_FINISHED if start is None else _KEPT)
            change += _registered(shard, now)
            if not shard.is_closed:
                change += put(ShardItem.opened, now)
            if start is None:
                change += put(ShardItem.finished, now)
            elif start.iterator is not None:
                change += put(ShardItem.iterator, start.iterator)
                change += put(ShardItem.since, int(start.since * 1000))
            self._update(self._key(shard.id), change, missing(ShardItem.ttl))
        self._update(
            keys.stream_start(*self._names),
            put(StartItem.begun, now),
            missing(StartItem.begun),
        )

    def register(self, shards: Iterable[Shard], seen: float) -> None:
        """
        Register shards of a consumer that has begun, unless they are registered. They were opened
        after ``seen``, in seconds since the epoch.
        """
        for shard in shards:
            # Not that it is open: after a kill, the shards that are left have the same ``seen``.
            change = self._kept() + _registered(shard, int(seen * 1000))
            self._update(self._key(shard.id), change, missing(ShardItem.ttl))

    def now(self) -> float:
        """Return DynamoDB's time, the earliest that it can be, in seconds since the epoch."""
        return run(self._items.learned_times(keys.stream_start(*self._names))).low

    def report(self) -> None:
        """Say that this worker is there, for the seconds of a lease."""
        key = keys.stream_worker(*self._names, self.worker)
        until = end_after(run(self._items.learned_times(key)), self.seconds)
        change = put(WorkerItem.until, until) + put(WorkerItem.ttl, until // 1000 + 3600)
        run(self._items.update(key, change))

    def leave(self) -> None:
        """Say that this worker is not there any more."""
        run(self._items.delete(keys.stream_worker(*self._names, self.worker)))

    def take(self, shard: ShardId, parent: ShardId | None) -> tuple[Lease, Start] | None:
        """Take the shard's lease; None if another worker has it, or the shard is finished."""
        key = self._key(shard)
        times = run(self._items.learned_times(key))
        taken = run(
            _LEASE.take(
                lambda change, condition: self._items.update(key, change, condition),
                self.seconds,
                lambda end: self._kept() + _parent(Shard(shard, parent)),
                times=times,
            )
        )
        if not isinstance(taken, Lease):
            return None
        item = run(self._items.get(key, consistent=True)) or {}
        if not _is_same(item, taken):
            return None
        if integer_of(item, ShardItem.finished):
            self.release(shard, taken)
            return None
        start = Start(
            string_of(item, ShardItem.position) or None,
            string_of(item, ShardItem.iterator) or None,
            integer_of(item, ShardItem.since) / 1000,
            integer_of(item, ShardItem.registered) / 1000,
            integer_of(item, ShardItem.opened) / 1000,
        )
        return taken, start

    def extend(self, shard: ShardId, lease: Lease, opened: float = 0.0) -> None:
        """
        Let the lease end ``seconds`` from now, and save when the shard was seen open. Raises
        LeaseLostError.
        """
        change = self._later(shard)
        if opened:
            change += put(ShardItem.opened, int(opened * 1000))
        self._change(shard, lease, change)

    def save(self, shard: ShardId, lease: Lease, position: str) -> None:
        """Save the position and extend the lease. Raises LeaseLostError."""
        self._change(shard, lease, self._saved(position) + self._later(shard))

    def save_failed(self, shard: ShardId, lease: Lease, position: str, failed: RawItem) -> None:
        """Save the position together with the item of a failed record. Raises LeaseLostError."""
        change, table = self._saved(position) + self._later(shard), self._items.table.table_name
        update = {
            "TableName": table,
            "Key": self._key(shard).raw(),
            **to_arguments(_is_of(lease), change),
        }
        request = {
            "TransactItems": [
                {"Update": update},
                {"Put": {"TableName": table, "Item": failed}},
            ]
        }
        connection = self._items.table.connection
        try:
            run(connection.call("TransactWriteItems", request))
        except ClientError as exc:
            response: Any = exc.response
            reasons = response.get("CancellationReasons") or ()
            if any(reason.get("Code") == _REFUSED for reason in reasons):
                raise LeaseLostError from exc
            raise

    def finish(self, shard: ShardId, lease: Lease, position: str | None) -> None:
        """Record that the shard was read to its end, and release it. Raises LeaseLostError."""
        change = put(ShardItem.finished, clock.now_ms()) + _RELEASE
        change += self._kept(_KEPT_FINISHED)
        if position is not None:
            change += self._saved(position)
        self._change(shard, lease, change)

    def release(self, shard: ShardId, lease: Lease) -> bool:
        """Release the lease; return False if another worker has it."""
        return self._update(self._key(shard), _RELEASE, _is_of(lease))

    def failed_key(self, shard: ShardId, sequence_number: str) -> keys.ItemKey:
        """Return the key of the item of a failed record."""
        return keys.stream_failed(*self._names, *shard, sequence_number)

    def _key(self, shard: ShardId) -> keys.ItemKey:
        return keys.stream_shard(*self._names, *shard)

    def _saved(self, position: str) -> Change:
        return put(ShardItem.position, position) + remove(ShardItem.iterator)

    def _later(self, shard: ShardId) -> Change:
        end = end_after(run(self._items.learned_times(self._key(shard))), self.seconds)
        return put(ShardItem.lease_end, end) + self._kept()

    def _kept(self, seconds: int = _KEPT) -> Change:
        return put(ShardItem.ttl, int(clock.now()) + seconds)

    def _change(self, shard: ShardId, lease: Lease, change: Change) -> None:
        try:
            run(self._items.update(self._key(shard), change, _is_of(lease)))
        except ConditionFailed as failed:
            old = failed.old or {}
            # The answer to this worker's own write was lost, and the write was repeated.
            was_finished = integer_of(old, ShardItem.finished) and not _LEASE.owner_of(old)
            if not (was_finished and _LEASE.fence_of(old) == lease.fence):
                raise LeaseLostError from failed

    def _update(self, key: keys.ItemKey, change: Change, condition: Condition) -> bool:
        try:
            run(self._items.update(key, change, condition))
        except ConditionFailed:
            return False
        return True


def _parent(shard: Shard) -> Change:
    return NO_CHANGE if shard.parent is None else put(ShardItem.parent, shard.parent.name)


def _registered(shard: Shard, since: int) -> Change:
    return _parent(shard) + put(ShardItem.registered, since)


def _known(label: str, item: RawItem, now: int) -> Known:
    parent = string_of(item, ShardItem.parent)
    has_owner = _LEASE.end_of(item) > now
    return Known(
        ShardId(label, parent) if parent else None,
        bool(integer_of(item, ShardItem.finished)),
        _LEASE.owner_of(item) if has_owner else "",
        integer_of(item, ShardItem.opened) / 1000,
    )


def _is_of(lease: Lease) -> Condition:
    return equals(ShardItem.owner, lease.owner) & equals(ShardItem.fence, lease.fence)


def _is_same(item: Mapping[str, Any], lease: Lease) -> bool:
    raw = dict(item)
    return (_LEASE.owner_of(raw), _LEASE.fence_of(raw)) == (lease.owner, lease.fence)
