"""``get_or_set`` and its async twin: the steps of one computation, with and without await."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT

from . import clock, misses
from .exceptions import StoreUnavailable
from .stores import CacheStore
from .stores.computing import Call, Prepare, Steps, Wait, get_or_compute
from .stores.numbers import checked_tags

# Values of these types can be serialised in any thread: doing so reads nothing.
PLAIN_TYPES = frozenset([str, bytes, int, float, bool, type(None)])
_NOT_YET = object()


class _Computation:
    """The caller's function (or value), called once; what came of it."""

    def __init__(self, default: Any) -> None:
        self._default = default
        self.value: Any = _NOT_YET
        self.error: BaseException | None = None

    def run(self) -> Any:
        try:
            self.value = self._default() if callable(self._default) else self._default
        except BaseException as exc:
            self.error = exc
            raise
        return self.value

    async def arun(self) -> Any:
        default = self._default
        try:
            if callable(default) and not iscoroutinefunction(default):
                value = await sync_to_async(default)()
            else:
                value = default() if callable(default) else default
            self.value = await value if inspect.isawaitable(value) else value
        except BaseException as exc:
            self.error = exc
            raise
        return self.value


class ComputesOnce:
    """Mixed into the cache backend."""

    if TYPE_CHECKING:

        @property
        def store(self) -> CacheStore: ...

        def _made(self, key: Any, version: int | None) -> str: ...
        def _seconds(self, timeout: Any) -> float | None: ...
        async def _in_thread(self, function: Callable[..., Any], *args: Any) -> Any: ...

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
        computation = _Computation(default)
        steps = self._steps(key, timeout, version, tags)
        try:
            return _walk(steps, computation)
        except StoreUnavailable as exc:
            if exc is computation.error:
                raise
            misses.note(self.store, "get_or_set", exc)
            return computation.run() if computation.value is _NOT_YET else computation.value

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
        computation = _Computation(default)
        steps = self._steps(key, timeout, version, tags)
        try:
            return await self._awalk(steps, computation)
        except StoreUnavailable as exc:
            if exc is computation.error:
                raise
            misses.note(self.store, "aget_or_set", exc)
            if computation.value is _NOT_YET:
                return await computation.arun()
            return computation.value

    def _steps(
        self, key: Any, timeout: Any, version: int | None, tags: Iterable[str] | None
    ) -> Steps:
        seconds = self._seconds(timeout)
        return get_or_compute(self.store, self._made(key, version), seconds, checked_tags(tags))

    async def _awalk(self, steps: Steps, computation: _Computation) -> Any:
        try:
            step = next(steps)
            while True:
                try:
                    match step:
                        case Call(function):
                            result = await self._in_thread(function)
                        case Prepare(function, value):
                            if type(value) in PLAIN_TYPES:
                                result = function()
                            else:
                                result = await sync_to_async(function)()
                        case Wait(seconds):
                            await asyncio.sleep(seconds)
                            result = None
                        case _:
                            result = await computation.arun()
                except BaseException as exc:  # noqa: BLE001 - a cancelled task frees its lease too
                    step = steps.throw(exc)
                else:
                    step = steps.send(result)
        except StopIteration as done:
            return done.value


def _walk(steps: Steps, computation: _Computation) -> Any:
    try:
        step = next(steps)
        while True:
            try:
                match step:
                    case Call(function) | Prepare(function, _):
                        result = function()
                    case Wait(seconds):
                        clock.sleep(seconds)
                        result = None
                    case _:
                        result = computation.run()
            except BaseException as exc:  # noqa: BLE001 - whatever it is, the lease is freed
                step = steps.throw(exc)
            else:
                step = steps.send(result)
    except StopIteration as done:
        return done.value
