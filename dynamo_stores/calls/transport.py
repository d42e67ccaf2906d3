"""
Sends one request: from an operation and its DynamoDB-JSON to the answer's DynamoDB-JSON.

This is the narrow seam of the road. Through botocore the time for an attempt covers connecting
and the wait for each piece of the answer; name look-up and an answer that trickles are not cut.
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

# How long the attempt that is being made may take, in seconds.
attempt_seconds: ContextVar[float | None] = ContextVar("dynamo_stores_attempt", default=None)

# Tables are described side by side.
_CONTROL_CONNECTIONS = 10


class Transport:
    """One botocore client, shared by the threads of a process, that makes one attempt a call."""

    def __init__(self, config: StoreConfig, *, control_plane: bool = False) -> None:
        self._client: Any = make_client(
            config, max_connections=_CONTROL_CONNECTIONS if control_plane else None
        )
        self.endpoint_url: str = self._client.meta.endpoint_url
        self._client.meta.events.register_first("before-call.dynamodb", self._cut_time)
        self._client.meta.events.register_first("after-call.dynamodb", self._look_at_answer)
        self.server_clock = ServerClock()
        _cut_connecting(self._client)

    @property
    def has_credentials(self) -> bool:
        """Whether requests can be signed; botocore remembers that it found no credentials."""
        return self._client._request_signer._credentials is not None

    def send(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one request, sent once; raises botocore's own errors."""
        answer: dict[str, Any] = self._client._make_api_call(operation, request)
        return answer

    # By this name PynamoDB calls what it takes for a botocore client.
    _make_api_call = send

    def close(self) -> None:
        """Close the connections; those in use are closed when they come back."""
        self._client.close()

    @staticmethod
    def _cut_time(context: dict[str, Any], **kwargs: object) -> None:
        context["read_timeout"] = attempt_seconds.get()
        context["sent_at"] = clock.monotonic()

    def _look_at_answer(
        self, http_response: Any, context: dict[str, Any], **kwargs: object
    ) -> None:
        _check_answer(http_response)
        if (date := http_response.headers.get("date")) is not None:
            self.server_clock.record(date, context["sent_at"], clock.monotonic())


def make_client(config: StoreConfig, *, max_connections: int | None = None) -> Any:
    """
    Return a botocore client for ``config`` that never retries by itself.

    Credentials come from botocore's own chain. An endpoint on this machine gets made-up ones, so
    that real ones are neither needed nor sent there.
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
            # One attempt: the policy retries, and knows the deadline.
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


class _CutTimeout(Timeout):
    """A time-out whose connecting part is cut to what the attempt has left."""

    @property
    def connect_timeout(self) -> Any:
        own: Any = super().connect_timeout
        left = attempt_seconds.get()
        return own if left is None else min(own, left)


def _cut_connecting(client: Any) -> None:
    # botocore lets a request shorten the wait for the answer, but not the connecting: its HTTP
    # session asks this object for both each time. Without it, connecting takes CONNECT_TIMEOUT.
    session = client._endpoint.http_session
    timeout = session._timeout
    session._timeout = _CutTimeout(connect=timeout.connect_timeout, read=timeout.read_timeout)


def _check_answer(http_response: Any) -> None:
    # botocore takes a body that is not JSON for an empty answer, and then a write would seem done.
    body: bytes = http_response.content
    checksum = http_response.headers.get("x-amz-crc32")
    if checksum is not None:
        is_whole = str(zlib.crc32(body)) == checksum
    else:
        is_whole = body[:1] == b"{" and body[-1:] == b"}"
    if not is_whole and http_response.status_code < 300:
        raise StoreUnavailable("The answer of DynamoDB was damaged on its way.")
