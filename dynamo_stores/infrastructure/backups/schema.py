"""The keys, the indexes and the billing of a table, as a backup keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...exceptions import BackupError
from ..tables import TableSpec

_KINDS = ("GlobalSecondaryIndexes", "LocalSecondaryIndexes")


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
        if is_provisioned:
            request["ProvisionedThroughput"] = _throughput(description)
        for kind in _KINDS:
            indexes = [
                {
                    "IndexName": index["IndexName"],
                    "KeySchema": list(index["KeySchema"]),
                    "Projection": dict(index["Projection"]),
                    **(
                        {"ProvisionedThroughput": _throughput(index)}
                        if is_provisioned and kind == _KINDS[0]
                        else {}
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
            schema.types()
        except (KeyError, TypeError, ValueError):
            raise BackupError("The schema in the manifest is not one of a table.") from None
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

    def types(self) -> dict[str, str]:
        """Return the types (``S``, ``N``, ``B``) of the key attributes."""
        kinds = {
            each["AttributeName"]: each["AttributeType"]
            for each in self.request["AttributeDefinitions"]
        }
        return {name: kinds[name] for name in self.keys}

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


def _throughput(of: Mapping[str, Any]) -> dict[str, int]:
    found = of.get("ProvisionedThroughput") or {}
    return {
        name: max(1, int(found.get(name, 1)))
        for name in ("ReadCapacityUnits", "WriteCapacityUnits")
    }


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
