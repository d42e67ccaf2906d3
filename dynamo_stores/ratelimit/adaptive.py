"""Adaptive limits: requests of users have priority over requests of background jobs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .. import keys
from ..concurrency.effects import twins
from ..conf import DEFAULT_ALIAS, get_config
from ..conf.groups import AdaptiveConfig
from ..conf.rates import ResourceConfig
from ..exceptions import ConfigurationError
from ..item_access import Items, Store
from ..keys import ItemKey
from . import resources
from .algorithms.base import RateLimitStatus
from .algorithms.shared import AdaptiveStatus, Allocation, Counts, SharedWindows
from .counting import ResolvedLimit, check_cost, get_counter, report_refusal
from .items import RateWindow
from .resources import Resources, in_time

DEFAULTS = AdaptiveConfig()
PRIORITIES = ("user", "background")

_NO_LIMIT = AdaptiveStatus(allowed=True)


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


class AdaptiveRateLimitStore(Store):
    """
    A limit per ``resource`` and ``key`` that users and background work share.

    The total never exceeds the limit. The reserve for users is a minimum: users may also use what
    is free; background work stops at its share. One process calculates the allocation at most
    every ``RECALCULATION_INTERVAL`` and stores it with its reason, so that all processes decide
    alike. Limits hold within one region.

    Each method has a twin for event loops, whose name begins with ``a``. A rate that is a function
    is called on Django's thread-sensitive thread there.
    """

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        items = Items(RateWindow, using)
        super().__init__(items)
        # The only algorithm that can be shared, whatever other limits are counted by.
        self._resources = Resources(items, algorithm="sliding")

    async def _acquire(
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
        with in_time(self.using):
            limit = await self._resolve(resource, key, rate, priority)
            if limit is None:
                return _NO_LIMIT
            counter = get_counter(self.using)
            status = _adaptive(await counter.acquire(limit, cost, on_unavailable))
        if not status.allowed:
            await report_refusal(
                type(self), using=self.using, resource=resource, status=status, priority=priority
            )
        return status

    acquire, aacquire = twins(_acquire)

    async def _get_status(
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
        Return the decision of :meth:`acquire` without counting, with the allocation in force. With
        ``on_unavailable="raise"`` StoreUnavailable is raised while DynamoDB is unavailable.
        """
        with in_time(self.using):
            limit = await self._resolve(resource, key, rate, priority)
            if limit is None:
                return _NO_LIMIT
            counter = get_counter(self.using)
            return _adaptive(await counter.look(limit, cost, on_unavailable))

    get_status, aget_status = twins(_get_status)

    async def _can_proceed(
        self, resource: str, priority: str = "user", *, key: str = "", rate: Any = None
    ) -> bool:
        """
        Return whether a request would be admitted. Followed by :meth:`record` this is a race that
        admits more than the limit; :meth:`acquire` decides and counts in one operation.
        """
        return (await self._get_status(resource, key=key, rate=rate, priority=priority)).allowed

    can_proceed, acan_proceed = twins(_can_proceed)

    async def _record(
        self, resource: str, priority: str = "user", *, key: str = "", rate: Any = None
    ) -> None:
        """Count a request without regard to the limit; see :meth:`can_proceed`."""
        with in_time(self.using):
            limit = await self._resolve(resource, key, rate, priority)
            if limit is not None:
                await get_counter(self.using).record(limit, 1)

    record, arecord = twins(_record)

    async def _get_wait_time(
        self, resource: str, priority: str = "user", *, key: str = "", rate: Any = None
    ) -> float:
        """Return after how many seconds a request would be admitted; 0 for now."""
        status = await self._get_status(resource, key=key, rate=rate, priority=priority)
        return status.retry_after

    get_wait_time, aget_wait_time = twins(_get_wait_time)

    async def _refund(
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
        with in_time(self.using):
            limit = await self._resolve(resource, key, rate, priority)
            if limit is not None:
                await get_counter(self.using).refund(limit, cost)

    refund, arefund = twins(_refund)

    async def _is_counted(self, resource: str, *, key: str = "") -> bool:
        """Return whether requests of ``key`` are counted in the table. One Query."""
        with in_time(self.using):
            return bool(await get_counter(self.using).items_of(_item_key(resource, key, "").pk))

    is_counted, ais_counted = twins(_is_counted)

    async def _reset(self, resource: str, *, key: str = "") -> None:
        """Delete the counts and the allocation of ``key``."""
        with in_time(self.using):
            await get_counter(self.using).reset(_item_key(resource, key, "").pk)

    reset, areset = twins(_reset)

    get_resource_config, aget_resource_config = twins(resources.get_resource_config)
    set_resource_config, aset_resource_config = twins(resources.set_resource_config)
    unset_resource_config, aunset_resource_config = twins(resources.unset_resource_config)
    get_stored_configs, aget_stored_configs = twins(resources.get_stored_configs)

    async def _resolve(
        self, resource: str, key: str, rate: Any, priority: str
    ) -> ResolvedLimit | None:
        if priority not in PRIORITIES:
            raise ConfigurationError(
                f"priority is {priority!r}; expected {' or '.join(map(repr, PRIORITIES))}."
            )
        config = await self._resources.limit_of(resource, key, rate)
        if config.rates is None:
            return None
        check_adaptive(resource, config)
        algorithm = _windows(priority, get_config(self.using).adaptive)
        item = _item_key(resource, key, algorithm.sort_key(config.rates))
        return ResolvedLimit(resource, key, config.rates, algorithm, config, item, priority)


def check_adaptive(resource: str, config: ResourceConfig) -> None:
    """Raise ConfigurationError if ``config`` cannot be shared by users and background work."""
    what = ""
    if len(config.rates or ()) > 1:
        what = f"{len(config.rates or ())} rates"
    elif config.algorithm != "sliding":
        what = f"the algorithm {config.algorithm!r}"
    elif config.shards > 1:
        what = f"{config.shards} shards"
    if what:
        raise ConfigurationError(
            f"The adaptive limit of {resource!r} has {what}; expected one rate, algorithm "
            "'sliding' and one shard."
        )


def _windows(priority: str, config: AdaptiveConfig) -> SharedWindows:
    def share(limit: int, users: Counts, background: Counts, now: float) -> Allocation:
        return allocate(
            limit, user_requests=users, background_requests=background, now=now, config=config
        )

    return SharedWindows(
        priority,
        share,
        monitoring_window=config.monitoring_window,
        interval=config.recalculation_interval,
        memory=config.monitoring_window + config.sustained_inactivity,
    )


def _item_key(resource: str, key: str, sk: str) -> ItemKey:
    return keys.rate_window(resource, key, sk, kind=keys.ADAPTIVE_WINDOW)


def _adaptive(status: AdaptiveStatus | RateLimitStatus) -> AdaptiveStatus:
    """Return a status of the counter; one that was decided without DynamoDB has no allocation."""
    if isinstance(status, AdaptiveStatus):
        return status
    return AdaptiveStatus(*status, reason="DynamoDB is unavailable")
