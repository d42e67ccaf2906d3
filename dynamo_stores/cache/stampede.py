"""``get_or_set``, sync and async, with protection against stampedes."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from .. import clock
from ..concurrency.steps import Call, Computation, Compute, Prepare, Steps, Wait, arun, run
from ..exceptions import StoreUnavailable
from ..leases import Waits
from ..models import RawItem
from .fallback import record_ignored
from .locks import LeaseStore, Lock
from .store.entries import MISSING, is_same_write
from .store.invalidation import checked_tags, is_live
from .store.items import TOOK, expiry_of, took_of
from .store.near import Entry
from .store.store import CacheStore
from .store.values import Written


class StampedeProtection:
    """A mixin of the cache backend: ``get_or_set`` and ``aget_or_set``."""

    if TYPE_CHECKING:

        @property
        def store(self) -> CacheStore: ...

        def _full_key(self, key: Any, version: int | None) -> str: ...
        def _seconds(self, timeout: Any) -> float | None: ...

    def get_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] | None = None,
    ) -> Any:
        """
        Return the value; if missing, store and return ``default``, or its result if callable.

        With ``STAMPEDE_LEASE`` one caller computes; the others wait or get a stale value.
        """
        computation = Computation(default)
        steps = self._steps(key, timeout, version, tags)
        try:
            return run(steps, computation)
        except StoreUnavailable as exc:
            if exc is computation.error:
                raise
            record_ignored(self.store, "get_or_set", exc)
            return computation.run()

    async def aget_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] | None = None,
    ) -> Any:
        """
        See :meth:`get_or_set`. ``default`` may be a coroutine function; a plain one runs on
        Django's thread-sensitive thread. Waiting blocks no thread.
        """
        computation = Computation(default)
        steps = self._steps(key, timeout, version, tags)
        try:
            return await arun(steps, computation, self.store.using)
        except StoreUnavailable as exc:
            if exc is computation.error:
                raise
            record_ignored(self.store, "aget_or_set", exc)
            return await computation.arun()

    def _steps(
        self, key: Any, timeout: Any, version: int | None, tags: Iterable[str] | None
    ) -> Steps:
        seconds = self._seconds(timeout)
        return get_or_compute(self.store, self._full_key(key, version), seconds, checked_tags(tags))


logger = logging.getLogger(__name__)

# Waiting callers read again after the first of these seconds, then after twice as long each time,
# up to the second.
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 0.5


def get_or_compute(
    store: CacheStore, key: str, timeout: float | None, tags: Sequence[str]
) -> Steps:
    """
    Return the steps that return the value of ``key``, computing it if it is missing.

    With ``stampede_lease`` one caller of all processes computes, under a lease that is renewed
    meanwhile; the others get the value that expired less than ``stale_timeout`` seconds ago, or
    wait. The error of a computation is raised for its caller only; another caller then computes.
    """
    found = yield Call(lambda: store.find(key, expired=True))
    store.count_lookups(1, found is not None and is_live(found.head))
    if not store.options.stampede_lease or (timeout is not None and timeout <= 0):
        value = _live_value(store, found)
        if value is MISSING:
            value = yield from _compute(store, key, timeout, tags, found)
        return value
    leases = LeaseStore(store.using, prefix=store.prefix, options=store.options)
    waits = Waits(_FIRST_WAIT, _LONGEST_WAIT)
    while True:
        value = store.value_of(found)
        if value is not MISSING and not _is_due(store, found):
            return value
        lease = Lock(leases, key, store.options.stampede_lease, blocking=False)
        left = yield Call(lease.attempt)
        if left is None:
            return (yield from _compute_under(lease, store, key, timeout, tags, found))
        while value is MISSING and left > 0:
            yield Wait(waits.next(left))
            found, left = yield Call(lambda: _read_again(store, leases, key))
            value = store.value_of(found)
        if value is not MISSING:
            return value


def _read_again(store: CacheStore, leases: LeaseStore, key: str) -> tuple[Entry | None, float]:
    found = store.find(key, strongly=True, expired=True)
    return found, leases.seconds_left(key) if found is None else 0.0


def _compute_under(
    lease: Lock,
    store: CacheStore,
    key: str,
    timeout: float | None,
    tags: Sequence[str],
    seen: Entry | None,
) -> Steps:
    try:
        # Another caller may have stored the value before the lease was taken.
        again = yield Call(lambda: store.find(key, strongly=True, expired=True))
        value = _live_value(store, again)
        is_seen = seen is not None and again is not None and is_same_write(again.head, seen.head)
        if value is not MISSING and not is_seen:
            return value
        return (yield from _compute(store, key, timeout, tags, again, lease))
    finally:
        yield Call(lambda: _release(lease))


def _compute(
    store: CacheStore,
    key: str,
    timeout: float | None,
    tags: Sequence[str],
    seen: Entry | None,
    lease: Lock | None = None,
) -> Steps:
    stamps = yield Call(lambda: store.stamps_for(tags))
    began_at = clock.monotonic()
    value = yield Compute()
    took = clock.monotonic() - began_at
    written = yield Prepare(lambda: store.prepare(key, value, timeout, tags), value)
    if written is None:
        return value
    if store.options.early_refresh:
        written.head[TOOK] = {"N": str(math.ceil(took * 1000))}
    if (yield Call(lambda: _commit(store, key, written, stamps, seen, lease))):
        return value
    # Another value was stored meanwhile: by a set of this key, or by the next owner of the lease.
    others = _live_value(store, (yield Call(lambda: store.find(key, strongly=True))))
    return value if others is MISSING else others


def _commit(
    store: CacheStore,
    key: str,
    written: Written,
    stamps: RawItem,
    seen: Entry | None,
    lease: Lock | None,
) -> bool:
    if lease is not None and not lease.is_ours():
        return False
    return store.commit_new(key, written, stamps, None if seen is None else seen.head)


def _release(lease: Lock) -> None:
    try:
        lease.release()
    except StoreUnavailable as exc:
        logger.warning("The lease of a computation was not released; it ends by itself: %s", exc)


def _live_value(store: CacheStore, found: Entry | None) -> Any:
    return store.value_of(found) if found is not None and is_live(found.head) else MISSING


def _is_due(store: CacheStore, found: Entry | None) -> bool:
    """
    Return whether a value must be computed again: after its expiry, or with ``early_refresh``
    before it, the more likely the longer it took to compute and the nearer its expiry is.

    XFetch: A. Vattani, F. Chierichetti, K. Lowenstein, "Optimal Probabilistic Cache Stampede
    Prevention", PVLDB 8(8), 2015.
    """
    if found is None or not is_live(found.head):
        return True
    beta, head = store.options.early_refresh, found.head
    expiry, took = expiry_of(head), took_of(head)
    if not beta or expiry is None or took is None:
        return False
    ahead = took * beta * -math.log(1.0 - random.random())
    return clock.now_ms() + ahead >= expiry
