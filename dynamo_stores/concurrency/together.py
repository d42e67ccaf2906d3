"""
Several verbs side by side.

On an event loop each is a task. In a thread they take turns: while one waits for bytes from
DynamoDB another one goes on, so that no other thread is needed for requests side by side. A verb
that waits for anything else goes on in a thread of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import math
import select
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Generic, TypeVar

from .. import clock
from ..exceptions import ConfigurationError
from .effects import Effect, Reading, Verb, arun, drop, run
from .threads import start

R = TypeVar("R")
T = TypeVar("T")


async def together(
    items: Iterable[T], verb: Callable[[T], Verb[R]], *, max_concurrency: int
) -> list[R]:
    """
    Return the results of ``verb(item)`` for all items in their order, at most ``max_concurrency``
    of them at a time.

    The first error is raised as soon as the verbs under way have ended, or one such as
    KeyboardInterrupt instead; no new one is started after it. Context variables (the deadline among
    them) are copied. A verb that computes for long awaits :class:`Aside` first.
    """
    if not isinstance(max_concurrency, int) or max_concurrency < 1:
        raise ConfigurationError(f"max_concurrency is {max_concurrency!r}; expected 1 or more.")
    todo = list(items)
    if len(todo) <= 1 or max_concurrency == 1:
        return [await verb(item) for item in todo]
    return await _Together(todo, verb, min(max_concurrency, len(todo)))


class Aside(Effect[None]):
    """Let the verb go on in a thread of its own, if it runs beside others in one thread."""

    __slots__ = ()

    def run(self) -> None:
        """Do nothing: the thread is chosen before."""

    async def arun(self) -> None:
        """Do nothing."""


class _Together(Effect[list[R]]):
    def __init__(
        self, items: Sequence[Any], verb: Callable[[Any], Verb[R]], max_concurrency: int
    ) -> None:
        self._items = items
        self._verb = verb
        self._most = max_concurrency

    def run(self) -> list[R]:
        return _Turns(self._items, self._verb, self._most).run()

    async def arun(self) -> list[R]:
        todo = iter(enumerate(self._items))
        found: dict[int, R] = {}
        has_failed = False

        async def work() -> None:
            nonlocal has_failed
            for number, item in todo:
                if has_failed:
                    return
                try:
                    found[number] = await arun(self._verb(item))
                except BaseException:
                    has_failed = True
                    raise

        workers = [asyncio.ensure_future(work()) for _ in range(self._most)]
        try:
            await asyncio.wait(workers)
        except BaseException:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            raise
        # Of several errors the first is raised; the others are looked at, so that none is logged.
        errors = [error for worker in workers if (error := worker.exception()) is not None]
        if errors:
            raise errors[0]
        return [found[number] for number in range(len(self._items))]


class _Turn(Generic[R]):
    """A verb that has begun in this thread."""

    __slots__ = ("context", "number", "verb")

    def __init__(self, number: int, verb: Verb[R]) -> None:
        self.number = number
        self.verb = verb
        self.context = contextvars.copy_context()


class _Turns(Generic[R]):
    """
    Verbs that take turns in one thread, and the threads of those that cannot.

    A thread that takes a verb over takes also its place among those that run at a time, and the
    next items with it.
    """

    def __init__(
        self, items: Sequence[Any], verb: Callable[[Any], Verb[R]], max_concurrency: int
    ) -> None:
        self._count = len(items)
        self._todo = iter(enumerate(items))
        self._verb = verb
        # How many verbs this thread may have at a time.
        self._places = max_concurrency
        self._turns: dict[int, _Turn[R]] = {}
        # By file descriptor, with the time until which they wait.
        self._waiting: dict[int, tuple[_Turn[R], Reading[Any], float]] = {}
        self._poll: Any = None
        self._threads: list[threading.Thread] = []
        self._found: dict[int, R] = {}
        self._errors: list[BaseException] = []

    def run(self) -> list[R]:
        """Return the results, or raise the first error."""
        try:
            self._begin()
            while self._waiting:
                self._wait()
                self._begin()
        except BaseException as exc:
            self._errors.append(exc)
            raise
        finally:
            for turn in self._turns.values():
                turn.context.run(drop, turn.verb)
            for thread in self._threads:
                # One that could not start is not.
                if thread.is_alive():
                    thread.join()
        if errors := self._errors:
            raise next((each for each in errors if not isinstance(each, Exception)), errors[0])
        return [self._found[number] for number in range(self._count)]

    def _begin(self) -> None:
        """Begin verbs until each place has one that waits."""
        while len(self._waiting) < self._places and not self._errors:
            number, item = next(self._todo, (None, None))
            if number is None:
                return
            self._turns[number] = turn = _Turn(number, self._verb(item))
            self._go_on(turn, functools.partial(turn.verb.send, None))

    def _go_on(self, turn: _Turn[R], resume: Callable[[], Effect[Any]]) -> None:
        """Resume a verb, until it waits for bytes, has ended, or another thread runs it."""
        verb, within = turn.verb, turn.context.run
        try:
            effect = within(resume)
            while isinstance(effect, Reading):
                try:
                    begun = effect.begin()
                except OSError as exc:
                    effect = within(verb.throw, exc)
                    continue
                if begun is None:
                    break
                self._expect(turn, effect, *begun)
                return
            rest = functools.partial(within, run, verb, effect)
            if self._places > 1:
                if self._start_thread(turn, rest):
                    return
                # It may wait for what the others do.
                while self._waiting:
                    self._wait()
            self._found[turn.number] = rest()
        except StopIteration as done:
            self._found[turn.number] = done.value
        except BaseException as exc:  # noqa: BLE001 - raised when the others have ended
            self._errors.append(exc)
            self._stop(turn)
        self._turns.pop(turn.number, None)

    def _stop(self, turn: _Turn[R]) -> None:
        # An exception from outside may come at any step.
        for fileno, (other, _, _) in list(self._waiting.items()):
            if other is turn:
                del self._waiting[fileno]
                with contextlib.suppress(KeyError):
                    self._poll.unregister(fileno)
        # Else another thread has it.
        if turn.number in self._turns:
            turn.context.run(drop, turn.verb)

    def _expect(self, turn: _Turn[R], reading: Reading[Any], fileno: int, until: float) -> None:
        if self._poll is None:
            self._poll = select.poll()
        self._waiting[fileno] = turn, reading, until
        self._poll.register(fileno, select.POLLIN)

    def _wait(self) -> None:
        """Wait for bytes for any of the verbs, and resume those that have some, or no time left."""
        first = min(until for _, _, until in self._waiting.values())
        left = max(0, math.ceil((first - clock.monotonic()) * 1000))
        ready = {fileno for fileno, _ in self._poll.poll(left)}
        now = clock.monotonic() if ready else first
        for fileno, waiting in list(self._waiting.items()):
            # One that no thread takes over waits for the others.
            if self._waiting.get(fileno) is not waiting:
                continue
            turn, reading, until = waiting
            resume: Callable[[], Effect[Any]] | None = None
            if fileno in ready:
                # It may have been readable for a moment only.
                resume = _outcome_of(turn.verb, reading)
            elif until <= now:
                resume = functools.partial(turn.verb.throw, TimeoutError())
            if resume is not None:
                self._resume(fileno, turn, resume)

    def _resume(self, fileno: int, turn: _Turn[R], resume: Callable[[], Effect[Any]]) -> None:
        del self._waiting[fileno]
        self._poll.unregister(fileno)
        self._go_on(turn, resume)

    def _start_thread(self, turn: _Turn[R], rest: Callable[[], R]) -> bool:
        """Let another thread run the rest of a verb, and others after it; False if none starts."""
        context = contextvars.copy_context()
        # One thread takes it.
        rests = [rest]

        def work() -> None:
            try:
                call = rests.pop()
            except IndexError:
                return
            self._run(turn.number, call)
            for number, item in self._todo:
                if self._errors:
                    return
                self._run(number, functools.partial(context.copy().run, self._whole, item))

        thread = threading.Thread(target=work, name="dynamo-stores-side", daemon=True)
        self._threads.append(thread)
        del self._turns[turn.number]
        try:
            has_begun = start(thread)
        except BaseException:
            # After an exception from outside Python's thread may hang before it calls anything.
            with contextlib.suppress(IndexError):
                rests.pop()
                self._turns[turn.number] = turn
            raise
        if not has_begun:
            self._turns[turn.number] = turn
            return False
        self._places -= 1
        return True

    def _whole(self, item: Any) -> R:
        return run(self._verb(item))

    def _run(self, number: int, call: Callable[[], R]) -> None:
        try:
            self._found[number] = call()
        except BaseException as exc:  # noqa: BLE001 - raised in the caller's thread
            self._errors.append(exc)


def _outcome_of(verb: Verb[Any], reading: Reading[Any]) -> Callable[[], Effect[Any]] | None:
    """Return what resumes the verb with the bytes that have come, None if there are none."""
    try:
        return functools.partial(verb.send, reading.end())
    except BlockingIOError:
        return None
    except OSError as exc:
        return functools.partial(verb.throw, exc)
