"""The dedupe store: an expensive job runs once, and everybody gets its result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..calls.steps import Computation, awalk, walk
from .deduping import run_once, wait_for
from .jobs import JobStore


class DedupeStore(JobStore):
    """
    Jobs by their ``key``, any string. Durations in seconds.

    A job has an owner for a lease, which a heartbeat renews while it works (:meth:`run`), and a
    fence that only ever rises: who lost the job can neither complete nor fail it. Results are
    what JSON can say, of any size. Jobs run once per region.
    """

    def run(
        self,
        key: str,
        function: Callable[[], Any],
        *,
        ttl: float | None = None,
        failure_ttl: float | None = None,
    ) -> Any:
        """
        Call ``function`` unless that was done within ``ttl`` seconds, and return its result as
        JSON gives it back; or wait, at most ``MAX_WAIT``, for who is calling it now.

        Its error reaches the caller; those who wait, and who come within ``failure_ttl`` seconds
        (0: the next one tries), get DedupeFailedError. Raises DedupeTimeoutError, DedupeError for
        a result that JSON cannot say, StoreUnavailable.
        """
        return walk(run_once(self, key, ttl, failure_ttl), Computation(function))

    async def arun(
        self,
        key: str,
        function: Callable[[], Any],
        *,
        ttl: float | None = None,
        failure_ttl: float | None = None,
    ) -> Any:
        """See :meth:`run`; ``function`` may be a coroutine function."""
        steps = run_once(self, key, ttl, failure_ttl)
        return await awalk(steps, Computation(function), self.using)

    def wait_for(self, key: str, *, timeout: float | None = None, default: Any = None) -> Any:
        """
        Return the result, waiting for it at most ``timeout`` seconds (``MAX_WAIT``); ``default``
        where there is no such job, or its owner died.

        Raises DedupeFailedError, DedupeTimeoutError.
        """
        return walk(wait_for(self, key, timeout, default), Computation(None))

    async def await_for(
        self, key: str, *, timeout: float | None = None, default: Any = None
    ) -> Any:
        """See :meth:`wait_for`."""
        return await awalk(wait_for(self, key, timeout, default), Computation(None), self.using)
