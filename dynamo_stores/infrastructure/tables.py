"""The tables that the models require: specifications, comparison with AWS, creation."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from botocore.exceptions import ClientError
from django.apps import AppConfig, apps
from pynamodb.attributes import Attribute, TTLAttribute
from pynamodb.indexes import GlobalSecondaryIndex, Index

from .. import clock
from ..calls.control import ControlPlane, get_control
from ..conf import StoreConfig, aliases, get_config
from ..exceptions import TABLE_IN_USE, ConfigurationError, StoreError, code_of
from ..models import (
    ControlItem,
    DynamoModel,
    StoreItem,
    concrete_models,
    mistake_of,
    mistaken_models,
    path_of,
)
from .encryption import is_key
from .live import LiveTable, read_live
from .options import AWS_OWNED, TableOptions

Progress = Callable[[str], None]

NO_BACKUPS_YET = "ContinuousBackupsUnavailableException"
# Seconds for which a new table may have no continuous backups.
_UNAVAILABLE_FOR = 60.0


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

    @property
    def projected(self) -> str:
        """The projection as text."""
        names = f" ({', '.join(sorted(self.attributes))})" if self.attributes else ""
        return self.projection + names

    def as_request(self) -> dict[str, Any]:
        """Return the index as CreateTable and UpdateTable take it, without its capacity."""
        projection: dict[str, Any] = {"ProjectionType": self.projection}
        if self.attributes:
            projection["NonKeyAttributes"] = sorted(self.attributes)
        return {
            "IndexName": self.name,
            "KeySchema": self.keys.as_request(),
            "Projection": projection,
        }


@dataclass(frozen=True)
class TableSpec:
    """The table that a model requires; its ``options`` are those of the settings."""

    name: str
    using: str
    keys: KeySchema
    types: Mapping[str, str] = field(compare=False)
    indexes: tuple[IndexSpec, ...] = ()
    ttl: str | None = None
    always_on_demand: bool = False
    options: TableOptions = field(default=TableOptions(), compare=False)
    role_actions: Mapping[str, Collection[str]] | None = field(default=None, compare=False)

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
            provisioned["ProvisionedThroughput"] = self.throughput_request()
        request: dict[str, Any] = {
            "TableName": self.name,
            "KeySchema": self.keys.as_request(),
            "AttributeDefinitions": [
                {"AttributeName": name, "AttributeType": kind}
                for name, kind in sorted(self.types.items())
            ],
            "BillingMode": self.billing_mode,
            **provisioned,
            **self.options.as_request(),
        }
        for index in self.indexes:
            kind = "GlobalSecondaryIndexes" if index.is_global else "LocalSecondaryIndexes"
            request.setdefault(kind, []).append(
                {**index.as_request(), **(provisioned if index.is_global else {})}
            )
        return request

    def throughput_request(self) -> dict[str, int]:
        """Return ``ProvisionedThroughput``: the baselines of the settings."""
        scaling = self.config.scaling
        return {
            "ReadCapacityUnits": scaling.base_read_capacity,
            "WriteCapacityUnits": scaling.base_write_capacity,
        }


def wanted_tables() -> list[TableSpec]:
    """
    Return every table of every alias, and of the installed apps' models, each once; those of models
    of an alias with ``FAILOVER`` in the other alias, too.

    Raises ConfigurationError if two models require one table with different specifications, and if
    a model lacks what a table needs.
    """
    found: dict[tuple[str, str], TableSpec] = {}
    models: list[type[DynamoModel]] = [
        model.bound_to(using) for using in aliases() for model in (StoreItem, ControlItem)
    ]
    own = [model for model in models_of_apps() if not issubclass(model, StoreItem | ControlItem)]
    models += own
    for model in own:
        # The alias that answers for it needs the same tables.
        if (failover := get_config(model.using).failover) is not None:
            models.append(model.bound_to(failover))
    for model in models:
        spec = table_of(model)
        where = (get_config(spec.using).endpoint_url, get_config(spec.using).region, spec.name)
        place = (str(where[:2]), spec.name)
        known = found.setdefault(place, spec)
        if (known.keys, known.indexes, known.ttl) != (spec.keys, spec.indexes, spec.ttl):
            raise ConfigurationError(
                f"Two models use the table {spec.name} with different keys, indexes or TTL; the "
                f"second is {path_of(model)}. Give it another table_name."
            )
        options = known.options.combined(spec.options)
        if options is None:
            raise ConfigurationError(
                f"The aliases {known.using!r} and {spec.using!r} share the table {spec.name}, and "
                "their settings of its options differ. Set them alike, or for one alias only."
            )
        actions = _together(known.role_actions, spec.role_actions)
        found[place] = dataclasses.replace(known, options=options, role_actions=actions)
    return list(found.values())


def models_of_apps(app: AppConfig | None = None) -> list[type[DynamoModel]]:
    """
    Return the models of ``app``, or of all installed apps, that have a table. Raises
    ConfigurationError if one lacks what a table needs.
    """
    for model in mistaken_models():
        # One without Meta may be a base of models elsewhere.
        if hasattr(model, "Meta") and _is_in(model, app):
            raise ConfigurationError(mistake_of(model))
    return [model for model in concrete_models() if _is_in(model, app)]


def _is_in(model: type, app: AppConfig | None) -> bool:
    found = apps.get_containing_app_config(model.__module__)
    return found is not None and app in (None, found)


def _together(
    one: Mapping[str, Collection[str]] | None, other: Mapping[str, Collection[str]] | None
) -> Mapping[str, Collection[str]] | None:
    if one is None or other is None:
        return None
    return {role: {*one.get(role, ()), *other.get(role, ())} for role in {*one, *other}}


def table_of(model: type[DynamoModel]) -> TableSpec:
    """Return the table that ``model`` requires. Raises ConfigurationError if it lacks anything."""
    if mistake := mistake_of(model):
        raise ConfigurationError(mistake)
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
        options=TableOptions.of(get_config(model.using).for_table(model.Meta.table_name)),
        role_actions=model.role_actions,
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


def differences(spec: TableSpec, live: LiveTable) -> list[str]:
    """Return the differences of a table from ``spec``, as phrases; more indexes are allowed."""
    found = [each.phrase for each in fixed_differences(spec, live)]
    indexes = {index.name for index in live_indexes(live.description)}
    for index in spec.indexes:
        if index.name not in indexes:
            found.append(f"the index {index.name} is missing")
    if live.ttl != spec.ttl and spec.ttl is not None:
        state = f"on for {live.ttl}" if live.ttl else "off"
        found.append(f"its TTL is {state}, expected on for the attribute {spec.ttl}")
    if live.billing_mode != spec.billing_mode:
        found.append(f"its billing mode is {live.billing_mode}, expected {spec.billing_mode}")
    return found + differences_of_options(spec.options, live)


class FixedDifference(NamedTuple):
    """A difference that DynamoDB cannot change in an existing table, and what it takes instead."""

    phrase: str
    remedy: str


NEW_TABLE = "a new table"
NEW_INDEX = "a new index under another name, or a new table"


def fixed_differences(spec: TableSpec, live: LiveTable) -> list[FixedDifference]:
    """Return the differences that DynamoDB cannot change in an existing table."""
    found = []
    types = live_types(live.description)
    keys = live_keys(live.description["KeySchema"])
    if keys != spec.keys:
        found.append(FixedDifference(f"its key is {keys}, expected {spec.keys}", NEW_TABLE))
    own = (keys.partition, keys.sort)
    found += [
        FixedDifference(
            f"the key attribute {name} is of type {types[name]}, expected {kind}",
            NEW_TABLE if name in own else "another attribute, or a new table",
        )
        for name, kind in sorted(spec.types.items())
        if types.get(name, kind) != kind
    ]
    indexes = {index.name: index for index in live_indexes(live.description)}
    for index in spec.indexes:
        if (has := indexes.get(index.name)) is not None:
            remedy = NEW_INDEX if index.is_global else NEW_TABLE
            found += [
                FixedDifference(f"the index {index.name} {phrase}", remedy)
                for phrase in _differences_of_index(has, index)
            ]
    return found


def _differences_of_index(has: IndexSpec, index: IndexSpec) -> Iterator[str]:
    if has.is_global != index.is_global:
        kinds = {True: "global", False: "local"}
        yield f"is {kinds[has.is_global]}, expected {kinds[index.is_global]}"
    elif has.keys != index.keys:
        yield f"has the key {has.keys}, expected {index.keys}"
    elif (has.projection, has.attributes) != (index.projection, index.attributes):
        yield f"projects {has.projected}, expected {index.projected}"


def differences_of_options(options: TableOptions, live: LiveTable) -> list[str]:
    """Return the differences of a table from ``options``, as phrases."""
    found = []
    on = {True: "on", False: "off"}
    recovery = live.point_in_time_recovery
    if options.point_in_time_recovery is not None and recovery != options.point_in_time_recovery:
        found.append(
            f"its point-in-time recovery is {on[bool(recovery)]}, "
            f"expected {on[options.point_in_time_recovery]}"
        )
    if options.stream is not None and (live.stream or "OFF") != options.stream:
        found.append(f"its stream is {live.stream or 'OFF'}, expected {options.stream}")
    protection = options.deletion_protection
    if protection is not None and live.deletion_protection != protection:
        found.append(
            f"its deletion protection is {on[live.deletion_protection]}, expected {on[protection]}"
        )
    found += [
        f"its tag {key} differs from the settings"
        if key in (live.tags or {})
        else f"its tag {key} is missing"
        for key, value in sorted((options.tags or {}).items())
        if (live.tags or {}).get(key) != value
    ]
    if has_other_key(options, live):
        found.append(
            f"its encryption key is {live.encryption_key or AWS_OWNED}, "
            f"expected {options.encryption_key}"
        )
    if options.table_class is not None and live.table_class != options.table_class:
        found.append(f"its table class is {live.table_class}, expected {options.table_class}")
    return found


def has_other_key(options: TableOptions, live: LiveTable) -> bool:
    """Return whether the table is encrypted with another key than ``options`` say."""
    return options.encryption_key is not None and not is_key(live.encryption_key, live.wanted_key)


def live_types(description: Mapping[str, Any]) -> dict[str, str]:
    """Return the types of the key attributes of a table and its indexes."""
    return {
        each["AttributeName"]: each["AttributeType"] for each in description["AttributeDefinitions"]
    }


def live_keys(schema: list[Mapping[str, str]]) -> KeySchema:
    """Return a ``KeySchema`` of DescribeTable."""
    names = {each["KeyType"]: each["AttributeName"] for each in schema}
    return KeySchema(names["HASH"], names.get("RANGE"))


def live_indexes(description: Mapping[str, Any]) -> Iterator[IndexSpec]:
    """Yield the indexes of a table; ``description`` is ``Table`` of DescribeTable."""
    for kind in ("GlobalSecondaryIndexes", "LocalSecondaryIndexes"):
        for index in description.get(kind) or ():
            yield IndexSpec(
                name=index["IndexName"],
                keys=live_keys(index["KeySchema"]),
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
    """
    Return the state of ``spec``'s table; takes one call of the control plane, and one more each
    for TTL and the options that are asked for separately.
    """
    live = read_table(spec)
    return (
        TableState(None)
        if live is None
        else TableState(live.status, tuple(differences(spec, live)))
    )


def read_table(spec: TableSpec) -> LiveTable | None:
    """Return ``spec``'s table as it is in DynamoDB, None if it does not exist."""
    return read_live(spec.using, spec.name, spec.options, with_ttl=spec.ttl is not None)


def create_table(spec: TableSpec, progress: Progress, *, timeout: float = 600.0) -> bool:
    """
    Create ``spec``'s table, wait until it is ACTIVE, enable its TTL and point-in-time recovery.

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
    if is_created and spec.options.point_in_time_recovery:
        set_recovery(control, spec.name, is_on=True)
    return is_created


def set_recovery(control: ControlPlane, table: str, *, is_on: bool) -> None:
    """
    Switch point-in-time recovery on or off; for some seconds DynamoDB refuses that for a new table.
    """
    request = {
        "TableName": table,
        "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": is_on},
    }
    until = clock.monotonic() + _UNAVAILABLE_FOR
    while True:
        try:
            control.call("UpdateContinuousBackups", request)
        except ClientError as exc:
            if code_of(exc) != NO_BACKUPS_YET or clock.monotonic() >= until:
                raise
            clock.sleep(1.0)
        else:
            return


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
