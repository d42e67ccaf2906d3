"""Work that no caller may wait for, done one after the other by a thread of the process."""

from __future__ import annotations

import _thread
import heapq
import itertools
import logging
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from .. import clock
from .per_process import PerProcess

logger = logging.getLogger(__name__)

# If the work hangs, this much of it waits, and further work is not accepted.
_MOST = 100
# The thread ends after so many seconds without work.
_IDLE = 10.0


class Background:
    """
    Functions that wait for their time, and a daemon thread that calls them; ``most`` may wait.

    An exception from outside (a signal handler's, ``gevent.Timeout``) may end :meth:`submit`
    anywhere. So callers take no lock that the thread or another caller waits for.
    """

    def __init__(self, name: str, most: float = _MOST) -> None:
        self._name = f"dynamo-stores-background-{name}"
        self._most = most
        self._new: SimpleQueue[tuple[float, int, Callable[[], None]]] = SimpleQueue()
        self._work: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        # Held by the thread that works, until it has been idle.
        self._working = threading.Lock()

    def submit(self, function: Callable[[], None], *, after: float = 0.0) -> bool:
        """
        Let ``function`` be called in ``after`` seconds; return False if too much is waiting.

        Raises RuntimeError if the thread cannot start.
        """
        if self._new.qsize() + len(self._work) >= self._most:
            return False
        self._new.put((clock.monotonic() + after, next(self._numbers), function))
        if not self._working.locked():
            # Thread.start() of an interrupted caller may raise another error, or hang its thread.
            _thread.start_new_thread(self._start, ())
        return True

    def _start(self) -> None:
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        # What is submitted while the lock is held is seen here, after its release.
        while not self._new.empty() and self._working.acquire(blocking=False):
            try:
                while (function := self._next()) is not None:
                    try:
                        function()
                    except Exception:
                        logger.exception("Background work failed.")
            finally:
                self._working.release()

    def _next(self) -> Callable[[], None] | None:
        while True:
            while not self._new.empty():
                heapq.heappush(self._work, self._new.get())
            left = self._work[0][0] - clock.monotonic() if self._work else _IDLE
            if left <= 0:
                return heapq.heappop(self._work)[2]
            try:
                heapq.heappush(self._work, self._new.get(timeout=min(left, _IDLE)))
            except Empty:
                if not self._work:
                    return None


_backgrounds = PerProcess(Background)


def get_background(using: str) -> Background:
    """Return this process's queue of background work for the alias ``using``."""
    return _backgrounds.get(using)
