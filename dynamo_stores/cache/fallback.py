"""What cache methods return with ``IGNORE_EXCEPTIONS`` while DynamoDB is unavailable."""

from __future__ import annotations

import functools
import inspect
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..exceptions import CircuitBreakerOpenError, StoreUnavailable

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

# How many times this process returned the fallback, by alias and method.
ignored_exceptions: Counter[tuple[str, str]] = Counter()


def fallback(returns: Any) -> Callable[[F], F]:
    """
    With ``IGNORE_EXCEPTIONS``, return ``returns`` from the method instead of raising
    StoreUnavailable. A function is called with the error and the method's arguments.
    """
    result = returns if callable(returns) else lambda exc, *args, **kwargs: returns

    def decorate(method: F) -> F:
        @functools.wraps(method)
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except StoreUnavailable as exc:
                record_ignored(self.store, method.__name__, exc)
                return result(exc, *args, **kwargs)

        @functools.wraps(method)
        async def async_wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return await method(self, *args, **kwargs)
            except StoreUnavailable as exc:
                record_ignored(self.store, method.__name__, exc)
                return result(exc, *args, **kwargs)

        chosen: Any = async_wrapper if inspect.iscoroutinefunction(method) else wrapper
        return chosen  # type: ignore[no-any-return]

    return decorate


def default_argument(
    exc: StoreUnavailable, key: Any, default: Any = None, version: Any = None
) -> Any:
    """Return the caller's ``default``."""
    return default


def values_read(exc: StoreUnavailable, *args: Any, **kwargs: Any) -> dict[Any, Any]:
    """Return the values that were read before the error."""
    return dict(exc.found or {})


def all_keys(exc: StoreUnavailable, data: Mapping[Any, Any], *args: Any, **kw: Any) -> list[Any]:
    """Return every key: none of them was written."""
    return list(data)


def no_keys(exc: StoreUnavailable, *args: Any, **kwargs: Any) -> list[Any]:
    """Return an empty list."""
    return []


def raise_value_error(exc: StoreUnavailable, *args: Any, **kwargs: Any) -> Any:
    """Raise ValueError, as Django's cache does for a missing key."""
    raise ValueError("The key cannot be read: the cache is unavailable.") from exc


def record_ignored(store: Any, method: str, exc: StoreUnavailable) -> None:
    """Log and count ``exc``; raise it unless ``IGNORE_EXCEPTIONS`` is set."""
    if not store.options.ignore_exceptions:
        raise exc
    ignored_exceptions[store.using, method] += 1
    # The breaker logs once that it opened; its refusals are too many for a line each.
    level = logging.DEBUG if isinstance(exc, CircuitBreakerOpenError) else logging.WARNING
    logger.log(level, "cache.%s returned its fallback; DynamoDB is unavailable: %s", method, exc)
