"""What the cache answers with ``IGNORE_EXCEPTIONS`` when DynamoDB cannot: as for a miss."""

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

# How often this process answered as for a miss because of IGNORE_EXCEPTIONS, by alias and method.
ignored_exceptions: Counter[tuple[str, str]] = Counter()


def miss_when_unavailable(instead: Callable[..., Any]) -> Callable[[F], F]:
    """With ``IGNORE_EXCEPTIONS``, answer ``instead`` (of the error and the arguments)."""

    def decorate(method: F) -> F:
        @functools.wraps(method)
        def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return method(self, *args, **kwargs)
            except StoreUnavailable as exc:
                note(self.store, method.__name__, exc)
                return instead(exc, *args, **kwargs)

        @functools.wraps(method)
        async def async_wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return await method(self, *args, **kwargs)
            except StoreUnavailable as exc:
                note(self.store, method.__name__, exc)
                return instead(exc, *args, **kwargs)

        chosen: Any = async_wrapper if inspect.iscoroutinefunction(method) else wrapper
        return chosen  # type: ignore[no-any-return]

    return decorate


def default(exc: StoreUnavailable, key: Any, default: Any = None, version: Any = None) -> Any:
    return default


def found(exc: StoreUnavailable, *args: Any, **kwargs: Any) -> dict[Any, Any]:
    return dict(exc.found or {})


def all_keys(exc: StoreUnavailable, data: Mapping[Any, Any], *args: Any, **kw: Any) -> list[Any]:
    return list(data)


def nothing(*args: Any, **kwargs: Any) -> None:
    return None


def false(*args: Any, **kwargs: Any) -> bool:
    return False


def missing_key(exc: StoreUnavailable, *args: Any, **kwargs: Any) -> Any:
    raise ValueError("The key cannot be found: the cache is unavailable.") from exc


def empty(*args: Any, **kwargs: Any) -> list[Any]:
    """No keys."""
    return []


def zero(*args: Any, **kwargs: Any) -> int:
    """Nothing left, nothing deleted."""
    return 0


def note(store: Any, method: str, exc: StoreUnavailable) -> None:
    """Log and count ``exc``, or raise it where exceptions are not ignored."""
    if not store.options.ignore_exceptions:
        raise exc
    ignored_exceptions[store.using, method] += 1
    # The breaker has said that it opened; what it refuses is not worth a line each.
    level = logging.DEBUG if isinstance(exc, CircuitBreakerOpenError) else logging.WARNING
    logger.log(level, "Cache %s was answered without DynamoDB: %s", method, exc)
