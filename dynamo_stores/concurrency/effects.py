"""
Verbs: coroutines that are written once, for callers with and without ``await``.

A verb knows neither threads nor an event loop. Where it needs one of them it awaits an
:class:`Effect`, such as a wait. :func:`run` carries the effects out in this thread, :func:`arun` on
an event loop, where none of them blocks. A verb holds no lock while it awaits.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from asgiref.sync import iscoroutinefunction, sync_to_async

from .. import clock
from ..exceptions import StoreError, copy_of
from .flights import Flight, Gate
from .threads import in_thread

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
T = TypeVar("T")

Verb = Coroutine["Effect[Any]", Any, T]

# How often a verb that is dropped may try to await.
_CLEAN_UPS = 20
# Values of these types can be serialised in any thread: that never reads the database.
PLAIN_TYPES = frozenset([str, bytes, int, float, bool, type(None)])


class Effect(Generic[T]):
    """What a verb awaits: ``run`` carries it out in this thread, ``arun`` on an event loop."""

    __slots__ = ()

    def run(self) -> T:
        """Carry it out in this thread."""
        raise NotImplementedError

    async def arun(self) -> T:
        """Carry it out on the running event loop."""
        raise NotImplementedError

    def __await__(self) -> Generator[Self, T, T]:
        return (yield self)


class Reading(Effect[T]):
    """An effect that ends when bytes come; meanwhile its thread may do something else."""

    __slots__ = ()

    def begin(self) -> tuple[int, float] | None:
        """
        Begin it: return the file descriptor of the bytes, and the monotonic time until which to
        wait for them. None if :meth:`run` is to do what is left. Raises OSError.
        """
        raise NotImplementedError

    def end(self) -> T:
        """Return the result; bytes have come. Raises BlockingIOError if not, or another OSError."""
        raise NotImplementedError


def run(verb: Verb[T], effect: Effect[Any] | None = None) -> T:
    """Run the verb in this thread; return its result. ``effect`` is awaited already, if given."""
    try:
        if effect is None:
            effect = verb.send(None)
        while isinstance(effect, Effect):
            try:
                result = effect.run()
            except BaseException as exc:  # noqa: BLE001 - the verb cleans up after any error
                effect = verb.throw(exc)
            else:
                effect = verb.send(result)
        raise _no_effect(effect)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    except BaseException:
        drop(verb)
        raise


async def arun(verb: Verb[T]) -> T:
    """Run the verb on the event loop; a task that is cancelled lets the verb clean up."""
    try:
        effect = verb.send(None)
        while isinstance(effect, Effect):
            try:
                result = await effect.arun()
            except GeneratorExit:
                # The task was dropped: nothing can be awaited any more.
                raise
            except BaseException as exc:  # noqa: BLE001 - a cancelled task cleans up, too
                effect = verb.throw(exc)
            else:
                effect = verb.send(result)
        raise _no_effect(effect)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    except BaseException:
        drop(verb)
        raise


def drop(verb: Verb[Any]) -> None:
    """End a verb that can await nothing any more: it cleans up."""
    # An exception from outside may come between two effects. Each attempt to await is an error
    # then, after which the verb cleans up what is left.
    for _ in range(_CLEAN_UPS):
        try:
            verb.close()
        except RuntimeError:
            continue
        return


def _no_effect(found: object) -> TypeError:
    return TypeError(
        f"A verb awaited a {type(found).__name__}; expected an Effect or another verb. It cannot "
        "await what belongs to an event loop."
    )


def twins(
    verb: Callable[Concatenate[S, P], Verb[R]],
) -> tuple[Callable[Concatenate[S, P], R], Callable[Concatenate[S, P], Coroutine[Any, Any, R]]]:
    """Return two methods that run a verb: a plain one, and a coroutine function."""

    @functools.wraps(verb)
    def method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return run(verb(self, *args, **kwargs))

    @functools.wraps(verb)
    async def async_method(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await arun(verb(self, *args, **kwargs))

    name = verb.__name__.removeprefix("_")
    method.__name__, async_method.__name__ = name, f"a{name}"
    return method, async_method


class Wait(Effect[None]):
    """A wait of so many seconds."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def run(self) -> None:
        clock.sleep(self.seconds)

    async def arun(self) -> None:
        await clock.asleep(self.seconds)


class Opened(Effect[None]):
    """A wait for a gate, of at most so many seconds."""

    __slots__ = ("_gate", "_seconds")

    def __init__(self, gate: Gate, seconds: float) -> None:
        self._gate = gate
        self._seconds = seconds

    def run(self) -> None:
        self._gate.wait(self._seconds)

    async def arun(self) -> None:
        await self._gate.await_opened(self._seconds)


class Join(Effect[Any]):
    """
    A wait for the outcome of another thread's or task's flight. Raises its error, or TimeoutError.
    """

    __slots__ = ("_flight", "_seconds")

    def __init__(self, flight: Flight, seconds: float) -> None:
        self._flight = flight
        self._seconds = seconds

    def run(self) -> Any:
        try:
            return self._flight.result(self._seconds)
        except StoreError as exc:
            raise copy_of(exc) from exc

    async def arun(self) -> Any:
        try:
            return await self._flight.aresult(self._seconds)
        except StoreError as exc:
            raise copy_of(exc) from exc


class BlocksLoop(Effect[bool]):
    """Whether this thread runs an event loop, whose tasks cannot go on meanwhile."""

    __slots__ = ()

    def run(self) -> bool:
        return asyncio._get_running_loop() is not None

    async def arun(self) -> bool:
        return False


class InThread(Effect[T]):
    """A function that blocks; on an event loop it is called in a thread of the alias ``using``."""

    __slots__ = ("_function", "_using")

    def __init__(self, using: str, function: Callable[[], T]) -> None:
        self._using = using
        self._function = function

    def run(self) -> T:
        return self._function()

    async def arun(self) -> T:
        return await in_thread(self._using, self._function)


class Prepare(Effect[T]):
    """
    A function that serialises ``value``, which may read the database: on an event loop it is called
    on Django's thread-sensitive thread.
    """

    __slots__ = ("_function", "_value")

    def __init__(self, function: Callable[[], T], value: Any) -> None:
        self._function = function
        self._value = value

    def run(self) -> T:
        return self._function()

    async def arun(self) -> T:
        if type(self._value) in PLAIN_TYPES:
            return self._function()
        return await sync_to_async(self._function)()


_NOT_YET = object()


class Computation(Effect[Any]):
    """
    The caller's function (or value), called at most once, with its result or error. It may be a
    coroutine function on an event loop, where a plain one is called on the thread-sensitive thread.
    """

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
        """The same on an event loop."""
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
