"""Leases: who holds something until when, and a fence that only ever rises."""

from __future__ import annotations

import math
import os
from typing import Any, NamedTuple

from pynamodb.attributes import (
    UnicodeAttribute,
)

from ... import clock, keys
from ...item_access import ConditionFailed
from ...keys import ItemKey
from ...models import IntegerAttribute, RawItem, StoreItem
from .prefixed import PrefixedStore


class LockItem(StoreItem):
    """
    A lock: who holds it until when (``lease_end``, in ms since the epoch; 0: nobody), and the
    fence of the last one who got it.
    """

    owner = UnicodeAttribute(null=True, attr_name="o")
    fence = IntegerAttribute(null=True, attr_name="f")
    lease_end = IntegerAttribute(null=True, attr_name="l")


# A released lock is kept so long, in seconds, for its fence to be read; after that the time in
# milliseconds is larger anyway.
_KEPT = 86_400


class Lease(NamedTuple):
    """A lock that was got: by whom, under which fence."""

    owner: str
    fence: int


class LockStore(PrefixedStore[LockItem]):
    """
    The locks of one alias and prefix. One call each; durations in seconds.

    Conditions are per region: on a global table a lock holds within its region.
    """

    kind = LockItem

    def take(self, key: str, timeout: float) -> Lease | float:
        """
        Take the lock if it is free; return the lease, or the seconds until the other one's ends.

        One call for a free lock; a second one where its fence is ahead of this process's clock.
        """
        owner = os.urandom(12).hex()
        now = clock.now_ms()
        fence, ahead = now, LockItem.fence.does_not_exist() | (LockItem.fence < now)
        while True:
            lease_end = now + math.ceil(timeout * 1000)
            actions = [
                LockItem.owner.set(owner),
                LockItem.fence.set(fence),
                LockItem.lease_end.set(lease_end),
                LockItem.ttl.set(lease_end // 1000 + _KEPT),
            ]
            is_free = LockItem.lease_end.does_not_exist() | (LockItem.lease_end <= now)
            try:
                self._change(key, actions, is_free & ahead)
            except ConditionFailed as refused:
                old = self._read(refused.old)
                if old.owner == owner:
                    # The answer to our own write was lost, and we met it when we tried again.
                    return Lease(owner, fence)
                if old.lease_end > now:
                    return (old.lease_end - now) / 1000
                fence, ahead = max(int(old.fence) + 1, now), LockItem.fence == old.fence
            else:
                return Lease(owner, fence)

    def extend(self, key: str, lease: Lease, timeout: float) -> bool:
        """Let the lease end ``timeout`` seconds from now; False if it is no longer ours."""
        lease_end = clock.now_ms() + math.ceil(timeout * 1000)
        actions = [
            LockItem.lease_end.set(lease_end),
            LockItem.ttl.set(lease_end // 1000 + _KEPT),
        ]
        return self._change_own(key, lease, actions)

    def release(self, key: str, lease: Lease) -> bool:
        """Free the lock; False if it was no longer ours. Its fence is kept."""
        return self._change_own(key, lease, [LockItem.lease_end.set(0), LockItem.owner.remove()])

    def is_taken(self, key: str) -> bool:
        """Return whether anybody holds the lock now, read strongly."""
        with self._in_time():
            item = self._get(self._key(key), consistent=True)
        return self._read(item).lease_end > clock.now_ms()

    def _change_own(self, key: str, lease: Lease, actions: list[Any]) -> bool:
        is_ours = (
            (LockItem.owner == lease.owner)
            & (LockItem.fence == lease.fence)
            & (LockItem.lease_end > clock.now_ms())
        )
        try:
            self._change(key, actions, is_ours)
        except ConditionFailed:
            return False
        return True

    def _change(self, key: str, actions: list[Any], condition: Any) -> None:
        with self._in_time():
            self._update(self._key(key), actions, condition)

    def _read(self, item: RawItem | None) -> LockItem:
        found: LockItem = self._items.from_raw_data(item) if item else self._items("", "")
        found.fence = int(found.fence or 0)
        found.lease_end = int(found.lease_end or 0)
        return found

    def _key(self, key: str) -> ItemKey:
        return keys.lock(self.prefix, key)


class LeaseStore(LockStore):
    """The same for the leases under which values are computed: a kind of their own."""

    def left(self, key: str) -> float:
        """Return for how many seconds more somebody holds the lease, 0 if nobody; read strongly."""
        with self._in_time():
            item = self._get(self._key(key), consistent=True)
        return max(0.0, (self._read(item).lease_end - clock.now_ms()) / 1000)

    def _key(self, key: str) -> ItemKey:
        return keys.lease(self.prefix, key)
