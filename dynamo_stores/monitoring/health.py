"""Readiness of an alias."""

from __future__ import annotations

import threading

from .. import clock, keys
from ..cache.store.items import CacheEntry
from ..calls.policy import deadline
from ..concurrency.effects import run
from ..concurrency.per_process import PerProcess
from ..conf import DEFAULT_ALIAS, get_config
from ..exceptions import CALL_ERRORS
from ..item_access import Items

# Seconds for which a result is used, so that many probes cost one request.
_CACHE_SECONDS = 1.0


class Health:
    """The readiness check of one alias in this process, with its last result."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(CacheEntry, using, fails_over=True)
        self._lock = threading.Lock()
        self._checked_at = 0.0
        self._is_available: bool | None = None

    def is_available(self) -> bool:
        """Return whether the store's table answers in time; cached for a second."""
        with self._lock:
            if self._is_available is None or clock.monotonic() - self._checked_at >= _CACHE_SECONDS:
                self._is_available = self._check()
                self._checked_at = clock.monotonic()
            return self._is_available

    def _check(self) -> bool:
        # Half a read unit: a missing item, read through the call path of every other request.
        try:
            with deadline(get_config(self.using).health.timeout):
                run(
                    self._items.get(
                        keys.cache_entry("health", "ready"), consistent=False, attributes=["PK"]
                    )
                )
        except CALL_ERRORS:
            return False
        return True


_healths = PerProcess(Health)


def is_ready(using: str) -> bool:
    """
    Return whether the alias is ready: its table answers within ``HEALTH["TIMEOUT"]``, through
    the breaker, or ``HEALTH["REQUIRED"]`` is False.
    """
    return not get_config(using).health.required or _healths.get(using).is_available()
