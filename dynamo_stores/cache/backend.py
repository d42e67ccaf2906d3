"""Django's cache API over a :class:`~dynamo_stores.stores.CacheStore`, sync and async."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from ..concurrency.steps import PLAIN_TYPES
from ..concurrency.threads import in_thread
from ..conf import DEFAULT_ALIAS
from ..exceptions import StoreUnavailable
from .extras import CacheExtras
from .fallback import all_keys, default_argument, fallback, raise_value_error, values_read
from .options import get_cache_options
from .stampede import StampedeProtection
from .store.codecs import get_codec
from .store.entries import MISSING
from .store.store import CacheStore
from .store.values import Written

P = ParamSpec("P")
R = TypeVar("R")


class DynamoDBCache(StampedeProtection, CacheExtras, BaseCache):
    """
    ``BACKEND`` of ``CACHES``; ``LOCATION`` is an alias of ``DYNAMO_STORES``.

    Creating one opens no connection: client, breaker and codec belong to the process. Methods raise
    StoreUnavailable when DynamoDB cannot answer, or with ``IGNORE_EXCEPTIONS`` return what they
    return for a miss. The ``a*`` methods are as atomic as the others. Their calls run in separate
    threads; values that may read the database when they are serialised are serialised on Django's
    thread-sensitive thread.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._location = location or DEFAULT_ALIAS
        self._options = params.get("OPTIONS") or {}

    @functools.cached_property
    def store(self) -> CacheStore:
        """The cache store. Raises ConfigurationError for wrong ``OPTIONS``, as system checks do."""
        options = get_cache_options(self._options)
        # Raises for unknown names now, and not when the first value is written.
        get_codec(options.serializer, options.compressor, options.compress_over)
        return CacheStore(self._location, prefix=self.key_prefix, options=options)

    @fallback(default_argument)
    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return self.store.get(self._full_key(key, version), default)

    @fallback(returns=None)
    def set(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] | None = None,
        **others: Any,
    ) -> None:
        if others:
            raise _unknown("set", others)
        self.store.set(self._full_key(key, version), value, self._seconds(timeout), tags)

    @fallback(returns=False)
    def add(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] | None = None,
    ) -> bool:
        return self.store.add(self._full_key(key, version), value, self._seconds(timeout), tags)

    @fallback(returns=False)
    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        return self.store.touch(self._full_key(key, version), self._seconds(timeout))

    @fallback(returns=False)
    def delete(self, key: Any, version: int | None = None) -> bool:
        return self.store.delete(self._full_key(key, version))

    @fallback(returns=False)
    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self.store.has_key(self._full_key(key, version))

    @fallback(raise_value_error)
    def incr(
        self,
        key: Any,
        delta: Any = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
        timeout: Any = DEFAULT_TIMEOUT,
    ) -> Any:
        """
        Add ``delta`` to a live number and return the sum; its expiry stays. With
        ``ignore_key_check`` a missing key is created with ``timeout``.

        Raises ValueError if the key is missing.
        """
        if ignore_key_check:
            seconds = self._seconds(timeout)
            return self.store.incr_or_create(self._full_key(key, version), delta, seconds)
        return self.store.incr(self._full_key(key, version), delta)

    @fallback(raise_value_error)
    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Move the value to another version, with its expiry; return that version."""
        return self._move(key, delta, version)

    @fallback(values_read)
    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        return self._get_many(self._full_keys(keys, version))

    @fallback(all_keys)
    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] | None = None,
    ) -> list[Any]:
        full_keys = self._full_keys(data, version)
        values = {key: data[original] for key, original in full_keys.items()}
        return [full_keys[key] for key in self.store.set_many(values, self._seconds(timeout), tags)]

    @fallback(returns=None)
    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        self.store.delete_many(self._full_keys(keys, version))

    @fallback(returns=None)
    def clear(self) -> None:
        self.store.clear()

    @fallback(default_argument)
    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        full_key = self._full_key(key, version)
        value = self.store.peek(full_key)
        if value is MISSING:
            value = await self._in_thread(self.store.get, full_key, default)
        return value

    @fallback(returns=None)
    async def aset(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] | None = None,
        **others: Any,
    ) -> None:
        if others:
            raise _unknown("aset", others)
        full_key = self._full_key(key, version)
        written = await self._prepare(full_key, value, self._seconds(timeout), tags)
        await self._in_thread(self.store.commit, full_key, written)

    @fallback(returns=False)
    async def aadd(
        self,
        key: Any,
        value: Any,
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] | None = None,
    ) -> bool:
        full_key = self._full_key(key, version)
        return await self._in_thread(
            self.store.commit_new,
            full_key,
            await self._prepare(full_key, value, self._seconds(timeout), tags),
        )

    @fallback(returns=False)
    async def atouch(
        self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        full_key = self._full_key(key, version)
        return await self._in_thread(self.store.touch, full_key, self._seconds(timeout))

    @fallback(returns=False)
    async def adelete(self, key: Any, version: int | None = None) -> bool:
        return await self._in_thread(self.store.delete, self._full_key(key, version))

    @fallback(returns=False)
    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return await self._in_thread(self.store.has_key, self._full_key(key, version))

    @fallback(raise_value_error)
    async def aincr(
        self,
        key: Any,
        delta: Any = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
        timeout: Any = DEFAULT_TIMEOUT,
    ) -> Any:
        full_key = self._full_key(key, version)
        if ignore_key_check:
            add = self.store.incr_or_create
            return await self._in_thread(add, full_key, delta, self._seconds(timeout))
        return await self._in_thread(self.store.incr, full_key, delta)

    async def adecr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        return await self.aincr(key, -delta, version)

    @fallback(raise_value_error)
    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """See :meth:`incr_version`. Values from the cache can be serialised in any thread."""
        return await self._in_thread(self._move, key, delta, version)

    async def adecr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return await self.aincr_version(key, -delta, version)

    @fallback(values_read)
    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        return await self._in_thread(self._get_many, self._full_keys(keys, version))

    @fallback(all_keys)
    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] | None = None,
    ) -> list[Any]:
        full_keys = self._full_keys(data, version)
        values = {key: data[original] for key, original in full_keys.items()}
        prepare = self.store.prepare_many
        if all(type(value) in PLAIN_TYPES for value in values.values()):
            written = await self._in_thread(prepare, values, self._seconds(timeout), tags)
        else:
            written = await sync_to_async(prepare)(values, self._seconds(timeout), tags)
        return [full_keys[key] for key in await self._in_thread(self.store.commit_many, written)]

    @fallback(returns=None)
    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        await self._in_thread(self.store.delete_many, self._full_keys(keys, version))

    @fallback(returns=None)
    async def aclear(self) -> None:
        await self._in_thread(self.store.clear)

    def _full_key(self, key: Any, version: int | None) -> str:
        full_key: str = self.make_and_validate_key(key, version=version)
        return full_key

    def _full_keys(self, keys: Iterable[Any], version: int | None) -> dict[str, Any]:
        return {self._full_key(key, version): key for key in keys}

    def _get_many(self, full_keys: Mapping[str, Any]) -> dict[Any, Any]:
        try:
            found = self.store.get_many(full_keys)
        except StoreUnavailable as exc:
            exc.found = {full_keys[key]: value for key, value in (exc.found or {}).items()}
            raise
        return {full_keys[key]: value for key, value in found.items()}

    def _move(self, key: Any, delta: int, version: int | None) -> int:
        old = self.version if version is None else version
        full_key, new = self._full_key(key, old), self._full_key(key, old + delta)
        if not self.store.move(full_key, new):
            raise ValueError(f"Key '{key}' not found")
        return old + delta

    def _seconds(self, timeout: Any) -> float | None:
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        return None if timeout is None else float(timeout)

    async def _prepare(
        self, full_key: str, value: Any, timeout: float | None, tags: Iterable[str] | None
    ) -> Written | None:
        if type(value) in PLAIN_TYPES:
            return self.store.prepare(full_key, value, timeout, tags)
        return await sync_to_async(self.store.prepare)(full_key, value, timeout, tags)

    async def _in_thread(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        return await in_thread(self._location, function, *args, **kwargs)


def _unknown(method: str, arguments: Iterable[str]) -> TypeError:
    name = next(iter(arguments))
    # The name that it has in django-redis.
    hint = f" Use {method.replace('set', 'add')}(): it stores a value if the key is missing."
    return TypeError(f"{method}() has no argument {name!r}.{hint if name == 'nx' else ''}")
