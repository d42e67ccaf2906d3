"""The rate limit store: decides and counts in one write."""

from __future__ import annotations

from typing import Any

from ..concurrency.threads import in_thread
from .algorithms.base import RateLimitStatus
from .counting import RateCounter, check_cost, name_of, shards_of

_NO_LIMIT = RateLimitStatus(allowed=True)


class RateLimitStore(RateCounter):
    """
    Limits of requests per ``resource`` and ``key``, shared by all processes of an alias.

    ``rate`` is anything that :func:`~dynamo_stores.conf.rates.parse_rates` takes, a dotted path or
    a function of resource and key that returns one; without it the resource's own limit applies:
    set in this process, else stored in the table, else in ``RATE_LIMIT["RESOURCES"]``, else
    ``LIMIT`` and ``WINDOW``. Limits hold within one region.
    """

    def acquire(
        self,
        resource: str,
        *,
        key: str = "",
        rate: Any = None,
        cost: int = 1,
        on_unavailable: str | None = None,
    ) -> RateLimitStatus:
        """
        Count ``cost`` requests if the limit has room for them, and say whether it had.

        One write; about none for a flood of refused ones. Raises ValueError for a cost that could
        never be admitted, ConfigurationError for a rate that is none. When DynamoDB cannot answer,
        ``ON_UNAVAILABLE`` decides.
        """
        limited = self._limited(resource, key, rate)
        if limited is None:
            return _NO_LIMIT
        check_cost(limited, cost)
        refused: list[RateLimitStatus] = []
        for shard in shards_of(limited):
            status: RateLimitStatus = self._acquire(shard, cost, on_unavailable)
            if status.allowed:
                return status
            refused.append(status)
        status = min(refused, key=lambda each: each.retry_after)
        self._tell(resource, status)
        return status

    async def aacquire(
        self,
        resource: str,
        *,
        key: str = "",
        rate: Any = None,
        cost: int = 1,
        on_unavailable: str | None = None,
    ) -> RateLimitStatus:
        """See :meth:`acquire`."""
        return await in_thread(
            self.using,
            self.acquire,
            resource,
            key=key,
            rate=rate,
            cost=cost,
            on_unavailable=on_unavailable,
        )

    def get_status(
        self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1
    ) -> RateLimitStatus:
        """
        Return what :meth:`acquire` would, counting nothing: one strong read.

        By the time that one acts on it, others may have been admitted.
        """
        limited = self._limited(resource, key, rate)
        if limited is None:
            return _NO_LIMIT
        check_cost(limited, cost)
        found: list[RateLimitStatus] = []
        for shard in shards_of(limited):
            with self._in_time():
                state = self._read(shard)
            found.append(shard.algorithm.look(state, shard.rates, cost, self._times()))
        best = min(found, key=lambda each: each.retry_after)
        return best._replace(
            limit=sum(each.limit or 0 for each in found),
            remaining=sum(each.remaining or 0 for each in found),
            reset_at=max(each.reset_at for each in found),
        )

    def can_proceed(self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1) -> bool:
        """
        Return whether a request would be admitted. Followed by :meth:`record` this is a race that
        admits more than the limit; :meth:`acquire` decides and counts at once.
        """
        return self.get_status(resource, key=key, rate=rate, cost=cost).allowed

    def record(self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1) -> None:
        """Count a request whatever the limit; see :meth:`can_proceed`."""
        limited = self._limited(resource, key, rate)
        if limited is not None:
            check_cost(limited, cost)
            with self._in_time():
                self._settle(shards_of(limited)[0], cost, force=True)

    def get_wait_time(
        self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1
    ) -> float:
        """Return after how many seconds a request would be admitted; 0 for now."""
        return self.get_status(resource, key=key, rate=rate, cost=cost).retry_after

    def refund(self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1) -> None:
        """Give back what was counted just now: out of the live bucket, never below 0."""
        limited = self._limited(resource, key, rate)
        if limited is None:
            return
        check_cost(limited, cost)
        for shard in shards_of(limited):
            if self._refund(shard, cost):
                return

    def reset(self, resource: str, *, key: str = "") -> None:
        """Forget what was counted for ``key``, by every rate and algorithm."""
        limited = self._limited(resource, key, None)
        for shard in shards_of(limited) if limited is not None else ():
            self._memory.refusals.forget(name_of(shard))
        shards = limited.config.shards if limited is not None else 1
        for shard_number in range(shards):
            self._reset(self._item_key(resource, key, "", shard_number).pk)
