"""
Work with calls, waits and computations, written once for callers with and without ``await``.

The work is a generator of steps. The result of each step, or its error, comes back at the yield.
:func:`run` runs the steps in this thread. :func:`arun` runs them on an event loop: calls run in
other threads, and waiting blocks no thread.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from asgiref.sync import iscoroutinefunction, sync_to_async

from .. import clock
from ..exceptions import StoreError, copy_of
from .flights import Flight
from .threads import in_thread

# Values of these types can be serialised in any thread: that never reads the database.
PLAIN_TYPES = frozenset([str, bytes, int, float, bool, type(None)])


class Call(NamedTuple):
    """A function that calls DynamoDB."""

    function: Callable[[], Any]


class Prepare(NamedTuple):
    """A function that serialises ``value``, which may read the database."""

    function: Callable[[], Any]
    value: Any


class Wait(NamedTuple):
    """A wait of so many seconds."""

    seconds: float


class Join(NamedTuple):
    """A wait for another thread's or task's outcome. Raises TimeoutError."""

    flight: Flight
    seconds: float


class Compute(NamedTuple):
    """A run of the caller's function."""


Steps = Generator[Call | Prepare | Wait | Join | Compute, Any, Any]
_NOT_YET = object()


class Computation:
    """The caller's function (or value), called at most once, with its result or error."""

    def __init__(self, source: Any) -> None:
        self._source = source
        self._value: Any = _NOT_YET
        self.error: BaseException | None = None

    def run(self) -> Any:
        """Return the value, computing it if that was not done before."""
        if self._value is not _NOT_YET:
            return self._value
        try:
            self._value = self._source() if callable(self._source) else self._source
        except BaseException as exc:
            self.error = exc
            raise
        return self._value

    async def arun(self) -> Any:
        """The same for a coroutine function, or a plain one on the thread-sensitive thread."""
        if self._value is not _NOT_YET:
            return self._value
        source = self._source
        try:
            if callable(source) and not iscoroutinefunction(source):
                value = await sync_to_async(source)()
            else:
                value = source() if callable(source) else source
            self._value = await value if inspect.isawaitable(value) else value
        except BaseException as exc:
            self.error = exc
            raise
        return self._value


def run(steps: Steps, computation: Computation) -> Any:
    """Run the steps in this thread and return their result."""
    try:
        step = next(steps)
        while True:
            try:
                result = _run_step(step, computation)
            except BaseException as exc:  # noqa: BLE001 - the steps clean up after any error
                step = steps.throw(exc)
            else:
                step = steps.send(result)
    except StopIteration as done:
        return done.value


async def arun(steps: Steps, computation: Computation, using: str) -> Any:
    """Run the steps on an event loop; calls are made in the threads of the alias ``using``."""
    try:
        step = next(steps)
        while True:
            try:
                result = await _arun_step(step, computation, using)
            except BaseException as exc:  # noqa: BLE001 - a cancelled task cleans up, too
                step = steps.throw(exc)
            else:
                step = steps.send(result)
    except StopIteration as done:
        return done.value


def _run_step(step: Any, computation: Computation) -> Any:
    match step:
        case Call(function) | Prepare(function, _):
            return function()
        case Wait(seconds):
            clock.sleep(seconds)
        case Join(flight, seconds):
            try:
                return flight.result(seconds)
            except StoreError as exc:
                raise copy_of(exc) from exc
        case _:
            return computation.run()
    return None


async def _arun_step(step: Any, computation: Computation, using: str) -> Any:
    match step:
        case Call(function):
            return await in_thread(using, function)
        case Prepare(function, value):
            return function() if type(value) in PLAIN_TYPES else await sync_to_async(function)()
        case Wait(seconds):
            await asyncio.sleep(seconds)
        case Join(flight, seconds):
            try:
                return await flight.aresult(seconds)
            except StoreError as exc:
                raise copy_of(exc) from exc
        case _:
            return await computation.arun()
    return None
