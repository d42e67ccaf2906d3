"""
The transport of one request: from an operation and its DynamoDB-JSON to the answer's DynamoDB-JSON.

The timeout of an attempt limits connecting and each read from the socket. botocore cannot limit
the DNS lookup, nor the total time of an answer that arrives in many pieces.
"""

from __future__ import annotations

import contextlib
import ipaddress
import zlib
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.session import get_session
from urllib3.util import Timeout

from .. import __version__, clock
from ..conf import StoreConfig
from ..exceptions import StoreUnavailable
from .server_time import ServerClock

# The timeout of the current attempt, in seconds.
attempt_seconds: ContextVar[float | None] = ContextVar("dynamo_stores_attempt", default=None)

# Tables are described in parallel.
_CONTROL_CONNECTIONS = 10


class Transport:
    """One botocore client, shared by the threads of a process, that makes one attempt a call."""

    def __init__(self, config: StoreConfig, *, control_plane: bool = False) -> None:
        self._client: Any = make_client(
            config, max_connections=_CONTROL_CONNECTIONS if control_plane else None
        )
        self.endpoint_url: str = self._client.meta.endpoint_url
        self._client.meta.events.register_first("before-call.dynamodb", self._limit_time)
        self._client.meta.events.register_first("after-call.dynamodb", self._inspect_answer)
        self.server_clock = ServerClock()
        _limit_connecting(self._client)

    @property
    def has_credentials(self) -> bool:
        """Whether requests can be signed; botocore caches that it found no credentials."""
        return self._client._request_signer._credentials is not None

    def send(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request once and return the answer. Raises botocore's errors."""
        answer: dict[str, Any] = self._client._make_api_call(operation, request)
        return answer

    # PynamoDB calls a botocore client by this private name.
    _make_api_call = send

    def close(self) -> None:
        """Close the sockets; those in use are closed after their request."""
        self._client.close()

    @staticmethod
    def _limit_time(context: dict[str, Any], **kwargs: object) -> None:
        context["read_timeout"] = attempt_seconds.get()
        context["sent_at"] = clock.monotonic()

    def _inspect_answer(
        self, http_response: Any, context: dict[str, Any], **kwargs: object
    ) -> None:
        _check_answer(http_response)
        if (date := http_response.headers.get("date")) is not None:
            self.server_clock.record(date, context["sent_at"], clock.monotonic())


def make_client(config: StoreConfig, *, max_connections: int | None = None) -> Any:
    """
    Return a botocore client for ``config`` that never retries by itself.

    Credentials are found by botocore. For an endpoint on this machine they are invented, so that
    real ones are neither needed nor sent there.
    """
    session = get_session()
    credentials: dict[str, Any] = {}
    if config.endpoint_url is not None and is_loopback(config.endpoint_url):
        credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    return session.create_client(
        "dynamodb",
        region_name=config.region or (_local_region(session) if credentials else None),
        endpoint_url=config.endpoint_url,
        config=Config(
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            max_pool_connections=max_connections or config.max_pool_connections,
            # One attempt: the call policy retries within the deadline.
            retries={"total_max_attempts": 1, "mode": "standard"},
            parameter_validation=False,
            tcp_keepalive=True,
            user_agent_extra=f"dynamo-stores/{__version__}",
        ),
        **credentials,
    )


def is_loopback(url: str) -> bool:
    """Return whether ``url`` is on this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _local_region(session: Any) -> str:
    region: str | None = session.get_config_variable("region")
    return region or "us-east-1"


class _AttemptTimeout(Timeout):
    """A timeout for connecting of at most the timeout of the current attempt."""

    @property
    def connect_timeout(self) -> Any:
        own: Any = super().connect_timeout
        left = attempt_seconds.get()
        return own if left is None else min(own, left)


def _limit_connecting(client: Any) -> None:
    # botocore allows a read timeout for each request, but no connect timeout; its HTTP session
    # reads both from this object each time.
    session = client._endpoint.http_session
    timeout = session._timeout
    session._timeout = _AttemptTimeout(connect=timeout.connect_timeout, read=timeout.read_timeout)


def _check_answer(http_response: Any) -> None:
    # botocore treats a body that is not JSON as an empty answer, as if a write had succeeded.
    body: bytes = http_response.content
    checksum = http_response.headers.get("x-amz-crc32")
    if checksum is not None:
        is_whole = str(zlib.crc32(body)) == checksum
    else:
        is_whole = body[:1] == b"{" and body[-1:] == b"}"
    # Errors are checked too: botocore puts a body that it cannot parse into the error's message. A
    # 5xx is retried whatever its body is.
    if not is_whole and (checksum is not None or http_response.status_code < 500):
        error = "is not complete JSON" if checksum is None else "failed its checksum"
        raise StoreUnavailable(f"The response of DynamoDB {error}.")
