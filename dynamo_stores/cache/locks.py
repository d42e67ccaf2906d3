"""Locks shared by processes, sync and async: a lease, and a thread that renews it."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import weakref
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Self

from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from .. import clock, keys
from ..conf.rules import POSITIVE
from ..exceptions import ConfigurationError, LockError, StoreUnavailable
from ..item_access import ConditionFailed
from ..keys import ItemKey
from ..leases import Lease, LeaseAttributes, Renewal, Waits
from .store.items import LockItem
from .store.prefixed import PrefixedStore

logger = logging.getLogger(__name__)

# The waits between attempts grow from the first to the second number of seconds.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0
# Seconds for which a released lock is kept, so that the next fence is larger. After that the time
# in milliseconds is larger anyway.
_KEPT = 86_400
_LEASE = LeaseAttributes(LockItem.owner, LockItem.lease_end, LockItem.fence)


class LockStore(PrefixedStore[LockItem]):
    """
    The locks of one alias and prefix. One call per method; durations in seconds.

    Conditions are evaluated per region: on a global table a lock holds within its region.
    """

    kind = LockItem

    def take(self, key: str, timeout: float) -> Lease | float:
        """
        Take the lock if it is free. Return the lease, or the seconds until the other owner's ends.

        One call for a free lock; a second one if its fence is ahead of this process's clock.
        """
        taken = _LEASE.take(
            lambda actions, condition: self._change(key, actions, condition),
            timeout,
            lambda end: [LockItem.ttl.set(end // 1000 + _KEPT)],
        )
        # The other owner's lease may have ended since: it is free then.
        return taken if isinstance(taken, Lease) else max(0.0, _LEASE.seconds_left(taken))

    def extend(self, key: str, lease: Lease, timeout: float) -> bool:
        """Let the lease end ``timeout`` seconds from now; False if another owner has the lock."""
        end = clock.now_ms() + math.ceil(timeout * 1000)
        actions = [LockItem.lease_end.set(end), LockItem.ttl.set(end // 1000 + _KEPT)]
        return self._change_own(key, lease, actions)

    def release(self, key: str, lease: Lease) -> bool:
        """Free the lock; False if another owner had it. Its fence is kept."""
        return self._change_own(key, lease, [LockItem.lease_end.set(0), LockItem.owner.remove()])

    def is_taken(self, key: str) -> bool:
        """Return whether the lock has an owner now, read strongly."""
        return self.seconds_left(key) > 0

    def seconds_left(self, key: str) -> float:
        """Return for how many seconds the owner has the lock, 0 if it is free; read strongly."""
        with self._in_time():
            item = self._get(self.item_key(key), consistent=True)
        return max(0.0, _LEASE.seconds_left(item or {}))

    def _change_own(self, key: str, lease: Lease, actions: Sequence[Action]) -> bool:
        is_own = (
            (LockItem.owner == lease.owner)
            & (LockItem.fence == lease.fence)
            & (LockItem.lease_end > clock.now_ms())
        )
        try:
            self._change(key, actions, is_own)
        except ConditionFailed:
            return False
        return True

    def _change(self, key: str, actions: Sequence[Action], condition: Condition) -> None:
        with self._in_time():
            self._update(self.item_key(key), actions, condition)

    def item_key(self, key: str) -> ItemKey:
        """Return the partition and sort key of the lock ``key``."""
        return keys.lock(self.prefix, key)


class LeaseStore(LockStore):
    """The leases under which cached values are computed, a kind of item of their own."""

    def item_key(self, key: str) -> ItemKey:
        return keys.lease(self.prefix, key)


class _BaseLock:
    """The base of :class:`Lock` and :class:`AsyncLock`: their lease and its renewal."""

    def __init__(
        self,
        store: LockStore,
        key: str,
        timeout: float = 60.0,
        *,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        renew: bool = True,
    ) -> None:
        _check_seconds("timeout", timeout)
        if blocking_timeout is not None and blocking_timeout != 0:
            _check_seconds("blocking_timeout", blocking_timeout)
        self.timeout = timeout
        self.blocking = blocking
        self.blocking_timeout = blocking_timeout
        self._store = store
        self._key = key
        self._renews = renew
        self._lease: Lease | None = None
        self._renewal: Renewal | None = None
        self._pid = os.getpid()
        self._ours_until = 0.0
        self._error: StoreUnavailable | None = None

    @property
    def fence(self) -> int | None:
        """
        A number larger than that of every earlier owner; None while this object has no lock.

        Store it with what is written under the lock, and refuse writes with a smaller one: an owner
        that was paused past the end of its lease can then overwrite nothing.
        """
        lease = self._lease
        return lease.fence if lease is not None else None

    def attempt(self) -> float | None:
        """Try to take the lock. Return None if taken, else the seconds until it may be free."""
        requested_at = clock.monotonic()
        taken = self._store.take(self._key, self.timeout)
        if not isinstance(taken, Lease):
            return taken
        self._lease, self._pid = taken, os.getpid()
        self._ours_until = requested_at + self.timeout
        if self._renews:
            # The thread must not keep the lock object alive: a lock without references ends.
            extend = weakref.WeakMethod(self._extend_own, lambda _: renewal.stop())
            renewal = Renewal(lambda: _call(extend), self.timeout, "lock")
            renewal.start()
            self._renewal = renewal
        return None

    def is_ours(self) -> bool:
        """Return whether this object has the lock; extends the lease if it may have ended."""
        return clock.monotonic() < self._ours_until or self._extend(self.timeout)

    def _try(self) -> float | None:
        self._error = None
        try:
            return self.attempt()
        except StoreUnavailable as exc:
            logger.warning("An attempt to take a lock failed: %s", exc)
            self._error = exc
            return _LONGEST_WAIT

    def _lock_error(self) -> LockError:
        if self._error is None:
            return LockError("The lock is held by another owner.")
        return LockError(f"The lock was not taken, because DynamoDB is unavailable: {self._error}")

    def _waits(self, blocking: bool, blocking_timeout: float | None) -> Callable[[float], float]:
        """Return a function from a lease's seconds to those to wait; below 0: stop trying."""
        until = None if blocking_timeout is None else clock.monotonic() + blocking_timeout
        waits = Waits(_FIRST_WAIT, _LONGEST_WAIT)

        def wait(left: float) -> float:
            if not blocking:
                return -1.0
            seconds = waits.next(left)
            if until is None:
                return seconds
            remaining = until - clock.monotonic()
            return min(seconds, remaining) if remaining > 0 else -1.0

        return wait

    def _own_lease(self) -> Lease | None:
        # A forked child has a copy of the object, but not the lock.
        return self._lease if self._pid == os.getpid() else None

    def _extend(self, seconds: float) -> bool:
        _check_seconds("seconds", seconds)
        lease = self._own_lease()
        return lease is not None and self._extended(lease, seconds)

    def _extended(self, lease: Lease, seconds: float) -> bool:
        requested_at = clock.monotonic()
        extended = self._store.extend(self._key, lease, seconds)
        self._ours_until = requested_at + seconds if extended else 0.0
        return extended

    def _release(self) -> bool:
        lease = self._own_lease()
        self._lease = None
        if self._renewal is not None:
            self._renewal.stop()
            self._renewal = None
        return lease is not None and self._store.release(self._key, lease)

    def _extend_own(self) -> bool:
        lease = self._lease
        return lease is not None and self._extended(lease, self.timeout)


class Lock(_BaseLock):
    """
    A lock in DynamoDB; ``with cache.lock("name"):`` or ``acquire`` and ``release``.

    An owner that dies loses it ``timeout`` seconds after its last renewal. One that was paused for
    longer can neither release nor extend the lock of the next owner.
    """

    def acquire(self, blocking: bool | None = None, blocking_timeout: float | None = None) -> bool:
        """
        Return whether the lock was taken. With ``blocking``, wait for it at most
        ``blocking_timeout`` seconds (None: without limit). Errors of DynamoDB are logged, not
        raised.
        """
        wait = self._waits(*_chosen(self, blocking, blocking_timeout))
        while (lease := self._try()) is not None:
            seconds = wait(lease)
            if seconds < 0:
                return False
            clock.sleep(seconds)
        return True

    def release(self) -> bool:
        """Free the lock; False if this object does not have it, or lost it."""
        return self._release()

    def extend(self, seconds: float) -> bool:
        """Let the lease end ``seconds`` from now; False if this object lost the lock."""
        return self._extend(seconds)

    def locked(self) -> bool:
        """Return whether the lock has an owner now."""
        return self._store.is_taken(self._key)

    def __enter__(self) -> Self:
        if not self.acquire():
            raise self._lock_error() from self._error
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class AsyncLock(_BaseLock):
    """The async version of :class:`Lock`: the same methods, awaited; waiting blocks no thread."""

    def __init__(
        self, run: Callable[..., Awaitable[Any]], store: LockStore, key: str, *args: Any, **kw: Any
    ) -> None:
        super().__init__(store, key, *args, **kw)
        self._run = run

    async def acquire(
        self, blocking: bool | None = None, blocking_timeout: float | None = None
    ) -> bool:
        """See :meth:`Lock.acquire`."""
        wait = self._waits(*_chosen(self, blocking, blocking_timeout))
        while (lease := await self._run(self._try)) is not None:
            seconds = wait(lease)
            if seconds < 0:
                return False
            await asyncio.sleep(seconds)
        return True

    async def release(self) -> bool:
        """See :meth:`Lock.release`."""
        released: bool = await self._run(self._release)
        return released

    async def extend(self, seconds: float) -> bool:
        """See :meth:`Lock.extend`."""
        extended: bool = await self._run(self._extend, seconds)
        return extended

    async def locked(self) -> bool:
        """See :meth:`Lock.locked`."""
        taken: bool = await self._run(self._store.is_taken, self._key)
        return taken

    async def __aenter__(self) -> Self:
        if not await self.acquire():
            raise self._lock_error() from self._error
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.release()


def _chosen(
    lock: _BaseLock, blocking: bool | None, blocking_timeout: float | None
) -> tuple[bool, float | None]:
    return (
        lock.blocking if blocking is None else blocking,
        lock.blocking_timeout if blocking_timeout is None else blocking_timeout,
    )


def _call(method: weakref.WeakMethod[Callable[[], bool]]) -> bool:
    bound = method()
    return bound is not None and bound()


def _check_seconds(name: str, value: Any) -> None:
    if not POSITIVE.accepts(value):
        raise ConfigurationError(f"{name} is {value!r}; expected {POSITIVE.expected}, in seconds.")
