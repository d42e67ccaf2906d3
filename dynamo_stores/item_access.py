"""What every store has: an alias, a kind of item, and the breaker of its table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast

from botocore.exceptions import ClientError
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from .calls.breaker import BreakerStatus, CircuitBreaker
from .calls.connection import TableConnection
from .conf import DEFAULT_ALIAS
from .exceptions import ConfigurationError
from .keys import ItemKey
from .models import DynamoModel, RawItem

K = TypeVar("K", bound=DynamoModel)


class ConditionFailed(Exception):
    """A condition failed; ``old`` is the item as it was, None if there was none."""

    def __init__(self, old: RawItem | None) -> None:
        super().__init__("The condition failed.")
        self.old = old


class Store(Generic[K]):
    """A store of one kind of item. Making one opens nothing and costs microseconds."""

    kind: type[K]

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using

    def get_circuit_breaker_status(self) -> BreakerStatus:
        """Return what this process's breaker of the store's table looks like now."""
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
            response = getattr(exc.__cause__, "response", exc.response)
            code = response.get("Error", {}).get("Code")
            if code == "ConditionalCheckFailedException":
                raise ConditionFailed(cast(Any, response).get("Item")) from exc
            if code == "ResourceNotFoundException":
                raise ConfigurationError(
                    f"There is no table {table.table_name!r} where alias {self.using!r} looks for "
                    "it. 'manage.py dynamo_create_tables' makes it."
                ) from exc
            raise

    def _get(
        self, key: ItemKey, *, consistent: bool, attributes: Sequence[str] | None = None
    ) -> RawItem | None:
        table = self._table
        kwargs = table.get_operation_kwargs(
            key.pk, key.sk, consistent_read=consistent, attributes_to_get=attributes
        )
        item: RawItem | None = self._call(table, "GetItem", kwargs).get("Item")
        return item

    def _put(
        self, item: RawItem, condition: Condition | None = None, *, return_old: bool = False
    ) -> RawItem | None:
        """Put ``item`` and return what it replaced, if asked to; raises ConditionFailed."""
        table = self._table
        if condition is None:
            kwargs: dict[str, Any] = {"TableName": table.table_name, "Item": item}
        else:
            kwargs = table.get_operation_kwargs(
                item["PK"]["S"],
                item["SK"]["S"],
                key="Item",
                attributes=item,
                condition=condition,
                return_values_on_condition_failure="ALL_OLD",
            )
        if return_old:
            kwargs["ReturnValues"] = "ALL_OLD"
        old: RawItem | None = self._call(table, "PutItem", kwargs).get("Attributes")
        return old

    def _update(
        self, key: ItemKey, actions: Sequence[Action], condition: Condition | None = None
    ) -> RawItem:
        """Return the attributes that changed, as they are now; raises ConditionFailed."""
        table = self._table
        kwargs = table.get_operation_kwargs(
            key.pk,
            key.sk,
            actions=actions,
            condition=condition,
            return_values="UPDATED_NEW",
            return_values_on_condition_failure="ALL_OLD" if condition is not None else None,
        )
        attributes: RawItem = self._call(table, "UpdateItem", kwargs).get("Attributes", {})
        return attributes

    def _delete(self, key: ItemKey, condition: Condition | None = None) -> RawItem | None:
        """Delete the item and return what it was; raises ConditionFailed if the condition fails."""
        table = self._table
        kwargs = table.get_operation_kwargs(
            key.pk, key.sk, condition=condition, return_values="ALL_OLD"
        )
        old: RawItem | None = self._call(table, "DeleteItem", kwargs).get("Attributes")
        return old

    @staticmethod
    def _raw_keys(keys: Iterable[ItemKey]) -> list[RawItem]:
        found = dict.fromkeys((key.pk, key.sk) for key in keys)
        return [{"PK": {"S": pk}, "SK": {"S": sk}} for pk, sk in found]


class DirectStore(Store[K]):
    """A store that is asked through the side door: once, in two seconds, whatever breakers say."""

    @property
    def _table(self) -> TableConnection:
        return self._items.direct_connection()

    def _query(self, request: dict[str, Any]) -> Iterator[RawItem]:
        """Yield what a Query finds, a call for each MB."""
        table = self._table
        request = {"TableName": table.table_name, **request}
        while True:
            answer = self._call(table, "Query", request)
            yield from answer["Items"]
            if "LastEvaluatedKey" not in answer:
                return
            request["ExclusiveStartKey"] = answer["LastEvaluatedKey"]
