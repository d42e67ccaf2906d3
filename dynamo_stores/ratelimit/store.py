"""The rate limit store: decides and counts in one write."""

from __future__ import annotations

from typing import Any

from .. import keys
from ..concurrency.effects import twins
from ..conf import DEFAULT_ALIAS, get_config
from ..item_access import Items, Store
from . import resources
from .algorithms.base import RateLimitStatus
from .counting import (
    Counted,
    ResolvedLimit,
    check_cost,
    counted_by,
    get_counter,
    report_refusal,
)
from .items import RateWindow
from .resources import Resources, in_time

_NO_LIMIT = RateLimitStatus(allowed=True)


class RateLimitStore(Store):
    """
    Limits of requests per ``resource`` and ``key``, shared by all processes of an alias.

    ``rate`` is anything that :func:`~dynamo_stores.conf.rates.parse_rates` accepts, a dotted path,
    or a function of resource and key that returns a rate. Without it the resource's own limit
    applies: set in this process, else stored in the table, else in ``RATE_LIMIT["RESOURCES"]``,
    else ``LIMIT`` and ``WINDOW``. Limits hold within one region.

    Each method has a twin for event loops, whose name begins with ``a``. A rate that is a function
    is called on Django's thread-sensitive thread there.
    """

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        items = Items(RateWindow, using)
        super().__init__(items)
        self._resources = Resources(items)

    async def _acquire(
        self,
        resource: str,
        *,
        key: str = "",
        rate: Any = None,
        cost: int = 1,
        on_unavailable: str | None = None,
    ) -> RateLimitStatus:
        """
        Count ``cost`` requests if the limit admits them, and return the decision.

        One write; about none for a flood of refused requests. A cost of 0 is free; one below 0, or
        above what the limit admits at once, is refused. While DynamoDB is unavailable,
        ``ON_UNAVAILABLE`` decides, after ``OPERATION_TIMEOUT`` at the latest. Raises ValueError for
        a cost that is not a whole number, ConfigurationError for an invalid rate.
        """
        with in_time(self.using):
            limit = await self._resolve(resource, key, rate)
            if limit is None:
                return _NO_LIMIT
            counter = get_counter(self.using)
            status: RateLimitStatus = await counter.acquire(limit, cost, on_unavailable)
        if not status.allowed:
            await report_refusal(
                type(self), using=self.using, resource=resource, status=status, priority=None
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
        on_unavailable: str | None = None,
    ) -> RateLimitStatus:
        """
        Return the decision of :meth:`acquire` without counting; one strongly consistent read.

        Other requests may be admitted before the caller acts on it. While DynamoDB is unavailable,
        ``ON_UNAVAILABLE`` decides; with ``on_unavailable="raise"`` StoreUnavailable is raised.
        """
        with in_time(self.using):
            limit = await self._resolve(resource, key, rate)
            if limit is None:
                return _NO_LIMIT
            counter = get_counter(self.using)
            status: RateLimitStatus = await counter.look(limit, cost, on_unavailable)
        return status

    get_status, aget_status = twins(_get_status)

    async def _can_proceed(
        self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1
    ) -> bool:
        """
        Return whether a request would be admitted. Followed by :meth:`record` this is a race that
        admits more than the limit; :meth:`acquire` decides and counts in one operation.
        """
        return (await self._get_status(resource, key=key, rate=rate, cost=cost)).allowed

    can_proceed, acan_proceed = twins(_can_proceed)

    async def _record(
        self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1
    ) -> None:
        """Count a request without regard to the limit; see :meth:`can_proceed`."""
        check_cost(cost, 1)
        with in_time(self.using):
            limit = await self._resolve(resource, key, rate)
            if limit is not None:
                await get_counter(self.using).record(limit, cost)

    record, arecord = twins(_record)

    async def _get_wait_time(
        self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1
    ) -> float:
        """Return after how many seconds a request would be admitted; 0 for now."""
        return (await self._get_status(resource, key=key, rate=rate, cost=cost)).retry_after

    get_wait_time, aget_wait_time = twins(_get_wait_time)

    async def _refund(
        self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1
    ) -> None:
        """Take back requests that were just counted: from the live bucket, never below 0."""
        check_cost(cost, 1)
        with in_time(self.using):
            limit = await self._resolve(resource, key, rate)
            if limit is not None:
                await get_counter(self.using).refund(limit, cost)

    refund, arefund = twins(_refund)

    async def _get_counted(self, resource: str, *, key: str = "") -> list[Counted]:
        """
        Return by which algorithms and windows requests of ``key`` are counted in the table,
        whatever their rates. Of a limit with shards the first is read. One Query.
        """
        with in_time(self.using):
            pk = keys.rate_window(resource, key, "").pk
            return await get_counter(self.using).counted(pk)

    get_counted, aget_counted = twins(_get_counted)

    async def _reset(self, resource: str, *, key: str = "", shards: int | None = None) -> None:
        """
        Delete the counts of ``key``, of every rate and algorithm.

        The number of ``shards`` is that of the limit which the settings or the table have for the
        resource or path. Name it for a limit whose ``SHARDS`` are in the rate of a decorator.
        Raises StoreUnavailable; some counts may be deleted then.
        """
        with in_time(self.using):
            counter = get_counter(self.using)
            for number in range(shards or await self._shards_of(resource)):
                await counter.reset(keys.rate_window(resource, key, "", shard=number).pk)

    reset, areset = twins(_reset)

    get_resource_config, aget_resource_config = twins(resources.get_resource_config)
    set_resource_config, aset_resource_config = twins(resources.set_resource_config)
    unset_resource_config, aunset_resource_config = twins(resources.unset_resource_config)
    get_stored_configs, aget_stored_configs = twins(resources.get_stored_configs)

    async def _resolve(self, resource: str, key: str, rate: Any) -> ResolvedLimit | None:
        config = await self._resources.limit_of(resource, key, rate)
        if config.rates is None:
            return None
        algorithm, sk = counted_by(config)
        item = keys.rate_window(resource, key, sk)
        return ResolvedLimit(resource, key, config.rates, algorithm, config, item)

    async def _shards_of(self, scope: str) -> int:
        # The name of a limit of some methods ends with them.
        name = scope.rpartition(" ")[0] or scope
        paths = get_config(self.using).rate_limit.paths
        most: int = paths.get(name.removeprefix("path:"), {}).get("SHARDS") or 1
        for each in {scope, name}:
            most = max(most, (await self._resources.config_of(each)).shards)
        return most
