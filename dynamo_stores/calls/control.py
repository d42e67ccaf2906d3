"""
The client for the control plane (DescribeTable, UpdateTable, …).

One attempt and no policy: callers that change a table handle failures themselves, and an error of
the control plane must not open the breaker of the table.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from ..concurrency.per_process import PerProcess
from ..conf import DEFAULT_ALIAS, get_config
from ..exceptions import TABLE_MISSING, code_of, unavailable
from .transport import Transport, attempt_seconds


class ControlPlane:
    """The control plane of one alias in one process."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._config = get_config(using)
        self._transport: Transport | None = None

    def call(
        self, operation: str, kwargs: dict[str, Any], *, seconds: float | None = None
    ) -> dict[str, Any]:
        """
        Return the answer to one request; wait at most ``seconds`` (default ``READ_TIMEOUT``).

        Raises StoreUnavailable without an answer, and botocore's ClientError if DynamoDB refuses.
        """
        if self._transport is None or not self._transport.has_credentials:
            self._transport = Transport(self._config, control_plane=True)
        token = attempt_seconds.set(seconds or self._config.read_timeout)
        try:
            return self._transport.send(operation, kwargs)
        except Exception as exc:
            table = kwargs.get("TableName", "the account")
            failure = unavailable(exc, operation=operation, table=table)
            if failure is None or failure is exc:
                raise
            raise failure from exc
        finally:
            attempt_seconds.reset(token)

    def describe(self, table: str, *, seconds: float | None = None) -> dict[str, Any] | None:
        """Return ``Table`` of DescribeTable, or None if there is no such table."""
        try:
            answer = self.call("DescribeTable", {"TableName": table}, seconds=seconds)
            description: dict[str, Any] = answer["Table"]
        except ClientError as exc:
            if code_of(exc) == TABLE_MISSING:
                return None
            raise
        return description

    def ttl_attribute(self, table: str) -> str | None:
        """Return the TTL attribute of ``table``, None if TTL is disabled."""
        answer = self.call("DescribeTimeToLive", {"TableName": table})
        description = answer.get("TimeToLiveDescription", {})
        if description.get("TimeToLiveStatus") in ("ENABLED", "ENABLING"):
            attribute: str = description["AttributeName"]
            return attribute
        return None


_control_planes = PerProcess(ControlPlane)


def get_control(using: str = DEFAULT_ALIAS) -> ControlPlane:
    """Return this process's control plane of the alias ``using``."""
    return _control_planes.get(using)
