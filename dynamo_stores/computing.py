"""``get_or_set`` and its async twin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.core.cache.backends.base import DEFAULT_TIMEOUT

from . import misses
from .calls.steps import Computation, Steps, awalk, walk
from .exceptions import StoreUnavailable
from .stores import CacheStore
from .stores.computing import get_or_compute
from .stores.numbers import checked_tags


class ComputesOnce:
    """Mixed into the cache backend."""

    if TYPE_CHECKING:

        @property
        def store(self) -> CacheStore: ...

        def _made(self, key: Any, version: int | None) -> str: ...
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
        Return the value, or store and return ``default`` or, if it can be called, its result.

        With ``STAMPEDE_LEASE`` one caller computes while the others wait or get a stale value.
        """
        computation = Computation(default)
        steps = self._steps(key, timeout, version, tags)
        try:
            return walk(steps, computation)
        except StoreUnavailable as exc:
            if exc is computation.error:
                raise
            misses.note(self.store, "get_or_set", exc)
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
        Django's thread-sensitive thread. Waiting holds no thread.
        """
        computation = Computation(default)
        steps = self._steps(key, timeout, version, tags)
        try:
            return await awalk(steps, computation, self.store.using)
        except StoreUnavailable as exc:
            if exc is computation.error:
                raise
            misses.note(self.store, "aget_or_set", exc)
            return await computation.arun()

    def _steps(
        self, key: Any, timeout: Any, version: int | None, tags: Iterable[str] | None
    ) -> Steps:
        seconds = self._seconds(timeout)
        return get_or_compute(self.store, self._made(key, version), seconds, checked_tags(tags))
