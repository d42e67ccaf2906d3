"""
The plan that changes a table in place until it is what its model and the settings require.

Pure: from a specification and a description to requests. DynamoDB carries out one at a time; the
next one has to wait until the table and its indexes are ACTIVE again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .live import LiveTable
from .options import AWS_OWNED, encryption_request, stream_request, tags_request
from .tables import (
    NEW_TABLE,
    IndexSpec,
    TableSpec,
    fixed_differences,
    has_other_key,
    live_indexes,
    live_keys,
    live_types,
)


@dataclass(frozen=True)
class Change:
    """
    One change of a table: what it changes, a sentence in the imperative, and its request; ``loss``
    is a sentence about what is lost by it.

    A removal takes away an index, a protection, or what others read. It is ``is_extra`` if neither
    the model nor the settings ask for it.
    """

    what: str
    sentence: str
    operation: str
    request: Mapping[str, Any] = field(compare=False)
    is_removal: bool = False
    is_extra: bool = False
    loss: str = ""

    def __str__(self) -> str:
        return f"{self.sentence}. {self.loss}" if self.loss else self.sentence


@dataclass(frozen=True)
class Plan:
    """
    What to do with a table.

    ``changes`` are applied in their order. ``kept`` are removals that were not allowed, ``later``
    is what only a later run can do, ``impossible`` what DynamoDB cannot change in place.
    """

    changes: tuple[Change, ...] = ()
    kept: tuple[Change, ...] = ()
    later: tuple[str, ...] = ()
    impossible: tuple[str, ...] = ()


def plan_changes(spec: TableSpec, live: LiveTable, *, allow_removal: bool = False) -> Plan:
    """
    Return the plan for a table; without ``allow_removal`` it removes nothing.

    A table with another key than the model's is probably not the model's, so nothing is planned.
    """
    impossible = [f"{phrase}: needs {remedy}" for phrase, remedy in fixed_differences(spec, live)]
    if not _has_the_key(spec, live):
        return Plan(impossible=tuple(impossible))
    missing, blocked = _missing_indexes(spec, live)
    steps = [
        *_protection(spec, live),
        *_recovery(spec, live),
        *_billing_mode(spec, live),
        *_new_indexes(spec, live, missing),
        *_ttl(spec, live),
        *_stream(spec, live),
        *_tags(spec, live),
        *_table_class(spec, live),
        *_encryption(spec, live),
        *_extra_indexes(spec, live),
    ]
    # What is removed for good is removed last.
    steps.sort(key=lambda each: each.is_removal and each.what != _STREAM)
    kept = [each for each in steps if each.is_removal and not allow_removal]
    waiting = {each.what for each in kept}
    return Plan(
        changes=tuple(each for each in steps if each.what not in waiting),
        kept=tuple(kept),
        later=tuple(_later(spec, live, waiting)),
        impossible=tuple(impossible + blocked),
    )


_STREAM, _TTL = "stream", "TTL"


def _has_the_key(spec: TableSpec, live: LiveTable) -> bool:
    keys, types = live_keys(live.description["KeySchema"]), live_types(live.description)
    names = [name for name in (keys.partition, keys.sort) if name is not None]
    return keys == spec.keys and all(types[name] == spec.types[name] for name in names)


def _missing_indexes(spec: TableSpec, live: LiveTable) -> tuple[list[IndexSpec], list[str]]:
    """Return the indexes to create, and why others cannot be created."""
    existing = {index.name for index in live_indexes(live.description)}
    types = live_types(live.description)
    missing, blocked = [], []
    for index in spec.indexes:
        if index.name in existing:
            continue
        if not index.is_global:
            blocked.append(f"the local index {index.name} is missing: needs {NEW_TABLE}")
        elif any(types.get(name, spec.types[name]) != spec.types[name] for name in _names(index)):
            blocked.append(
                f"the index {index.name} is missing: it cannot be created while an attribute of "
                "its key has another type"
            )
        else:
            missing.append(index)
    return missing, blocked


def _names(index: IndexSpec) -> list[str]:
    return [name for name in (index.keys.partition, index.keys.sort) if name is not None]


def _update(
    spec: TableSpec,
    what: str,
    sentence: str,
    *,
    is_removal: bool = False,
    loss: str = "",
    **request: Any,
) -> Change:
    request = {"TableName": spec.name, **request}
    return Change(what, sentence, "UpdateTable", request, is_removal, loss=loss)


def _protection(spec: TableSpec, live: LiveTable) -> Iterator[Change]:
    wanted = spec.options.deletion_protection
    if wanted is not None and wanted != live.deletion_protection:
        yield _update(
            spec,
            "deletion protection",
            f"switch deletion protection {_on(wanted)}",
            is_removal=not wanted,
            DeletionProtectionEnabled=wanted,
        )


def _recovery(spec: TableSpec, live: LiveTable) -> Iterator[Change]:
    wanted = spec.options.point_in_time_recovery
    if wanted is not None and wanted != live.point_in_time_recovery:
        yield recovery_change(spec.name, is_on=wanted)


def recovery_change(table: str, *, is_on: bool) -> Change:
    """Return the change that switches point-in-time recovery on or off."""
    return Change(
        "point-in-time recovery",
        f"switch point-in-time recovery {_on(is_on)}",
        "UpdateContinuousBackups",
        {
            "TableName": table,
            "PointInTimeRecoverySpecification": {"PointInTimeRecoveryEnabled": is_on},
        },
        is_removal=not is_on,
        loss="" if is_on else "The times to which the table can be restored are lost.",
    )


def _billing_mode(spec: TableSpec, live: LiveTable) -> Iterator[Change]:
    wanted = spec.billing_mode
    if wanted == live.billing_mode:
        return
    if wanted == "PAY_PER_REQUEST":
        yield _update(spec, "billing mode", "switch to on-demand capacity", BillingMode=wanted)
        return
    units = spec.throughput_request()
    names = [index.name for index in live_indexes(live.description) if index.is_global]
    request: dict[str, Any] = {"BillingMode": wanted, "ProvisionedThroughput": units}
    if names:
        request["GlobalSecondaryIndexUpdates"] = [
            {"Update": {"IndexName": name, "ProvisionedThroughput": units}} for name in names
        ]
    each = f", and as much for each of the indexes {', '.join(names)}" if names else ""
    yield _update(
        spec,
        "billing mode",
        f"switch to provisioned capacity: {units['ReadCapacityUnits']} RCU and "
        f"{units['WriteCapacityUnits']} WCU for the table{each}",
        **request,
    )


def _new_indexes(spec: TableSpec, live: LiveTable, missing: list[IndexSpec]) -> Iterator[Change]:
    known = live_types(live.description)
    # By the mode at that time: it is planned again after a change of the billing mode.
    is_provisioned = live.billing_mode == "PROVISIONED"
    for index in missing:
        types = known | {name: spec.types[name] for name in _names(index)}
        create = index.as_request()
        if is_provisioned:
            create["ProvisionedThroughput"] = spec.throughput_request()
        yield _update(
            spec,
            f"index {index.name}",
            f"create the index {index.name} on {index.keys}, projecting {index.projected}",
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": types[name]} for name in sorted(types)
            ],
            GlobalSecondaryIndexUpdates=[{"Create": create}],
        )


def _extra_indexes(spec: TableSpec, live: LiveTable) -> Iterator[Change]:
    wanted = {index.name for index in spec.indexes}
    for index in live_indexes(live.description):
        # A local index lasts as long as its table.
        if index.name not in wanted and index.is_global and not _is_deleting(live, index.name):
            yield Change(
                f"index {index.name}",
                f"delete the index {index.name}, which is not in the model",
                "UpdateTable",
                {
                    "TableName": spec.name,
                    "GlobalSecondaryIndexUpdates": [{"Delete": {"IndexName": index.name}}],
                },
                is_removal=True,
                is_extra=True,
            )


def _is_deleting(live: LiveTable, name: str) -> bool:
    indexes = live.description.get("GlobalSecondaryIndexes") or ()
    return any(
        each["IndexName"] == name and each.get("IndexStatus") == "DELETING" for each in indexes
    )


def _ttl(spec: TableSpec, live: LiveTable) -> Iterator[Change]:
    if spec.ttl is None or live.ttl == spec.ttl or live.ttl_status == "DISABLING":
        return
    name, is_on = (spec.ttl, True) if live.ttl is None else (live.ttl, False)
    yield Change(
        _TTL,
        f"enable TTL for the attribute {name}; DynamoDB deletes items whose time has passed"
        if is_on
        else f"disable TTL for the attribute {name}, so that it can be enabled for {spec.ttl}",
        "UpdateTimeToLive",
        {
            "TableName": spec.name,
            "TimeToLiveSpecification": {"AttributeName": name, "Enabled": is_on},
        },
        is_removal=not is_on,
    )


def _later(spec: TableSpec, live: LiveTable, waiting: set[str]) -> Iterator[str]:
    is_wrong = spec.ttl is not None and live.ttl != spec.ttl
    has_other = live.ttl is not None or live.ttl_status == "DISABLING"
    if is_wrong and has_other and _TTL not in waiting:
        yield (
            f"enable TTL for the attribute {spec.ttl}, once it is disabled for the other one; "
            "DynamoDB takes up to an hour for that, and allows one change in that time"
        )


def _stream(spec: TableSpec, live: LiveTable) -> Iterator[Change]:
    wanted = spec.options.stream
    if wanted is None or wanted == (live.stream or "OFF"):
        return
    if live.stream is not None:
        yield _update(
            spec,
            _STREAM,
            f"switch the stream of {live.stream} off",
            is_removal=True,
            loss="A later stream has another ARN, so event source mappings must be made again, and "
            "records that were not read may be missed.",
            StreamSpecification=stream_request("OFF"),
        )
    if wanted != "OFF":
        yield _update(
            spec,
            _STREAM,
            f"switch on a stream of {wanted}",
            StreamSpecification=stream_request(wanted),
        )


def _tags(spec: TableSpec, live: LiveTable) -> Iterator[Change]:
    has = live.tags or {}
    wrong = {
        key: value for key, value in (spec.options.tags or {}).items() if has.get(key) != value
    }
    if wrong:
        yield Change(
            "tags",
            f"set the tags {', '.join(sorted(wrong))}",
            "TagResource",
            {"ResourceArn": live.description["TableArn"], "Tags": tags_request(wrong)},
        )


def _table_class(spec: TableSpec, live: LiveTable) -> Iterator[Change]:
    wanted = spec.options.table_class
    if wanted is not None and wanted != live.table_class:
        yield _update(spec, "table class", f"switch to the table class {wanted}", TableClass=wanted)


def _encryption(spec: TableSpec, live: LiveTable) -> Iterator[Change]:
    wanted = spec.options.encryption_key
    if not has_other_key(spec.options, live):
        return
    is_own = wanted == AWS_OWNED
    yield _update(
        spec,
        "encryption key",
        "encrypt by the key that AWS owns" if is_own else f"encrypt by the key {wanted}",
        is_removal=is_own,
        SSESpecification=encryption_request(wanted),
    )


def _on(is_on: bool) -> str:
    return "on" if is_on else "off"
