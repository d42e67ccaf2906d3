"""
The direct connection, for monitoring and scaling: one attempt of two seconds, no breaker, no
retry, no measurement, and its own sockets. It also works while the breaker of a table is open.
"""

from __future__ import annotations

from typing import Any

from ..concurrency.per_process import PerProcess
from ..exceptions import store_error
from .connection import Connection, table_of
from .policy import original_error

# Seconds for connecting, and for each wait for the answer.
DIRECT_SECONDS = 2.0


class DirectConnection(Connection):
    """A connection that sends each request once; one per alias and process."""

    def dispatch(self, operation_name: str, operation_kwargs: dict[str, Any]) -> dict[str, Any]:
        """
        Return DynamoDB's answer. Raises StoreUnavailable without one, ConfigurationError for a
        missing table.
        """
        operation_kwargs.setdefault("ReturnConsumedCapacity", "NONE")
        try:
            return self._send(operation_name, operation_kwargs, DIRECT_SECONDS)
        except Exception as exc:
            original = original_error(exc)
            failure = store_error(
                original,
                operation=operation_name,
                table=table_of(operation_kwargs),
                using=self.using,
                place=self.place,
            )
            if failure is None or failure is exc:
                raise
            raise failure from original


_direct_connections = PerProcess(DirectConnection)


def get_direct_connection(using: str) -> DirectConnection:
    """Return this process's direct connection of the alias ``using``."""
    return _direct_connections.get(using)
