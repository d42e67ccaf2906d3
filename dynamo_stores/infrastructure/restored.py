"""
What a restored table lacks: TTL, stream, tags, point-in-time recovery, deletion protection.

Pure. The model and the settings come first, then the table that the backup was made of, as far as
it still exists, then what the backup itself knows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .changes import Plan
from .live import LiveTable
from .options import TableOptions
from .tables import TableSpec, live_indexes, live_keys, live_types


def restored_spec(
    using: str,
    description: Mapping[str, Any],
    *,
    spec: TableSpec | None = None,
    source: LiveTable | None = None,
    backup: Mapping[str, Any] | None = None,
) -> TableSpec:
    """
    Return the specification of a restored table: its own keys and indexes, and what it lacks.

    ``description`` is that of the restored table. ``spec`` is the model's table, ``source`` the
    table that was restored, ``backup`` is ``SourceTableFeatureDetails`` of the backup.
    """
    options = spec.options if spec is not None else TableOptions()
    has_recovery = source.point_in_time_recovery if source is not None else None
    has_protection = source.deletion_protection if source is not None else None
    return TableSpec(
        name=description["TableName"],
        using=using,
        keys=live_keys(description["KeySchema"]),
        types=live_types(description),
        indexes=tuple(live_indexes(description)),
        ttl=_ttl(spec, source, backup or {}),
        options=dataclasses.replace(
            options,
            stream=options.stream or _stream(source, backup or {}),
            tags=_tags(options, source),
            point_in_time_recovery=_either(options.point_in_time_recovery, has_recovery),
            deletion_protection=_either(options.deletion_protection, has_protection),
        ),
    )


def lost_in_restore(plan: Plan) -> Plan:
    """Return the part of ``plan`` that sets again what a restore does not restore."""
    changes = [
        change
        for change in plan.changes
        if change.what != "billing mode" and not change.what.startswith("index ")
    ]
    return Plan(changes=tuple(changes))


def _either(setting: bool | None, has: bool | None) -> bool | None:
    # What the source has switched off is off in a new table anyway.
    return (has or None) if setting is None else setting


def _ttl(spec: TableSpec | None, source: LiveTable | None, backup: Mapping[str, Any]) -> str | None:
    if spec is not None and spec.ttl is not None:
        return spec.ttl
    if source is not None:
        return source.ttl
    ttl = backup.get("TimeToLiveDescription") or {}
    is_on = ttl.get("TimeToLiveStatus") in ("ENABLED", "ENABLING")
    return str(ttl["AttributeName"]) if is_on else None


def _stream(source: LiveTable | None, backup: Mapping[str, Any]) -> str | None:
    if source is not None:
        return source.stream
    stream = backup.get("StreamDescription") or {}
    return str(stream["StreamViewType"]) if stream.get("StreamEnabled") else None


def _tags(options: TableOptions, source: LiveTable | None) -> Mapping[str, str] | None:
    of_source = (source.tags if source is not None else None) or {}
    # Only AWS sets tags with this prefix.
    own = {key: of_source[key] for key in of_source if not key.lower().startswith("aws:")}
    return {**own, **(options.tags or {})} or None
