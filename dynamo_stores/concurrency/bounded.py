"""A dict of bounded size."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class BoundedDict(OrderedDict[K, V]):
    """
    A dict that holds at most ``max_entries`` and drops the oldest entries first. Thread-safe, as
    long as entries are written by the methods below only.

    With ``max_size`` the sizes of all values, as ``size_of`` returns them, add up to at most that,
    and a larger value is not kept. ``evictions`` counts the entries that were dropped for others.
    """

    def __init__(
        self,
        max_entries: int,
        max_size: int | None = None,
        size_of: Callable[[V], int] | None = None,
    ) -> None:
        super().__init__()
        self._max_entries = max_entries
        self._max_size = math.inf if max_size is None else max_size
        self._size_of = size_of
        self._lock = threading.RLock()
        self.size = 0
        self.evictions = 0

    def put(self, key: K, value: V) -> None:
        """Store ``value`` as the newest entry."""
        with self._lock:
            self._put(key, value)

    def _put(self, key: K, value: V) -> None:
        if key in self:
            self._remove(key)
        if self._size_of is not None and not self._fits(self._size_of(value)):
            return
        self[key] = value
        while len(self) > self._max_entries or self.size > self._max_size:
            self._remove(next(iter(self)))
            self.evictions += 1

    def get_or_put(self, key: K, make: Callable[[], V]) -> V:
        """Return the value of ``key``; if it is missing, store and return ``make()``."""
        found = self.get(key)
        if found is None:
            with self._lock:
                found = self.get(key)
                if found is None:
                    found = make()
                    self.put(key, found)
        return found

    def drop(self, key: K) -> None:
        """Drop the entry, if it exists."""
        with self._lock:
            if key in self:
                self._remove(key)

    def drop_where(self, matches: Callable[[K], bool]) -> None:
        """Drop the entries whose key ``matches``."""
        with self._lock:
            for key in list(filter(matches, self)):
                self._remove(key)

    def clear(self) -> None:
        """Drop every entry."""
        with self._lock:
            super().clear()
            self.size = 0

    def __reduce__(self) -> Any:
        raise TypeError("A BoundedDict belongs to its process and cannot be pickled or copied.")

    def _fits(self, size: int) -> bool:
        if size > self._max_size:
            return False
        self.size += size
        return True

    def _remove(self, key: K) -> None:
        value = self.pop(key)
        if self._size_of is not None:
            self.size -= self._size_of(value)
