"""
The forum's tables in JSON files, for development without DynamoDB.

Each table is one file. A write makes new files of the tables that it changes and then replaces
``current.json``, which names the files, so that readers in other processes find either the old
tables or the new ones. Writers hold a lock on the folder. Items whose time is over are not read,
and the next write of their table leaves them out.
"""

from __future__ import annotations

import copy
import fcntl
import json
import math
import os
import threading
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dynamo_stores import clock
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.models import DynamoModel

from .base import (
    MAX_OPERATIONS,
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

_CURRENT = "current.json"
# A reader that is slower than so many writes in a row gives up.
_READS = 20

Id = tuple[Any, ...]
Rows = dict[Id, Item]


class JsonDatabase(Database):
    """The tables in the files of one folder. Thread-safe, and safe between processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[str, File] = {}

    def adapter(self, model: type[DynamoModel]) -> DatabaseAdapter:
        return JsonAdapter(Table.of(model), self)

    def transact(self, operations: Sequence[Operation]) -> None:
        if len(operations) > MAX_OPERATIONS:
            raise ValueError(f"{len(operations)} operations; expected {MAX_OPERATIONS} at most.")
        ids = [(each.table.name, _id(each.table, each.key)) for each in operations]
        if len(set(ids)) < len(ids):
            raise ValueError("Two operations of a transaction are about one item.")
        with self.writing() as tables:
            for position, operation in enumerate(operations):
                apply(operation, tables.of(operation.table), position)

    def rows(self, table: Table) -> File:
        """Return the table as it is now."""
        for _ in range(_READS):
            name = self._names().get(table.name)
            if name is None:
                return File(table, {})
            if (known := self._known.get(name)) is not None:
                if known.is_as_now():
                    return known
                found = File(table, known.rows)
                self._remember(table, name, found)
                return found
            try:
                rows = _read(self._folder / name)
            except FileNotFoundError:
                # Another process has replaced it.
                continue
            except (OSError, ValueError) as exc:
                raise _unavailable(self._folder / name, exc) from exc
            found = File(table, {_id(table, row): row for row in rows})
            self._remember(table, name, found)
            return found
        raise StoreUnavailable(f"{self._folder} changes faster than it can be read.")

    @contextmanager
    def writing(self) -> Iterator[_Changes]:
        """
        Yield the tables to change, for this process alone; they are written when the block ends,
        and nothing is if it raises.
        """
        with self._lock, _locked(self._folder):
            changes = _Changes(self)
            yield changes
            if changes.tables:
                self._write(changes.tables)

    def _write(self, changed: Mapping[str, tuple[Table, Rows]]) -> None:
        names = self._names()
        try:
            for name, (_, rows) in changed.items():
                # A new name, so that no process takes a file for one that it has read.
                names[name] = f"{name}.{uuid.uuid4().hex}.json"
                _save(self._folder / names[name], list(rows.values()))
            _replace(self._folder / _CURRENT, names)
            for name, (table, rows) in changed.items():
                self._remember(table, names[name], File(table, rows))
            for path in self._folder.glob("*.json"):
                # Also what a process left that was killed.
                if path.name != _CURRENT and path.name not in names.values():
                    path.unlink(missing_ok=True)
        except OSError as exc:
            raise _unavailable(self._folder, exc) from exc

    def _names(self) -> dict[str, str]:
        try:
            found: dict[str, str] = _read(self._folder / _CURRENT)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as exc:
            raise _unavailable(self._folder / _CURRENT, exc) from exc
        return found

    def _remember(self, table: Table, name: str, file: File) -> None:
        for known in list(self._known):
            if known.rsplit(".", 2)[0] == table.name and known != name:
                self._known.pop(known, None)
        self._known[name] = file


class File:
    """
    The items of a table whose time is not over, which do not change, and the order of each index
    once it was used.
    """

    def __init__(self, table: Table, rows: Rows) -> None:
        now, ttl = clock.now(), table.ttl
        ends = {} if ttl is None else {key: row[ttl] for key, row in rows.items() if ttl in row}
        if any(end < now for end in ends.values()):
            rows = {key: row for key, row in rows.items() if ends.get(key, now) >= now}
        self.rows = rows
        self._first_end = min((end for end in ends.values() if end >= now), default=math.inf)
        self._partitions: dict[tuple[str, ...], dict[Any, list[Item]]] = {}
        self._ids: list[Id] | None = None

    def is_as_now(self) -> bool:
        """Return whether no item has ended since then."""
        return self._first_end >= clock.now()

    def ids(self) -> list[Id]:
        """Return the keys of all items, sorted."""
        if self._ids is None:
            self._ids = sorted(self.rows)
        return self._ids

    def partition(self, keys: tuple[str, ...], own: tuple[str, ...], value: Any) -> list[Item]:
        """Return the items with a partition key, by the sort key and then by their own key."""
        found = self._partitions.get(keys)
        if found is None:
            found = {}
            for row in self.rows.values():
                if all(name in row for name in keys):
                    found.setdefault(row[keys[0]], []).append(row)
            for rows in found.values():
                rows.sort(key=lambda row: position(row, keys, own))
            self._partitions[keys] = found
        return found.get(value, [])


class _Changes:
    """Copies of the tables that one write changes."""

    def __init__(self, database: JsonDatabase) -> None:
        self._database = database
        self.tables: dict[str, tuple[Table, Rows]] = {}

    def of(self, table: Table) -> Rows:
        if table.name not in self.tables:
            self.tables[table.name] = (table, dict(self._database.rows(table).rows))
        return self.tables[table.name][1]


class JsonAdapter(DatabaseAdapter):
    """One table in JSON files."""

    def __init__(self, table: Table, database: JsonDatabase) -> None:
        super().__init__(table)
        self._database = database

    def get_all(self, *, attributes: Sequence[str] | None = None) -> Iterator[Item]:
        for row in list(self._rows().rows.values()):
            yield _projected(row, attributes)

    def get_keys(self, index: str) -> Iterator[Item]:
        keys = self.table.keys_of(index)
        names = [*dict.fromkeys([*self.table.keys, *keys])]
        for row in list(self._rows().rows.values()):
            if all(name in row for name in keys):
                yield _projected(row, names)

    def get_by_id(
        self, key: AnyKey, *, consistent: bool = False, attributes: Sequence[str] | None = None
    ) -> Item | None:
        file = self._rows()
        if isinstance(key, str) and len(self.table.keys) > 1:
            rows = file.partition(self.table.keys, self.table.keys, key)
            return _projected(rows[0], attributes) if rows else None
        row = file.rows.get(_id(self.table, self.table.key_of(key)))
        return None if row is None else _projected(row, attributes)

    def get_many(
        self,
        keys: Iterable[AnyKey],
        *,
        consistent: bool = False,
        attributes: Sequence[str] | None = None,
    ) -> list[Item]:
        rows = self._rows().rows
        names = None if attributes is None else [*self.table.keys, *attributes]
        ids = [_id(self.table, self.table.key_of(key)) for key in keys]
        return [_projected(rows[each], names) for each in ids if each in rows]

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
        keys, own = self.table.keys_of(index), self.table.keys
        rows = self._rows().partition(keys, own, value)
        places = [position(row, keys, own) for row in rows]
        first, last = 0, len(rows)
        if after is not None:
            place = position(after, keys, own)
            if descending:
                last = bisect_left(places, place)
            else:
                first = bisect_right(places, place)
        chosen = rows[first:last]
        if descending:
            chosen = chosen[::-1]
        if not (prefix is None and above is None and below is None):
            sort = keys[1]
            chosen = [
                row
                for row in chosen
                if (prefix is None or row[sort].startswith(prefix))
                and (above is None or row[sort] > above)
                and (below is None or row[sort] < below)
            ]
        names = dict.fromkeys([*own, *keys])
        end = chosen[size - 1] if len(chosen) > size else None
        shown = None if attributes is None else [*names | dict.fromkeys(attributes)]
        return Page(
            [_projected(row, shown) for row in chosen[:size]],
            None if end is None else {name: end[name] for name in names},
        )

    def scan(
        self,
        *,
        size: int,
        after: Key | None = None,
        attributes: Sequence[str] | None = None,
    ) -> Page:
        file = self._rows()
        ids = file.ids()
        first = 0 if after is None else bisect_right(ids, _id(self.table, after))
        chosen = ids[first : first + size]
        names = None if attributes is None else [*dict.fromkeys([*self.table.keys, *attributes])]
        return Page(
            [_projected(file.rows[each], names) for each in chosen],
            self.table.key_of(chosen[-1]) if first + size < len(ids) else None,
        )

    def create(self, item: Item) -> Item:
        return self._apply(Create(self.table, item)) or {}

    def update(
        self,
        key: AnyKey,
        set: Mapping[str, Any] | None = None,
        *,
        add: Mapping[str, int] | None = None,
        expect: Expected | None = None,
        upsert: bool = False,
    ) -> Item:
        name = self.table.key_of(key)
        return (
            self._apply(Update(self.table, name, set or {}, add or {}, expect or {}, upsert)) or {}
        )

    def delete(self, key: AnyKey, *, expect: Expected | None = None) -> Item | None:
        return self._apply(Delete(self.table, self.table.key_of(key), expect or {}))

    def put_all(self, items: Iterable[Item]) -> int:
        count = 0
        with self._database.writing() as tables:
            rows = tables.of(self.table)
            for item in items:
                rows[_id(self.table, item)] = _stored(item)
                count += 1
        return count

    def delete_all(self, keys: Iterable[AnyKey]) -> int:
        count = 0
        with self._database.writing() as tables:
            rows = tables.of(self.table)
            for key in keys:
                rows.pop(_id(self.table, self.table.key_of(key)), None)
                count += 1
        return count

    def health_check(self) -> bool:
        try:
            self._rows()
            with self._database.writing():
                return True
        except StoreUnavailable:
            return False

    def _rows(self) -> File:
        return self._database.rows(self.table)

    def _apply(self, operation: Operation) -> Item | None:
        with self._database.writing() as tables:
            return apply(operation, tables.of(self.table))


def apply(operation: Operation, rows: Rows, position: int = 0) -> Item | None:
    """
    Change ``rows``, and return the item as it is now, or as it was if it is deleted. Raises
    WriteRefused, and changes nothing then.
    """
    identity = _id(operation.table, operation.key)
    row = rows.get(identity)
    if not _is_expected(operation, row):
        raise refusal(operation, copy.deepcopy(row), position)
    match operation:
        case Create():
            rows[identity] = _stored(operation.item)
        case Update():
            changed = {**(row or operation.key), **_stored(operation.set)}
            for name, value in operation.set.items():
                if value is None:
                    changed.pop(name, None)
            for name, number in operation.add.items():
                changed[name] = changed.get(name, 0) + number
            rows[identity] = changed
        case Delete():
            rows.pop(identity, None)
            return copy.deepcopy(row)
        case Check():
            return None
    return copy.deepcopy(rows[identity])


def _is_expected(operation: Operation, row: Item | None) -> bool:
    if isinstance(operation, Create):
        return row is None
    if row is None:
        may_be_missing = (
            operation.upsert
            if isinstance(operation, Update)
            else isinstance(operation, Delete) and not operation.expect
        )
        # A condition on a missing item is met only by missing attributes, as in DynamoDB.
        return may_be_missing and all(
            value is Presence.MISSING for value in operation.expect.values()
        )
    for name, value in operation.expect.items():
        if isinstance(value, Presence):
            if (name in row) != (value is Presence.EXISTS):
                return False
        elif name not in row or row[name] != value:
            return False
    return True


def position(row: Mapping[str, Any], keys: tuple[str, ...], own: tuple[str, ...]) -> Id:
    """Return what the items of a partition are sorted by."""
    return (*(row[name] for name in keys[1:]), *(row[name] for name in own))


def _id(table: Table, item: Mapping[str, Any]) -> Id:
    return tuple(item[name] for name in table.keys)


def _stored(item: Mapping[str, Any]) -> Item:
    return copy.deepcopy(without_none(item))


def _projected(row: Item, attributes: Sequence[str] | None) -> Item:
    if attributes is None:
        return copy.deepcopy(row)
    return {name: copy.deepcopy(row[name]) for name in attributes if name in row}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _save(path: Path, content: Any) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, ensure_ascii=False, indent=1)
        file.flush()
        os.fsync(file.fileno())


def _replace(path: Path, content: Any) -> None:
    """Replace the file at once: other processes see the old content or the new one."""
    beside = path.with_name(f".{path.name}.new")
    _save(beside, content)
    beside.replace(path)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as exc:
        raise _unavailable(folder, exc) from exc
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _unavailable(path: Path, exc: Exception) -> StoreUnavailable:
    return StoreUnavailable(f"{path} cannot be read or written ({type(exc).__name__}: {exc}).")
