"""The forum's tables in DynamoDB, by the low-level client."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from dynamo_stores import client, clock
from dynamo_stores.client import DynamoDBClient, get_dynamodb_client
from dynamo_stores.exceptions import (
    AnswerError,
    ConditionFailedError,
    StoreUnavailable,
    TransactionCancelledError,
)
from dynamo_stores.models import DynamoModel

from ..compression import packed, unpacked
from .base import (
    AnyKey,
    Check,
    Create,
    Database,
    DatabaseAdapter,
    Delete,
    Expected,
    Item,
    Key,
    Operation,
    Page,
    Presence,
    Table,
    Update,
    refusal,
    without_none,
)

T = TypeVar("T")

_CONFLICT, _FAILED = "TransactionConflict", "ConditionalCheckFailed"
# DynamoDB's error for a single write beside a transaction on its item.
_CONFLICT_ERROR = "TransactionConflictException"
# Seconds: the first and the longest wait between two tries, and how long it is tried.
_FIRST_WAIT, _LONGEST_WAIT, _PATIENCE = 0.01, 0.5, 10.0


class DynamoDBDatabase(Database):
    """The tables in DynamoDB."""

    def adapter(self, model: type[DynamoModel]) -> DatabaseAdapter:
        return DynamoDBAdapter(Table.of(model))

    def transact(self, operations: Sequence[Operation]) -> None:
        writes = [_as_write(each) for each in operations]
        found = get_dynamodb_client(operations[0].table.using)
        try:
            _unless_contended(lambda: found.transact_write(writes))
        except TransactionCancelledError as exc:
            for at, (operation, reason) in enumerate(zip(operations, exc.reasons, strict=True)):
                if reason.code == _FAILED:
                    item = None if reason.item is None else unpacked(reason.item)
                    raise refusal(operation, item, at) from exc
            raise


class DynamoDBAdapter(DatabaseAdapter):
    """One table in DynamoDB."""

    @property
    def _client(self) -> DynamoDBClient:
        return get_dynamodb_client(self.table.using)

    def get_all(self, *, attributes: Sequence[str] | None = None) -> Iterator[Item]:
        return map(unpacked, self._client.scan(self.table.name, projection=attributes))

    def get_keys(self, index: str) -> Iterator[Item]:
        names = dict.fromkeys([*self.table.keys, *self.table.keys_of(index)])
        yield from self._client.scan(self.table.name, index=index, projection=[*names])

    def get_by_id(
        self, key: AnyKey, *, consistent: bool = False, attributes: Sequence[str] | None = None
    ) -> Item | None:
        if isinstance(key, str) and len(self.table.keys) > 1:
            found = self._client.query(
                self.table.name,
                "#k = :k",
                names={"#k": self.table.keys[0]},
                values={":k": key},
                consistent=consistent,
                projection=attributes,
                limit=1,
            ).page()
            return unpacked(found.items[0]) if found.items else None
        item = self._client.get(
            self.table.name, self.table.key_of(key), consistent=consistent, projection=attributes
        )
        return None if item is None else unpacked(item)

    def get_many(
        self,
        keys: Iterable[AnyKey],
        *,
        consistent: bool = False,
        attributes: Sequence[str] | None = None,
    ) -> list[Item]:
        wanted = [self.table.key_of(key) for key in keys]
        if not wanted:
            return []
        names = self.table.keys
        distinct = {tuple(key.values()): key for key in wanted}
        read = self._client.batch_get(
            self.table.name,
            distinct.values(),
            consistent=consistent,
            projection=None if attributes is None else [*dict.fromkeys([*names, *attributes])],
        )
        found = {tuple(item[name] for name in names): unpacked(item) for item in read}
        order = (tuple(key.values()) for key in wanted)
        return [found[key] for key in order if key in found]

    def page(
        self,
        value: Any,
        *,
        index: str | None = None,
        size: int,
        after: Key | None = None,
        descending: bool = False,
        prefix: str | None = None,
        above: Any = None,
        below: Any = None,
        consistent: bool = False,
        attributes: Sequence[str] | None = None,
    ) -> Page:
        keys = self.table.keys_of(index)
        names, values = {"#p": keys[0]}, {":p": value}
        condition = "#p = :p"
        for operator, bound in (("begins", prefix), (">", above), ("<", below)):
            if bound is not None:
                names["#s"], values[":s"] = keys[1], bound
                condition += (
                    " AND begins_with(#s, :s)" if operator == "begins" else f" AND #s {operator} :s"
                )
        key_names = dict.fromkeys([*self.table.keys, *keys])
        listing = self._client.query(
            self.table.name,
            condition,
            names=names,
            values=values,
            index=index,
            descending=descending,
            consistent=consistent,
            # One more says whether there is another page.
            limit=size + 1,
            start=after,
            projection=None if attributes is None else [*key_names | dict.fromkeys(attributes)],
        )
        found = listing.all()
        last = {name: found[size - 1][name] for name in key_names} if len(found) > size else None
        return Page(list(map(unpacked, found[:size])), last)

    def scan(
        self,
        *,
        size: int,
        after: Key | None = None,
        attributes: Sequence[str] | None = None,
    ) -> Page:
        found = self._client.scan(
            self.table.name,
            limit=size,
            start=None if after is None else dict(after),
            projection=(
                None if attributes is None else [*dict.fromkeys([*self.table.keys, *attributes])]
            ),
        ).page()
        return Page(list(map(unpacked, found.items)), found.last_key)

    def create(self, item: Item) -> Item:
        operation = Create(self.table, item)
        self._write(operation, lambda write: self._client.put(**write))
        return without_none(item)

    def update(
        self,
        key: AnyKey,
        set: Mapping[str, Any] | None = None,
        *,
        add: Mapping[str, int] | None = None,
        expect: Expected | None = None,
        upsert: bool = False,
    ) -> Item:
        operation = Update(
            self.table, self.table.key_of(key), set or {}, add or {}, expect or {}, upsert
        )
        item = self._write(operation, lambda write: self._client.update(**write))
        return unpacked(item or {})

    def delete(self, key: AnyKey, *, expect: Expected | None = None) -> Item | None:
        operation = Delete(self.table, self.table.key_of(key), expect or {})
        item = self._write(operation, lambda write: self._client.delete(**write, return_old=True))
        return None if item is None else unpacked(item)

    def put_all(self, items: Iterable[Item]) -> int:
        return self._client.batch_write(
            self.table.name,
            puts=(packed(without_none(item), self.table.compressed) for item in items),
        )

    def delete_all(self, keys: Iterable[AnyKey]) -> int:
        return self._client.batch_write(
            self.table.name, deletes=(self.table.key_of(key) for key in keys)
        )

    def health_check(self) -> bool:
        return self._client.health_check(self.table.name)

    def _write(
        self, operation: Operation, write: Callable[[dict[str, Any]], Item | None]
    ) -> Item | None:
        request = _as_write(operation)
        arguments = {name: getattr(request, name) for name in request.__slots__}
        try:
            return _unless_contended(lambda: write(arguments))
        except ConditionFailedError as exc:
            raise refusal(operation, None if exc.item is None else unpacked(exc.item)) from exc


def _as_write(operation: Operation) -> Any:
    """Return the operation of the low-level client."""
    table, key_name = operation.table.name, operation.table.keys[0]
    words = _Words()
    if isinstance(operation, Create):
        is_new = f"attribute_not_exists({words.name(key_name)})"
        item = packed(without_none(operation.item), operation.table.compressed)
        return client.Put(table, item, is_new, words.names)
    conditions = [] if _may_be_missing(operation) else [f"attribute_exists({words.name(key_name)})"]
    conditions += [words.expectation(name, value) for name, value in operation.expect.items()]
    condition = " AND ".join(conditions)
    if isinstance(operation, Check):
        return client.Check(table, operation.key, condition, words.names, words.values)
    if isinstance(operation, Update):
        change = words.change(operation)
        return client.Update(
            table, operation.key, change, condition or None, words.names, words.values
        )
    return client.Delete(table, operation.key, condition or None, words.names, words.values)


def _may_be_missing(operation: Update | Delete | Check) -> bool:
    if isinstance(operation, Update):
        return operation.upsert
    return isinstance(operation, Delete) and not operation.expect


class _Words:
    """The names and values of the expressions of one request; None for none of them."""

    def __init__(self) -> None:
        self.names: dict[str, str] | None = None
        self.values: dict[str, Any] | None = None

    def name(self, name: str) -> str:
        if self.names is None:
            self.names = {}
        for placeholder, known in self.names.items():
            if known == name:
                return placeholder
        placeholder = f"#n{len(self.names)}"
        self.names[placeholder] = name
        return placeholder

    def value(self, value: Any) -> str:
        if self.values is None:
            self.values = {}
        placeholder = f":v{len(self.values)}"
        self.values[placeholder] = value
        return placeholder

    def expectation(self, name: str, value: Any) -> str:
        if value is Presence.MISSING:
            return f"attribute_not_exists({self.name(name)})"
        if value is Presence.EXISTS:
            return f"attribute_exists({self.name(name)})"
        return f"{self.name(name)} = {self.value(value)}"

    def change(self, operation: Update) -> str:
        sets = packed(without_none(operation.set), operation.table.compressed)
        parts = {
            "SET": [f"{self.name(name)} = {self.value(value)}" for name, value in sets.items()],
            "REMOVE": [self.name(name) for name in operation.set if name not in sets],
            "ADD": [f"{self.name(name)} {self.value(n)}" for name, n in operation.add.items()],
        }
        return " ".join(f"{verb} {', '.join(some)}" for verb, some in parts.items() if some)


def _unless_contended(write: Callable[[], T]) -> T:
    """
    Return what ``write`` returns. It is called again while a transaction of another process holds
    one of the items; raises StoreUnavailable after ten seconds of that.
    """
    until, wait = clock.monotonic() + _PATIENCE, _FIRST_WAIT
    while True:
        try:
            return write()
        except AnswerError as exc:
            if not _is_contended(exc):
                raise
            if clock.monotonic() + wait > until:
                raise StoreUnavailable(
                    f"Other writes of the same items went on for {_PATIENCE:.0f} s."
                ) from exc
        clock.sleep(random.uniform(wait / 2, wait))
        wait = min(2 * wait, _LONGEST_WAIT)


def _is_contended(exc: AnswerError) -> bool:
    if isinstance(exc, TransactionCancelledError):
        # Beside a conflict a failed condition does not say which operation is refused first.
        return any(reason.code == _CONFLICT for reason in exc.reasons)
    return exc.code == _CONFLICT_ERROR
