"""Locks shared by processes, sync and async: a lease, and a thread that renews it."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import weakref
from collections.abc import Callable
from typing import Self

from .. import clock, keys
from ..calls.counters import get_counters
from ..calls.policy import time_left
from ..concurrency.effects import Wait, arun, run
from ..conf import DEFAULT_ALIAS
from ..conf.rules import check_seconds
from ..exceptions import (
    CircuitBreakerOpenError,
    LockError,
    StoreError,
    StoreUnavailable,
)
from ..expressions import Condition, at_most, equals, put, remove
from ..item_access import ConditionFailed, Items, Store
from ..keys import ItemKey
from ..leases import (
    LATE,
    Lease,
    LeaseAttributes,
    Renewal,
    Waits,
    end_after,
    new_owner,
    release_later,
)
from ..models import RawItem
from .options import CacheOptions, check_prefix
from .store.items import LockItem

logger = logging.getLogger(__name__)

# The waits between attempts grow from the first to the second number of seconds.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0
# Less time than this before the end of a ``deadline`` block is not enough for another attempt.
_SHORTEST_ATTEMPT = 0.05
# Seconds for which a released lock is kept, so that the next fence is larger. After that the time
# in milliseconds is larger anyway.
_KEPT = 86_400
_LEASE = LeaseAttributes(LockItem.owner, LockItem.lease_end, LockItem.fence)
_DEFAULT_OPTIONS = CacheOptions()
_RELEASE = put(LockItem.lease_end, 0) + remove(LockItem.owner)


class LeaseItems:
    """
    The items of locks, or of the leases of computations, of one alias and prefix. ``key_of`` makes
    their keys. Its coroutines are verbs; durations in seconds.
    """

    def __init__(
        self, using: str, prefix: str, options: CacheOptions, key_of: Callable[[str, str], ItemKey]
    ) -> None:
        self.using = using
        self.timeout = options.operation_timeout
        self._prefix = prefix
        self._key_of = key_of
        self._items = Items(LockItem, using, timeout=options.operation_timeout)

    async def take(self, key: str, timeout: float, owner: str | None = None) -> Lease | float:
        """
        Take the lock if it is free. Return the lease, or the seconds until the other owner's ends.

        An ``owner`` whose earlier take had no answer takes it again. One call for a free lock; a
        second one if its fence is ahead of the time, or for the first lock of a process.
        """
        item_key = self.item_key(key)
        with self._items.in_time():
            times = await self._items.learned_times(item_key)
            taken = await _LEASE.take(
                lambda change, condition: self._items.update(item_key, change, condition),
                timeout,
                lambda end: put(LockItem.ttl, end // 1000 + _KEPT),
                owner=owner,
                times=times,
            )
        # The other owner's lease may have ended since: it is free then.
        return taken if isinstance(taken, Lease) else max(0.0, _LEASE.seconds_left(taken, times))

    async def extend(
        self, key: str, lease: Lease, timeout: float, *, never_shortens: bool = False
    ) -> bool:
        """
        Let the lease end ``timeout`` seconds from now; False if another owner took the lock. With
        ``never_shortens`` a lease that ends later stays.

        A lease that has ended is extended, too, as long as nobody took it.
        """
        item_key, condition = self.item_key(key), _is_of(lease)
        with self._items.in_time():
            end = end_after(await self._items.learned_times(item_key), timeout)
            change = put(LockItem.lease_end, end) + put(LockItem.ttl, end // 1000 + _KEPT)
            if never_shortens:
                condition &= at_most(LockItem.lease_end, end)
            try:
                await self._items.update(item_key, change, condition)
            except ConditionFailed as failed:
                old = failed.old or {}
                return never_shortens and _is_same(old, lease) and _LEASE.end_of(old) > end
        return True

    async def release(self, key: str, lease: Lease) -> bool:
        """Free the lock; False if another owner took it. Its fence is kept."""
        try:
            await self._items.update(self.item_key(key), _RELEASE, _is_of(lease))
        except ConditionFailed as failed:
            old = failed.old or {}
            # The answer to this call's own write was lost, and the write was repeated.
            return _LEASE.fence_of(old) == lease.fence and not _LEASE.owner_of(old)
        return True

    async def release_owner(self, key: str, owner: str) -> bool:
        """Free the lock whatever lease ``owner`` has; False if it has none."""
        try:
            await self._items.update(self.item_key(key), _RELEASE, equals(LockItem.owner, owner))
        except ConditionFailed:
            return False
        return True

    async def seconds_left(self, key: str) -> float:
        """Return for how many seconds the owner has the lock, 0 if it is free; read strongly."""
        item = await self._items.get(self.item_key(key), consistent=True)
        return max(0.0, _LEASE.seconds_left(item or {}, self._items.server_clock.times()))

    async def is_held_by(self, key: str, lease: Lease) -> bool:
        """Return whether the lock belongs to ``lease`` now, read strongly."""
        item = await self._items.get(self.item_key(key), consistent=True) or {}
        is_valid = _LEASE.seconds_left(item, self._items.server_clock.times()) > 0
        return is_valid and _is_same(item, lease)

    def item_key(self, key: str) -> ItemKey:
        """Return the partition and sort key of the lock ``key``."""
        return self._key_of(self._prefix, key)


class LockStore(Store):
    """
    The locks of one alias and prefix. One call per method; durations in seconds.

    Conditions are evaluated per region: on a global table a lock holds within its region.
    """

    def __init__(
        self,
        using: str = DEFAULT_ALIAS,
        *,
        prefix: str = "",
        options: CacheOptions = _DEFAULT_OPTIONS,
    ) -> None:
        check_prefix(prefix)
        super().__init__(Items(LockItem, using))
        self.locks = LeaseItems(using, prefix, options, keys.lock)

    def take(self, key: str, timeout: float, owner: str | None = None) -> Lease | float:
        """See :meth:`LeaseItems.take`."""
        return run(self.locks.take(key, timeout, owner))

    def extend(self, key: str, lease: Lease, timeout: float) -> bool:
        """See :meth:`LeaseItems.extend`."""
        return run(self.locks.extend(key, lease, timeout))

    def release(self, key: str, lease: Lease) -> bool:
        """See :meth:`LeaseItems.release`."""
        return run(self.locks.release(key, lease))

    def is_taken(self, key: str) -> bool:
        """Return whether the lock has an owner now, read strongly."""
        return self.seconds_left(key) > 0

    def seconds_left(self, key: str) -> float:
        """See :meth:`LeaseItems.seconds_left`."""
        return run(self.locks.seconds_left(key))

    def is_held_by(self, key: str, lease: Lease) -> bool:
        """See :meth:`LeaseItems.is_held_by`."""
        return run(self.locks.is_held_by(key, lease))


def _is_of(lease: Lease) -> Condition:
    return equals(LockItem.owner, lease.owner) & equals(LockItem.fence, lease.fence)


def _is_same(item: RawItem, lease: Lease) -> bool:
    return (_LEASE.owner_of(item), _LEASE.fence_of(item)) == (lease.owner, lease.fence)


class Holding:
    """
    One owner of a lock, from its first attempt to its release. Its coroutines are verbs.

    All attempts are made by the same owner: one whose answer was lost is recognised by the next.
    """

    def __init__(self, locks: LeaseItems, key: str, seconds: float, *, renews: bool = True) -> None:
        self.renewal: Renewal | None = None
        self._locks = locks
        self._key = key
        self._seconds = seconds
        self._renews = renews
        self._owner = new_owner()
        self._pid = os.getpid()
        self._lease: Lease | None = None
        self._held_until = 0.0
        # How many times the caller has extended the lease.
        self._extensions = 0
        self._may_be_taken = False

    @property
    def fence(self) -> int | None:
        """The fence; None without the lock, or if its lease ended without a renewal."""
        lease = self._lease
        is_late = self.renewal is not None and self.renewal.is_late
        return None if lease is None or is_late else lease.fence

    async def take(self) -> float | None:
        """Try to take the lock. Return None if taken, else the seconds until it may be free."""
        requested_at = clock.monotonic()
        before, self._may_be_taken = self._may_be_taken, True
        try:
            taken = await self._locks.take(self._key, self._seconds, self._owner)
        except CircuitBreakerOpenError:
            self._may_be_taken = before
            raise
        if not isinstance(taken, Lease):
            self._may_be_taken = before
            return taken
        # Earlier attempts cannot be carried out any more: their fence is smaller.
        self._lease, self._may_be_taken = taken, False
        self._held_until = requested_at + self._seconds
        if self._renews:
            await self._start_renewal()
        return None

    def give_up(self) -> None:
        """
        Release the lock in the background if it was taken, or if a request on its way takes it.
        """
        if self.renewal is not None:
            self.renewal.stop()
        if self._lease is None and not self._may_be_taken:
            return
        untaken = self._locks.timeout + LATE if self._lease is None else None
        locks, key, owner = self._locks, self._key, self._owner
        release_later(
            locks.using,
            lambda: run(locks.release_owner(key, owner)),
            self._seconds + LATE,
            untaken=untaken,
        )
        self._lease = None

    async def is_held(self) -> bool:
        """Return whether the lock is held; extends the lease if it may have ended."""
        return clock.monotonic() < self._held_until or await self._extend(self._seconds)

    async def is_owner(self) -> bool:
        """Return whether the lock belongs to this owner, by the table."""
        lease = self._lease
        if lease is None or not self._is_ours():
            return False
        return await self._locks.is_held_by(self._key, lease)

    async def extend(self, seconds: float) -> bool:
        """Let the lease end ``seconds`` from now; False if the lock was lost."""
        if not self._is_ours() or clock.monotonic() >= self._held_until:
            return False
        if not await self._extend(seconds):
            return False
        if self.renewal is not None:
            self.renewal.ends_in(seconds)
        return True

    async def release(self) -> bool:
        """Free the lock; False if it was lost. After an error it can be called again."""
        if not self._is_ours():
            return False
        if self.renewal is not None:
            self.renewal.stop()
        lease = self._lease
        is_released = lease is not None and await self._locks.release(self._key, lease)
        if lease is not None and not is_released:
            _log_loss()
        self._lease = self.renewal = None
        return is_released

    async def _start_renewal(self) -> None:
        # The thread must not keep the object alive: a lock without references ends.
        renew = weakref.WeakMethod(self._renew, lambda _: renewal.stop())
        self.renewal = renewal = Renewal(lambda: _call(renew), self._seconds, "lock")
        try:
            renewal.start()
        except BaseException:
            with contextlib.suppress(StoreUnavailable):
                await self.release()
            raise

    def _renew(self) -> bool:
        lease, extensions, requested_at = self._lease, self._extensions, clock.monotonic()
        until = requested_at + self._seconds
        if until <= self._held_until:
            # It was extended for longer.
            return True
        extend = self._locks.extend
        if lease is None or not run(extend(self._key, lease, self._seconds, never_shortens=True)):
            self._lease = None
            return False
        # The caller may have shortened the lease meanwhile.
        if extensions == self._extensions:
            self._held_until = max(until, self._held_until)
        return True

    async def _extend(self, seconds: float) -> bool:
        self._extensions += 1
        lease, requested_at = self._lease, clock.monotonic()
        is_extended = lease is not None and await self._locks.extend(self._key, lease, seconds)
        self._extensions += 1
        self._held_until = requested_at + seconds if is_extended else 0.0
        return is_extended

    def _is_ours(self) -> bool:
        # A forked child has a copy of the object, but not the lock.
        return self._lease is not None and self._pid == os.getpid()


class _BaseLock:
    """The base of :class:`Lock` and :class:`AsyncLock`."""

    def __init__(
        self,
        store: LockStore,
        key: str,
        timeout: float = 60.0,
        *,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        renew: bool = True,
        sleep: float = _LONGEST_WAIT,
    ) -> None:
        check_seconds("timeout", timeout)
        check_seconds("sleep", sleep)
        if blocking_timeout is not None and blocking_timeout != 0:
            check_seconds("blocking_timeout", blocking_timeout)
        self.timeout = timeout
        self.blocking = blocking
        self.blocking_timeout = blocking_timeout
        self.sleep = sleep
        self._locks = store.locks
        self._key = key
        self._renews = renew
        self._holding: Holding | None = None
        self._error: StoreUnavailable | None = None
        self._is_held = False

    @property
    def fence(self) -> int | None:
        """
        A number larger than that of every earlier owner; None while this object has no lock, or
        has lost it.

        Store it with what is written under the lock, and refuse writes with a smaller one: an owner
        that was paused past the end of its lease can then overwrite nothing.
        """
        return None if self._holding is None else self._holding.fence

    async def _acquire(self, blocking: bool | None, blocking_timeout: float | None) -> bool:
        self._error, self._is_held = None, False
        holding = Holding(self._locks, self._key, self.timeout, renews=self._renews)
        wait = self._waits(
            self.blocking if blocking is None else blocking,
            self.blocking_timeout if blocking_timeout is None else blocking_timeout,
        )
        has_waited = False
        try:
            while (left := await self._try(holding)) is not None:
                seconds = wait(left)
                if seconds < 0:
                    return False
                if self._is_held and not has_waited:
                    has_waited = True
                    get_counters(self._locks.using).add("waits", "lock")
                await Wait(seconds)
                if time_left(1.0) < _SHORTEST_ATTEMPT:
                    return False
            self._holding = holding
            return True
        finally:
            if self._holding is not holding:
                holding.give_up()

    async def _try(self, holding: Holding) -> float | None:
        try:
            left = await holding.take()
        except StoreUnavailable as exc:
            # The breaker logs once that it opened.
            is_refused = isinstance(exc, CircuitBreakerOpenError)
            level = logging.DEBUG if is_refused else logging.WARNING
            logger.log(level, "An attempt to take a lock failed: %s", exc)
            # One that only had too little time left says nothing new about a lock that is held.
            if exc.counts or not self._is_held:
                self._error = exc
            return _LONGEST_WAIT
        self._error, self._is_held = None, left is not None
        return left

    def _lock_error(self) -> LockError:
        if self._error is None:
            return LockError("The lock is held by another owner.")
        return LockError(f"The lock was not taken, because DynamoDB is unavailable: {self._error}")

    def _waits(self, blocking: bool, blocking_timeout: float | None) -> Callable[[float], float]:
        """Return a function from a lease's seconds to those to wait; below 0: stop trying."""
        until = None if blocking_timeout is None else clock.monotonic() + blocking_timeout
        waits = Waits(min(_FIRST_WAIT, self.sleep), self.sleep)
        after_errors = Waits(_FIRST_WAIT, max(_LONGEST_WAIT, self.sleep))

        def wait(left: float) -> float:
            if not blocking:
                return -1.0
            seconds = (waits if self._error is None else after_errors).next(left)
            remaining = time_left(math.inf if until is None else until - clock.monotonic())
            return min(seconds, remaining) if remaining > 0 else -1.0

        return wait

    async def _owned(self) -> bool:
        return self._holding is not None and await self._holding.is_owner()

    async def _extend(self, seconds: float) -> bool:
        check_seconds("seconds", seconds)
        return self._holding is not None and await self._holding.extend(seconds)

    async def _release(self) -> bool:
        return self._holding is not None and await self._holding.release()

    async def _locked(self) -> bool:
        return await self._locks.seconds_left(self._key) > 0

    def _release_in_background(self, exc: BaseException) -> None:
        if self._holding is not None:
            self._holding.give_up()
        text = exc if isinstance(exc, StoreError) else type(exc).__name__
        logger.warning("A lock was not released at the end of its block; tried again: %s", text)


class Lock(_BaseLock):
    """
    A lock in DynamoDB; ``with cache.lock("name"):`` or ``acquire`` and ``release``.

    An owner that dies loses it ``timeout`` seconds after its last renewal. One that was paused for
    longer can neither release nor extend the lock of the next owner.
    """

    def acquire(self, blocking: bool | None = None, blocking_timeout: float | None = None) -> bool:
        """
        Return whether the lock was taken. With ``blocking``, wait for it at most
        ``blocking_timeout`` seconds (None: without limit) and to the end of a ``deadline`` block,
        also while DynamoDB does not answer. Errors of DynamoDB are logged, not raised; a lock that
        an unanswered attempt takes after all is released again.
        """
        return run(self._acquire(blocking, blocking_timeout))

    def release(self) -> bool:
        """
        Free the lock; False if this object does not have it, or lost it.

        Raises StoreUnavailable; it can be called again then. The lease is not renewed any more.
        """
        return run(self._release())

    def extend(self, seconds: float) -> bool:
        """
        Let the lease end ``seconds`` from now; False if this object lost the lock.

        Renewals only lengthen it. Raises StoreUnavailable.
        """
        return run(self._extend(seconds))

    def reacquire(self) -> bool:
        """Let the lease end ``timeout`` seconds from now, as :meth:`extend` does."""
        return run(self._extend(self.timeout))

    def locked(self) -> bool:
        """Return whether the lock has an owner now."""
        return run(self._locked())

    def owned(self) -> bool:
        """Return whether this object has the lock now."""
        return run(self._owned())

    def __enter__(self) -> Self:
        if not self.acquire():
            raise self._lock_error() from self._error
        return self

    def __exit__(self, *exc_info: object) -> None:
        try:
            self.release()
        except BaseException as exc:
            self._release_in_background(exc)
            if not isinstance(exc, Exception):
                raise


class AsyncLock(_BaseLock):
    """
    The async version of :class:`Lock`: the same methods, awaited; waiting blocks no thread.

    A task that is cancelled while it acquires the lock does not keep it.
    """

    async def acquire(
        self, blocking: bool | None = None, blocking_timeout: float | None = None
    ) -> bool:
        """See :meth:`Lock.acquire`."""
        return await arun(self._acquire(blocking, blocking_timeout))

    async def release(self) -> bool:
        """See :meth:`Lock.release`."""
        return await arun(self._release())

    async def extend(self, seconds: float) -> bool:
        """See :meth:`Lock.extend`."""
        return await arun(self._extend(seconds))

    async def reacquire(self) -> bool:
        """See :meth:`Lock.reacquire`."""
        return await arun(self._extend(self.timeout))

    async def locked(self) -> bool:
        """See :meth:`Lock.locked`."""
        return await arun(self._locked())

    async def owned(self) -> bool:
        """See :meth:`Lock.owned`."""
        return await arun(self._owned())

    async def __aenter__(self) -> Self:
        if not await self.acquire():
            raise self._lock_error() from self._error
        return self

    async def __aexit__(
        self, exc_type: object, error: BaseException | None, traceback: object
    ) -> None:
        if isinstance(error, GeneratorExit):
            # The task was dropped: nothing can be awaited any more.
            self._release_in_background(error)
            return
        try:
            await self.release()
        except BaseException as exc:
            self._release_in_background(exc)
            if not isinstance(exc, Exception):
                raise


def _call(method: weakref.WeakMethod[Callable[[], bool]]) -> bool:
    bound = method()
    return bound is not None and bound()


def _log_loss() -> None:
    logger.warning("A lock was lost before it was released: its lease ended, and was not renewed.")
