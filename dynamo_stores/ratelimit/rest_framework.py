"""
Throttle classes for Django REST framework: its own, on limits that hold.

``DEFAULT_THROTTLE_CLASSES`` and ``DEFAULT_THROTTLE_RATES`` as always; the class ``scope`` is the
resource. ``wait()`` is honest: waiting it out admits, unless somebody else was faster.
"""

from __future__ import annotations

from typing import Any

from rest_framework import throttling

from ..client_address import get_ip
from ..conf import DEFAULT_ALIAS
from ..conf.rates import Rate
from .algorithms.base import RateLimitStatus
from .responses import remember
from .store import RateLimitStore


class DynamoRateThrottle(throttling.SimpleRateThrottle):  # type: ignore[misc]
    """The base: subclasses say by ``get_cache_key`` who is asking, None for no limit."""

    using = DEFAULT_ALIAS
    cost = 1
    status: RateLimitStatus | None = None

    def allow_request(self, request: Any, view: Any) -> bool:
        """Decide and count in one write."""
        if self.rate is None:
            return True
        key = self.get_cache_key(request, view)
        if key is None:
            return True
        rate = Rate(self.num_requests, self.duration)
        self.status = RateLimitStore(self.using).acquire(
            f"throttle:{self.scope}", key=key, rate=rate, cost=self.cost
        )
        remember(request._request, self.status, [rate])
        return self.status.allowed

    def wait(self) -> float | None:
        """Return after how many seconds the request would be admitted."""
        return None if self.status is None else self.status.retry_after

    def get_ident(self, request: Any) -> str:
        """Return the client's address behind ``TRUSTED_PROXIES``."""
        return get_ip(request._request, self.using)


class AnonRateThrottle(throttling.AnonRateThrottle, DynamoRateThrottle):  # type: ignore[misc]
    """Limits those who are not authenticated, by address."""


class UserRateThrottle(throttling.UserRateThrottle, DynamoRateThrottle):  # type: ignore[misc]
    """Limits users, and others by address."""


class ScopedRateThrottle(throttling.ScopedRateThrottle, DynamoRateThrottle):  # type: ignore[misc]
    """Limits views by their ``throttle_scope``."""
