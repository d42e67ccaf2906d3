"""``@cached``: keeps the results of a function in the cache."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.core.cache import caches
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from ..exceptions import ConfigurationError
from ..key_templates import key_maker, with_defaults
from .stampede import StampedeProtection

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
_MISSING = object()


class CachedFunction(Protocol[P, R_co]):
    """A function under :func:`cached`."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of a call with these arguments."""

    def __get__(self, instance: object, owner: type | None = None) -> Callable[..., R_co]:
        """Return a method, as for other functions in classes."""


def cached(
    timeout: Any = DEFAULT_TIMEOUT,
    *,
    key: str | Callable[..., str],
    cache: str = "default",
    version: int | None = None,
    tags: Iterable[str] | Callable[..., Iterable[str]] | None = None,
) -> Callable[[Callable[P, R_co]], CachedFunction[P, R_co]]:
    """
    Keep the function's results for ``timeout`` seconds under ``key``, in the cache ``cache``.

    ``key`` and each of ``tags`` is a template of the function's parameters
    (``"profile:{user.pk}"``). Instead, ``key``, or ``tags`` as a whole, may be a function of the
    same arguments, with the defaults of those that a call leaves out. The function may be a
    coroutine function. With ``STAMPEDE_LEASE`` one of all callers computes
    (:meth:`DynamoDBCache.get_or_set`). ``function.cache_key(…)`` returns the key of a call, to
    delete it. Raises ConfigurationError if a template names no parameter, or none of the
    function's, or if ``timeout`` is no number of seconds.
    """
    is_number = isinstance(timeout, int | float) and not isinstance(timeout, bool)
    if not (timeout is DEFAULT_TIMEOUT or timeout is None or is_number):
        raise ConfigurationError(
            f"timeout of @cached is {timeout!r}; expected seconds, or None for a value that never "
            "expires."
        )

    def decorate(function: Callable[P, R_co]) -> CachedFunction[P, R_co]:
        signature = inspect.signature(function)
        make_key = key_maker(key, signature)
        make_tags = _tags_maker(tags, signature)

        def arguments(args: Any, kwargs: Any) -> tuple[str, dict[str, Any]]:
            found = make_tags(*args, **kwargs)
            extra = {} if found is None else {"tags": list(found)}
            return make_key(*args, **kwargs), extra

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            cache_key, extra = arguments(args, kwargs)
            compute = functools.partial(function, *args, **kwargs)
            return caches[cache].get_or_set(cache_key, compute, timeout, version, **extra)

        @functools.wraps(function)
        async def async_wrapper(*args: Any, **kwargs: Any) -> Any:
            cache_key, extra = arguments(args, kwargs)
            backend = caches[cache]
            compute: Any = functools.partial(function, *args, **kwargs)
            if isinstance(backend, StampedeProtection):
                return await backend.aget_or_set(cache_key, compute, timeout, version, **extra)
            # Django's own aget_or_set would store the coroutine.
            value = await backend.aget(cache_key, _MISSING, version)
            if value is _MISSING:
                value = await compute()
                await backend.aset(cache_key, value, timeout, version)
            return value

        chosen: Any = async_wrapper if iscoroutinefunction(function) else wrapper
        chosen.cache_key = make_key
        return cast(CachedFunction[P, R_co], chosen)

    return decorate


def _tags_maker(
    tags: Iterable[str] | Callable[..., Iterable[str]] | None, signature: inspect.Signature
) -> Callable[..., Iterable[str] | None]:
    if tags is None:
        return lambda *args, **kwargs: None
    if callable(tags):
        return with_defaults(tags, signature)
    if isinstance(tags, str):
        raise ConfigurationError(f"tags is the string {tags!r}; expected a list of templates.")
    makers = [key_maker(tag, signature, needs_parameters=False) for tag in tags]
    return lambda *args, **kwargs: [make(*args, **kwargs) for make in makers]
