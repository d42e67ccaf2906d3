"""The operations of one request or block: those of its context, on whatever thread or task."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import FrameType
from typing import Final

from django.conf import settings

from ...calls import observer
from ...calls.connection import get_connection
from ...calls.observer import Operation
from ...conf import get_config
from ...exceptions import ConfigurationError
from .facts import Facts, facts_of, key_names_in

# A recorder keeps the first so many operations, some kilobytes each at most.
MOST: Final = 1000
# Lines from which an operation was called.
_LINES = 3

Wanted = Callable[[Operation], bool]


class Recorder:
    """
    Records the operations between :meth:`start` and :meth:`stop` that are made in the context of
    the caller: its thread or task, and those to which its context is copied (sync_to_async,
    async_to_sync, tasks, the threads in which stores work side by side). A recorder in another
    records for both.

    ``wanted`` chooses operations. The first ``most`` are kept, as facts; ``total`` counts all.
    """

    def __init__(self, wanted: Wanted | None = None, most: int = MOST) -> None:
        self.operations: list[Facts] = []
        self._wanted = wanted
        self._most = most
        self._lock = threading.Lock()
        self._key_names: dict[str, Sequence[str]] = {}
        self._outer: Recorder | None = None
        self._is_on = False
        self.total = 0

    def start(self) -> None:
        """Begin, in the current context. Without effect if it has begun."""
        if self._is_on:
            return
        self._outer = _current.get()
        self._is_on = True
        _watch(self)
        _current.set(self)

    def stop(self) -> None:
        """
        End: nothing is recorded any more, whatever goes on in a copied context. Without effect if
        it has ended.
        """
        if self._is_on:
            self._is_on = False
            _unwatch(self)
            if _current.get() is self:
                _current.set(self._outer)

    @property
    def dropped(self) -> int:
        """How many operations were not kept."""
        return max(0, self.total - len(self.operations))

    def record(self, operation: Operation) -> None:
        """Record ``operation``, and let the recorder around this one record it."""
        if self._outer is not None:
            self._outer.record(operation)
        if not self._is_on or (self._wanted is not None and not self._wanted(operation)):
            return
        with self._lock:
            self.total += 1
            if self.total > self._most:
                return
        self._key_names.update(key_names_in(operation))
        is_own = False
        try:
            config = get_config(operation.using)
            is_own = operation.table in (config.store_table, config.control_table)
            if names := get_connection(operation.using).known_key(operation.table):
                self._key_names[operation.table] = names
        except ConfigurationError:
            pass  # an alias that the settings no longer have
        self.operations.append(
            facts_of(operation, self._key_names, is_own=is_own, place=_place(sys._getframe()))
        )


@contextmanager
def recorded(wanted: Wanted | None = None, most: int = MOST) -> Iterator[Recorder]:
    """Record the operations of the block, which may be sync or async; see :class:`Recorder`."""
    recorder = Recorder(wanted, most)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()


_current: ContextVar[Recorder | None] = ContextVar("dynamo_stores_recorder", default=None)
_running: set[Recorder] = set()
_lock = threading.Lock()


def _observe(operation: Operation) -> None:
    recorder = _current.get()
    if recorder is not None:
        recorder.record(operation)


def _watch(recorder: Recorder) -> None:
    with _lock:
        _running.add(recorder)
        observer.subscribe_operations(_observe)


def _unwatch(recorder: Recorder) -> None:
    with _lock:
        _running.discard(recorder)
        if not _running:
            observer.unsubscribe_operations(_observe)


_PACKAGE = f"{Path(__file__).parent.parent.parent}{os.sep}"
_STANDARD = f"{Path(os.__file__).parent}{os.sep}"
_PLUMBING = ("asgiref", "asyncio", "concurrent", "contextlib.py", "pynamodb", "threading.py")


def _place(frame: FrameType | None) -> tuple[str, ...]:
    """Return the lines of the project from which the call came, else that of a library."""
    own: list[str] = []
    library: tuple[str, ...] = ()
    while frame is not None and len(own) < _LINES:
        path = frame.f_code.co_filename
        if "site-packages" in path or "dist-packages" in path or path.startswith(_STANDARD):
            if not library and not any(each in path for each in _PLUMBING):
                library = (_line(frame, path),)
        elif not path.startswith((_PACKAGE, "<")):
            own.append(_line(frame, path))
        frame = frame.f_back
    return tuple(own) or library


def _line(frame: FrameType, path: str) -> str:
    root = f"{getattr(settings, 'BASE_DIR', '')}{os.sep}"
    short = path.removeprefix(root) if path.startswith(root) else path.rpartition("-packages/")[2]
    return f"{short}:{frame.f_lineno} in {frame.f_code.co_name}"
