"""Work that no caller may wait for, done one after the other by a thread of the process."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable

from .. import clock
from .per_process import PerProcess

logger = logging.getLogger(__name__)

# If the work hangs, this much of it waits, and further work is not accepted.
_MOST = 100
# The thread ends after so many seconds without work.
_IDLE = 10.0


class Background:
    """Functions that wait for their time, and a daemon thread that calls them."""

    def __init__(self, name: str) -> None:
        self._name = f"dynamo-stores-background-{name}"
        self._work: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[[], None], *, after: float = 0.0) -> bool:
        """
        Let ``function`` be called in ``after`` seconds; return False if too much is waiting.

        Raises RuntimeError if the thread cannot start.
        """
        with self._changed:
            if len(self._work) >= _MOST:
                return False
            if self._thread is None:
                thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                thread.start()
                self._thread = thread
            due = clock.monotonic() + after
            heapq.heappush(self._work, (due, next(self._numbers), function))
            self._changed.notify()
        return True

    def _run(self) -> None:
        while (function := self._next()) is not None:
            try:
                function()
            except Exception:
                logger.exception("Background work failed.")

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while True:
                left = self._work[0][0] - clock.monotonic() if self._work else _IDLE
                if left <= 0:
                    return heapq.heappop(self._work)[2]
                if not self._changed.wait(min(left, _IDLE)) and not self._work:
                    self._thread = None
                    return None


_backgrounds = PerProcess(Background)


def get_background(using: str) -> Background:
    """Return this process's queue of background work for the alias ``using``."""
    return _backgrounds.get(using)
