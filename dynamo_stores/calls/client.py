"""
botocore's client as a transport: one attempt a call, within the attempt's time.

The end of an attempt limits connecting, the TLS handshake and the wait for the answer. botocore
cannot limit the DNS lookup, nor the total time of an answer that arrives in many pieces.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from botocore.config import Config
from urllib3.util import Timeout

from .. import clock
from ..concurrency.effects import InThread
from ..conf import StoreConfig
from .account import Account
from .environment import USER_AGENT, is_loopback, local_region, needs_no_account, place_of
from .server_time import ServerClock
from .wire import check_body

# The end of the current attempt, in monotonic seconds.
_attempt_until: ContextVar[float | None] = ContextVar("dynamo_stores_attempt", default=None)

# Tables are described in parallel.
_CONTROL_CONNECTIONS = 10


class ClientTransport:
    """One botocore client, shared by the threads of a process, that makes one attempt a call."""

    def __init__(
        self,
        using: str,
        config: StoreConfig,
        server_clock: ServerClock,
        account: Account,
        *,
        control_plane: bool = False,
    ) -> None:
        self._using = using
        self._client: Any = make_client(
            config, account, max_connections=_CONTROL_CONNECTIONS if control_plane else None
        )
        meta = self._client.meta
        self.region = str(meta.region_name)
        self.place = place_of(meta.endpoint_url, meta.region_name)
        self._client.meta.events.register_first("before-call.dynamodb", self._record_time)
        self._client.meta.events.register_first("after-call.dynamodb", self._inspect_answer)
        self._server_clock = server_clock
        _limit_time(self._client)

    @property
    def has_credentials(self) -> bool:
        """Whether requests can be signed; botocore caches that it found no credentials."""
        return self._client._request_signer._credentials is not None

    async def send(self, operation: str, request: dict[str, Any], until: float) -> dict[str, Any]:
        """
        Send a request once, until a monotonic time, and return the answer. A verb. Raises
        botocore's errors.
        """

        def send() -> Any:
            token = _attempt_until.set(until)
            try:
                return self._client._make_api_call(operation, request)
            finally:
                _attempt_until.reset(token)

        answer: dict[str, Any] = await InThread(self._using, send)
        return answer

    def close(self) -> None:
        """Close the sockets; those in use are closed after their request, and new ones opened."""
        self._client.close()

    @staticmethod
    def _record_time(context: dict[str, Any], **kwargs: object) -> None:
        context["sent_at"] = clock.monotonic()

    def _inspect_answer(
        self, http_response: Any, context: dict[str, Any], model: Any, **kwargs: object
    ) -> None:
        check_answer(http_response, model)
        if (date := http_response.headers.get("date")) is not None:
            sent_at = context["sent_at"]
            self._server_clock.record(date.encode("latin-1"), sent_at, clock.monotonic())


def check_answer(http_response: Any, model: Any, **kwargs: object) -> None:
    """
    Raise the error of :func:`check_body` for a damaged answer; for botocore's event
    ``after-call``. botocore treats a body that is not JSON as an empty answer, as if a write had
    succeeded.
    """
    checksum = http_response.headers.get("x-amz-crc32")
    check_body(
        model.name,
        http_response.status_code,
        http_response.content,
        None if checksum is None else checksum.encode(),
    )


def make_client(
    config: StoreConfig,
    account: Account,
    *,
    max_connections: int | None = None,
    service: str = "dynamodb",
) -> Any:
    """
    Return a botocore client of ``account`` for ``config`` that never retries by itself; ``service``
    is botocore's name.

    For an endpoint on this machine credentials are invented unless the settings name an account,
    so that real ones are neither needed nor sent there.
    """
    credentials: dict[str, Any] = {}
    if needs_no_account(config):
        credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
    is_local = config.endpoint_url is not None and is_loopback(config.endpoint_url)
    return account.create_client(
        service,
        region_name=config.region or (local_region(account.session) if is_local else None),
        endpoint_url=config.endpoint_url,
        config=Config(
            connect_timeout=config.connect_timeout,
            read_timeout=config.read_timeout,
            max_pool_connections=max_connections or config.max_pool_connections,
            # One attempt: the call policy retries within the deadline.
            retries={"total_max_attempts": 1, "mode": "standard"},
            parameter_validation=False,
            tcp_keepalive=True,
            user_agent_extra=USER_AGENT,
        ),
        **credentials,
    )


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
    until = _attempt_until.get()
    return seconds if until is None else min(seconds, max(0.001, until - clock.monotonic()))


def _limit_time(client: Any) -> None:
    # botocore allows a read timeout for each request, which does not shrink while it connects. Its
    # pools clone this object for each request, and read the timeouts when they are used.
    session = client._endpoint.http_session
    timeout = session._timeout
    session._timeout = _AttemptTimeout(connect=timeout.connect_timeout, read=timeout.read_timeout)
    session._manager.connection_pool_kw["timeout"] = session._timeout
