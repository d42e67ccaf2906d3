"""The rate limit store: decides and counts in one write."""

from __future__ import annotations

from typing import Any

from ..concurrency.threads import in_thread
from .algorithms.base import RateLimitStatus
from .counting import RateCounter, check_cost, shards_of

_NO_LIMIT = RateLimitStatus(allowed=True)


class RateLimitStore(RateCounter):
    """
    Limits of requests per ``resource`` and ``key``, shared by all processes of an alias.

    ``rate`` is anything that :func:`~dynamo_stores.conf.rates.parse_rates` accepts, a dotted path,
    or a function of resource and key that returns a rate. Without it the resource's own limit
    applies: set in this process, else stored in the table, else in ``RATE_LIMIT["RESOURCES"]``,
    else ``LIMIT`` and ``WINDOW``. Limits hold within one region.
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
        Count ``cost`` requests if the limit admits them, and return the decision.

        One write; about none for a flood of refused requests. A cost of 0 is free; one below 0, or
        above what the limit admits at once, is refused. While DynamoDB is unavailable,
        ``ON_UNAVAILABLE`` decides, after ``OPERATION_TIMEOUT`` at the latest. Raises ValueError for
        a cost that is not a whole number, ConfigurationError for an invalid rate.
        """
        with self._in_time():
            limit = self._resolve(resource, key, rate)
            if limit is None:
                return _NO_LIMIT
            status: RateLimitStatus = self._acquire(limit, cost, on_unavailable)
        if not status.allowed:
            self._send_refused(resource, status)
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
        ``ON_UNAVAILABLE`` decides.
        """
        with self._in_time():
            limit = self._resolve(resource, key, rate)
            if limit is None:
                return _NO_LIMIT
            status: RateLimitStatus = self._look(limit, cost, on_unavailable)
        return status

    def can_proceed(self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1) -> bool:
        """
        Return whether a request would be admitted. Followed by :meth:`record` this is a race that
        admits more than the limit; :meth:`acquire` decides and counts in one operation.
        """
        return self.get_status(resource, key=key, rate=rate, cost=cost).allowed

    def record(self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1) -> None:
        """Count a request without regard to the limit; see :meth:`can_proceed`."""
        check_cost(cost, 1)
        with self._in_time():
            limit = self._resolve(resource, key, rate)
            if limit is not None:
                self._count(shards_of(limit)[0], cost, force=True)

    def get_wait_time(
        self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1
    ) -> float:
        """Return after how many seconds a request would be admitted; 0 for now."""
        return self.get_status(resource, key=key, rate=rate, cost=cost).retry_after

    def refund(self, resource: str, *, key: str = "", rate: Any = None, cost: int = 1) -> None:
        """Take back requests that were just counted: from the live bucket, never below 0."""
        check_cost(cost, 1)
        with self._in_time():
            limit = self._resolve(resource, key, rate)
            for shard in shards_of(limit) if limit is not None else ():
                if self._refund(shard, cost):
                    return

    def reset(self, resource: str, *, key: str = "", shards: int | None = None) -> None:
        """
        Delete the counts of ``key``, of every rate and algorithm.

        The number of ``shards`` is that of the limit which the settings or the table have for the
        resource or path. Name it for a limit whose ``SHARDS`` are in the rate of a decorator.
        Raises StoreUnavailable; some counts may be deleted then.
        """
        with self._in_time():
            for number in range(shards or self._shards_of(resource)):
                self._reset(self._item_key(resource, key, "", number).pk)

    def _shards_of(self, scope: str) -> int:
        # The name of a limit of some methods ends with them.
        name = scope.rpartition(" ")[0] or scope
        path = self._settings.paths.get(name.removeprefix("path:"), {})
        of_path = path.get("SHARDS") or 1
        return max(of_path, *(self._config(each).shards for each in {scope, name}))
