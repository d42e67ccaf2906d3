"""
The transport of one request: from an operation and its DynamoDB-JSON to the answer's DynamoDB-JSON.

``TRANSPORT`` chooses. The lean one sends requests over connections of its own; it takes from
botocore what :mod:`.environment` has. The other one is botocore's client.
"""

from __future__ import annotations

import logging
import threading
import time
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import BotoCoreError, ClientError

from .. import clock
from ..concurrency.effects import Verb
from ..concurrency.own_thread import OwnThread
from ..conf import StoreConfig
from ..exceptions import ConfigurationError, OperationTimeoutError, client_error, code_of
from .account import Account, get_account
from .client import ClientTransport
from .environment import Environment, place_of
from .hooks import find_hook
from .pool import Pool
from .server_time import ServerClock
from .wire import Answer, Endpoint, Signer, decode, encode

logger = logging.getLogger(__name__)

# Looking for credentials may take seconds; where none were found they are looked for again after
# so many.
_CREDENTIALS_PAUSE = 5.0
# Seconds after a refresh in which its outcome stands, whatever it was.
_REFRESH_PAUSE = 1.0
# DynamoDB does not notice if it carries out one of these twice.
_MAY_REPEAT = frozenset(["BatchGetItem", "GetItem", "Query", "Scan", "TransactGetItems"])
# DynamoDB refuses a signature that is five minutes old, or five minutes ahead.
_SKEW_CODES = frozenset(["InvalidSignatureException", "RequestExpired", "RequestTimeTooSkewed"])
_MAX_SKEW = 240.0
_ARN = "a table is named by its ARN"


class LeanTransport:
    """Sends requests over kept-alive connections, shared by the threads and loops of a process."""

    def __init__(
        self, using: str, config: StoreConfig, server_clock: ServerClock, environment: Environment
    ) -> None:
        self._using = using
        self._environment = environment
        self._server_clock = server_clock
        self._connect_timeout = config.connect_timeout
        self._keep = config.max_pool_connections
        # Whether requests can be signed.
        self.has_credentials = environment.has_credentials
        # Seconds by which AWS's clock is ahead, once it has refused a signature for it.
        self._ahead = 0.0
        self._refresh: OwnThread[ReadOnlyCredentials] | None = None
        self._next_refresh_at = 0.0
        self._connect(environment.endpoint)

    @property
    def region(self) -> str:
        """The region of the requests."""
        return self._environment.endpoint.region

    @property
    def place(self) -> str:
        """The endpoint and the region of the requests as text, for messages."""
        endpoint = self._environment.endpoint
        return place_of(endpoint.url, endpoint.region)

    async def send(self, operation: str, request: dict[str, Any], until: float) -> dict[str, Any]:
        """
        Send a request once, until a monotonic time, and return the answer. A verb. Raises
        botocore's errors.
        """
        body = encode(request)
        ahead = self._ahead
        answer = await self._ask(operation, body, until, ahead)
        try:
            return decode(operation, answer)
        except ClientError as exc:
            if code_of(exc) not in _SKEW_CODES or not self._corrects_clock(answer, ahead):
                raise
        # It was refused, so that it was not carried out.
        return decode(operation, await self._ask(operation, body, until, self._ahead))

    def close(self) -> None:
        """Close the idle connections; those in use are closed after their request."""
        _, pool = self._route
        pool.close()

    def _connect(self, endpoint: Endpoint) -> tuple[Signer, Pool]:
        pool = Pool(
            endpoint,
            connect_timeout=self._connect_timeout,
            keep=self._keep,
            make_context=self._environment.ssl_context,
        )
        self._route = (Signer(endpoint), pool)
        return self._route

    async def _ask(self, operation: str, body: bytes, until: float, ahead: float) -> Answer:
        now, environment = time.time() + ahead, self._environment
        credentials = environment.known_credentials(clock.monotonic())
        if credentials is None:
            credentials = await self._credentials(until)
        signer, pool = self._route
        endpoint = environment.endpoint_for(credentials)
        if endpoint is not pool.endpoint:
            signer, pool = self._connect(endpoint)
        raw = signer.request(operation, body, credentials, now)
        sent_at = clock.monotonic()
        answer = await pool.send(raw, until, operation in _MAY_REPEAT)
        date = answer.headers.get(b"date")
        if date is not None:
            self._server_clock.record(date, sent_at, clock.monotonic())
        return answer

    async def _credentials(self, until: float) -> ReadOnlyCredentials:
        """
        Return the credentials. They are refreshed in a thread; meanwhile those that are still valid
        are used.
        """
        environment, refresh = self._environment, self._refresh
        if not environment.is_refresh_due:
            return environment.credentials(clock.monotonic())
        # Two callers that find no refresh to wait for begin one each, which take turns in botocore.
        if refresh is None or (refresh.is_done and clock.monotonic() >= self._next_refresh_at):
            self._refresh = refresh = OwnThread(self._refresh_credentials, "credentials")
        valid = environment.unexpired_credentials()
        if valid is not None:
            return valid
        try:
            return await refresh.result(until)
        except TimeoutError as exc:
            raise OperationTimeoutError(
                "No request was sent: the AWS credentials of the alias "
                f"{self._using!r} are expired and were not refreshed in time."
            ) from exc

    def _refresh_credentials(self) -> ReadOnlyCredentials:
        try:
            return self._environment.credentials(clock.monotonic())
        except Exception as exc:
            logger.warning(
                "The AWS credentials of the alias %r could not be refreshed: %s.",
                self._using, type(exc).__name__,
            )  # fmt: skip
            raise
        finally:
            self._next_refresh_at = clock.monotonic() + _REFRESH_PAUSE

    def _corrects_clock(self, answer: Answer, ahead: float) -> bool:
        """Learn AWS's time from a refusal; return whether the signature was of another time."""
        try:
            date = parsedate_to_datetime(answer.headers[b"date"].decode("latin-1")).timestamp()
        except (KeyError, TypeError, ValueError):
            return False
        found = date - time.time()
        if abs(found - ahead) < _MAX_SKEW:
            return False
        self._ahead = found
        logger.warning(
            "The clock of this machine differs by %.0f seconds from AWS's. Requests are signed "
            "with AWS's time. Correct the clock: cache entries expire by it.",
            found,
        )
        return True


class SharedTransport:
    """The transport that the threads of a process share; the first to use it makes it."""

    def __init__(self, using: str, config: StoreConfig, *, control_plane: bool = False) -> None:
        self._using = using
        self._config = config
        self._control_plane = control_plane
        # By the reason to use botocore's client: it is made after a tool has hooked into botocore.
        self._transports: dict[str, LeanTransport | ClientTransport] = {}
        self._obstacle = "TRANSPORT says so"
        if config.transport != "botocore" and not control_plane:
            self._obstacle = ""
        self._looked_at: dict[str, float] = {}
        self._hook_noted = False
        self.server_clock = ServerClock()
        self._lock = threading.RLock()

    @property
    def place(self) -> str:
        """The endpoint and the region of the requests as text, for messages."""
        for transport in self._transports.values():
            return transport.place
        return place_of(self._config.endpoint_url, self._config.region)

    def send(self, operation: str, request: dict[str, Any], until: float) -> Verb[dict[str, Any]]:
        """
        Send a request once, until a monotonic time, and return the answer. A verb.

        Raises botocore's errors; OperationTimeoutError if another thread is still making the
        transport then, and ConfigurationError if there can be none.
        """
        reason = self._reason_for(request)
        transport = self._transports.get(reason)
        if transport is None or not transport.has_credentials:
            return self._make_and_send(reason, operation, request, until)
        return transport.send(operation, request, until)

    def prepare(
        self, until: float, request: dict[str, Any] | None = None
    ) -> LeanTransport | ClientTransport:
        """Return the transport of a request, before it is sent; raises as :meth:`send`."""
        return self._in_turn(self._reason_for(request or {}), until)

    def close(self) -> None:
        """Close the sockets; the next request opens new ones."""
        for transport in list(self._transports.values()):
            transport.close()

    async def _make_and_send(
        self, reason: str, operation: str, request: dict[str, Any], until: float
    ) -> dict[str, Any]:
        # Finding credentials may take longer than the request may.
        making = OwnThread(lambda: self._in_turn(reason, until), "client")
        try:
            transport = await making.result(until)
        except TimeoutError as exc:
            raise self._late() from exc
        return await transport.send(operation, request, until)

    def _reason_for(self, request: dict[str, Any]) -> str:
        """Return why a request goes through botocore, ``""`` if it does not."""
        reason = self._obstacle
        if not reason and (hook := find_hook()):
            reason = self._reason_of(hook)
        if not reason and _has_arn(request):
            reason = _ARN
        return reason

    def _reason_of(self, hook: str) -> str:
        if self._config.transport != "lean":
            return hook
        if not self._hook_noted:
            self._hook_noted = True
            logger.warning(
                "%s, which does not see the requests of the alias %r: its TRANSPORT is 'lean', so "
                "they do not go through botocore. Set it to 'auto' or 'botocore' to have them "
                "seen.",
                _sentence(hook), self._using,
            )  # fmt: skip
        return ""

    def _in_turn(self, reason: str, until: float) -> LeanTransport | ClientTransport:
        try:
            if not self._lock.acquire(timeout=max(0.0, until - clock.monotonic())):
                raise self._late()
            transport = self._transports.get(reason)
            if transport is None or self._is_due(reason, transport):
                transport = self._make(reason)
                reason = reason or self._obstacle
                self._transports[reason] = transport
                self._looked_at[reason] = clock.monotonic()
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

    def _late(self) -> OperationTimeoutError:
        return OperationTimeoutError(
            f"No request was sent: the client of the alias {self._using!r} was not made in time, "
            "which includes finding AWS credentials."
        )

    def _make(self, reason: str) -> LeanTransport | ClientTransport:
        account = get_account(self._using)
        with account.lock:
            return self._make_for(account, reason)

    def _make_for(self, account: Account, reason: str) -> LeanTransport | ClientTransport:
        if not reason:
            # First, because a client that is configured elsewhere may have a region of its own.
            reason = account.obstacle
            if not reason:
                environment = Environment(self._config, account)
                if not environment.obstacle:
                    return LeanTransport(self._using, self._config, self.server_clock, environment)
                reason = environment.obstacle
            if self._config.transport == "lean":
                raise ConfigurationError(
                    f"DYNAMO_STORES[{self._using!r}]['TRANSPORT'] is 'lean', but requests must go "
                    f"through botocore: {reason}. Set it to 'auto' or 'botocore'."
                )
            self._obstacle = reason
        if self._config.transport != "botocore" and not self._control_plane:
            lean = ", or to 'lean' to send them directly, which the tool does not see"
            remedy = "" if reason in (_ARN, self._obstacle) else lean
            logger.warning(
                "The requests of the alias %r go through botocore: %s. Each takes about five times "
                "the CPU time. Set DYNAMO_STORES[%r]['TRANSPORT'] to 'botocore' if that is "
                "intended%s.",
                self._using, reason, self._using, remedy,
            )  # fmt: skip
        return ClientTransport(
            self._using, self._config, self.server_clock, account, control_plane=self._control_plane
        )

    def _is_due(self, reason: str, transport: LeanTransport | ClientTransport) -> bool:
        is_over = clock.monotonic() - self._looked_at[reason] >= _CREDENTIALS_PAUSE
        return is_over and not transport.has_credentials


def _has_arn(request: dict[str, Any]) -> bool:
    """Return whether a table is named by its ARN, whose account is a part of the endpoint."""
    name = request.get("TableName")
    if name is not None:
        return bool(name.startswith("arn:"))
    if any(name.startswith("arn:") for name in request.get("RequestItems", ())):
        return True
    return any(
        content["TableName"].startswith("arn:")
        for action in request.get("TransactItems", ())
        for content in action.values()
    )


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
