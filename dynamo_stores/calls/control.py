"""
The client for the control plane (DescribeTable, UpdateTable, …).

No policy: an error of the control plane must not open the breaker of the table. A request that
failed inside DynamoDB is sent again, although it may have been carried out: see ``was_repeated``.
"""

from __future__ import annotations

from typing import Any, cast

from botocore.exceptions import ClientError

from .. import clock
from ..concurrency.effects import run
from ..concurrency.per_process import PerProcess
from ..conf import DEFAULT_ALIAS, get_config
from ..exceptions import TABLE_MISSING, StoreRefused, StoreUnavailable, code_of, unavailable
from .transport import SharedTransport

# Seconds before each further attempt after an error inside DynamoDB.
_WAITS = (0.1, 0.3)


class ControlPlane:
    """The control plane of one alias in one process."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._config = get_config(using)
        self._transport = SharedTransport(using, self._config, control_plane=True)

    @property
    def place(self) -> str:
        """The endpoint and the region of the requests as text, for messages."""
        # The client knows the region and the endpoint that the settings leave out.
        self._transport.prepare(clock.monotonic() + self._config.read_timeout)
        return self._transport.place

    def call(
        self, operation: str, kwargs: dict[str, Any], *, seconds: float | None = None
    ) -> dict[str, Any]:
        """
        Return the answer to one request; wait at most ``seconds`` (default ``READ_TIMEOUT``).

        Raises StoreUnavailable without an answer or if DynamoDB failed in three attempts, and
        botocore's ClientError if DynamoDB or AWS refuses with a code.
        """
        seconds = seconds or self._config.read_timeout
        until = clock.monotonic() + seconds
        try:
            return self._attempts(self._transport, operation, kwargs, until)
        except Exception as exc:
            table = kwargs.get("TableName", "the account")
            place = self._transport.place
            failure = unavailable(exc, operation=operation, table=table, place=place)
            if failure is None or failure is exc or _has_code(exc, failure):
                raise
            raise failure from exc

    @staticmethod
    def _attempts(
        transport: SharedTransport, operation: str, kwargs: dict[str, Any], until: float
    ) -> dict[str, Any]:
        repeats = 0
        while True:
            try:
                return run(transport.send(operation, kwargs, until))
            except ClientError as exc:
                metadata: Any = exc.response.setdefault("ResponseMetadata", cast(Any, {}))
                metadata["RetryAttempts"] = repeats
                if metadata.get("HTTPStatusCode", 0) < 500 or repeats == len(_WAITS):
                    raise
                if clock.monotonic() + _WAITS[repeats] >= until:
                    raise
            clock.sleep(_WAITS[repeats])
            repeats += 1

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

    def ttl(self, table: str) -> tuple[str, str | None]:
        """
        Return the state of TTL (``ENABLED``, ``ENABLING``, ``DISABLING`` or ``DISABLED``) and its
        attribute, None if DynamoDB names none.
        """
        answer = self.call("DescribeTimeToLive", {"TableName": table})
        description = answer.get("TimeToLiveDescription", {})
        return description.get("TimeToLiveStatus", "DISABLED"), description.get("AttributeName")

    def ttl_attribute(self, table: str) -> str | None:
        """Return the TTL attribute of ``table``, None if TTL is disabled."""
        status, attribute = self.ttl(table)
        return attribute if status in ("ENABLED", "ENABLING") else None


def was_repeated(exc: ClientError) -> bool:
    """
    Return whether DynamoDB refused a repeated request. What it refuses may be a change that the
    first attempt made already.
    """
    return bool(exc.response.get("ResponseMetadata", {}).get("RetryAttempts"))


def _has_code(exc: Exception, failure: StoreUnavailable) -> bool:
    # Callers of the control plane decide by the code of a refusal.
    is_refused = isinstance(exc, ClientError) and isinstance(failure, StoreRefused)
    return is_refused and not code_of(exc).isdigit()


_control_planes = PerProcess(ControlPlane)


def get_control(using: str = DEFAULT_ALIAS) -> ControlPlane:
    """Return this process's control plane of the alias ``using``."""
    return _control_planes.get(using)
