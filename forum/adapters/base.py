"""What the forum reads and writes, for DynamoDB and for JSON files alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

from dynamo_stores.infrastructure.tables import table_of
from dynamo_stores.models import DynamoModel

from ..attributes import CompressedTextAttribute

Item = dict[str, Any]
Key = Mapping[str, Any]
# An id, the values of partition and sort key, or the key's attributes.
AnyKey = str | tuple[Any, ...] | Key


class Presence(Enum):
    """What is expected of an attribute, instead of a value."""

    MISSING = "missing"
    EXISTS = "exists"


MISSING, EXISTS = Presence.MISSING, Presence.EXISTS

Expected = Mapping[str, Any]


class WriteRefused(Exception):
    """
    Nothing was written. ``item`` is the item as it is, None if it does not exist; ``position`` the
    number of the operation in its transaction.
    """

    def __init__(self, message: str, *, item: Item | None = None, position: int = 0) -> None:
        super().__init__(message)
        self.item = item
        self.position = position


class ItemExists(WriteRefused):
    """An item with the key of a new one exists."""


class ItemMissing(WriteRefused):
    """The item to change does not exist."""


class Conflict(WriteRefused):
    """The item is not as expected: another process has changed it."""

    def own_change(self, version: int, content: Mapping[str, Any]) -> Item:
        """
        Return the item if it is the next ``version`` with the ``content`` that was to be written:
        the change was made before, and its answer was lost. Otherwise raise this conflict.
        """
        item = self.item
        if item is None or item.get("version") != version + 1:
            raise self
        if any(item.get(name) != value for name, value in content.items()):
            raise self
        return item


@dataclass(frozen=True, slots=True)
class Table:
    """
    A table of the forum: the names of its keys, and of those of its indexes by their names. Long
    texts of the attributes ``compressed`` are stored compressed. An item ends at the time in the
    attribute ``ttl`` (seconds since 1970), if it has one.
    """

    name: str
    keys: tuple[str, ...]
    indexes: Mapping[str, tuple[str, ...]]
    using: str
    compressed: frozenset[str] = frozenset()
    ttl: str | None = None

    @classmethod
    def of(cls, model: type[DynamoModel]) -> Self:
        """Return the table of ``model``."""
        spec = table_of(model)
        return cls(
            name=spec.name,
            keys=_names(spec.keys),
            indexes={index.name: _names(index.keys) for index in spec.indexes},
            using=model.using,
            compressed=frozenset(
                each.attr_name
                for each in model.get_attributes().values()
                if isinstance(each, CompressedTextAttribute)
            ),
            ttl=spec.ttl,
        )

    def key_of(self, key: AnyKey) -> Item:
        """Return the attributes of a key; of an item, those of its key."""
        if isinstance(key, Mapping):
            return {name: key[name] for name in self.keys}
        values = key if isinstance(key, tuple) else (key,)
        return dict(zip(self.keys, values, strict=True))

    def keys_of(self, index: str | None) -> tuple[str, ...]:
        """Return the names of the key attributes of the table, or of ``index``."""
        if index is None:
            return self.keys
        try:
            return self.indexes[index]
        except KeyError:
            known = ", ".join(sorted(self.indexes)) or "none"
            raise LookupError(
                f"{self.name} has no index {index!r}; its indexes are {known}."
            ) from None


def _names(keys: Any) -> tuple[str, ...]:
    return (keys.partition,) if keys.sort is None else (keys.partition, keys.sort)


@dataclass(frozen=True, slots=True)
class Create:
    """Writes an item whose key no item has. Attributes that are None are left out."""

    table: Table
    item: Item

    @property
    def key(self) -> Item:
        """The key of the new item."""
        return self.table.key_of(self.item)


@dataclass(frozen=True, slots=True)
class Update:
    """
    Changes an item: sets attributes (None removes one) and adds to numbers, of which a missing one
    counts as 0. The item has to exist, unless ``upsert``, and to have the values of ``expect``.
    """

    table: Table
    # One of AnyKey; a dict of the key's attributes from then on.
    key: Any
    set: Mapping[str, Any] = field(default_factory=dict)
    add: Mapping[str, int] = field(default_factory=dict)
    expect: Expected = field(default_factory=dict)
    upsert: bool = False

    def __post_init__(self) -> None:
        if not self.set and not self.add:
            raise ValueError("The update changes nothing; expected attributes in set or add.")
        _complete_key(self)


@dataclass(frozen=True, slots=True)
class Delete:
    """Deletes an item, if it exists. With ``expect`` it has to exist and to have these values."""

    table: Table
    # One of AnyKey; a dict of the key's attributes from then on.
    key: Any
    expect: Expected = field(default_factory=dict)

    def __post_init__(self) -> None:
        _complete_key(self)


@dataclass(frozen=True, slots=True)
class Check:
    """Writes nothing, and refuses the transaction unless the item exists and is as expected."""

    table: Table
    # One of AnyKey; a dict of the key's attributes from then on.
    key: Any
    expect: Expected = field(default_factory=dict)

    def __post_init__(self) -> None:
        _complete_key(self)


Operation = Create | Update | Delete | Check


def _complete_key(operation: Update | Delete | Check) -> None:
    """Make the key of an operation a dict of its attributes."""
    object.__setattr__(operation, "key", operation.table.key_of(operation.key))


# DynamoDB's limit for one transaction.
MAX_OPERATIONS = 100


@dataclass(frozen=True, slots=True)
class Page:
    """Some items of a partition, and the key after which the next page begins: None at the end."""

    items: list[Item]
    after: Item | None = None


class DatabaseAdapter(ABC):
    """
    One table of the forum. Items are dicts of str, int, bool, list and dict.

    Methods raise StoreUnavailable if the table cannot be read or written.
    """

    def __init__(self, table: Table) -> None:
        self.table = table

    @abstractmethod
    def get_all(self, *, attributes: Sequence[str] | None = None) -> Iterator[Item]:
        """Yield all items, in no order, or only these ``attributes`` of them."""

    @abstractmethod
    def get_keys(self, index: str) -> Iterator[Item]:
        """Yield the keys of all items of an index, of the index and of the table, in no order."""

    @abstractmethod
    def get_by_id(
        self,
        key: AnyKey,
        *,
        consistent: bool = False,
        attributes: Sequence[str] | None = None,
    ) -> Item | None:
        """
        Return an item, None if there is none. Of a table with a sort key, an id alone returns the
        first item of its partition.
        """

    @abstractmethod
    def get_many(
        self,
        keys: Iterable[AnyKey],
        *,
        consistent: bool = False,
        attributes: Sequence[str] | None = None,
    ) -> list[Item]:
        """Return the items of ``keys`` that exist, in the order of the keys."""

    @abstractmethod
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
        """
        Return at most ``size`` items whose partition key, in the table or ``index``, is ``value``,
        by their sort key. The sort key begins with ``prefix``, or is over ``above`` or under
        ``below``. The page begins after the key ``after`` of another page.
        """

    @abstractmethod
    def scan(
        self,
        *,
        size: int,
        after: Key | None = None,
        attributes: Sequence[str] | None = None,
    ) -> Page:
        """
        Return at most ``size`` items of the whole table, in no order, by one call. It costs the
        read units of these items. The last page may be empty.
        """

    @abstractmethod
    def create(self, item: Item) -> Item:
        """Write a new item and return it. Raises ItemExists."""

    @abstractmethod
    def update(
        self,
        key: AnyKey,
        set: Mapping[str, Any] | None = None,
        *,
        add: Mapping[str, int] | None = None,
        expect: Expected | None = None,
        upsert: bool = False,
    ) -> Item:
        """Change an item as :class:`Update`, and return it. Raises ItemMissing or Conflict."""

    @abstractmethod
    def delete(self, key: AnyKey, *, expect: Expected | None = None) -> Item | None:
        """Delete an item and return it, None if there is none. Raises Conflict."""

    @abstractmethod
    def put_all(self, items: Iterable[Item]) -> int:
        """Write any number of items, whether they exist or not, and return how many."""

    @abstractmethod
    def delete_all(self, keys: Iterable[AnyKey]) -> int:
        """Delete any number of items, and return how many keys there were."""

    @abstractmethod
    def health_check(self) -> bool:
        """Return whether the table can be read and written."""

    def query_by_index(
        self, index: str, value: Any, *, attributes: Sequence[str] | None = None
    ) -> list[Item]:
        """Return all items whose partition key in ``index`` is ``value``, by its sort key."""
        found: list[Item] = []
        after: Item | None = None
        while True:
            page = self.page(value, index=index, size=1000, after=after, attributes=attributes)
            found += page.items
            if (after := page.after) is None:
                return found


class Database(ABC):
    """The forum's tables, and transactions over them."""

    @abstractmethod
    def adapter(self, model: type[DynamoModel]) -> DatabaseAdapter:
        """Return the adapter of the table of ``model``."""

    @abstractmethod
    def transact(self, operations: Sequence[Operation]) -> None:
        """
        Carry out at most 100 operations on different items, all or none. Raises ItemExists,
        ItemMissing or Conflict of the first one that is refused.
        """


def without_none(item: Mapping[str, Any]) -> Item:
    """Return the item without the attributes that are None."""
    return {name: value for name, value in item.items() if value is not None}


def refusal(operation: Operation, item: Item | None, position: int = 0) -> WriteRefused:
    """Return the error for an operation whose item is ``item``."""
    name = operation.table.name
    if isinstance(operation, Create):
        return ItemExists(f"{name} has an item with this key.", item=item, position=position)
    if item is None:
        return ItemMissing(f"{name} has no item with this key.", position=position)
    return Conflict(f"The item of {name} was changed.", item=item, position=position)
