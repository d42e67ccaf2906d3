"""
Throttle classes of Django REST framework that count in DynamoDB.

Set them in ``DEFAULT_THROTTLE_CLASSES``, with ``DEFAULT_THROTTLE_RATES`` by ``scope``. A request
after ``wait()`` seconds is admitted, unless another request with its key was counted before it.
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
    """
    The base class. ``get_cache_key`` of a subclass returns the key to count a request under, or
    None for no limit.
    """

    using = DEFAULT_ALIAS
    cost = 1
    status: RateLimitStatus | None = None

    def allow_request(self, request: Any, view: Any) -> bool:
        """Count the request in one write; return whether it is admitted."""
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
        """Return the seconds after which the request would be admitted."""
        return None if self.status is None else self.status.retry_after

    def get_ident(self, request: Any) -> str:
        """Return the client's address behind ``TRUSTED_PROXIES``."""
        return get_ip(request._request, self.using)


class AnonRateThrottle(throttling.AnonRateThrottle, DynamoRateThrottle):  # type: ignore[misc]
    """Limits clients that are not authenticated, by address."""


class UserRateThrottle(throttling.UserRateThrottle, DynamoRateThrottle):  # type: ignore[misc]
    """Limits authenticated users by user, and other clients by address."""


class ScopedRateThrottle(throttling.ScopedRateThrottle, DynamoRateThrottle):  # type: ignore[misc]
    """Limits views by their ``throttle_scope``."""
