"""The low-level client: DynamoDB's operations on plain Python values."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from ..calls.batches import MAX_WRITES
from ..calls.control import get_control
from ..calls.pages import pages
from ..concurrency.effects import InThread, twins
from ..concurrency.per_process import PerProcess
from ..conf import DEFAULT_ALIAS, get_config
from ..exceptions import CALL_ERRORS, InvalidRequestError, StoreError, code_of
from .batches import Batches
from .botocore_clients import make_botocore_client, make_document_client
from .expressions import Change, Condition, Expressions, Projection
from .operations import BatchWrite, Check, Delete, Get, Item, Put, Update, Write
from .pages import Listing
from .requests import Requests, logger
from .trees import Tree, TreeReader, children_by_keys, children_by_query, root_key
from .values import from_raw_item, identity_of, to_raw_item, utf8

Names = Mapping[str, str]
Plain = dict[str, Any]

_MAX_TRANSACTION = 100
_RETURNS = ("NONE", "ALL_OLD", "UPDATED_OLD", "ALL_NEW", "UPDATED_NEW")
_READY = ("ACTIVE", "UPDATING")


class DynamoDBClient:
    """
    DynamoDB's operations on plain Python values, for one alias. Get one by
    :func:`get_dynamodb_client`. Thread-safe; making one opens no connection.

    ``table`` is a table's name without the ``TABLE_PREFIX`` of the alias, as models have it, or an
    ARN. Expressions are text in DynamoDB's language, with ``names`` (``{"#a": "attribute"}``) and
    ``values`` (``{":a": 1}``), or conditions, actions and attributes of PynamoDB. Every method but
    ``query`` and ``scan`` is one request, or as many as it says; each has ``OPERATION_TIMEOUT``,
    retries and the circuit breaker of its table.

    Methods raise StoreUnavailable without an answer, TableMissingError, InvalidRequestError,
    ItemTooLargeError, ConditionFailedError, TransactionCancelledError, and AnswerError for any
    other error of DynamoDB.
    """

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        get_config(using)  # raises ConfigurationError for an alias that does not exist
        self.using = using
        self._requests = Requests(using)

    def __repr__(self) -> str:
        return f"<DynamoDBClient {self.using!r}>"

    async def _get(
        self,
        table: str,
        key: Item,
        *,
        consistent: bool = False,
        projection: Projection | None = None,
        names: Names | None = None,
    ) -> Plain | None:
        """Return the item with ``key``, or the attributes of ``projection``; None without one."""
        request = Get(table, key, projection, names).as_request(self._requests.name_of)
        request["ConsistentRead"] = consistent
        item = (await self._requests.ask("GetItem", request)).get("Item")
        return None if item is None else from_raw_item(item)

    async def _put(
        self,
        table: str,
        item: Item,
        *,
        condition: Condition | None = None,
        names: Names | None = None,
        values: Item | None = None,
        return_old: bool = False,
    ) -> Plain | None:
        """Put ``item``; with ``return_old`` return the item that it replaced, None without one."""
        operation = Put(table, item, condition, names, values)
        return await self._write("PutItem", operation, "ALL_OLD" if return_old else "NONE")

    async def _update(
        self,
        table: str,
        key: Item,
        change: Change,
        *,
        condition: Condition | None = None,
        names: Names | None = None,
        values: Item | None = None,
        returns: str = "ALL_NEW",
    ) -> Plain | None:
        """
        Change attributes of the item with ``key``, or create it with them. Return the whole item
        as it is now, or what else ``returns`` names of ``ReturnValues`` of UpdateItem.
        """
        if returns not in _RETURNS:
            raise InvalidRequestError(
                f"returns is {returns!r}; expected one of {', '.join(_RETURNS)}."
            )
        operation = Update(table, key, change, condition, names, values)
        return await self._write("UpdateItem", operation, returns)

    async def _delete(
        self,
        table: str,
        key: Item,
        *,
        condition: Condition | None = None,
        names: Names | None = None,
        values: Item | None = None,
        return_old: bool = False,
    ) -> Plain | None:
        """Delete the item with ``key``; with ``return_old`` return it, None without one."""
        operation = Delete(table, key, condition, names, values)
        return await self._write("DeleteItem", operation, "ALL_OLD" if return_old else "NONE")

    def query(
        self,
        table: str,
        condition: Condition,
        *,
        filter: Condition | None = None,
        projection: Projection | None = None,
        names: Names | None = None,
        values: Item | None = None,
        index: str | None = None,
        descending: bool = False,
        consistent: bool = False,
        limit: int | None = None,
        page_size: int | None = None,
        start: Item | None = None,
    ) -> Listing:
        """
        Return the items of one partition that meet ``condition``, a condition of the key of the
        table or of ``index``, in the order of the sort key: for ``for`` and ``async for``, or a
        page at a time. Nothing is sent before that.

        A request per page of 1 MB or of ``page_size`` items. ``filter`` is applied to what was
        read and is paid for. ``limit`` is the most items, ``start`` the ``last_key`` of a page.
        """
        request = self._search(table, condition, filter, projection, names, values, index)
        request |= {"ScanIndexForward": not descending, "ConsistentRead": consistent}
        return Listing(
            self._requests, "Query", request, limit=limit, page_size=page_size, start=start
        )

    def scan(
        self,
        table: str,
        *,
        filter: Condition | None = None,
        projection: Projection | None = None,
        names: Names | None = None,
        values: Item | None = None,
        index: str | None = None,
        consistent: bool = False,
        limit: int | None = None,
        page_size: int | None = None,
        start: Item | None = None,
        segment: int = 0,
        total_segments: int = 1,
    ) -> Listing:
        """
        Return all items of the table or of ``index``, in no order; see :meth:`query`. Costs the
        read units of the whole table, whatever ``filter`` lets through.

        Of ``total_segments``, which are read side by side by so many callers, it reads one.
        """
        is_whole = isinstance(segment, int) and isinstance(total_segments, int)
        if not is_whole or not 0 <= segment < total_segments:
            raise InvalidRequestError(
                f"segment is {segment!r} of {total_segments!r}; expected 0 or more, below "
                "total_segments."
            )
        request = self._search(table, None, filter, projection, names, values, index)
        request["ConsistentRead"] = consistent
        if total_segments > 1:
            request |= {"Segment": segment, "TotalSegments": total_segments}
        return Listing(
            self._requests, "Scan", request, limit=limit, page_size=page_size, start=start
        )

    async def _batch_get(
        self,
        table: str,
        keys: Iterable[Item],
        *,
        consistent: bool = False,
        projection: Projection | None = None,
        names: Names | None = None,
    ) -> list[Plain]:
        """
        Return the items with these keys that exist, in no order: a BatchGetItem for each 100 keys,
        four at once. An error StoreUnavailable has what was read in ``responses`` and the other
        keys in ``unprocessed``, as DynamoDB-JSON.
        """
        expressions = Expressions(names, None)
        expressions.add_projection(projection)
        items = await self._read_keys(
            self._requests.name_of(table),
            [to_raw_item(key, "key") for key in keys],
            consistent,
            expressions.arguments(),
        )
        return list(map(from_raw_item, items))

    async def _batch_write(
        self, table: str, *, puts: Iterable[Item] = (), deletes: Iterable[Item] = ()
    ) -> int:
        """Put items and delete keys of one table; see :meth:`batch_operations`."""
        put, delete = (partial(kind, table) for kind in (Put, Delete))
        return await self._batch_operations(itertools.chain(map(put, puts), map(delete, deletes)))

    async def _batch_operations(
        self,
        operations: Iterable[BatchWrite],
        *,
        batch_size: int = MAX_WRITES,
        max_concurrency: int = 4,
        units_per_second: float | None = None,
    ) -> int:
        """
        Carry out any number of :class:`Put` and :class:`Delete` on any tables; return how many
        items were put or deleted.

        A BatchWriteItem for each ``batch_size`` operations (25 at most) of a table, 16 MB at most,
        ``max_concurrency`` of them at once. A thousand operations are read at a time: of several
        with one key only the last is sent, and the next thousand follows when they are written.
        With ``units_per_second`` the batches are sent so slowly that they consume no more on
        average. What DynamoDB throttles is sent again until ``OPERATION_TIMEOUT``. The keys of a
        table are learned by DescribeTable, by the first calls of a process.

        Raises BatchIncompleteError with the operations that were not processed.
        """
        batches = Batches(
            self._requests,
            batch_size=batch_size,
            max_concurrency=max_concurrency,
            units_per_second=units_per_second,
        )
        return await batches.write(operations)

    async def _transact_get(self, operations: Iterable[Get]) -> list[Plain | None]:
        """
        Return the items of at most 100 :class:`Get` as they are at one moment, in their order;
        None for one that does not exist. Costs twice the units of a consistent read.
        """
        answer = await self._requests.ask(
            "TransactGetItems", self._transaction(list(operations), (Get,))
        )
        return [
            from_raw_item(each["Item"]) if each.get("Item") else None
            for each in answer["Responses"]
        ]

    async def _transact_write(
        self, operations: Iterable[Write], *, token: str | None = None
    ) -> None:
        """
        Carry out at most 100 :class:`Put`, :class:`Update`, :class:`Delete` and :class:`Check` on
        different items, all or none. Costs twice the units of the writes.

        A call with the ``token`` (36 characters at most) of one that succeeded in the last ten
        minutes does nothing. Without a token, retries of one call have one. Raises
        TransactionCancelledError with a reason for each operation.
        """
        request = self._transaction(list(operations), (Put, Update, Delete, Check))
        if token is not None:
            request["ClientRequestToken"] = token
        await self._requests.ask("TransactWriteItems", request)

    async def _read_tree(
        self,
        table: str,
        root_id: Any,
        *,
        parent: str | None = None,
        index: str | None = None,
        children: str | None = None,
        max_depth: int | None = None,
        include_metadata: bool = False,
    ) -> Tree | None:
        """
        Return the tree below an item: its partition key, or a dict of its whole key. None if it
        does not exist.

        Either ``parent`` names the partition key of ``index``, which holds the partition key of a
        node's parent: a Query for each node of a level, eight at once, children in the order of
        the index's sort key. Or ``children`` names an attribute that lists the keys of a node's
        children: a BatchGetItem for each 100 nodes of a level, children in the order of the list.
        ``max_depth`` is the number of levels that are read below the root. Each item is in the
        tree once, so that a cycle ends it. With ``include_metadata`` nodes, levels and missing
        items are counted.

        Levels are read one after the other: what changes meanwhile may be in the tree or not.
        """
        if (parent is None) == (children is None) or (parent is None) != (index is None):
            raise InvalidRequestError(
                "read_tree() got parent, index and children that do not fit; expected parent with "
                "index, or children alone."
            )
        if max_depth is not None and (not isinstance(max_depth, int) or max_depth < 0):
            raise InvalidRequestError(f"max_depth is {max_depth!r}; expected 0 or more, or None.")
        name = self._requests.name_of(table)
        key_names = await self._requests.key_names(name)
        key = root_key(root_id, key_names)

        async def query(node_id: Any) -> list[Plain]:
            return await self._read_children(name, index or "", parent or "", node_id)

        async def read_keys(keys: list[Plain]) -> list[Plain]:
            return await self._read_keys(name, keys, False, {})

        async def read_level(nodes: list[Plain]) -> tuple[list[list[Plain]], int]:
            if children is None:
                return await children_by_query(nodes, key_names[0], query)
            return await children_by_keys(nodes, children, key_names, read_keys)

        answer = await self._requests.ask("GetItem", {"TableName": name, "Key": key})
        if not answer.get("Item"):
            return None
        reader = TreeReader(key_names, read_level)
        return await reader.read(answer["Item"], max_depth, include_metadata=include_metadata)

    async def _health_check(self, table: str | None = None) -> bool:
        """
        Return whether a table can be used: DescribeTable answers within ``HEALTH["TIMEOUT"]``, and
        the table is active or being changed. By default it is the table of the stores. The reason
        for False is logged.
        """
        config = get_config(self.using)
        name = config.store_table if table is None else self._requests.name_of(table)
        try:
            found = await InThread(self.using, lambda: self._describe(name, config.health.timeout))
        except CALL_ERRORS as exc:
            text = str(exc).removesuffix(".")
            why = f"{type(exc).__name__}: {text}" if isinstance(exc, StoreError) else code_of(exc)
        else:
            status = found["TableStatus"] if found else "missing"
            if status in _READY:
                return True
            why = f"it is {status}"
        logger.warning("The table %s of the alias %r cannot be used: %s.", name, self.using, why)
        return False

    get, aget = twins(_get)
    put, aput = twins(_put)
    update, aupdate = twins(_update)
    delete, adelete = twins(_delete)
    batch_get, abatch_get = twins(_batch_get)
    batch_write, abatch_write = twins(_batch_write)
    batch_operations, abatch_operations = twins(_batch_operations)
    transact_get, atransact_get = twins(_transact_get)
    transact_write, atransact_write = twins(_transact_write)
    read_tree, aread_tree = twins(_read_tree)
    health_check, ahealth_check = twins(_health_check)

    def get_client(self) -> Any:
        """
        Return a botocore client of the alias, for code that has one: credentials, region, endpoint
        and time-outs are those of the alias. Its requests of items have the retries, the deadline
        and the circuit breaker of this client's methods, and raise its errors of this package
        where DynamoDB does not answer; answers that are errors are botocore's.
        """
        return make_botocore_client(self.using)

    def get_document_client(self) -> Any:
        """
        Return :meth:`get_client` for plain values: parameters and answers are those of a table
        resource of boto3 (numbers as Decimal, conditions of ``boto3.dynamodb.conditions``).
        """
        return make_document_client(self.using)

    def destroy(self) -> None:
        """Close this process's idle connections of the alias; the next call opens new ones."""
        self._requests.connection.close()

    async def _write(
        self, name: str, operation: Put | Update | Delete, returns: str
    ) -> Plain | None:
        request = operation.as_request(self._requests.name_of)
        request["ReturnValues"] = returns
        found = (await self._requests.ask(name, request)).get("Attributes")
        return from_raw_item(found) if found else None

    def _search(
        self,
        table: str,
        condition: Condition | None,
        filter: Condition | None,
        projection: Projection | None,
        names: Names | None,
        values: Item | None,
        index: str | None,
    ) -> dict[str, Any]:
        expressions = Expressions(names, values)
        expressions.add_condition("KeyConditionExpression", condition)
        expressions.add_condition("FilterExpression", filter)
        expressions.add_projection(projection)
        request = {"TableName": self._requests.name_of(table), **expressions.arguments()}
        if index is not None:
            request["IndexName"] = utf8(index, "The name of the index")
        return request

    def _transaction(
        self, operations: Sequence[Any], kinds: tuple[type[Any], ...]
    ) -> dict[str, Any]:
        if not 1 <= len(operations) <= _MAX_TRANSACTION:
            raise InvalidRequestError(
                f"The transaction has {len(operations)} operations; expected 1 to "
                f"{_MAX_TRANSACTION}."
            )
        for at, operation in enumerate(operations):
            if not isinstance(operation, kinds):
                raise InvalidRequestError(
                    f"Operation {at} of the transaction is {type(operation).__name__}; expected "
                    f"{', '.join(kind.__name__ for kind in kinds)}."
                )
        name_of = self._requests.name_of
        return {"TransactItems": [{each.kind: each.as_request(name_of)} for each in operations]}

    async def _read_keys(
        self, table: str, keys: list[Plain], consistent: bool, projection: Mapping[str, Any]
    ) -> list[Plain]:
        key_names = list(keys[0]) if keys else []
        unique = {identity_of(key, key_names): key for key in keys if set(key) == set(key_names)}
        if len(unique) < len(keys) and any(set(key) != set(key_names) for key in keys):
            raise InvalidRequestError(
                "The keys have different attributes; expected those of the table's key in each."
            )
        return await self._requests.read_keys(table, unique.values(), consistent, projection)

    async def _read_children(
        self, table: str, index: str, parent: str, node_id: Any
    ) -> list[Plain]:
        request = {
            "TableName": table,
            "IndexName": utf8(index, "The name of the index"),
            "KeyConditionExpression": "#parent = :id",
            "ExpressionAttributeNames": {"#parent": utf8(parent, "parent")},
            "ExpressionAttributeValues": {":id": node_id},
        }
        found: list[Plain] = []
        async for page in pages(lambda request: self._requests.ask("Query", request), request):
            found += page["Items"]
        return found

    def _describe(self, table: str, seconds: float) -> dict[str, Any] | None:
        return get_control(self.using).describe(table, seconds=seconds)


_clients = PerProcess(DynamoDBClient)


def get_dynamodb_client(using: str = DEFAULT_ALIAS) -> DynamoDBClient:
    """Return this process's client of the alias ``using``, the same each time."""
    return _clients.get(using)
