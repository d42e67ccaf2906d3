"""Django's cache API, spoken over a :class:`~dynamo_stores.stores.CacheStore`."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache

from .conf import DEFAULT_ALIAS, get_cache_options
from .exceptions import CircuitBreakerOpenError, StoreUnavailable
from .stores import CacheStore

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


def _miss_when_unavailable(instead: Callable[..., Any]) -> Callable[[F], F]:
    """With ``IGNORE_EXCEPTIONS``, answer ``instead`` (of the error and the arguments)."""

    def decorate(method: F) -> F:
        @functools.wraps(method)
        def wrapper(self: DynamoDBCache, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except StoreUnavailable as exc:
                if not self.store.options.ignore_exceptions:
                    raise
                # The breaker has said that it opened; what it refuses is not worth a line each.
                level = (
                    logging.DEBUG if isinstance(exc, CircuitBreakerOpenError) else logging.WARNING
                )
                logger.log(
                    level, "Cache %s was answered without DynamoDB: %s", method.__name__, exc
                )
                return instead(exc, *args, **kwargs)

        return wrapper  # type: ignore[return-value]

    return decorate


def _nothing(*args: Any, **kwargs: Any) -> None:
    return None


def _false(*args: Any, **kwargs: Any) -> bool:
    return False


def _missing_key(exc: StoreUnavailable, *args: Any, **kwargs: Any) -> Any:
    raise ValueError("The key cannot be found: the cache is unavailable.") from exc


class DynamoDBCache(BaseCache):
    """
    ``BACKEND`` of ``CACHES``; ``LOCATION`` is an alias of ``DYNAMO_STORES``.

    Making one opens nothing: client, breaker and codec belong to the process. Methods raise
    StoreUnavailable when DynamoDB cannot answer, or answer as for a miss with
    ``IGNORE_EXCEPTIONS``.
    """

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        self._location = location or DEFAULT_ALIAS
        self._options = params.get("OPTIONS") or {}

    @functools.cached_property
    def store(self) -> CacheStore:
        """The store beneath. Wrong ``OPTIONS`` raise here, so that system checks can name them."""
        options = get_cache_options(self._options)
        return CacheStore(self._location, prefix=self.key_prefix, options=options)

    @_miss_when_unavailable(lambda exc, key, default=None, version=None: default)
    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return self.store.get(self.make_and_validate_key(key, version=version), default)

    @_miss_when_unavailable(_nothing)
    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        made = self.make_and_validate_key(key, version=version)
        self.store.set(made, value, self._seconds(timeout))

    @_miss_when_unavailable(_false)
    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        made = self.make_and_validate_key(key, version=version)
        return self.store.add(made, value, self._seconds(timeout))

    @_miss_when_unavailable(_false)
    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        made = self.make_and_validate_key(key, version=version)
        return self.store.touch(made, self._seconds(timeout))

    @_miss_when_unavailable(_false)
    def delete(self, key: Any, version: int | None = None) -> bool:
        return self.store.delete(self.make_and_validate_key(key, version=version))

    @_miss_when_unavailable(_false)
    def has_key(self, key: Any, version: int | None = None) -> bool:
        return self.store.has_key(self.make_and_validate_key(key, version=version))

    @_miss_when_unavailable(_missing_key)
    def incr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        return self.store.incr(self.make_and_validate_key(key, version=version), delta)

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        made = {self.make_and_validate_key(key, version=version): key for key in keys}
        try:
            found = self.store.get_many(made)
        except StoreUnavailable as exc:
            if not self.store.options.ignore_exceptions:
                raise
            logger.warning("Cache get_many was answered without all of DynamoDB: %s", exc)
            found = getattr(exc, "found", {})
        return {made[key]: value for key, value in found.items()}

    @_miss_when_unavailable(lambda exc, data, timeout=None, version=None: list(data))
    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        made = {self.make_and_validate_key(key, version=version): key for key in data}
        values = {key: data[original] for key, original in made.items()}
        return [made[key] for key in self.store.set_many(values, self._seconds(timeout))]

    @_miss_when_unavailable(_nothing)
    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        self.store.delete_many([self.make_and_validate_key(key, version=version) for key in keys])

    @_miss_when_unavailable(_nothing)
    def clear(self) -> None:
        self.store.clear()

    async def aget(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        return await _in_any_thread(self.get)(key, default, version)

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        return await _in_any_thread(self.has_key)(key, version)

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        return await _in_any_thread(self.get_many)(keys, version)

    async def aincr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        return await sync_to_async(self.incr)(key, delta, version)

    async def adecr(self, key: Any, delta: Any = 1, version: int | None = None) -> Any:
        return await sync_to_async(self.decr)(key, delta, version)

    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        return await sync_to_async(self.set_many)(data, timeout, version)

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        await _in_any_thread(self.delete_many)(keys, version)

    def _seconds(self, timeout: Any) -> float | None:
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        return None if timeout is None else float(timeout)


def _in_any_thread(method: Callable[P, R]) -> Callable[P, Awaitable[R]]:
    # Writes stay on the thread-sensitive thread: pickling a lazy queryset reads the database.
    return sync_to_async(method, thread_sensitive=False)
