"""
What an item looks like: the base of every model, and the kinds of item in the store's table. Those
of the control table are in :mod:`dynamo_stores.control_items`.

Importing this reads no settings: the table's name, the region and the time-outs come from the
alias when they are used.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar, Self, cast

from pynamodb.attributes import (
    BinaryAttribute,
    MapAttribute,
    NumberAttribute,
    UnicodeAttribute,
)
from pynamodb.connection import TableConnection
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex
from pynamodb.models import Model

from .calls.connection import TableConnection as DoorTable
from .calls.connection import get_connection
from .calls.side_door import get_side_door
from .conf import DEFAULT_ALIAS, get_config
from .keys import ItemKey, expiry_index_sort_key


class TableName:
    """The name of a model's table, looked up in the settings of its alias when it is read."""

    def __init__(self, name: str | None, using: str, suffix: str = "") -> None:
        self._name = name
        self._using = using
        self._suffix = suffix

    def __get__(self, instance: object, owner: type) -> str:
        config = get_config(self._using)
        name = config.store_table if self._name is None else config.real_name(self._name)
        return name + self._suffix

    def for_alias(self, using: str) -> TableName:
        """Return the same table's name in another alias."""
        return TableName(self._name, using, self._suffix)


# Models for aliases other than their own. A lock here could be held when the process forks; two
# threads that make one at once agree on the first instead.
_bound: dict[tuple[type, str], type] = {}


class DynamoModel(Model):
    """
    A PynamoDB model whose calls go through the door.

    ``class Meta: table_name = "…"`` is enough; ``using`` names an alias of ``DYNAMO_STORES``,
    which decides region, endpoint, time-outs and a prefix of the name.
    """

    using: ClassVar[str] = DEFAULT_ALIAS
    is_bound: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        meta = cls.__dict__.get("Meta")
        if meta is None and "using" in cls.__dict__ and hasattr(cls, "Meta"):
            # An alias of its own needs a Meta of its own.
            meta = cls.Meta = cast(Any, type("Meta", (cast(type, cls.Meta),), {}))
        if meta is None:
            return
        name = next(
            (base.__dict__["table_name"] for base in meta.__mro__ if "table_name" in base.__dict__),
            None,
        )
        if isinstance(name, TableName):
            meta.table_name = name.for_alias(cls.using)
        elif name is not None:
            meta.table_name = TableName(name, cls.using)

    @classmethod
    def bound_to(cls, using: str) -> type[Self]:
        """Return this model for the alias ``using``: a class of its own, the same each time."""
        if using == cls.using:
            return cls
        found = _bound.get((cls, using))
        if found is None:
            namespace = {"using": using, "is_bound": True, "__module__": cls.__module__}
            make = cast(Any, type(cls))
            found = _bound.setdefault((cls, using), make(cls.__name__, (cls,), namespace))
        return cast(type[Self], found)

    @classmethod
    def _get_connection(cls) -> TableConnection:
        # PynamoDB's classes share what this returns with every class of the same table name. The
        # door keeps one for each class, in each process.
        return get_connection(cls.using).table(cls, super()._get_connection)

    @classmethod
    def side_connection(cls) -> DoorTable:
        """Return what the model talks to past policy and breaker: see the side door."""
        return get_side_door(cls.using).table(cls, super()._get_connection)


def concrete_models() -> list[type[DynamoModel]]:
    """Return the models that have a table, as they were written (not bound to other aliases)."""
    found: list[type[DynamoModel]] = []
    waiting = list(DynamoModel.__subclasses__())
    while waiting:
        model = waiting.pop(0)
        waiting += model.__subclasses__()
        if not model.is_bound and hasattr(model, "Meta"):
            found.append(model)
    return found


class IntegerAttribute(NumberAttribute):
    """A whole number of up to 38 digits, exact whatever way DynamoDB writes it."""

    def deserialize(self, value: str) -> int:
        return int(value) if value.lstrip("-").isdecimal() else int(Decimal(value))


class ExpiryIndex(GlobalSecondaryIndex["StoreItem"]):  # type: ignore[no-untyped-call]
    """``GSI1`` of the store's table. Items without its keys are not in it and pay nothing."""

    class Meta:
        index_name = "GSI1"
        projection = AllProjection()

    gsi1pk = UnicodeAttribute(hash_key=True, attr_name="GSI1PK")
    gsi1sk = UnicodeAttribute(range_key=True, attr_name="GSI1SK")


class StoreItem(DynamoModel):
    """
    An item of the store's table.

    ``ttl`` is when DynamoDB may delete it, in whole seconds; it does so up to days late, so every
    reader asks :meth:`is_live`.
    """

    class Meta:
        table_name = TableName(None, DEFAULT_ALIAS)

    pk = UnicodeAttribute(hash_key=True, attr_name="PK")
    sk = UnicodeAttribute(range_key=True, attr_name="SK")
    ttl = NumberAttribute(null=True, attr_name="TTL")
    gsi1pk = UnicodeAttribute(null=True, attr_name="GSI1PK")
    gsi1sk = UnicodeAttribute(null=True, attr_name="GSI1SK")
    expiry_index = ExpiryIndex()

    def is_live(self, now: float) -> bool:
        """Return whether the item still counts at ``now``, in seconds since the epoch."""
        return self.ttl is None or self.ttl > now


# An item as DynamoDB writes it: {"PK": {"S": "…"}, …}.
RawItem = dict[str, Any]


class CacheEntry(StoreItem):
    """
    A cached value: ``number`` for an int, ``sealed`` bytes for everything else.

    ``expiry`` is in milliseconds since the epoch, exact; absent, the entry never expires. It may
    be kept longer, until its removal time, by which ``ttl`` and the index go.
    ``write`` names the write that made it and begins with its time. With ``parts`` over 1 the
    value is in so many :class:`CachePart`, and ``sealed`` holds its signature alone.
    ``generation`` and ``tags`` are the numbers (:class:`NumberItem`) at the time of the write,
    absent for 0 and for none; ``took`` is how many ms it took to compute the value, where that is
    known. Names are short because DynamoDB bills them.
    """

    expiry = IntegerAttribute(null=True, attr_name="e")
    number = IntegerAttribute(null=True, attr_name="n")
    sealed = BinaryAttribute(null=True, attr_name="v", legacy_encoding=False)
    write = UnicodeAttribute(null=True, attr_name="w")
    parts = IntegerAttribute(null=True, attr_name="p")
    original = BinaryAttribute(null=True, attr_name="k", legacy_encoding=False)
    generation = IntegerAttribute(null=True, attr_name="g")
    tags: MapAttribute[str, Any] = MapAttribute(  # type: ignore[no-untyped-call]
        null=True, attr_name="t"
    )
    took = IntegerAttribute(null=True, attr_name="d")

    def is_live(self, now: float) -> bool:
        return self.expiry is None or self.expiry > now * 1000

    @staticmethod
    def is_raw_live(item: RawItem, now: float) -> bool:
        """Return the same of an item as DynamoDB wrote it: reads make no model of each."""
        expiry = item.get("e")
        if expiry is None:
            return True
        digits = expiry.get("N", "")
        # What is no whole number was not written by us.
        return digits.isdecimal() and int(digits) > now * 1000

    @staticmethod
    def make_raw(
        key: ItemKey,
        *,
        write: str,
        expiry: int | None,
        removal: int | None,
        number: int | None = None,
        sealed: bytes | None = None,
        parts: int = 1,
        index_shard: str | None = None,
    ) -> RawItem:
        """Return an entry as DynamoDB writes it: writes make no model of each."""
        item: RawItem = {"PK": {"S": key.pk}, "SK": {"S": key.sk}, "w": {"S": write}}
        if number is not None:
            item["n"] = {"N": str(number)}
        else:
            item["v"] = {"B": sealed}
        if expiry is not None:
            item["e"] = {"N": str(expiry)}
        if removal is not None:
            item["TTL"] = {"N": str(ttl_of(removal))}
        if key.original is not None:
            item["k"] = {"B": key.original}
        if parts > 1:
            item["p"] = {"N": str(parts)}
        if index_shard is not None:
            item["GSI1PK"] = {"S": index_shard}
            item["GSI1SK"] = {"S": expiry_index_sort_key(key.pk, removal)}
        return item


class LockItem(StoreItem):
    """
    A lock: who holds it until when (``lease_end``, in ms since the epoch; 0: nobody), and the
    fence of the last one who got it.
    """

    owner = UnicodeAttribute(null=True, attr_name="o")
    fence = IntegerAttribute(null=True, attr_name="f")
    lease_end = IntegerAttribute(null=True, attr_name="l")


class RateWindow(StoreItem):
    """
    What was admitted of one key lately. Its attributes are those of the algorithm that its sort
    key names (:mod:`dynamo_stores.stores.limits`), numbered by the windows that it counts in.
    """


class StoredRate(StoreItem):
    """The limit of a resource, set for all processes: JSON, as settings write it."""

    config = UnicodeAttribute(attr_name="config")


class DedupeJob(StoreItem):
    """
    A job that runs once: its ``state`` (``P`` in progress, ``C`` completed, ``F`` failed), which
    counts ``until`` a moment in ms since the epoch: the end of the lease, or when the result is
    forgotten. ``fence`` only ever rises.
    """

    owner = UnicodeAttribute(null=True, attr_name="o")
    fence = IntegerAttribute(null=True, attr_name="f")
    state = UnicodeAttribute(null=True, attr_name="s")
    until = IntegerAttribute(null=True, attr_name="u")
    payload = UnicodeAttribute(null=True, attr_name="h")
    result = BinaryAttribute(null=True, attr_name="r", legacy_encoding=False)
    parts = IntegerAttribute(null=True, attr_name="p")
    error = UnicodeAttribute(null=True, attr_name="e")


class CachePart(StoreItem):
    """One part of a value that is too large for one item; it belongs to one write."""

    data = BinaryAttribute(attr_name="v", legacy_encoding=False)

    @staticmethod
    def make_raw(key: ItemKey, *, data: bytes, removal: int | None) -> RawItem:
        """Return a part as DynamoDB writes it."""
        item: RawItem = {"PK": {"S": key.pk}, "SK": {"S": key.sk}, "v": {"B": data}}
        if removal is not None:
            item["TTL"] = {"N": str(ttl_of(removal))}
        return item


class NumberItem(StoreItem):
    """
    A number that only rises: the generation of a prefix, or of a tag. An entry that was written
    under a lower one is invalid. It is kept for ever: its entries would come back without it.
    """

    number = IntegerAttribute(null=True, attr_name="g")


def ttl_of(removal: int) -> int:
    """Return the first whole second at which ``removal``, in milliseconds, has passed."""
    return -(-removal // 1000)
