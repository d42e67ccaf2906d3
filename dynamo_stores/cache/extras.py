"""Methods beyond Django's cache API: expiry, patterns of keys, tags, locks."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT, default_key_func
from django.utils.module_loading import import_string

from ..exceptions import ConfigurationError, StoreUnavailable
from .fallback import fallback, no_keys, record_ignored
from .locks import AsyncLock, Lock, LockStore
from .store import patterns
from .store.store import CacheStore
from .store.writer import as_float, expiry_at


class CacheExtras:
    """
    A mixin of the cache backend. Methods are named as in django-redis where they do the same.

    Each method has an async twin with an ``a`` before its name.
    """

    if TYPE_CHECKING:

        @property
        def store(self) -> CacheStore: ...

        key_prefix: str
        version: int
        key_func: Any

        def _full_key(self, key: Any, version: int | None) -> str: ...
        def _seconds(self, timeout: Any) -> float | None: ...

    @fallback(returns=0)
    def ttl(self, key: Any, version: int | None = None) -> int | None:
        """Return the seconds until the key expires, rounded up; None for never, 0 if missing."""
        left = self.pttl(key, version)
        return None if left is None else math.ceil(left / 1000)

    @fallback(returns=0)
    def pttl(self, key: Any, version: int | None = None) -> int | None:
        """Return the milliseconds until the key expires; None for never, 0 if missing."""
        return self.store.ttl(self._full_key(key, version))

    @fallback(returns=False)
    def expire(self, key: Any, timeout: Any, version: int | None = None) -> bool:
        """Let the key expire in ``timeout`` seconds; return whether it existed."""
        return self.store.touch(self._full_key(key, version), self._seconds(timeout))

    @fallback(returns=False)
    def expire_at(self, key: Any, when: datetime | float, version: int | None = None) -> bool:
        """Let the key expire at ``when`` (aware, or seconds since the epoch); False if missing."""
        return self.store.touch_until(self._full_key(key, version), _expiry_at(when))

    def pexpire(self, key: Any, timeout: Any, version: int | None = None) -> bool:
        """Let the key expire in ``timeout`` milliseconds; return whether it existed."""
        return self.expire(key, _in_seconds(timeout), version)

    def pexpire_at(self, key: Any, when: datetime | int, version: int | None = None) -> bool:
        """Let the key expire at ``when`` (aware, or ms since the epoch); False if missing."""
        return self.expire_at(key, _moment_of(when), version)

    @fallback(returns=False)
    def persist(self, key: Any, version: int | None = None) -> bool:
        """Let the key never expire; return whether it existed."""
        return self.store.touch(self._full_key(key, version), None)

    def iter_keys(
        self, pattern: str, itersize: int | None = None, version: int | None = None
    ) -> Iterator[str]:
        """
        Yield the live keys of ``version`` that match the glob ``pattern``, in no order.

        ``itersize`` is the number of items per page (None: one megabyte). Costs a Query of the
        expiry index, or without the index a Scan of the whole table. With ``IGNORE_EXCEPTIONS`` an
        unavailable store ends it.
        """
        try:
            yield from self._iter_keys(pattern, itersize, version)
        except StoreUnavailable as exc:
            record_ignored(self.store, "iter_keys", exc)

    def _iter_keys(self, pattern: str, itersize: int | None, version: int | None) -> Iterator[str]:
        full_pattern = self.make_pattern(pattern, version)
        for full_key in self.store.iter_keys(full_pattern, page_size=itersize):
            yield self.reverse_key(full_key)

    @fallback(no_keys)
    def keys(self, pattern: str, version: int | None = None) -> list[str]:
        """Return the keys that :meth:`iter_keys` yields, as a list."""
        return list(self._iter_keys(pattern, None, version))

    @fallback(returns=0)
    def delete_pattern(
        self, pattern: str, version: int | None = None, itersize: int | None = None
    ) -> int:
        """Delete the keys of ``version`` that match ``pattern``; return their number."""
        full_pattern = self.make_pattern(pattern, version)
        return self.store.delete_pattern(full_pattern, page_size=itersize)

    @fallback(returns=None)
    def invalidate_tags(self, tags: Iterable[str]) -> None:
        """
        Make all entries with one of ``tags`` invalid, in every version of this prefix. One write
        per tag. Other processes see it within ``GENERATION_TIMEOUT``, for values in their near
        tier within ``LOCAL_TIMEOUT``.
        """
        self.store.invalidate_tags(tags)

    def make_pattern(self, pattern: str, version: int | None = None) -> str:
        """Return the pattern of full keys; prefix and version match literally."""
        own = self.version if version is None else version
        return str(self.key_func(pattern, patterns.escape(self.key_prefix), own))

    def reverse_key(self, full_key: str) -> str:
        """Return the key from which Django's key function made ``full_key``."""
        function = self.store.options.reverse_key_function
        if function is not None:
            return str(import_string(function)(full_key))
        if self.key_func is not default_key_func:
            raise ConfigurationError(
                "This cache has a KEY_FUNCTION of its own, whose keys cannot be reversed without "
                "OPTIONS['REVERSE_KEY_FUNCTION']. Set it to the dotted path of a function that "
                "returns the key for a full key."
            )
        return full_key[len(self.key_prefix) + 1 :].partition(":")[2]

    def lock(
        self,
        key: Any,
        timeout: float = 60.0,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        renew: bool = True,
        version: int | None = None,
        *,
        sleep: float = 1.0,
        thread_local: bool = False,
    ) -> Lock:
        """
        Return a lock shared by processes, not taken yet: a context manager with ``acquire``,
        ``release``, ``extend``, ``locked`` and ``fence``.

        With ``renew``, its lease of ``timeout`` seconds is renewed in the background while the lock
        is held. It is not a cache key: ``keys``, ``has_key`` and ``clear`` do not see it. It
        belongs to the object, not to a thread. Attempts to take it are ``sleep`` seconds apart at
        most.

        Raises ConfigurationError if ``thread_local`` is true.
        """
        if thread_local:
            raise ConfigurationError(
                "thread_local is True; expected False: a lock belongs to its object, not to a "
                "thread. Make one object per thread instead."
            )
        return Lock(
            self._locks,
            self._full_key(key, version),
            timeout,
            blocking=blocking,
            blocking_timeout=blocking_timeout,
            renew=renew,
            sleep=sleep,
        )

    def alock(
        self,
        key: Any,
        timeout: float = 60.0,
        blocking: bool = True,
        blocking_timeout: float | None = None,
        renew: bool = True,
        version: int | None = None,
        *,
        sleep: float = 1.0,
    ) -> AsyncLock:
        """Return the async twin of :meth:`lock`: ``async with``, and methods to await."""
        return AsyncLock(
            self._locks,
            self._full_key(key, version),
            timeout,
            blocking=blocking,
            blocking_timeout=blocking_timeout,
            renew=renew,
            sleep=sleep,
        )

    @property
    def _locks(self) -> LockStore:
        store = self.store
        return LockStore(store.using, prefix=store.prefix, options=store.options)

    @fallback(returns=0)
    async def attl(self, key: Any, version: int | None = None) -> int | None:
        left = await self.apttl(key, version)
        return None if left is None else math.ceil(left / 1000)

    @fallback(returns=0)
    async def apttl(self, key: Any, version: int | None = None) -> int | None:
        return await self.store.attl(self._full_key(key, version))

    @fallback(returns=False)
    async def aexpire(self, key: Any, timeout: Any, version: int | None = None) -> bool:
        return await self.store.atouch(self._full_key(key, version), self._seconds(timeout))

    @fallback(returns=False)
    async def aexpire_at(
        self, key: Any, when: datetime | float, version: int | None = None
    ) -> bool:
        return await self.store.atouch_until(self._full_key(key, version), _expiry_at(when))

    async def apexpire(self, key: Any, timeout: Any, version: int | None = None) -> bool:
        return await self.aexpire(key, _in_seconds(timeout), version)

    async def apexpire_at(self, key: Any, when: datetime | int, version: int | None = None) -> bool:
        return await self.aexpire_at(key, _moment_of(when), version)

    @fallback(returns=False)
    async def apersist(self, key: Any, version: int | None = None) -> bool:
        return await self.store.atouch(self._full_key(key, version), None)

    async def aiter_keys(
        self, pattern: str, itersize: int | None = None, version: int | None = None
    ) -> AsyncIterator[str]:
        try:
            async for key in self._aiter_keys(pattern, itersize, version):
                yield key
        except StoreUnavailable as exc:
            record_ignored(self.store, "aiter_keys", exc)

    async def _aiter_keys(
        self, pattern: str, itersize: int | None, version: int | None
    ) -> AsyncIterator[str]:
        full_pattern = self.make_pattern(pattern, version)
        async for full_key in self.store.aiter_keys(full_pattern, page_size=itersize):
            yield self.reverse_key(full_key)

    @fallback(no_keys)
    async def akeys(self, pattern: str, version: int | None = None) -> list[str]:
        return [key async for key in self._aiter_keys(pattern, None, version)]

    @fallback(returns=0)
    async def adelete_pattern(
        self, pattern: str, version: int | None = None, itersize: int | None = None
    ) -> int:
        full_pattern = self.make_pattern(pattern, version)
        return await self.store.adelete_pattern(full_pattern, page_size=itersize)

    @fallback(returns=None)
    async def ainvalidate_tags(self, tags: Iterable[str]) -> None:
        await self.store.ainvalidate_tags(tags)


def _expiry_at(when: datetime | float) -> int | None:
    return expiry_at(when.timestamp() if isinstance(when, datetime) else when)


def _in_seconds(timeout: Any) -> Any:
    return timeout if timeout is DEFAULT_TIMEOUT else as_float(timeout) / 1000


def _moment_of(when: datetime | int) -> datetime | float:
    return when if isinstance(when, datetime) else as_float(when) / 1000
