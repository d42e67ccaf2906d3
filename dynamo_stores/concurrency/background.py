"""Work that no caller may wait for, done one after the other by a thread of the process."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

from .per_process import PerProcess

logger = logging.getLogger(__name__)

# If the work hangs, this much of it waits, and further work is not accepted.
_MOST = 100
# The thread ends after so many seconds without work.
_IDLE = 10.0


class Background:
    """A queue of functions, and a daemon thread that calls them."""

    def __init__(self, using: str) -> None:
        self._name = f"dynamo-stores-background-{using}"
        self._work: queue.Queue[Callable[[], None]] = queue.Queue(_MOST)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, function: Callable[[], None]) -> bool:
        """Let ``function`` be called soon; return False if too much is waiting."""
        with self._lock:
            try:
                self._work.put_nowait(function)
            except queue.Full:
                return False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        return True

    def _run(self) -> None:
        while True:
            try:
                function = self._work.get(timeout=_IDLE)
            except queue.Empty:
                with self._lock:
                    if self._work.empty():
                        self._thread = None
                        return
                continue
            try:
                function()
            except Exception:
                logger.exception("Background work failed.")


_backgrounds = PerProcess(Background)


def get_background(using: str) -> Background:
    """Return this process's queue of background work for the alias ``using``."""
    return _backgrounds.get(using)
