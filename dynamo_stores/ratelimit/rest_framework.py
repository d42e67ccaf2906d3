"""
Throttle classes of Django REST framework that count in DynamoDB.

Set them in ``DEFAULT_THROTTLE_CLASSES``, with ``DEFAULT_THROTTLE_RATES`` by ``scope``. A request
after ``wait()`` seconds is admitted, unless another request with its key was counted before it.
"""

from __future__ import annotations

import re
from typing import Any

from rest_framework import throttling

from ..client_address import get_ip
from ..conf import DEFAULT_ALIAS
from ..conf.functions import check_result
from ..conf.rates import Rate, is_dotted_path, parse_rates, resolve_rate
from .algorithms.base import RateLimitStatus
from .responses import remember
from .store import RateLimitStore

# Of the word in "10/minute" REST framework reads the first letter.
_WORD = re.compile(r"(?<=[smhd])[a-z]+")


class DynamoRateThrottle(throttling.SimpleRateThrottle):  # type: ignore[misc]
    """
    The base class. ``get_cache_key`` of a subclass returns the key to count a request under, or
    None for no limit; ``get_cost`` how much it counts.

    A rate is one of REST framework (``"10/minute"``), any value for
    :func:`~dynamo_stores.conf.rates.parse_rates` (``"5/10s,100/h"``), a function of scope and
    request, or the dotted path of one.
    """

    using = DEFAULT_ALIAS
    cost = 1
    status: RateLimitStatus | None = None
    _rates: tuple[Rate, ...] | None = None

    def parse_rate(self, rate: Any) -> tuple[int | None, float | None]:
        """Return limit and window in seconds of the shortest rate; None if requests have rates."""
        if callable(rate) or is_dotted_path(rate):
            return None, None
        self._rates = _parse(rate)
        return self._rates[0] if self._rates else (None, None)

    def get_cost(self, request: Any, view: Any) -> int:
        """Return how much the request counts: ``cost``. 0 is free."""
        return self.cost

    def allow_request(self, request: Any, view: Any) -> bool:
        """Count the request in one write; return whether it is admitted."""
        rates = self._rates_of(request)
        key = self.get_cache_key(request, view) if rates else None
        if key is None:
            return True
        status = RateLimitStore(self.using).acquire(
            f"throttle:{self.scope}", key=key, rate=rates, cost=self.get_cost(request, view)
        )
        self.status = status
        remember(request._request, status, rates)
        return status.allowed

    def _rates_of(self, request: Any) -> tuple[Rate, ...] | None:
        if callable(self.rate) or is_dotted_path(self.rate):
            rate = resolve_rate(self.rate, self.scope, request)
            return _parse(check_result("rate", self.rate, rate))
        if self._rates is None and self.num_requests is not None:
            # A subclass has a parse_rate of its own.
            return (Rate(self.num_requests, self.duration),)
        return self._rates

    def wait(self) -> float | None:
        """Return the seconds after which the request would be admitted."""
        return None if self.status is None else self.status.retry_after

    def get_ident(self, request: Any) -> str:
        """Return the client's address behind ``TRUSTED_PROXIES``."""
        return get_ip(request._request, self.using)


def _parse(rate: Any) -> tuple[Rate, ...] | None:
    return parse_rates(_WORD.sub("", rate.lower()) if isinstance(rate, str) else rate)


class AnonRateThrottle(throttling.AnonRateThrottle, DynamoRateThrottle):  # type: ignore[misc]
    """Limits clients that are not authenticated, by address."""


class UserRateThrottle(throttling.UserRateThrottle, DynamoRateThrottle):  # type: ignore[misc]
    """Limits authenticated users by user, and other clients by address."""


class ScopedRateThrottle(throttling.ScopedRateThrottle, DynamoRateThrottle):  # type: ignore[misc]
    """Limits views by their ``throttle_scope``."""
