"""Whether an alias can do its work."""

from __future__ import annotations

import threading

from botocore.exceptions import BotoCoreError, ClientError

from .. import clock, keys
from ..cache.store.items import CacheEntry
from ..calls.policy import deadline
from ..concurrency.per_process import PerProcess
from ..conf import get_config
from ..exceptions import StoreError
from ..item_access import Store

# However often it is asked, DynamoDB is asked once in so many seconds.
_REMEMBERED = 1.0


class Health(Store[CacheEntry]):
    """What DynamoDB last said to this process, for one alias."""

    kind = CacheEntry

    def __init__(self, using: str) -> None:
        super().__init__(using)
        self._lock = threading.Lock()
        self._asked_at = 0.0
        self._is_well: bool | None = None

    def is_well(self) -> bool:
        """Return whether the store's table answers in time; remembered for a second."""
        with self._lock:
            if self._is_well is None or clock.monotonic() - self._asked_at >= _REMEMBERED:
                self._is_well = self._ask()
                self._asked_at = clock.monotonic()
            return self._is_well

    def _ask(self) -> bool:
        # Half a read unit: an item that is not there, by the call path of every other request.
        try:
            with deadline(get_config(self.using).health.timeout):
                self._get(keys.cache_entry("health", "ready"), consistent=False, attributes=["PK"])
        except (BotoCoreError, ClientError, StoreError):
            return False
        return True


_healths = PerProcess(Health)


def is_ready(using: str) -> bool:
    """
    Return whether the alias can serve: its table answers within ``HEALTH["TIMEOUT"]``, through
    the breaker, or ``HEALTH["REQUIRED"]`` is False and the application can do without.
    """
    return not get_config(using).health.required or _healths.get(using).is_well()
