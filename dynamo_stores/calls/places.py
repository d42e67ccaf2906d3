"""A bound on the requests that the tasks of event loops have under way."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable

from .. import clock
from ..concurrency.effects import Effect
from ..concurrency.flights import Gate
from ..exceptions import OperationTimeoutError

# Whether a task may be running: an event loop runs in this thread.
is_task: Callable[[], object] = asyncio._get_running_loop


class Places:
    """The places for requests of tasks, on all loops of a process together. Threads need none."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: deque[Gate] = deque()
        self._lock = threading.Lock()

    @property
    def free(self) -> int:
        """How many places are free."""
        return self._free

    def take(self) -> Gate | None:
        """Take a place, or return the gate that is opened when one is handed over."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return None
            gate = Gate()
            self._waiting.append(gate)
            return gate

    def give_up(self, gate: Gate) -> None:
        """Wait no more; a place that was handed over meanwhile is left."""
        with self._lock:
            if gate in self._waiting:
                self._waiting.remove(gate)
                return
        if gate.is_open:
            self.leave()

    def leave(self) -> None:
        """Leave a place to the task that has waited for the longest time."""
        while True:
            with self._lock:
                if not self._waiting:
                    self._free += 1
                    return
                gate = self._waiting.popleft()
            # The loop of its task may be closed.
            if gate.open():
                return


class Place(Effect[bool]):
    """
    A place for a request of a task, taken until a monotonic time; False in a thread, which needs
    none. Raises OperationTimeoutError.
    """

    __slots__ = ("_places", "_until")

    def __init__(self, places: Places, until: float) -> None:
        self._places = places
        self._until = until

    def run(self) -> bool:
        return False

    async def arun(self) -> bool:
        gate = self._places.take()
        if gate is None:
            return True
        try:
            while not gate.is_open and (left := self._until - clock.monotonic()) > 0:
                await gate.await_opened(left)
        except BaseException:
            self._places.give_up(gate)
            raise
        if clock.monotonic() < self._until:
            return True
        self._places.give_up(gate)
        error = OperationTimeoutError(
            "No request was sent: as many as MAX_POOL_CONNECTIONS allows were under way all the "
            "time."
        )
        # It says nothing about DynamoDB.
        error.counts = False
        raise error
