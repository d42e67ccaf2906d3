"""The keys, the indexes and the billing of a table, as a backup keeps them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...exceptions import BackupError
from ..tables import TableSpec

_KINDS = ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")
_CAPACITY = {"ProvisionedThroughput", "OnDemandThroughput"}
# What a backup keeps. A manifest may be anybody's: it must not choose a policy or a stream.
_OF_TABLE = {"KeySchema", "AttributeDefinitions", "BillingMode", *_KINDS, *_CAPACITY}
_OF_INDEX = {"IndexName", "KeySchema", "Projection", *_CAPACITY}


@dataclass(frozen=True)
class Schema:
    """``request`` is that of CreateTable without the name; ``ttl`` the TTL attribute or None."""

    request: Mapping[str, Any]
    ttl: str | None = None

    @classmethod
    def of_description(cls, description: Mapping[str, Any], ttl: str | None) -> Schema:
        """Return the schema of ``Table`` of DescribeTable."""
        billing = description.get("BillingModeSummary", {}).get("BillingMode", "PROVISIONED")
        is_provisioned = billing == "PROVISIONED"
        request: dict[str, Any] = {
            "KeySchema": list(description["KeySchema"]),
            "AttributeDefinitions": sorted(
                description["AttributeDefinitions"], key=lambda each: each["AttributeName"]
            ),
            "BillingMode": billing,
        }
        request |= _capacity(description, is_provisioned=is_provisioned)
        for kind in _KINDS:
            indexes = [
                {
                    "IndexName": index["IndexName"],
                    "KeySchema": list(index["KeySchema"]),
                    "Projection": dict(index["Projection"]),
                    **(
                        _capacity(index, is_provisioned=is_provisioned) if kind == _KINDS[0] else {}
                    ),
                }
                for index in description.get(kind) or ()
            ]
            if indexes:
                request[kind] = sorted(indexes, key=lambda each: str(each["IndexName"]))
        return cls(request, ttl)

    @classmethod
    def of_spec(cls, spec: TableSpec) -> Schema:
        """Return the schema of the table that a model requires."""
        request = spec.as_request()
        del request["TableName"]
        return cls(request, spec.ttl)

    @classmethod
    def from_json(cls, content: Any) -> Schema:
        """Return the schema that :meth:`as_json` returned. Raises BackupError for other values."""
        try:
            schema = cls(dict(content["table"]), content["ttl"])
            # What is wrong with a part of it shows here, and not later.
            _ = schema.differences(schema), schema.billing
            unknown = schema.request.keys() - _OF_TABLE
            for kind in _KINDS:
                unknown.update(
                    *(index.keys() - _OF_INDEX for index in schema.request.get(kind, ()))
                )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise BackupError("The schema in the manifest is not one of a table.") from None
        if unknown:
            raise BackupError(
                f"The schema in the manifest has {min(map(repr, unknown))}, which no backup keeps. "
                "Use another copy of the backup."
            )
        return schema

    def as_json(self) -> dict[str, Any]:
        """Return the schema as values of JSON."""
        return {"table": dict(self.request), "ttl": self.ttl}

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the key attributes: the partition key, and the sort key if there is one."""
        roles = {each["KeyType"]: each["AttributeName"] for each in self.request["KeySchema"]}
        return tuple(roles[each] for each in ("HASH", "RANGE") if each in roles)

    @property
    def indexes(self) -> list[str]:
        """The names of the indexes."""
        return [index["IndexName"] for kind in _KINDS for index in self.request.get(kind, ())]

    @property
    def billing(self) -> str:
        """The billing mode, and the capacity of the table and of its indexes, as text."""
        indexes: Iterable[Mapping[str, Any]] = self.request.get(_KINDS[0], ())
        shown = [
            *_shown_capacity("", self.request),
            *(each for index in indexes for each in _shown_capacity(index["IndexName"], index)),
        ]
        return "; ".join([str(self.request["BillingMode"]), *shown])

    def types(self) -> dict[str, str]:
        """Return the types (``S``, ``N``, ``B``) of the key attributes."""
        kinds = {
            each["AttributeName"]: each["AttributeType"]
            for each in self.request["AttributeDefinitions"]
        }
        return {name: kinds[name] for name in self.keys}

    def index_keys(self) -> dict[str, str]:
        """Return the types of the key attributes of the indexes."""
        keys = _keys_of_indexes(self).values()
        return {name: kind for each in keys for name, _, kind in each if kind is not None}

    def differences(self, other: Schema) -> list[str]:
        """Return as phrases by which keys and indexes a table ``other`` differs from this one."""
        if self.types() != other.types():
            return [f"its key is {_shown(other.types())}, expected {_shown(self.types())}"]
        own, found = _keys_of_indexes(self), _keys_of_indexes(other)
        return [
            f"its index {name} is missing" if name not in found else f"its index {name} differs"
            for name in own
            if found.get(name) != own[name]
        ]


def _capacity(of: Mapping[str, Any], *, is_provisioned: bool) -> dict[str, dict[str, int]]:
    """Return the capacity of a table or an index, or the limits of an on-demand one."""
    if is_provisioned:
        found = of.get("ProvisionedThroughput") or {}
        units = {
            name: max(1, int(found.get(name, 1)))
            for name in ("ReadCapacityUnits", "WriteCapacityUnits")
        }
        return {"ProvisionedThroughput": units}
    found = of.get("OnDemandThroughput") or {}
    # Without a limit it is -1.
    limits = {
        name: int(found[name])
        for name in ("MaxReadRequestUnits", "MaxWriteRequestUnits")
        if found.get(name, -1) > 0
    }
    return {"OnDemandThroughput": limits} if limits else {}


def _shown_capacity(index: str, of: Mapping[str, Any]) -> list[str]:
    names = {
        "ReadCapacityUnits": "read units a second",
        "WriteCapacityUnits": "write units a second",
        "MaxReadRequestUnits": "read units a second at most",
        "MaxWriteRequestUnits": "write units a second at most",
    }
    found = {
        name: units for each in sorted(_CAPACITY) for name, units in (of.get(each) or {}).items()
    }
    units = [f"{found[name]:,} {shown}" for name, shown in names.items() if name in found]
    return [f"{f'index {index}: ' if index else ''}{', '.join(units)}"] if units else []


def _keys_of_indexes(schema: Schema) -> dict[str, Any]:
    kinds = {
        each["AttributeName"]: each["AttributeType"]
        for each in schema.request["AttributeDefinitions"]
    }
    return {
        index["IndexName"]: [
            (each["AttributeName"], each["KeyType"], kinds.get(each["AttributeName"]))
            for each in index["KeySchema"]
        ]
        for kind in _KINDS
        for index in schema.request.get(kind, ())
    }


def _shown(types: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({kind})" for name, kind in types.items())


def table_id(description: Mapping[str, Any]) -> str:
    """Return what tells a table from a later one of its name; engines may have no id for it."""
    return str(description.get("TableId") or description.get("CreationDateTime"))
