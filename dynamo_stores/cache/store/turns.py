"""Keys that several tasks read in the same turn of their event loop travel in one request."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import Any
from weakref import WeakKeyDictionary

from ...calls.batches import MAX_READS, chunks
from ...concurrency.effects import Effect, Verb, arun, run
from ...exceptions import OperationTimeoutError, StoreError, StoreUnavailable, copy_of
from ...models import RawItem

Future = asyncio.Future[RawItem | None]
# Reads the heads of the entries with these partition keys: a verb.
Read = Callable[[list[str]], Verb[Mapping[str, RawItem]]]


class Turns:
    """
    The keys that tasks have asked for in this turn of their loop, by loop. They are read at its
    end, 100 in a request.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._asked: WeakKeyDictionary[Any, dict[str, list[Future]]] = WeakKeyDictionary()
        self._reading: set[asyncio.Task[None]] = set()

    async def get(self, pk: str, seconds: float) -> RawItem | None:
        """
        Return the head of the entry, None without one. Raises OperationTimeoutError after so many
        seconds, and the StoreUnavailable of the request.
        """
        loop = asyncio.get_running_loop()
        asked = self._asked.get(loop)
        if asked is None:
            asked = self._asked[loop] = {}
            loop.call_soon(self._send, loop)
        future: Future = loop.create_future()
        asked.setdefault(pk, []).append(future)
        try:
            async with asyncio.timeout(seconds):
                return await future
        except TimeoutError:
            error = OperationTimeoutError("A read that several tasks share got no answer in time.")
            error.counts = False
            raise error from None

    def _send(self, loop: asyncio.AbstractEventLoop) -> None:
        asked = self._asked.pop(loop)
        for pks in chunks(asked, MAX_READS):
            waiting = {pk: asked[pk] for pk in pks}
            # No deadline of a task is one of the others, so in no task's context.
            task = loop.create_task(self._answer(waiting), context=contextvars.Context())
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _answer(self, waiting: Mapping[str, list[Future]]) -> None:
        found: Mapping[str, RawItem] = {}
        error: BaseException | None = None
        try:
            found = await arun(self._read(list(waiting)))
        except StoreUnavailable as exc:
            found, error = exc.found or {}, exc
        except BaseException as exc:  # noqa: BLE001 - raised in the tasks that wait
            error = exc
        for pk, futures in waiting.items():
            for future in futures:
                if future.done():
                    continue
                if error is None or pk in found:
                    future.set_result(found.get(pk))
                elif isinstance(error, asyncio.CancelledError):
                    future.cancel()
                else:
                    future.set_exception(copy_of(error) if isinstance(error, StoreError) else error)


class InTurn(Effect[RawItem | None]):
    """The head of an entry: on an event loop with those of other tasks, in a thread ``alone``."""

    __slots__ = ("_alone", "_pk", "_seconds", "_turns")

    def __init__(
        self, turns: Turns, pk: str, seconds: float, alone: Callable[[], Verb[RawItem | None]]
    ) -> None:
        self._turns = turns
        self._pk = pk
        self._seconds = seconds
        self._alone = alone

    def run(self) -> RawItem | None:
        return run(self._alone())

    async def arun(self) -> RawItem | None:
        return await self._turns.get(self._pk, self._seconds)
