"""
The transport of one request: from an operation and its DynamoDB-JSON to the answer's DynamoDB-JSON.

The end of an attempt limits connecting, the TLS handshake and the wait for the answer. botocore
cannot limit the DNS lookup, nor the total time of an answer that arrives in many pieces.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import threading
import zlib
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.session import get_session
from urllib3.util import Timeout

from .. import __version__, clock
from ..conf import StoreConfig
from ..exceptions import OperationTimeoutError, StoreUnavailable, client_error
from .server_time import ServerClock

# The end of the current attempt, in monotonic seconds.
attempt_until: ContextVar[float | None] = ContextVar("dynamo_stores_attempt", default=None)

# Tables are described in parallel.
_CONTROL_CONNECTIONS = 10
# Looking for credentials may take seconds; where none were found they are looked for again after
# so many.
_CREDENTIALS_PAUSE = 5.0


class Transport:
    """One botocore client, shared by the threads of a process, that makes one attempt a call."""

    def __init__(
        self, config: StoreConfig, server_clock: ServerClock, *, control_plane: bool = False
    ) -> None:
        self._client: Any = make_client(
            config, max_connections=_CONTROL_CONNECTIONS if control_plane else None
        )
        meta = self._client.meta
        self.endpoint_url: str = meta.endpoint_url
        self.place = _place(meta.endpoint_url, meta.region_name)
        self._client.meta.events.register_first("before-call.dynamodb", self._record_time)
        self._client.meta.events.register_first("after-call.dynamodb", self._inspect_answer)
        self._server_clock = server_clock
        _limit_time(self._client)

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
        """Close the sockets; those in use are closed after their request, and new ones opened."""
        self._client.close()

    @staticmethod
    def _record_time(context: dict[str, Any], **kwargs: object) -> None:
        context["sent_at"] = clock.monotonic()

    def _inspect_answer(
        self, http_response: Any, context: dict[str, Any], model: Any, **kwargs: object
    ) -> None:
        _check_answer(http_response, model.name)
        if (date := http_response.headers.get("date")) is not None:
            self._server_clock.record(date, context["sent_at"], clock.monotonic())


class SharedTransport:
    """The transport that the threads of a process share; the first to use it makes it."""

    def __init__(self, using: str, config: StoreConfig, *, control_plane: bool = False) -> None:
        self._using = using
        self._config = config
        self._control_plane = control_plane
        self._transport: Transport | None = None
        self.server_clock = ServerClock()
        self._lock = threading.RLock()
        self._looked_at = 0.0

    @property
    def place(self) -> str:
        """The endpoint and the region of the requests as text, for messages."""
        if self._transport is not None:
            return self._transport.place
        return _place(self._config.endpoint_url, self._config.region)

    def get(self) -> Transport:
        """
        Return the transport. Raises OperationTimeoutError if another thread is still making it at
        the end of the attempt, and ConfigurationError if there can be none.
        """
        transport = self._transport
        if transport is not None and transport.has_credentials:
            return transport
        return self._make()

    def close(self) -> None:
        """Close the sockets; the next request opens new ones."""
        if self._transport is not None:
            self._transport.close()

    def _make(self) -> Transport:
        until = attempt_until.get()
        seconds = -1.0 if until is None else max(0.0, until - clock.monotonic())
        try:
            if not self._lock.acquire(timeout=seconds):
                raise OperationTimeoutError(
                    "No request was sent: another thread did not finish making the client of the "
                    f"alias {self._using!r} in time, which includes finding AWS credentials."
                )
            transport = self._transport
            if transport is None or self._is_due(transport):
                transport = Transport(
                    self._config, self.server_clock, control_plane=self._control_plane
                )
                self._transport, self._looked_at = transport, clock.monotonic()
            return transport
        except BotoCoreError as exc:
            error = client_error(exc, self._using)
            if error is None:
                raise
            raise error from exc
        finally:
            # An exception from outside may come between ``acquire`` and a note that it succeeded.
            if self._lock._is_owned():  # type: ignore[attr-defined]
                self._lock.release()

    def _is_due(self, transport: Transport) -> bool:
        is_over = clock.monotonic() - self._looked_at >= _CREDENTIALS_PAUSE
        return is_over and not transport.has_credentials


def has_region(config: StoreConfig) -> bool:
    """Return whether the requests of ``config`` have a region; reads botocore's configuration."""
    if config.region or (config.endpoint_url is not None and is_loopback(config.endpoint_url)):
        return True
    try:
        return bool(get_session().get_config_variable("region"))
    except BotoCoreError:
        # The profile cannot be read, which the first call reports.
        return True


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


def _place(url: str | None, region: str | None) -> str:
    # A URL may have a name and a password.
    parts = (("endpoint", urlsplit(url or "").netloc.rpartition("@")[2]), ("region", region))
    return ", ".join(f"{name} {value}" for name, value in parts if value)


class _AttemptTimeout(Timeout):
    """Ends connecting and reading with the current attempt, however the time is divided."""

    def clone(self) -> _AttemptTimeout:
        return _AttemptTimeout(connect=self._connect, read=self._read)

    @property
    def connect_timeout(self) -> Any:
        return _within_attempt(super().connect_timeout)

    @property
    def read_timeout(self) -> Any:
        return _within_attempt(super().read_timeout)


def _within_attempt(seconds: Any) -> Any:
    until = attempt_until.get()
    return seconds if until is None else min(seconds, max(0.001, until - clock.monotonic()))


def _limit_time(client: Any) -> None:
    # botocore allows a read timeout for each request, which does not shrink while it connects. Its
    # pools clone this object for each request, and read the timeouts when they are used.
    session = client._endpoint.http_session
    timeout = session._timeout
    session._timeout = _AttemptTimeout(connect=timeout.connect_timeout, read=timeout.read_timeout)
    session._manager.connection_pool_kw["timeout"] = session._timeout


def _check_answer(http_response: Any, operation: str) -> None:
    # botocore treats a body that is not JSON as an empty answer, as if a write had succeeded.
    body: bytes = http_response.content
    status: int = http_response.status_code
    checksum = http_response.headers.get("x-amz-crc32")
    is_whole = is_complete_json(body) if checksum is None else str(zlib.crc32(body)) == checksum
    # Errors are checked too: botocore puts a body that it cannot parse into the error's message. A
    # 5xx is retried whatever its body is.
    if is_whole or (checksum is None and status >= 500):
        return
    if checksum is None and body[:1] not in (b"", b"{"):
        # A page of a proxy; botocore's error for an answer without a code of DynamoDB.
        raise ClientError(
            {"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
            operation,
        )
    error = "is not complete JSON" if checksum is None else "failed its checksum"
    raise StoreUnavailable(f"The response of DynamoDB {error}.")


def is_complete_json(body: bytes) -> bool:
    """Return whether ``body`` is a complete JSON object; botocore takes a part of one for {}."""
    if body[:1] != b"{" or body[-1:] != b"}":
        return False
    if body.count(b"{") == body.count(b"}"):
        return True
    try:
        json.loads(body)
    except ValueError:
        return False
    return True
