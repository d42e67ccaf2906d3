"""
PynamoDB's Connection with the call policy, one per alias and process.

All requests of models, stores and transactions are sent by :meth:`Connection.call`.
"""

from __future__ import annotations

import logging
import os
import threading
import uuid
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from pynamodb.connection import Connection as PynamoConnection
from pynamodb.connection import TableConnection as PynamoTableConnection
from pynamodb.signals import post_dynamodb_send, pre_dynamodb_send, signals_available

from .. import clock, signals
from ..concurrency.effects import Verb, run
from ..concurrency.per_process import PerProcess
from ..conf import DEFAULT_ALIAS, get_config
from ..exceptions import StoreUnavailable, ThrottlingError
from . import observer
from .backpressure import Backpressure
from .breaker import CircuitBreaker, State
from .control import get_control
from .failover import FailedOver, Failover
from .item_size import MAX_ITEM_BYTES, MAX_PARTITION_READ_BYTES, item_size
from .places import Places
from .policy import CallPolicy
from .server_time import ServerClock
from .transport import SharedTransport

if TYPE_CHECKING:
    from pynamodb.models import Model

logger = logging.getLogger(__name__)

DATA_PLANE = frozenset(
    [
        "BatchGetItem", "BatchWriteItem", "BatchExecuteStatement", "DeleteItem",
        "ExecuteStatement", "ExecuteTransaction", "GetItem", "PutItem", "Query", "Scan",
        "TransactGetItems", "TransactWriteItems", "UpdateItem",
    ]
)  # fmt: skip


class TableConnection(PynamoTableConnection):
    """The connection of a model class: a Connection and the table's name."""

    connection: Connection

    def __init__(self, table_name: str, connection: Connection) -> None:
        self.table_name = table_name
        self.connection = connection


class Connection(PynamoConnection):
    """
    The connection of one alias in one process, shared by its threads.

    Opens no socket before the first call. Each table has its own policy, and so its own breaker.
    """

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self.config = get_config(using)
        super().__init__(region=self.config.region, host=self.config.endpoint_url)
        self._pid = os.getpid()
        # After a fork this comes before the first call, whatever the server does.
        observer.forget_recorders()
        self._lock = threading.RLock()
        self._transport = SharedTransport(using, self.config)
        self._policies: dict[str, CallPolicy] = {}
        self._places = Places(self.config.max_pool_connections)
        self._tables_of_models: dict[type[Model], TableConnection] = {}
        self._failover: Failover | None = None
        if self.config.failover is not None:
            self._failover = Failover(using, self.config, self.config.failover)
        # The same without FAILOVER: its calls are never answered by another alias.
        self.here: Caller = self if self._failover is None else _Here(self)

    def __repr__(self) -> str:
        return f"<Connection {self.using!r}>"

    @property
    def client(self) -> Any:
        """What PynamoDB uses instead of a botocore client."""
        # PynamoDB's tables keep their connection, also over a fork.
        return _Client(self if self._pid == os.getpid() else get_connection(self.using))

    @property
    def server_clock(self) -> ServerClock:
        """DynamoDB's clock, as far as its answers to this process tell it."""
        return self._transport.server_clock

    @property
    def place(self) -> str:
        """The endpoint and the region of the requests as text, for messages."""
        return self._transport.place

    @property
    def region_name(self) -> str:
        """
        The region of the requests, which may be AWS's own configuration's. The first use makes the
        client, and raises what that raises.
        """
        return self._transport.prepare(clock.monotonic() + self.config.read_timeout).region

    def table(
        self, model: type[Model], make: Callable[[], PynamoTableConnection]
    ) -> TableConnection:
        """Return the connection of ``model``; ``make`` is called once, for the key schema."""
        found = self._tables_of_models.get(model)
        if found is None:
            with self._lock:
                name = model.Meta.table_name
                if name not in self._tables:
                    self.add_meta_table(make().get_meta_table())
                found = self._tables_of_models[model] = TableConnection(name, self)
        return found

    def policy_for(self, table: str) -> CallPolicy:
        """Return the policy for calls on ``table``."""
        found = self._policies.get(table)
        if found is None:
            with self._lock:
                found = self._policies.get(table)
                if found is None:
                    found = self._policies[table] = self._make_policy(table)
        return found

    def policies(self) -> list[CallPolicy]:
        """Return the policies of the tables that were used so far."""
        return list(self._policies.values())

    def known_key(self, table: str) -> tuple[str, ...]:
        """
        Return the names of the key attributes of a table that a model of this process has used, the
        partition key first; ``()`` for another table.
        """
        meta = self._tables.get(table)
        if meta is None:
            return ()
        names = (meta.hash_keyname, meta.range_keyname)
        return tuple(name for name in names if name is not None)

    def dispatch(self, operation_name: str, operation_kwargs: dict[str, Any]) -> dict[str, Any]:
        """Return DynamoDB's answer to PynamoDB, as :meth:`call` does."""
        if operation_name not in DATA_PLANE:
            return get_control(self.using).call(operation_name, operation_kwargs)
        return self._make_api_call(operation_name, operation_kwargs)

    def call(
        self, operation: str, request: dict[str, Any], timeout: float | None = None
    ) -> Verb[dict[str, Any]]:
        """
        Return DynamoDB's answer; a batch is complete. A verb.

        It has ``timeout`` seconds at most, by default ``OPERATION_TIMEOUT``, which a ``deadline``
        replaces. With ``FAILOVER`` the other alias may answer. Raises StoreUnavailable without an
        answer; it has the unprocessed part of a batch.
        """
        table = request.get("TableName") or table_of(request)
        policy, failover = self.policy_for(table), self._failover
        if failover is None or not failover.covers(operation, table):
            return self._call(policy, operation, request, timeout)
        return failover.call(
            operation,
            request,
            table,
            timeout or policy.timeout,
            partial(self._call, replace(policy, has_failover=True)),
            get_connection(failover.failover).here.call,
        )

    def failed_over(self) -> list[FailedOver]:
        """Return the tables whose requests the alias ``FAILOVER`` answers at present."""
        return [] if self._failover is None else self._failover.active()

    def _call(
        self,
        policy: CallPolicy,
        operation: str,
        request: dict[str, Any],
        timeout: float | None,
    ) -> Verb[dict[str, Any]]:
        if "ReturnConsumedCapacity" not in request:
            # GetItem reads no index.
            detail = "TOTAL" if operation == "GetItem" else "INDEXES"
            request["ReturnConsumedCapacity"] = detail if observer.is_observed() else "NONE"
        if operation == "TransactWriteItems":
            # A retry with the same token does not repeat a transaction that was carried out.
            request.setdefault("ClientRequestToken", str(uuid.uuid4()))
        if "RequestItems" in request:
            return _Batch(self._send, operation, request).call(policy, self._breaker, timeout)
        return policy.call(
            operation,
            partial(self._send, operation, request),
            self._breaker,
            partial(self._partition, request),
            timeout,
            request,
        )

    def close(self) -> None:
        """Close the sockets; the next call opens new ones."""
        self._transport.close()

    def _send(self, operation: str, request: dict[str, Any], until: float) -> Verb[dict[str, Any]]:
        # Without blinker, which is no dependency, PynamoDB's signals have no receivers.
        if signals_available and (pre_dynamodb_send.receivers or post_dynamodb_send.receivers):
            return self._send_with_signals(operation, request, until)
        return self._transport.send(operation, request, until)

    async def _send_with_signals(
        self, operation: str, request: dict[str, Any], until: float
    ) -> dict[str, Any]:
        sent, table = uuid.uuid4(), request.get("TableName")
        self.send_pre_boto_callback(operation, sent, table)  # type: ignore[no-untyped-call]
        answer = await self._transport.send(operation, request, until)
        self.send_post_boto_callback(operation, sent, table)  # type: ignore[no-untyped-call]
        return answer

    def _partition(self, kwargs: dict[str, Any]) -> str:
        """Return the partition key of a call on one item, as text; ``""`` for others."""
        item = kwargs.get("Key") or kwargs.get("Item") or {}
        meta = self._tables.get(kwargs.get("TableName", ""))
        if meta is None or meta.hash_keyname not in item:
            return ""
        ((_, value),) = item[meta.hash_keyname].items()
        return str(value)

    def _breaker(self, table: str) -> CircuitBreaker:
        return self.policy_for(table).breaker

    def _make_policy(self, table: str) -> CallPolicy:
        config = self.config.for_table(table)

        def on_change(old: State, new: State, error: str) -> None:
            if new is State.OPEN:
                # Idle connections may be dead; the probe opens a new one.
                self.close()
            logger.log(
                logging.INFO if new is State.HALF_OPEN else logging.WARNING,
                "The circuit breaker of table %s went from %s to %s%s.",
                table, old, new, f" after {error}" if error and new is State.OPEN else "",
                extra={"dynamodb_table": table, "dynamodb_using": self.using},
            )  # fmt: skip
            try:
                signals.breaker_state_changed.send_robust(
                    CircuitBreaker, using=self.using, table=table, old=old, new=new, error=error
                )
            except RuntimeError:
                # On an event loop, with a receiver that is a coroutine function.
                logger.exception("The signal breaker_state_changed could not be sent.")

        return CallPolicy(
            using=self.using,
            table=table,
            breaker=CircuitBreaker(
                config.circuit_breaker, name=f"table {table}", on_change=on_change
            ),
            retry=config.retry,
            timeout=config.operation_timeout,
            read_timeout=config.read_timeout,
            backpressure=Backpressure(table, config.max_pool_connections),
            places=self._places,
            place_of=lambda: self.place,
        )


class Caller(Protocol):
    """What makes calls: a connection, or its part without failover."""

    def call(
        self, operation: str, request: dict[str, Any], timeout: float | None = None
    ) -> Verb[dict[str, Any]]:
        """Return DynamoDB's answer; see :meth:`Connection.call`."""


class _Here:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def call(
        self, operation: str, request: dict[str, Any], timeout: float | None = None
    ) -> Verb[dict[str, Any]]:
        policy = self._connection.policy_for(request.get("TableName") or table_of(request))
        return self._connection._call(policy, operation, request, timeout)


class _Client:
    """Makes the calls of PynamoDB, by the name that they have in botocore."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def _make_api_call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        return run(self._connection.call(operation, request))


class _Batch:
    """
    A batch whose unprocessed part is sent again until none is left; its answers are joined.

    What is unprocessed because of DynamoDB's limits of size is sent again at once; everything else
    is unprocessed for lack of throughput.
    """

    def __init__(
        self,
        send: Callable[[str, dict[str, Any], float], Verb[dict[str, Any]]],
        operation: str,
        request: dict[str, Any],
    ) -> None:
        self._send = send
        self._operation = operation
        self._request = request
        self._responses: dict[str, list[Any]] = {}

    async def call(
        self,
        policy: CallPolicy,
        breaker_of: Callable[[str], CircuitBreaker],
        timeout: float | None,
    ) -> dict[str, Any]:
        try:
            return await policy.call(
                self._operation,
                self._attempt,
                breaker_of,
                timeout=timeout,
                request=self._request,
            )
        except StoreUnavailable as exc:
            exc.unprocessed = self._request["RequestItems"]
            exc.responses = self._responses
            raise

    async def _attempt(self, until: float) -> dict[str, Any]:
        consumed: list[Any] = []
        while True:
            answer = await self._send(self._operation, self._request, until)
            consumed += answer.get("ConsumedCapacity") or ()
            responses = answer.get("Responses") or {}
            for table, items in responses.items():
                self._responses.setdefault(table, []).extend(items)
            left = answer.get("UnprocessedItems") or answer.get("UnprocessedKeys")
            if not left:
                answer["ConsumedCapacity"] = consumed
                if "Responses" in answer:
                    answer["Responses"] = self._responses
                return answer
            self._request = {**self._request, "RequestItems": left}
            if not _is_full(responses) or until <= clock.monotonic():
                raise ThrottlingError(
                    f"{self._operation} on {', '.join(sorted(left))} was only partially processed."
                )


def _is_full(responses: dict[str, list[Any]]) -> bool:
    # DynamoDB stops before an item with which a partition's answer would exceed its limit.
    size = sum(item_size(item) for items in responses.values() for item in items)
    return size > MAX_PARTITION_READ_BYTES - MAX_ITEM_BYTES


def table_of(kwargs: dict[str, Any]) -> str:
    """Return the table whose policy applies: the alphabetically first, if there are several."""
    if "TableName" in kwargs:
        return str(kwargs["TableName"])
    names: list[str] = list(kwargs.get("RequestItems", ()))
    for action in kwargs.get("TransactItems", ()):
        names += [content["TableName"] for content in action.values()]
    return min(names, default="(statement)")


_connections = PerProcess(Connection)


def get_connection(using: str = DEFAULT_ALIAS) -> Connection:
    """Return this process's connection to DynamoDB for the alias ``using``."""
    return _connections.get(using)
