"""``get_or_set``, sync and async, with protection against stampedes."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from .. import clock
from ..concurrency.steps import Call, Computation, Compute, Prepare, Steps, Wait, arun, run
from ..exceptions import StoreUnavailable
from ..leases import Waits
from ..models import RawItem
from .fallback import record_ignored
from .locks import Holding, LeaseStore
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
# How many leases callers wait for a value, without STAMPEDE_WAIT.
_LEASES = 3
# What this task or thread computes: alias, prefix and key.
_computing: ContextVar[frozenset[tuple[str, str, str]]] = ContextVar(
    "dynamo_stores_computing", default=frozenset()
)


def get_or_compute(
    store: CacheStore, key: str, timeout: float | None, tags: Sequence[str]
) -> Steps:
    """
    Return the steps that return the value of ``key``, computing it if it is missing.

    With ``stampede_lease`` one caller of all processes computes, under a lease that is renewed
    meanwhile; the others get the value that expired less than ``stale_timeout`` seconds ago, or
    wait for ``stampede_wait`` seconds at most, and then compute. So does a computation that asks
    for its own key. The error of a computation is raised for its caller only; another caller then
    computes.
    """
    found = yield Call(lambda: store.find(key, expired=True))
    store.count_lookups(1, found is not None and is_live(found.head))
    is_alone = not store.options.stampede_lease or _name(store, key) in _computing.get()
    if is_alone or (timeout is not None and timeout <= 0):
        value = _live_value(store, found)
        if value is MISSING:
            value = yield from _compute(store, key, timeout, tags, found)
        return value
    leases = LeaseStore(store.using, prefix=store.prefix, options=store.options)
    holding = Holding(leases, key, store.options.stampede_lease)
    waits, until = Waits(_FIRST_WAIT, _LONGEST_WAIT), clock.monotonic() + _longest_wait(store)
    value = store.value_of(found)
    try:
        while value is MISSING or _is_due(store, found):
            left = yield Call(holding.take)
            if left is None:
                return (yield from _compute_under(holding, store, key, timeout, tags, found))
            if value is not MISSING and found is not None and store.is_kept(found.head):
                return value
            value = MISSING
            while value is MISSING and left > 0:
                remaining = until - clock.monotonic()
                if remaining <= 0:
                    return (yield from _compute(store, key, timeout, tags, found))
                yield Wait(min(waits.next(left), remaining))
                found, value, left = yield Call(lambda: _read_again(store, leases, key))
            if value is not MISSING:
                return value
        return value
    finally:
        holding.give_up()


def _name(store: CacheStore, key: str) -> tuple[str, str, str]:
    return store.using, store.prefix, key


def _longest_wait(store: CacheStore) -> float:
    wait, lease = store.options.stampede_wait, store.options.stampede_lease
    return lease * _LEASES if wait is None else wait


def _read_again(store: CacheStore, leases: LeaseStore, key: str) -> tuple[Entry | None, Any, float]:
    found = store.find(key, strongly=True, expired=True)
    value = store.value_of(found)
    return found, value, leases.seconds_left(key) if value is MISSING else 0.0


def _compute_under(
    lease: Holding,
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
    lease: Holding | None = None,
) -> Steps:
    stamps = yield Call(lambda: store.stamps_for(tags))
    began_at = clock.monotonic()
    token = _computing.set(_computing.get() | {_name(store, key)})
    try:
        value = yield Compute()
    finally:
        _computing.reset(token)
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
    lease: Holding | None,
) -> bool:
    if lease is not None and not lease.is_held():
        return False
    return store.commit_new(key, written, stamps, None if seen is None else seen.head)


def _release(lease: Holding) -> None:
    try:
        lease.release()
    except StoreUnavailable as exc:
        logger.warning("The lease of a computation was not released; tried again: %s", exc)


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
