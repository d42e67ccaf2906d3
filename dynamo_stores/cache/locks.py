"""Locks between processes, sync and async: a lease, and a thread that renews it."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Self

from .. import clock
from ..conf.rules import POSITIVE
from ..exceptions import ConfigurationError, LockError, StoreUnavailable
from .store.leases import Lease, LockStore

logger = logging.getLogger(__name__)

# Waits between tries grow from the first to the second of these, in seconds.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 1.0


class _Renewal(threading.Thread):
    """Extends a lease at a third of its time, until it is stopped or its lock object is gone."""

    def __init__(self, lock: _BaseLock) -> None:
        super().__init__(name="dynamo-stores-lock", daemon=True)
        self._lock = weakref.ref(lock, lambda _: self.stopping.set())
        self._interval = lock.timeout / 3
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(self._interval):
            lock = self._lock()
            if lock is None or not lock._renew():
                return
            del lock


class _BaseLock:
    """What the lock and its async twin share: the lease that they hold, and its renewal."""

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
        self._renewal: _Renewal | None = None
        self._pid = os.getpid()
        self._ours_until = 0.0

    @property
    def fence(self) -> int | None:
        """
        A number larger than that of every holder before; None while this object holds nothing.

        Give it along with what is written under the lock, and refuse smaller ones there: a holder
        that was paused past its lease then does no harm.
        """
        lease = self._lease
        return lease.fence if lease is not None else None

    def attempt(self) -> float | None:
        """Take the lock; return None, or the seconds until it may be free."""
        asked_at = clock.monotonic()
        taken = self._store.take(self._key, self.timeout)
        if not isinstance(taken, Lease):
            return taken
        self._lease, self._pid = taken, os.getpid()
        self._ours_until = asked_at + self.timeout
        if self._renews:
            self._renewal = _Renewal(self)
            self._renewal.start()
        return None

    def is_ours(self) -> bool:
        """Return whether this object certainly holds the lock; asks only after a long pause."""
        return clock.monotonic() < self._ours_until or self._extend(self.timeout)

    def _try(self) -> float | None:
        try:
            return self.attempt()
        except StoreUnavailable as exc:
            logger.warning("A lock could not be asked for: %s", exc)
            return _LONGEST_WAIT

    def _waits(self, blocking: bool, blocking_timeout: float | None) -> Callable[[float], float]:
        """Return what makes of a lease's seconds the time to wait; below 0 is to give up."""
        until = None if blocking_timeout is None else clock.monotonic() + blocking_timeout
        longest = _FIRST_WAIT

        def wait(lease: float) -> float:
            nonlocal longest
            if not blocking:
                return -1.0
            # Near the end of the lease, so that a dead holder's lock is taken soon after.
            seconds = min(random.uniform(longest / 2, longest), lease + random.uniform(0, 0.05))
            longest = min(longest * 2, _LONGEST_WAIT)
            if until is None:
                return seconds
            left = until - clock.monotonic()
            return min(seconds, left) if left > 0 else -1.0

        return wait

    def _own_lease(self) -> Lease | None:
        # A forked child has a copy of the object, and not the lock.
        return self._lease if self._pid == os.getpid() else None

    def _extend(self, seconds: float) -> bool:
        _check_seconds("seconds", seconds)
        lease = self._own_lease()
        return lease is not None and self._extended(lease, seconds)

    def _extended(self, lease: Lease, seconds: float) -> bool:
        asked_at = clock.monotonic()
        extended = self._store.extend(self._key, lease, seconds)
        self._ours_until = asked_at + seconds if extended else 0.0
        return extended

    def _release(self) -> bool:
        lease = self._own_lease()
        self._lease = None
        if self._renewal is not None:
            self._renewal.stopping.set()
            self._renewal = None
        return lease is not None and self._store.release(self._key, lease)

    def _renew(self) -> bool:
        lease = self._lease
        if lease is None:
            return False
        try:
            return self._extended(lease, self.timeout)
        except StoreUnavailable as exc:
            logger.warning("A lock could not be renewed, and is tried again: %s", exc)
            return True


class Lock(_BaseLock):
    """
    A lock in DynamoDB; ``with cache.lock("name"):`` or ``acquire`` and ``release``.

    A holder that dies loses it ``timeout`` seconds after its last renewal; one that was paused
    past that can neither release nor extend its successor's.
    """

    def acquire(self, blocking: bool | None = None, blocking_timeout: float | None = None) -> bool:
        """
        Return whether the lock was got; waits for it where ``blocking``, at most
        ``blocking_timeout`` seconds (None: until it is got). Raises nothing, whatever happens.
        """
        wait = self._waits(*_chosen(self, blocking, blocking_timeout))
        while (lease := self._try()) is not None:
            seconds = wait(lease)
            if seconds < 0:
                return False
            clock.sleep(seconds)
        return True

    def release(self) -> bool:
        """Free the lock; False if this object holds none, or lost it."""
        return self._release()

    def extend(self, seconds: float) -> bool:
        """Let the lease end ``seconds`` from now; False if the lock is no longer ours."""
        return self._extend(seconds)

    def locked(self) -> bool:
        """Return whether anybody holds the lock now."""
        return self._store.is_taken(self._key)

    def __enter__(self) -> Self:
        if not self.acquire():
            raise LockError("The lock was not got: somebody else holds it.")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class AsyncLock(_BaseLock):
    """The async twin of :class:`Lock`: the same methods, awaited; waiting holds no thread."""

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
            raise LockError("The lock was not got: somebody else holds it.")
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


def _check_seconds(name: str, value: Any) -> None:
    if not POSITIVE.accepts(value):
        raise ConfigurationError(f"{name} is {value!r}; expected {POSITIVE.expected}, in seconds.")
