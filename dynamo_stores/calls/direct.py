"""
The direct connection, for monitoring and scaling: one attempt of two seconds, no breaker, no
retry, no measurement, and its own sockets. It also works while the breaker of a table is open.
"""

from __future__ import annotations

from typing import Any

from .. import clock
from ..concurrency.per_process import PerProcess
from ..exceptions import store_error
from .connection import Connection, table_of
from .policy import time_left

# Seconds for connecting, and for each wait for the answer; fewer near the end of a deadline.
DIRECT_SECONDS = 2.0


class DirectConnection(Connection):
    """A connection that sends each request once; one per alias and process."""

    async def call(
        self, operation: str, request: dict[str, Any], timeout: float | None = None
    ) -> dict[str, Any]:
        """
        Return DynamoDB's answer. A verb. Raises StoreUnavailable without one, ConfigurationError
        for a missing table.
        """
        request.setdefault("ReturnConsumedCapacity", "NONE")
        try:
            until = clock.monotonic() + time_left(DIRECT_SECONDS)
            return await self._send(operation, request, until)
        except Exception as exc:
            failure = store_error(
                exc,
                operation=operation,
                table=table_of(request),
                using=self.using,
                place=self.place,
            )
            if failure is None or failure is exc:
                raise
            raise failure from exc


_direct_connections = PerProcess(DirectConnection)


def get_direct_connection(using: str) -> DirectConnection:
    """Return this process's direct connection of the alias ``using``."""
    return _direct_connections.get(using)
