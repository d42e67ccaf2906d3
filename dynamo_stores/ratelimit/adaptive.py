"""Adaptive limits: requests of users have priority over requests of background jobs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .. import keys
from ..concurrency.threads import in_thread
from ..conf import get_config
from ..conf.groups import AdaptiveConfig
from ..exceptions import ConfigurationError, StoreUnavailable
from ..keys import ItemKey
from .algorithms.shared import AdaptiveStatus, Allocation, Counts, SharedWindows
from .counting import RateCounter, ResolvedLimit, check_cost

DEFAULTS = AdaptiveConfig()
PRIORITIES = ("user", "background")


def allocate(
    limit: int,
    *,
    user_requests: Sequence[float] | Mapping[float, int],
    background_requests: Sequence[float] | Mapping[float, int],
    now: float,
    config: AdaptiveConfig = DEFAULTS,
) -> Allocation:
    """
    Return how ``limit`` is shared at ``now``. Requests are given by their times, in seconds, or as
    a dict of times and how many there were.

    Many user requests within the monitoring window reserve most of it for users. After a long time
    without user requests all of it is left to background work. A pure function.
    """
    window = config.monitoring_window
    users = Counter(user_requests)
    active = _count_since(users, now - window)
    trend = _trend(users, now, window / 3)
    paused = False
    low = max(math.floor(0.3 * limit), config.min_user_reserved)
    if active >= config.high_activity_threshold:
        reserved = min(0.9 * limit, math.floor(0.5 * limit * config.max_user_scaling))
        paused = config.pause_background_on_increasing_trend and trend == "increasing"
        reason = f"High user activity: {active} requests"
        if paused:
            reason += ", increasing; background is paused"
    elif active >= config.moderate_activity_threshold:
        factor = min(config.max_user_scaling, 1 + active / config.high_activity_threshold)
        factor *= {"increasing": 1.2, "decreasing": 0.8}.get(trend, 1.0)
        reserved = min(0.7 * limit, math.floor(0.4 * limit) * max(factor, 1.0))
        reason = f"Moderate user activity: {active} requests, {trend}"
    elif active:
        reserved, reason = low, f"Low user activity: {active} requests"
    elif not users and not background_requests:
        reserved, reason = low, "No requests yet"
    elif not users:
        reserved, reason = config.min_user_reserved, "Background requests only"
    elif now - max(users) > config.sustained_inactivity:
        reserved, reason = 0, "No user requests for a long time: everything for background"
    else:
        reserved, reason = config.min_user_reserved, "No recent user requests"
    whole = max(0, min(limit, math.floor(reserved)))
    return Allocation(whole, limit - whole, paused, reason, trend)


def _count_since(requests: Mapping[float, int], since: float) -> int:
    return sum(count for at, count in requests.items() if at > since)


def _trend(requests: Mapping[float, int], now: float, third: float) -> str:
    recent = _count_since(requests, now - third)
    before = _count_since(requests, now - 2 * third) - recent
    if not recent and not before:
        return "none"
    if recent > 1.5 * before:
        return "increasing"
    return "decreasing" if recent < 0.5 * before else "stable"


class AdaptiveRateLimitStore(RateCounter):
    """
    A limit per ``resource`` and ``key`` that users and background work share.

    The total never exceeds the limit. The reserve for users is a minimum: users may also use what
    is free; background work stops at its share. One process calculates the allocation at most
    every ``RECALCULATION_INTERVAL`` and stores it with its reason, so that all processes decide
    alike. Limits hold within one region.
    """

    def acquire(
        self,
        resource: str,
        *,
        key: str = "",
        rate: Any = None,
        cost: int = 1,
        priority: str = "user",
        on_unavailable: str | None = None,
    ) -> AdaptiveStatus:
        """
        Count ``cost`` requests of ``priority`` if the limit admits them, and return the decision.

        One write. A cost of 0 is free; one below 0, or above the limit, is refused. While DynamoDB
        is unavailable, ``ON_UNAVAILABLE`` decides. Raises ValueError for a cost that is not a whole
        number, ConfigurationError for an invalid rate or priority.
        """
        with self._in_time():
            limit = self._shared(resource, key, rate, priority)
            if limit is None:
                return AdaptiveStatus(allowed=True)
            status: AdaptiveStatus = self._acquire(limit, cost, on_unavailable)
        if not status.allowed:
            self._send_refused(resource, status, priority)
        return status

    async def aacquire(
        self,
        resource: str,
        *,
        key: str = "",
        rate: Any = None,
        cost: int = 1,
        priority: str = "user",
        on_unavailable: str | None = None,
    ) -> AdaptiveStatus:
        """See :meth:`acquire`."""
        return await in_thread(
            self.using,
            self.acquire,
            resource,
            key=key,
            rate=rate,
            cost=cost,
            priority=priority,
            on_unavailable=on_unavailable,
        )

    def get_status(
        self,
        resource: str,
        *,
        key: str = "",
        rate: Any = None,
        cost: int = 1,
        priority: str = "user",
        on_unavailable: str | None = None,
    ) -> AdaptiveStatus:
        """Return the decision of :meth:`acquire` without counting, with the allocation in force."""
        with self._in_time():
            limit = self._shared(resource, key, rate, priority)
            if limit is None:
                return AdaptiveStatus(allowed=True)
            status: AdaptiveStatus = self._look(limit, cost, on_unavailable)
        return status

    def can_proceed(
        self, resource: str, priority: str = "user", *, key: str = "", rate: Any = None
    ) -> bool:
        """
        Return whether a request would be admitted. Followed by :meth:`record` this is a race that
        admits more than the limit; :meth:`acquire` decides and counts in one operation.
        """
        return self.get_status(resource, key=key, rate=rate, priority=priority).allowed

    def record(
        self, resource: str, priority: str = "user", *, key: str = "", rate: Any = None
    ) -> None:
        """Count a request without regard to the limit; see :meth:`can_proceed`."""
        with self._in_time():
            limit = self._shared(resource, key, rate, priority)
            if limit is not None:
                self._count(limit, 1, force=True)

    def get_wait_time(
        self, resource: str, priority: str = "user", *, key: str = "", rate: Any = None
    ) -> float:
        """Return after how many seconds a request would be admitted; 0 for now."""
        return self.get_status(resource, key=key, rate=rate, priority=priority).retry_after

    def refund(
        self,
        resource: str,
        *,
        key: str = "",
        rate: Any = None,
        cost: int = 1,
        priority: str = "user",
    ) -> None:
        """Take back requests that were just counted: from the live bucket, never below 0."""
        check_cost(cost, 1)
        with self._in_time():
            limit = self._shared(resource, key, rate, priority)
            if limit is not None:
                self._refund(limit, cost)

    def reset(self, resource: str, *, key: str = "") -> None:
        """Delete the counts and the allocation of ``key``."""
        with self._in_time():
            self._reset(self._item_key(resource, key, "").pk)

    def _shared(self, resource: str, key: str, rate: Any, priority: str) -> ResolvedLimit | None:
        if priority not in PRIORITIES:
            raise ConfigurationError(
                f"priority is {priority!r}; expected {' or '.join(map(repr, PRIORITIES))}."
            )
        config = self._config(resource) if rate is None else self._ad_hoc(resource, key, rate)
        if config.rates is None:
            return None
        if len(config.rates) > 1 or config.algorithm != "sliding" or config.shards > 1:
            raise ConfigurationError(
                f"The adaptive limit of {resource!r} is not valid: expected one rate, algorithm "
                "'sliding' and one shard."
            )
        own = get_config(self.using).adaptive

        def share(limit: int, users: Counts, background: Counts, now: float) -> Allocation:
            return allocate(
                limit, user_requests=users, background_requests=background, now=now, config=own
            )

        algorithm = SharedWindows(
            priority,
            share,
            monitoring_window=own.monitoring_window,
            interval=own.recalculation_interval,
            memory=own.monitoring_window + own.sustained_inactivity,
        )
        item = self._item_key(resource, key, algorithm.sort_key(config.rates))
        return ResolvedLimit(resource, key, config.rates, algorithm, config, item, priority)

    def _without_store(
        self,
        limit: ResolvedLimit,
        cost: int,
        exc: StoreUnavailable,
        on_unavailable: str | None,
        *,
        count: bool = True,
    ) -> Any:
        status = super()._without_store(limit, cost, exc, on_unavailable, count=count)
        return AdaptiveStatus(*status, reason="DynamoDB is unavailable")

    @property
    def _algorithm(self) -> str:
        # The only one that can be shared, whatever other limits are counted by.
        return "sliding"

    def _item_key(self, resource: str, key: str, sk: str, shard: int = 0) -> ItemKey:
        return keys.rate_window(resource, key, sk, kind=keys.ADAPTIVE_WINDOW)
