"""Reading and writing one kind of item: the base of every store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from botocore.exceptions import ClientError

from .calls.batches import batch_get, batch_write, chunks, execute_in_parallel
from .calls.breaker import BreakerStatus, CircuitBreaker
from .calls.connection import TableConnection
from .calls.policy import deadline
from .calls.server_time import ServerClock, Times
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


class Store(Generic[K]):
    """A store of one kind of item. Creating one opens no connection and costs microseconds."""

    kind: type[K]

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using

    def get_circuit_breaker_status(self) -> BreakerStatus:
        """Return the present status of this process's breaker of the store's table."""
        return self._breaker.status()

    def reset_circuit_breaker(self) -> None:
        """Close this process's breaker of the store's table."""
        self._breaker.reset()

    def close(self) -> None:
        """Close this process's idle connections of the alias; the next call opens new ones."""
        self._table.connection.close()

    @property
    def _items(self) -> type[K]:
        return self.kind.bound_to(self.using)

    @property
    def _table(self) -> TableConnection:
        return self._items._get_connection()  # type: ignore[return-value]

    @property
    def _breaker(self) -> CircuitBreaker:
        table = self._table
        return table.connection.policy_for(table.table_name).breaker

    def _call(self, table: TableConnection, operation: str, kwargs: dict[str, Any]) -> Any:
        try:
            return table.connection.dispatch(operation, kwargs)
        except ClientError as exc:
            if code_of(exc) != CONDITION_FAILED:
                raise
            # PynamoDB's exception does not carry the old item; its cause does.
            response: Any = getattr(exc.__cause__, "response", exc.response)
            raise ConditionFailed(response.get("Item")) from exc

    def _get(
        self, key: ItemKey, *, consistent: bool, attributes: Sequence[str] | None = None
    ) -> RawItem | None:
        table = self._table
        kwargs: dict[str, Any] = {
            "TableName": table.table_name,
            "Key": key.raw(),
            "ConsistentRead": consistent,
        }
        if attributes is not None:
            kwargs["ProjectionExpression"] = ", ".join(attributes)
        item: RawItem | None = self._call(table, "GetItem", kwargs).get("Item")
        return item

    def _put(
        self, item: RawItem, condition: Condition | None = None, *, return_old: bool = False
    ) -> RawItem | None:
        """Put ``item``; with ``return_old`` return the item it replaced. Raises ConditionFailed."""
        table = self._table
        kwargs = {"TableName": table.table_name, "Item": item, **to_arguments(condition)}
        if return_old:
            kwargs["ReturnValues"] = "ALL_OLD"
        old: RawItem | None = self._call(table, "PutItem", kwargs).get("Attributes")
        return old

    def _update(
        self,
        key: ItemKey,
        change: Change,
        condition: Condition | None = None,
        *,
        returns: str = "UPDATED_NEW",
    ) -> RawItem:
        """Return the changed attributes with their new values. Raises ConditionFailed."""
        table = self._table
        kwargs = {
            "TableName": table.table_name,
            "Key": key.raw(),
            "ReturnValues": returns,
            **to_arguments(condition, change),
        }
        attributes: RawItem = self._call(table, "UpdateItem", kwargs).get("Attributes", {})
        return attributes

    def _delete(self, key: ItemKey, condition: Condition | None = None) -> RawItem | None:
        """Delete the item and return its attributes. Raises ConditionFailed."""
        table = self._table
        kwargs = {
            "TableName": table.table_name,
            "Key": key.raw(),
            "ReturnValues": "ALL_OLD",
            **to_arguments(condition),
        }
        old: RawItem | None = self._call(table, "DeleteItem", kwargs).get("Attributes")
        return old

    def _get_in_groups(self, wanted: Sequence[ItemKey]) -> list[RawItem]:
        """
        Return the large items that exist, read strongly, ten a request, requests in parallel.

        Each request has the full timeout of an operation.
        """
        table = self._table

        def read(group: list[ItemKey]) -> list[RawItem]:
            with self._in_time():
                return batch_get(
                    table.connection, table.table_name, self._raw_keys(group), consistent=True
                )

        groups = list(chunks(wanted, _LARGE_ITEMS_PER_REQUEST))
        found = execute_in_parallel(groups, read, max_concurrency=4)
        return [item for group in found for item in group]

    def _put_in_groups(self, items: Sequence[RawItem]) -> None:
        """Put large items, ten a request. Raises StoreUnavailable if one was not written."""
        if not items:
            return
        for error in self._write_in_groups({"PutRequest": {"Item": item}} for item in items):
            if error is not None:
                raise error

    def _delete_in_groups(self, unwanted: Iterable[ItemKey]) -> None:
        """Delete large items, ten a request. Items that DynamoDB does not delete in time stay."""
        for _ in self._write_in_groups({"DeleteRequest": {"Key": key.raw()}} for key in unwanted):
            pass

    def _write_in_groups(self, requests: Iterable[RawItem]) -> Iterator[StoreUnavailable | None]:
        table = self._table
        for group in chunks(requests, _LARGE_ITEMS_PER_REQUEST):
            with self._in_time():
                _, error = batch_write(table.connection, table.table_name, group)
            yield error

    def _in_time(self) -> deadline:
        return deadline(get_config(self.using).operation_timeout)

    def _learned_times(self, key: ItemKey) -> Times:
        """
        Return the interval that contains DynamoDB's time, as its answers tell it.

        Before the first answer of a process, one is asked for by a read of ``key``.
        """
        if not self._server_clock.is_learned:
            self._get(key, consistent=False)
        return self._server_clock.times()

    @property
    def _server_clock(self) -> ServerClock:
        server: ServerClock = self._table.connection.server_clock
        return server

    @staticmethod
    def _raw_keys(keys: Iterable[ItemKey]) -> list[RawItem]:
        return [key.raw() for key in {(key.pk, key.sk): key for key in keys}.values()]


class DirectStore(Store[K]):
    """A store over the direct connection: one attempt of two seconds, without circuit breaker."""

    @property
    def _table(self) -> TableConnection:
        return self._items.direct_connection()

    def _query(self, request: dict[str, Any]) -> Iterator[RawItem]:
        """Yield the items that a Query finds, one request for each MB."""
        table = self._table
        request = {"TableName": table.table_name, **request}
        while True:
            answer = self._call(table, "Query", request)
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
