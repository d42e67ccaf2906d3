"""Objects that exist once per alias and process, and are not shared across a fork."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from ..conf import when_changed

T = TypeVar("T")


class PerProcess(Generic[T]):
    """
    One ``T`` per alias and process, created on first use by one thread.

    Sockets, and locks held by other threads, do not survive a fork: the child starts empty. Some
    servers do not run Python's fork hooks, so the process id is compared as well.
    """

    def __init__(self, make: Callable[[str], T]) -> None:
        self._make = make
        self._found: dict[str, T] = {}
        self._start()
        _all.add(self)
        when_changed(self.clear)

    def get(self, using: str) -> T:
        """Return this process's object for the alias ``using``."""
        if self._pid != os.getpid():
            self._start()
        found = self._found.get(using)
        if found is None:
            # Making one may take long, which is not for the others to wait for.
            with self._lock:
                lock = self._locks.setdefault(using, threading.RLock())
            with lock:
                found = self._found.get(using)
                if found is None:
                    found = self._found[using] = self._make(using)
        return found

    def all(self) -> list[T]:
        """Return the objects that this process has created so far."""
        return list(self._found.values()) if self._pid == os.getpid() else []

    def clear(self) -> None:
        """Drop all objects; the next use creates new ones."""
        self._found.clear()

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._locks: dict[str, threading.RLock] = {}
        self._found = {}
        self._pid = os.getpid()


_all: weakref.WeakSet[PerProcess[Any]] = weakref.WeakSet()


def _start_all() -> None:
    for each in _all:
        each._start()


os.register_at_fork(after_in_child=_start_all)
