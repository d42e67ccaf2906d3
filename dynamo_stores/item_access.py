"""Reading and writing one kind of item, for every store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Generic, TypeVar

from botocore.exceptions import ClientError

from . import clock
from .calls.batches import batch_get, batch_write, chunks
from .calls.breaker import BreakerStatus, CircuitBreaker
from .calls.connection import Caller, TableConnection
from .calls.policy import deadline
from .calls.server_time import ServerClock, Times
from .concurrency.effects import Verb
from .concurrency.together import together
from .conf import DEFAULT_ALIAS, get_config
from .exceptions import CONDITION_FAILED, StoreUnavailable, code_of
from .expressions import Change, Condition, to_arguments
from .keys import ItemKey
from .models import DynamoModel, RawItem

K = TypeVar("K", bound=DynamoModel)

# Large items in one request: about 4 MB. Each such request has the full timeout of an operation.
_LARGE_ITEMS_PER_REQUEST = 10


class ConditionFailed(Exception):
    """A condition failed; ``old`` is the item as it is, None if it does not exist."""

    def __init__(self, old: RawItem | None) -> None:
        super().__init__("The condition failed.")
        self.old = old


class Items(Generic[K]):
    """
    Reads and writes the items of one kind, in the form in which DynamoDB has them.

    Its coroutines are verbs (:mod:`.concurrency.effects`). Making one opens no connection and costs
    microseconds. Each call has ``timeout`` seconds at most, by default ``OPERATION_TIMEOUT``, which
    a ``deadline`` replaces. With ``direct`` each call is one attempt of two seconds, without
    circuit breaker. ``keeps_table`` is for objects that belong to one process and to its settings.
    Another alias answers for ``FAILOVER`` only with ``fails_over``: what decides about a write must
    not be read elsewhere.
    """

    _table: TableConnection | None = None

    def __init__(
        self,
        kind: type[K],
        using: str = DEFAULT_ALIAS,
        *,
        timeout: float | None = None,
        direct: bool = False,
        keeps_table: bool = False,
        fails_over: bool = False,
    ) -> None:
        self.using = using
        self.timeout = timeout
        self._fails_over = fails_over
        self._model = kind.bound_to(using)
        self._direct = direct
        self._table = self.table if keeps_table else None

    @property
    def table(self) -> TableConnection:
        """This process's connection to the table."""
        if self._table is not None:
            return self._table
        if self._direct:
            return self._model.direct_connection()
        return self._model._get_connection()  # type: ignore[return-value]

    @property
    def breaker(self) -> CircuitBreaker:
        """This process's circuit breaker of the table."""
        table = self.table
        return table.connection.policy_for(table.table_name).breaker

    @property
    def server_clock(self) -> ServerClock:
        """DynamoDB's clock, as far as its answers to this process tell it."""
        return self.table.connection.server_clock

    def call(self, operation: str, request: dict[str, Any]) -> Verb[dict[str, Any]]:
        """Return the answer to a request on the table, which need not name it."""
        table = self.table
        return self._call(table, operation, {"TableName": table.table_name, **request})

    async def get(
        self, key: ItemKey, *, consistent: bool, attributes: Sequence[str] | None = None
    ) -> RawItem | None:
        """Return the item, or only these attributes of it; None if it does not exist."""
        table = self.table
        request: dict[str, Any] = {
            "TableName": table.table_name,
            "Key": key.raw(),
            "ConsistentRead": consistent,
        }
        if attributes is not None:
            request["ProjectionExpression"] = ", ".join(attributes)
        answer = await self._caller(table).call("GetItem", request, self.timeout)
        return answer.get("Item")

    async def put(
        self, item: RawItem, condition: Condition | None = None, *, return_old: bool = False
    ) -> RawItem | None:
        """Put ``item``; with ``return_old`` return the item it replaced. Raises ConditionFailed."""
        table = self.table
        request = {"TableName": table.table_name, "Item": item, **to_arguments(condition)}
        if return_old:
            request["ReturnValues"] = "ALL_OLD"
        return (await self._call(table, "PutItem", request)).get("Attributes")

    async def update(
        self,
        key: ItemKey,
        change: Change,
        condition: Condition | None = None,
        *,
        returns: str = "UPDATED_NEW",
    ) -> RawItem:
        """Return the changed attributes with their new values. Raises ConditionFailed."""
        table = self.table
        request = {
            "TableName": table.table_name,
            "Key": key.raw(),
            "ReturnValues": returns,
            **to_arguments(condition, change),
        }
        answer = await self._call(table, "UpdateItem", request)
        attributes: RawItem = answer.get("Attributes", {})
        return attributes

    async def delete(self, key: ItemKey, condition: Condition | None = None) -> RawItem | None:
        """Delete the item and return its attributes. Raises ConditionFailed."""
        table = self.table
        request = {
            "TableName": table.table_name,
            "Key": key.raw(),
            "ReturnValues": "ALL_OLD",
            **to_arguments(condition),
        }
        return (await self._call(table, "DeleteItem", request)).get("Attributes")

    async def query(self, request: dict[str, Any], most: int | None = None) -> list[RawItem]:
        """Return the items that a Query finds, one request for each MB; ``most`` at most."""
        found: list[RawItem] = []
        while True:
            answer = await self.call("Query", request)
            found += answer["Items"]
            if "LastEvaluatedKey" not in answer or (most is not None and len(found) >= most):
                return found[:most]
            request = {**request, "ExclusiveStartKey": answer["LastEvaluatedKey"]}

    async def get_many(
        self,
        keys: Iterable[RawItem],
        *,
        consistent: bool,
        attributes: Sequence[str] | None = None,
    ) -> list[RawItem]:
        """
        Return the items with these keys (as DynamoDB has them, each once) that exist, in no order;
        see :func:`.calls.batches.batch_get`.
        """
        table = self.table
        shown = {"ProjectionExpression": ", ".join(attributes)} if attributes else None
        return await batch_get(
            self._caller(table),
            table.table_name,
            keys,
            consistent=consistent,
            attributes=shown,
            timeout=self.timeout,
        )

    async def write_many(
        self, requests: Iterable[RawItem]
    ) -> tuple[list[RawItem], StoreUnavailable | None]:
        """Put and delete items; see :func:`.calls.batches.batch_write`."""
        table = self.table
        return await batch_write(
            self._caller(table), table.table_name, requests, timeout=self.timeout
        )

    async def get_large(self, wanted: Sequence[ItemKey]) -> list[RawItem]:
        """
        Return the large items that exist, read strongly, ten a request, requests in parallel.

        Each request has the full timeout of an operation.
        """

        async def read(group: list[ItemKey]) -> list[RawItem]:
            return await self.get_many(raw_keys(group), consistent=True)

        groups = list(chunks(wanted, _LARGE_ITEMS_PER_REQUEST))
        found = await together(groups, read, max_concurrency=4)
        return [item for group in found for item in group]

    async def put_large(self, items: Sequence[RawItem]) -> None:
        """Put large items, ten a request. Raises StoreUnavailable if one was not written."""
        for group in chunks(items, _LARGE_ITEMS_PER_REQUEST):
            _, error = await self.write_many([{"PutRequest": {"Item": each}} for each in group])
            if error is not None:
                raise error

    async def delete_large(self, unwanted: Iterable[ItemKey]) -> None:
        """Delete large items, ten a request. Items that DynamoDB does not delete in time stay."""
        for group in chunks(unwanted, _LARGE_ITEMS_PER_REQUEST):
            await self.write_many([{"DeleteRequest": {"Key": each.raw()}} for each in group])

    def in_time(self, began_at: float | None = None) -> deadline:
        """
        Return a deadline for several calls that share the time of one. ``began_at`` is the
        monotonic time at which the first of them began, by default now.
        """
        seconds = get_config(self.using).operation_timeout if self.timeout is None else self.timeout
        return deadline(seconds if began_at is None else seconds + began_at - clock.monotonic())

    async def learned_times(self, key: ItemKey) -> Times:
        """
        Return the interval that contains DynamoDB's time, as its answers tell it.

        Before the first answer of a process, one is asked for by a read of ``key``.
        """
        if not self.server_clock.is_learned:
            await self.get(key, consistent=False)
        return self.server_clock.times()

    def _caller(self, table: TableConnection) -> Caller:
        connection = table.connection
        return connection if self._fails_over else connection.here

    async def _call(
        self, table: TableConnection, operation: str, request: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            return await self._caller(table).call(operation, request, self.timeout)
        except ClientError as exc:
            if code_of(exc) != CONDITION_FAILED:
                raise
            response: Any = exc.response
            raise ConditionFailed(response.get("Item")) from exc


class Store:
    """What every store has: an alias, and the circuit breaker of its table."""

    def __init__(self, items: Items[Any]) -> None:
        self.using = items.using
        self._items = items

    def get_circuit_breaker_status(self) -> BreakerStatus:
        """Return the present status of this process's breaker of the store's table."""
        return self._items.breaker.status()

    def reset_circuit_breaker(self) -> None:
        """Close this process's breaker of the store's table."""
        self._items.breaker.reset()

    def close(self) -> None:
        """Close this process's idle connections of the alias; the next call opens new ones."""
        self._items.table.connection.close()


def raw_keys(keys: Iterable[ItemKey]) -> list[RawItem]:
    """Return the keys as DynamoDB has them, each once."""
    return [key.raw() for key in {(key.pk, key.sk): key for key in keys}.values()]
