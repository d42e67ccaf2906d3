"""The tables that the models require: specifications, comparison with AWS, creation."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from botocore.exceptions import ClientError
from django.apps import apps
from pynamodb.attributes import Attribute, TTLAttribute
from pynamodb.indexes import GlobalSecondaryIndex, Index

from .. import clock
from ..calls.control import ControlPlane, get_control
from ..conf import StoreConfig, aliases, get_config
from ..exceptions import TABLE_IN_USE, ConfigurationError, StoreError, code_of
from ..models import ControlItem, DynamoModel, StoreItem, concrete_models

Progress = Callable[[str], None]


@dataclass(frozen=True)
class KeySchema:
    """Names of the key attributes: of the partition key, and of the sort key or None."""

    partition: str
    sort: str | None = None

    def as_request(self) -> list[dict[str, str]]:
        """Return ``KeySchema`` of CreateTable."""
        keys = [{"AttributeName": self.partition, "KeyType": "HASH"}]
        if self.sort is not None:
            keys.append({"AttributeName": self.sort, "KeyType": "RANGE"})
        return keys

    def __str__(self) -> str:
        return f"({self.partition}, {self.sort})" if self.sort else f"({self.partition})"


@dataclass(frozen=True)
class IndexSpec:
    """A secondary index; ``attributes`` are those of a projection of type INCLUDE."""

    name: str
    keys: KeySchema
    projection: str = "ALL"
    attributes: frozenset[str] = frozenset()
    is_global: bool = True


@dataclass(frozen=True)
class TableSpec:
    """The table that a model requires."""

    name: str
    using: str
    keys: KeySchema
    types: Mapping[str, str] = field(compare=False)
    indexes: tuple[IndexSpec, ...] = ()
    ttl: str | None = None
    always_on_demand: bool = False

    @property
    def billing_mode(self) -> str:
        """``PROVISIONED`` or ``PAY_PER_REQUEST``."""
        return "PAY_PER_REQUEST" if self.always_on_demand else self.config.billing_mode

    @property
    def config(self) -> StoreConfig:
        """The settings of this table."""
        return get_config(self.using).for_table(self.name)

    def as_request(self) -> dict[str, Any]:
        """Return the arguments of CreateTable, provisioned at the baselines of the settings."""
        provisioned = {}
        if self.billing_mode == "PROVISIONED":
            scaling = self.config.scaling
            provisioned["ProvisionedThroughput"] = {
                "ReadCapacityUnits": scaling.base_read_capacity,
                "WriteCapacityUnits": scaling.base_write_capacity,
            }
        request: dict[str, Any] = {
            "TableName": self.name,
            "KeySchema": self.keys.as_request(),
            "AttributeDefinitions": [
                {"AttributeName": name, "AttributeType": kind}
                for name, kind in sorted(self.types.items())
            ],
            "BillingMode": self.billing_mode,
            **provisioned,
        }
        for index in self.indexes:
            projection: dict[str, Any] = {"ProjectionType": index.projection}
            if index.attributes:
                projection["NonKeyAttributes"] = sorted(index.attributes)
            kind = "GlobalSecondaryIndexes" if index.is_global else "LocalSecondaryIndexes"
            request.setdefault(kind, []).append(
                {
                    "IndexName": index.name,
                    "KeySchema": index.keys.as_request(),
                    "Projection": projection,
                    **(provisioned if index.is_global else {}),
                }
            )
        return request


def wanted_tables() -> list[TableSpec]:
    """
    Return every table of every alias, and of the installed apps' models, each once.

    Raises ConfigurationError if two models require one table with different specifications.
    """
    found: dict[tuple[str, str], TableSpec] = {}
    models: list[type[DynamoModel]] = [
        model.bound_to(using) for using in aliases() for model in (StoreItem, ControlItem)
    ]
    models += [
        model
        for model in concrete_models()
        if not issubclass(model, StoreItem | ControlItem)
        and apps.get_containing_app_config(model.__module__)
    ]
    for model in models:
        spec = table_of(model)
        where = (get_config(spec.using).endpoint_url, get_config(spec.using).region, spec.name)
        known = found.setdefault((str(where[:2]), spec.name), spec)
        if (known.keys, known.indexes, known.ttl) != (spec.keys, spec.indexes, spec.ttl):
            raise ConfigurationError(
                f"Two models use the table {spec.name} with different keys, indexes or TTL; the "
                f"second is {model.__module__}.{model.__qualname__}. Give it another table_name."
            )
    return list(found.values())


def table_of(model: type[DynamoModel]) -> TableSpec:
    """Return the table that ``model`` requires."""
    attributes = list(model.get_attributes().values())
    types: dict[str, str] = {}
    indexes = tuple(
        sorted(
            (
                _index_of(index, types)
                for _, index in inspect.getmembers(model, lambda each: isinstance(each, Index))
            ),
            key=lambda index: index.name,
        )
    )
    ttl = next((each.attr_name for each in attributes if isinstance(each, TTLAttribute)), None)
    return TableSpec(
        name=model.Meta.table_name,
        using=model.using,
        keys=_keys_of(attributes, types, model.__name__),
        types=types,
        indexes=indexes,
        ttl=StoreItem.ttl.attr_name if issubclass(model, StoreItem | ControlItem) else ttl,
        always_on_demand=issubclass(model, ControlItem),
    )


def _keys_of(attributes: list[Attribute[Any]], types: dict[str, str], owner: str) -> KeySchema:
    partition = [each for each in attributes if each.is_hash_key]
    sort = [each for each in attributes if each.is_range_key]
    if not partition:
        raise ConfigurationError(f"{owner} has no attribute with hash_key=True.")
    types.update({each.attr_name: each.attr_type for each in partition + sort})
    return KeySchema(partition[0].attr_name, sort[0].attr_name if sort else None)


def _index_of(index: Index[Any], types: dict[str, str]) -> IndexSpec:
    projection = index.Meta.projection
    return IndexSpec(
        name=index.Meta.index_name,
        keys=_keys_of(list(index.Meta.attributes.values()), types, index.Meta.index_name),
        projection=projection.projection_type,
        attributes=frozenset(projection.non_key_attributes or ()),
        is_global=isinstance(index, GlobalSecondaryIndex),
    )


def differences(spec: TableSpec, description: Mapping[str, Any], ttl: str | None) -> list[str]:
    """
    Return the differences of an existing table from ``spec``, as phrases; more indexes are allowed.

    ``description`` is ``Table`` of DescribeTable, ``ttl`` the table's TTL attribute.
    """
    found = []
    live_types = {
        each["AttributeName"]: each["AttributeType"] for each in description["AttributeDefinitions"]
    }
    live_keys = _live_keys(description["KeySchema"])
    if live_keys != spec.keys:
        found.append(f"its key is {live_keys}, expected {spec.keys}")
    found += [
        f"the key attribute {name} is of type {live_types[name]}, expected {kind}"
        for name, kind in sorted(spec.types.items())
        if live_types.get(name, kind) != kind
    ]
    live = {index.name: index for index in _live_indexes(description)}
    for index in spec.indexes:
        if index.name not in live:
            found.append(f"the index {index.name} is missing")
        elif live[index.name].keys != index.keys:
            found.append(
                f"the index {index.name} has the key {live[index.name].keys}, expected {index.keys}"
            )
        elif (live[index.name].projection, live[index.name].attributes) != (
            index.projection,
            index.attributes,
        ):
            found.append(
                f"the index {index.name} projects {live[index.name].projection}, "
                f"expected {index.projection}"
            )
    if ttl != spec.ttl and spec.ttl is not None:
        state = f"on for {ttl}" if ttl else "off"
        found.append(f"its TTL is {state}, expected on for the attribute {spec.ttl}")
    billing = description.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
    if billing != spec.billing_mode:
        found.append(f"its billing mode is {billing}, expected {spec.billing_mode}")
    return found


def _live_keys(schema: list[Mapping[str, str]]) -> KeySchema:
    names = {each["KeyType"]: each["AttributeName"] for each in schema}
    return KeySchema(names["HASH"], names.get("RANGE"))


def _live_indexes(description: Mapping[str, Any]) -> Iterator[IndexSpec]:
    for kind in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes"):
        for index in description.get(kind) or ():
            yield IndexSpec(
                name=index["IndexName"],
                keys=_live_keys(index["KeySchema"]),
                projection=index["Projection"]["ProjectionType"],
                attributes=frozenset(index["Projection"].get("NonKeyAttributes") or ()),
                is_global=kind == "GlobalSecondaryIndexes",
            )


@dataclass(frozen=True)
class TableState:
    """The ``status`` of a table, None if it does not exist, and its differences."""

    status: str | None
    differences: tuple[str, ...] = ()


def inspect_table(spec: TableSpec) -> TableState:
    """Return the state of ``spec``'s table; takes one or two calls of the control plane."""
    control = get_control(spec.using)
    description = control.describe(spec.name)
    if description is None:
        return TableState(None)
    ttl = control.ttl_attribute(spec.name) if spec.ttl is not None else None
    return TableState(description["TableStatus"], tuple(differences(spec, description, ttl)))


def create_table(spec: TableSpec, progress: Progress, *, timeout: float = 600.0) -> bool:
    """
    Create ``spec``'s table, wait until it is ACTIVE and enable its TTL.

    Return False if another process created it meanwhile. Raises StoreError if it is not ACTIVE
    after ``timeout`` seconds.
    """
    control = get_control(spec.using)
    try:
        control.call("CreateTable", spec.as_request())
    except ClientError as exc:
        if code_of(exc) != TABLE_IN_USE:
            raise
        is_created = False
    else:
        is_created = True
    await_active(control, spec.name, progress, timeout=timeout)
    if is_created and spec.ttl is not None:
        control.call(
            "UpdateTimeToLive",
            {
                "TableName": spec.name,
                "TimeToLiveSpecification": {"AttributeName": spec.ttl, "Enabled": True},
            },
        )
    return is_created


def await_active(
    control: ControlPlane,
    table: str,
    progress: Progress = lambda line: None,
    *,
    timeout: float = 600.0,
) -> dict[str, Any]:
    """
    Return the description of ``table`` once it is ACTIVE.

    Raises StoreError if it is not after ``timeout`` seconds.
    """
    started = clock.monotonic()
    while True:
        description = control.describe(table)
        status = description["TableStatus"] if description else "CREATING"
        if description is not None and status == "ACTIVE":
            return description
        waited = clock.monotonic() - started
        if waited > timeout:
            raise StoreError(f"The table {table} is still {status} after {waited:.0f} s.")
        progress(f"{table}: {status} for {waited:.0f} s")
        clock.sleep(1.0 if waited > 5 else 0.2)
