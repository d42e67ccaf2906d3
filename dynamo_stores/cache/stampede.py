"""``get_or_set``, sync and async, with protection against stampedes."""

from __future__ import annotations

import contextlib
import logging
import math
import random
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from .. import clock
from ..calls.counters import get_counters
from ..concurrency.effects import Computation, Prepare, Wait, arun, run
from ..exceptions import StoreUnavailable
from ..keys import lease as lease_key
from ..leases import Waits
from .fallback import record_ignored
from .locks import Holding, LeaseItems
from .store.invalidation import checked_tags, is_live
from .store.items import TOOK, expiry_of, took_of
from .store.near import Entry
from .store.reader import MISSING, Reader, is_same_write
from .store.store import CacheStore


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
        return run(self._get_or_set(key, default, timeout, version, tags))

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
        return await arun(self._get_or_set(key, default, timeout, version, tags))

    async def _get_or_set(
        self,
        key: Any,
        default: Any,
        timeout: Any,
        version: int | None,
        tags: Iterable[str] | None,
    ) -> Any:
        store, computation = self.store, Computation(default)
        full_key, seconds = self._full_key(key, version), self._seconds(timeout)
        try:
            return await get_or_compute(store, computation, full_key, seconds, checked_tags(tags))
        except StoreUnavailable as exc:
            if exc is computation.error:
                raise
            record_ignored(store, "get_or_set", exc)
            return await computation


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


async def get_or_compute(
    store: CacheStore,
    computation: Computation,
    key: str,
    timeout: float | None,
    tags: Sequence[str],
) -> Any:
    """
    Return the value of ``key``, computing it if it is missing. A verb.

    With ``stampede_lease`` one caller of all processes computes, under a lease that is renewed
    meanwhile; the others get the value that expired less than ``stale_timeout`` seconds ago, or
    wait for ``stampede_wait`` seconds at most, and then compute. So does a computation that asks
    for its own key. The error of a computation is raised for its caller only; another caller then
    computes.
    """
    reader = store.core.reader
    found = await reader.find(key, expired=True)
    is_hit = found is not None and is_live(found.head)
    store.core.lookups.add(is_hit, not is_hit)
    compute = _Computing(store, computation, key, timeout, tags)
    is_alone = not store.options.stampede_lease or compute.name in _computing.get()
    if is_alone or (timeout is not None and timeout <= 0):
        value = _live_value(reader, found)
        return await compute.alone(found) if value is MISSING else value
    leases = LeaseItems(store.using, store.prefix, store.options, lease_key)
    holding = Holding(leases, key, store.options.stampede_lease)
    waits, until = Waits(_FIRST_WAIT, _LONGEST_WAIT), clock.monotonic() + _longest_wait(store)
    value, has_waited = reader.value_of(found), False
    try:
        while value is MISSING or _is_due(store, found):
            left = await holding.take()
            if left is None:
                return await compute.under(holding, found)
            if value is not MISSING and found is not None and reader.is_kept(found.head):
                return value
            value = MISSING
            while value is MISSING and left > 0:
                remaining = until - clock.monotonic()
                if remaining <= 0:
                    return await compute.alone(found)
                if not has_waited:
                    has_waited = True
                    get_counters(store.using).add("waits", "computation")
                await Wait(min(waits.next(left), remaining))
                found = await reader.find(key, strongly=True, expired=True)
                value = reader.value_of(found)
                left = await leases.seconds_left(key) if value is MISSING else 0.0
            if value is not MISSING:
                return value
        return value
    finally:
        holding.give_up()


def _longest_wait(store: CacheStore) -> float:
    wait, lease = store.options.stampede_wait, store.options.stampede_lease
    return lease * _LEASES if wait is None else wait


class _Computing:
    """Computes the value of a key and stores it. Its coroutines are verbs."""

    def __init__(
        self,
        store: CacheStore,
        computation: Computation,
        key: str,
        timeout: float | None,
        tags: Sequence[str],
    ) -> None:
        self.name = store.using, store.prefix, key
        self._core = store.core
        self._early_refresh = store.options.early_refresh
        self._computation = computation
        self._key = key
        self._timeout = timeout
        self._tags = tags

    async def under(self, lease: Holding, seen: Entry | None) -> Any:
        """Compute and store the value under a lease, and release that."""
        reader = self._core.reader
        try:
            # Another caller may have stored the value before the lease was taken.
            again = await reader.find(self._key, strongly=True, expired=True)
            value = _live_value(reader, again)
            is_seen = (
                seen is not None and again is not None and is_same_write(again.head, seen.head)
            )
            if value is not MISSING and not is_seen:
                return value
            return await self.alone(again, lease)
        finally:
            try:
                await lease.release()
            except StoreUnavailable as exc:
                logger.warning("The lease of a computation was not released; tried again: %s", exc)

    async def alone(self, seen: Entry | None, lease: Holding | None = None) -> Any:
        """Compute the value, and store it if the key still has what was ``seen``."""
        core, key, tags = self._core, self._key, self._tags
        stamps = await core.validity.stamps_for(tags)
        began_at = clock.monotonic()
        token = _computing.set(_computing.get() | {self.name})
        try:
            value = await self._computation
        finally:
            # A task's context is not that of who drops the task.
            with contextlib.suppress(ValueError):
                _computing.reset(token)
        took = clock.monotonic() - began_at
        timeout, prepare = self._timeout, core.writer.prepare
        written = await Prepare(lambda: prepare(key, value, timeout, tags), value)
        if written is None:
            return value
        if self._early_refresh:
            written.head[TOOK] = {"N": str(math.ceil(took * 1000))}
        if lease is None or await lease.is_held():
            old = None if seen is None else seen.head
            if await core.writer.commit_new(key, written, stamps, old):
                return value
        # Another value was stored meanwhile: by a set of this key, or by the next owner of the
        # lease.
        others = _live_value(core.reader, await core.reader.find(key, strongly=True))
        return value if others is MISSING else others


def _live_value(reader: Reader, found: Entry | None) -> Any:
    return reader.value_of(found) if found is not None and is_live(found.head) else MISSING


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
