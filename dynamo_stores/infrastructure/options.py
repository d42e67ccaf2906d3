"""The options of a table that the settings may manage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

from ..conf import StoreConfig

AWS_OWNED = "AWS_OWNED"
AWS_MANAGED = ("aws/dynamodb", "alias/aws/dynamodb")


@dataclass(frozen=True)
class TableOptions:
    """
    What a table should have beyond keys, indexes, TTL and billing mode; None is left as it is.

    ``stream`` is a view type or ``"OFF"``; ``encryption_key`` is ``"AWS_OWNED"``,
    ``"aws/dynamodb"``, or a key of KMS. Only the keys in ``tags`` are managed.
    """

    point_in_time_recovery: bool | None = None
    stream: str | None = None
    deletion_protection: bool | None = None
    tags: Mapping[str, str] | None = None
    encryption_key: str | None = None
    table_class: str | None = None

    @classmethod
    def of(cls, config: StoreConfig) -> Self:
        """Return the options of a table with these settings."""
        return cls(
            point_in_time_recovery=config.point_in_time_recovery,
            stream=config.stream,
            deletion_protection=config.deletion_protection,
            tags=config.tags,
            encryption_key=config.encryption_key,
            table_class=config.table_class,
        )

    def combined(self, other: TableOptions) -> TableOptions | None:
        """Return the options of both, None if they contradict each other."""
        found = {}
        for each in fields(self):
            own, theirs = getattr(self, each.name), getattr(other, each.name)
            if None not in (own, theirs) and own != theirs:
                return None
            found[each.name] = theirs if own is None else own
        return TableOptions(**found)

    def as_request(self) -> dict[str, Any]:
        """Return the arguments of CreateTable; point-in-time recovery is switched on later."""
        request: dict[str, Any] = {}
        if self.stream not in (None, "OFF"):
            request["StreamSpecification"] = stream_request(self.stream)
        if self.deletion_protection is not None:
            request["DeletionProtectionEnabled"] = self.deletion_protection
        if self.tags:
            request["Tags"] = tags_request(self.tags)
        if self.encryption_key not in (None, AWS_OWNED):
            request["SSESpecification"] = encryption_request(self.encryption_key)
        if self.table_class is not None:
            request["TableClass"] = self.table_class
        return request


def stream_request(view: str | None) -> dict[str, Any]:
    """Return ``StreamSpecification``; None and ``"OFF"`` turn the stream off."""
    if view in (None, "OFF"):
        return {"StreamEnabled": False}
    return {"StreamEnabled": True, "StreamViewType": view}


def tags_request(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Return ``Tags``."""
    return [{"Key": key, "Value": tags[key]} for key in sorted(tags)]


def encryption_request(key: str | None) -> dict[str, Any]:
    """Return ``SSESpecification``; None and ``"AWS_OWNED"`` are the key that AWS owns."""
    if key in (None, AWS_OWNED):
        return {"Enabled": False}
    # DynamoDB wants no id for its default key in KMS.
    own = {} if key in AWS_MANAGED else {"KMSMasterKeyId": key}
    return {"Enabled": True, "SSEType": "KMS", **own}
