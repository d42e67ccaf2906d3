"""Django's cache API over a :class:`~dynamo_stores.stores.CacheStore`, sync and async."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.core.cache.backends.base import (
    DEFAULT_TIMEOUT,
    MEMCACHE_MAX_KEY_LENGTH,
    BaseCache,
)

from ..conf import DEFAULT_ALIAS
from ..exceptions import StoreUnavailable
from .extras import CacheExtras
from .fallback import all_keys, default_argument, fallback, raise_value_error, values_read
from .options import get_cache_options
from .stampede import StampedeProtection
from .store.codecs import get_codec
from .store.store import CacheStore
from .store.writer import as_float


class DynamoDBCache(StampedeProtection, CacheExtras, BaseCache):
    """
    ``BACKEND`` of ``CACHES``; ``LOCATION`` is an alias of ``DYNAMO_STORES``.

    Creating one opens no connection: client, breaker and codec belong to the process. Methods raise
    StoreUnavailable when DynamoDB cannot answer, or with ``IGNORE_EXCEPTIONS`` return what they
    return for a miss. The ``a*`` methods are as atomic as the others. Values that may read the
    database when they are serialised are serialised on Django's thread-sensitive thread then.
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
        """Return the live value of ``key``, or ``default``."""
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
        """
        Store ``value`` for ``timeout`` seconds, for ever with None; ``timeout=0`` deletes the key.

        ``tags`` are at most 50 names by which :meth:`invalidate_tags` ends the entry. Raises
        ItemTooLargeError for a value over ``MAX_VALUE_BYTES``.
        """
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
        """Store ``value`` if there is no live one; return whether it was stored. Atomic."""
        return self.store.add(self._full_key(key, version), value, self._seconds(timeout), tags)

    @fallback(returns=False)
    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Set the expiry of a live entry; return whether there is one."""
        return self.store.touch(self._full_key(key, version), self._seconds(timeout))

    @fallback(returns=False)
    def delete(self, key: Any, version: int | None = None) -> bool:
        """Delete the entry; return whether there was a live one."""
        return self.store.delete(self._full_key(key, version))

    @fallback(returns=False)
    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Return whether there is a live entry."""
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
        old = self.version if version is None else version
        full_key, new = self._full_key(key, old), self._full_key(key, old + delta)
        return _moved(key, old + delta, self.store.move(full_key, new))

    @fallback(values_read)
    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return the live values by their keys, with one call for 100 keys."""
        full_keys = self._full_keys(keys, version)
        with _original_keys(full_keys):
            found = self.store.get_many(full_keys)
        return {full_keys[key]: value for key, value in found.items()}

    @fallback(all_keys)
    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
        *,
        tags: Iterable[str] | None = None,
    ) -> list[Any]:
        """
        Store the values of ``data``, with one call for 25 keys.

        Return the keys that a throttled table did not accept before the deadline.
        """
        full_keys = self._full_keys(data, version)
        values = {key: data[original] for key, original in full_keys.items()}
        failed = self.store.set_many(values, self._seconds(timeout), tags)
        return [full_keys[key] for key in failed]

    @fallback(returns=None)
    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Delete the entries, with one call for 25 keys."""
        self.store.delete_many(self._full_keys(keys, version))

    @fallback(returns=None)
    def clear(self) -> None:
        """
        Delete the entries of this ``KEY_PREFIX``, in all versions, and nothing else: by a Scan of
        the table, or by one write with ``CLEAR: "generation"``.
        """
        self.store.clear()

    @fallback(default_argument)
    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return await self.store.aget(self._full_key(key, version), default)

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
        await self.store.aset(self._full_key(key, version), value, self._seconds(timeout), tags)

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
        full_key, seconds = self._full_key(key, version), self._seconds(timeout)
        return await self.store.aadd(full_key, value, seconds, tags)

    @fallback(returns=False)
    async def atouch(
        self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        return await self.store.atouch(self._full_key(key, version), self._seconds(timeout))

    @fallback(returns=False)
    async def adelete(self, key: Any, version: int | None = None) -> bool:
        return await self.store.adelete(self._full_key(key, version))

    @fallback(returns=False)
    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return await self.store.ahas_key(self._full_key(key, version))

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
        if ignore_key_check:
            seconds = self._seconds(timeout)
            return await self.store.aincr_or_create(self._full_key(key, version), delta, seconds)
        return await self.store.aincr(self._full_key(key, version), delta)

    async def adecr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        return await self.aincr(key, -delta, version)

    @fallback(raise_value_error)
    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        old = self.version if version is None else version
        full_key, new = self._full_key(key, old), self._full_key(key, old + delta)
        return _moved(key, old + delta, await self.store.amove(full_key, new))

    async def adecr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        return await self.aincr_version(key, -delta, version)

    @fallback(values_read)
    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        full_keys = self._full_keys(keys, version)
        with _original_keys(full_keys):
            found = await self.store.aget_many(full_keys)
        return {full_keys[key]: value for key, value in found.items()}

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
        failed = await self.store.aset_many(values, self._seconds(timeout), tags)
        return [full_keys[key] for key in failed]

    @fallback(returns=None)
    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        await self.store.adelete_many(self._full_keys(keys, version))

    @fallback(returns=None)
    async def aclear(self) -> None:
        await self.store.aclear()

    def validate_key(self, key: Any) -> None:
        """Warn of keys that Memcached would refuse, as Django's caches do."""
        # Django looks at each character.
        if len(key) > MEMCACHE_MAX_KEY_LENGTH or " " in key or not key.isprintable():
            super().validate_key(key)

    def _full_key(self, key: Any, version: int | None) -> str:
        full_key: str = self.make_and_validate_key(key, version=version)
        return full_key

    def _full_keys(self, keys: Iterable[Any], version: int | None) -> dict[str, Any]:
        return {self._full_key(key, version): key for key in keys}

    def _seconds(self, timeout: Any) -> float | None:
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        return None if timeout is None else as_float(timeout)


@contextlib.contextmanager
def _original_keys(full_keys: Mapping[str, Any]) -> Iterator[None]:
    """Let a StoreUnavailable have the values that were read under the caller's keys."""
    try:
        yield
    except StoreUnavailable as exc:
        exc.found = {full_keys[key]: value for key, value in (exc.found or {}).items()}
        raise


def _moved(key: Any, version: int, has_moved: bool) -> int:
    if not has_moved:
        raise ValueError(f"Key '{key}' not found")
    return version


def _unknown(method: str, arguments: Iterable[str]) -> TypeError:
    name = next(iter(arguments))
    # The name that it has in django-redis.
    hint = f" Use {method.replace('set', 'add')}(): it stores a value if the key is missing."
    return TypeError(f"{method}() has no argument {name!r}.{hint if name == 'nx' else ''}")
