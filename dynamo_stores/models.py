"""
The base classes of all models, and readers of attributes.

The kinds of item in the store's table (:mod:`dynamo_stores.keys` builds their keys):

==================  =================================  ====================  =======================
Model               PK                                 SK                    Module
==================  =================================  ====================  =======================
CacheEntry          ``CACHE#<prefix>#<key>``           ``ENTRY``             cache.store.items
CachePart           ``<PK of the entry>#<write>#<n>``  ``PART``              cache.store.items
InvalidationNumber  ``GEN#<prefix>``                   ``GEN``               cache.store.items
InvalidationNumber  ``TAG#<prefix>#<tag>``             ``TAG``               cache.store.items
LockItem            ``LOCK#<prefix>#<key>``            ``LOCK``              cache.store.items
LockItem            ``LEASE#<prefix>#<key>``           ``LEASE``             cache.store.items
RateWindow          ``RL#<scope>#<key>``               ``<algorithm>#…``     ratelimit.items
RateWindow          ``AL#<scope>#<key>``               ``<algorithm>#…``     ratelimit.items
StoredRate          ``RATE#<resource>``                ``CONFIG``            ratelimit.items
DedupeJob           ``DD#<hash of the key>``           ``JOB``               dedupe.items
ResultPart          ``DD#<hash of the key>``           ``R#<fence>#<n>``     dedupe.items
Heartbeat           ``HEARTBEAT#<token>``              ``HEARTBEAT``         infrastructure.replicas
==================  =================================  ====================  =======================

And in the control table:

==================  =================================  ====================  =======================
Model               PK                                 SK                    Module
==================  =================================  ====================  =======================
CapacityRecord      ``CAP#<table>``                    ``RECORD``            capacity.records
CapacityClaim       ``CAP#<table>``                    ``CLAIM``             capacity.records
ScheduleItem        ``CAP#<table>``                    ``SCHEDULE``          capacity.scheduled
CapacityTables      ``CAPACITY``                       ``TABLES``            capacity.records
DemandItem          ``CAP#<table>``                    ``DEMAND#<process>``  capacity.demand
DecisionItem        ``DECISIONS``                      ``<ms>#<table>``      capacity.history
StatusItem          ``STATUS``                         ``<process>``         monitoring.report_store
UsageItem           ``USE``                            ``<minute>#<table>``  capacity.usage
PeriodItem          ``METRICS-MINUTES``                ``<minute>``          monitoring.history
PeriodItem          ``METRICS-HOURS``                  ``<hour>``            monitoring.history
ActionItem          ``ACTIONS#<token>``                ``ACTIONS``           admin.actions
LedgerItem          ``NOTIFY``                         ``<alias>``           monitoring.notifications.store
StartItem           ``STREAM#<table>#<consumer>``      ``START``             streams.checkpoints
ShardItem           ``STREAM#<table>#<consumer>``      ``SHARD#<stream>#…``  streams.checkpoints
WorkerItem          ``STREAM#<table>#<consumer>``      ``WORKER#<worker>``   streams.checkpoints
FailedItem          ``STREAM-FAILED#<table>#<…>``      ``<stream>#<shard>…`` streams.failures
==================  =================================  ====================  =======================

Importing this reads no settings: the table's name, the region and the timeouts come from the alias
when they are used.
"""  # noqa: E501

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from typing import Any, ClassVar, Self, cast

from pynamodb.attributes import (
    Attribute,
    NumberAttribute,
    UnicodeAttribute,
)
from pynamodb.connection import TableConnection
from pynamodb.indexes import AllProjection, GlobalSecondaryIndex
from pynamodb.models import Model

from .calls.connection import TableConnection as StoreTableConnection
from .calls.connection import get_connection
from .calls.direct import get_direct_connection
from .conf import DEFAULT_ALIAS, get_config

# The actions of IAM of a project on a table: those of a transaction are the actions inside it, and
# the client describes tables in which it looks for keys.
DATA_ACTIONS = (
    "BatchGetItem",
    "BatchWriteItem",
    "ConditionCheckItem",
    "DeleteItem",
    "DescribeTable",
    "GetItem",
    "PutItem",
    "Query",
    "Scan",
    "UpdateItem",
)


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

    @property
    def in_model(self) -> str | None:
        """The name that the model has for it, None if it comes from the settings."""
        return self._name

    def for_alias(self, using: str) -> TableName:
        """Return the same table's name in another alias."""
        return TableName(self._name, using, self._suffix)


# Models for aliases other than their own. Without a lock, which could be held when the process
# forks: of two threads that create one at once, both use the first.
_bound: dict[tuple[type, str], type] = {}


class DynamoModel(Model):
    """
    A PynamoDB model whose calls go through the connection of its alias.

    ``class Meta: table_name = "…"`` is enough; ``using`` names an alias of ``DYNAMO_STORES``,
    which sets the region, the endpoint, the timeouts and a prefix of the name. ``references`` says
    which attributes hold the partition key of another model's item, as dotted paths by the names of
    the attributes: ``dynamo_verify --references`` looks for items that refer to nothing.

    ``role_actions`` are the actions of IAM that the project calls on the table, by role (``"web"``,
    ``"worker"``): names of :data:`DATA_ACTIONS`, ``"Query/<index>"`` and ``"Scan/<index>"``. By
    default both roles have all of them.
    """

    using: ClassVar[str] = DEFAULT_ALIAS
    references: ClassVar[Mapping[str, str]] = {}
    role_actions: ClassVar[Mapping[str, Collection[str]] | None] = None
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
        # connection keeps one for each class, in each process.
        return get_connection(cls.using).table(cls, super()._get_connection)

    @classmethod
    def direct_connection(cls) -> StoreTableConnection:
        """Return the model's table over the direct connection, without call policy and breaker."""
        return get_direct_connection(cls.using).table(cls, super()._get_connection)


def concrete_models() -> list[type[DynamoModel]]:
    """Return the models that have a table, without those bound to other aliases."""
    return [model for model in _models() if not mistake_of(model)]


def mistaken_models() -> list[type[DynamoModel]]:
    """Return the models that lack what a table needs. One with subclasses is only their base."""
    return [
        model
        for model in _models()
        if mistake_of(model) and all(each.is_bound for each in model.__subclasses__())
    ]


def _models() -> Iterator[type[DynamoModel]]:
    waiting = list(DynamoModel.__subclasses__())
    while waiting:
        model = waiting.pop(0)
        waiting += model.__subclasses__()
        if not model.is_bound:
            yield model


def mistake_of(model: type[DynamoModel]) -> str:
    """Return what ``model`` lacks to have a table, and what to add; ``""`` if it lacks nothing."""
    path = path_of(model)
    if not hasattr(model, "Meta"):
        return f"{path} has no class Meta. Add {_A_META}."
    if inspect.getattr_static(model.Meta, "table_name", None) is None:
        names = [name for name in dir(model.Meta) if not name.startswith("_")]
        similar = difflib.get_close_matches("table_name", names, 1)
        instead = f", but {similar[0]!r}" if similar else ""
        return f"{path} has no table_name in its class Meta{instead}. Expected {_A_META}."
    name: object = name_in_model(model)
    if name is not None and not isinstance(name, str):
        return f"{path} has {name!r} as table_name in its class Meta. Expected {_A_META}."
    if not any(each.is_hash_key for each in model.get_attributes().values()):
        return (
            f"{path} has no attribute with hash_key=True, the partition key of its table. Add one, "
            "such as key = UnicodeAttribute(hash_key=True)."
        )
    return ""


_A_META = 'class Meta: table_name = "…"'


def path_of(model: type) -> str:
    """Return the dotted path of a class."""
    return f"{model.__module__}.{model.__qualname__}"


def name_in_model(model: type[DynamoModel]) -> str | None:
    """Return ``table_name`` of ``model``; None for the tables that the settings name."""
    name = inspect.getattr_static(model.Meta, "table_name", None)
    return name.in_model if isinstance(name, TableName) else name


class IntegerAttribute(NumberAttribute):
    """A whole number of up to 38 digits, exact in every notation of DynamoDB."""

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

    ``ttl`` is when DynamoDB may delete it, in seconds since the epoch. DynamoDB does so up to days
    late, so every reader checks :meth:`is_live`.
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
        """Return whether the item is valid at ``now``, in seconds since the epoch."""
        return self.ttl is None or self.ttl > now


# The end of the year 9999, in ms since the epoch.
_LAST_MOMENT = 253_402_300_800_000
# An item as DynamoDB writes it: {"PK": {"S": "…"}, …}.
RawItem = dict[str, Any]
_ABSENT: dict[str, Any] = {}


def integer_of(item: RawItem, attribute: Attribute[Any]) -> int:
    """Return a number of an item as DynamoDB writes it, 0 where it is missing or not whole."""
    digits = str(item.get(attribute.attr_name, _ABSENT).get("N", "0"))
    return int(digits) if digits.isdecimal() else 0


def string_of(item: RawItem, attribute: Attribute[Any]) -> str:
    """Return a string of an item as DynamoDB writes it, ``""`` where it is missing."""
    return str(item.get(attribute.attr_name, _ABSENT).get("S", ""))


def strings_of(item: RawItem, attribute: Attribute[Any]) -> list[str]:
    """Return a set of strings of an item as DynamoDB writes it, empty where it is missing."""
    return list(item.get(attribute.attr_name, _ABSENT).get("SS", ()))


def binary_of(item: RawItem, attribute: Attribute[Any]) -> bytes | None:
    """Return the bytes of an item as DynamoDB writes it, None where they are missing."""
    data: bytes | None = item.get(attribute.attr_name, _ABSENT).get("B")
    return data


def ttl_of(removal: int) -> int:
    """Return the first whole second at which ``removal``, in milliseconds, has passed."""
    return -(-removal // 1000)


def seconds_of(moment: int) -> float | None:
    """Return a moment in ms since the epoch in seconds, None if no date can be written for it."""
    return moment / 1000 if 0 <= moment < _LAST_MOMENT else None


class ControlItem(DynamoModel):
    """
    An item of the control table: capacity records, decisions, reports. They must not be in a table
    that they control, so this table is a separate one, always on demand.
    """

    class Meta:
        table_name = TableName(None, DEFAULT_ALIAS, "-control")

    pk = UnicodeAttribute(hash_key=True, attr_name="PK")
    sk = UnicodeAttribute(range_key=True, attr_name="SK")
    ttl = NumberAttribute(null=True, attr_name="TTL")
