"""
What is to exist in one region of one account: the description that all formats are made from.

It is read from the models and the settings, so that it cannot differ from them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..conf import aliases, get_config
from ..exceptions import ConfigurationError
from ..infrastructure.options import AWS_MANAGED, AWS_OWNED, TableOptions
from ..infrastructure.tables import TableSpec, wanted_tables
from ..monitoring.dashboard import dashboard_body
from .alarms import Alarm, alarms_of_aliases, alarms_of_table, notes_of
from .backups import BackupPlan
from .names import plain
from .parameters import (
    ALARMS,
    AUTO_SCALING,
    BACKUPS,
    CLOUDTRAIL,
    REPLICAS,
    USUAL,
    Parameter,
    chosen_parameters,
)
from .scaling import ScalingTarget, scaling_notes, stands_aside, targets_of

_STREAM = "NEW_AND_OLD_IMAGES"
# Two to fifty characters: names of vaults and plans of AWS Backup.
_LONGEST_VAULT = 50


@dataclass(frozen=True)
class Replica:
    """
    A replica of a table in another region, with the options that the settings of it have.
    ``using`` is the alias of that region.
    """

    using: str
    region: str
    options: TableOptions


@dataclass(frozen=True)
class Table:
    """A table to create, and its replicas; the options of ``spec`` are what these need."""

    spec: TableSpec
    replicas: tuple[Replica, ...] = ()

    @property
    def name(self) -> str:
        """The name in DynamoDB."""
        return self.spec.name

    @property
    def is_provisioned(self) -> bool:
        """Whether it has provisioned capacity."""
        return self.spec.billing_mode == "PROVISIONED"


@dataclass(frozen=True)
class Deployment:
    """
    What is to exist in one place.

    ``region`` is that of the settings, None if these leave it to botocore. ``base`` begins the
    names of what belongs to no table. ``tables`` are created here, ``watched`` are also the tables
    that are replicas here. ``parts`` are the wanted ones, see :mod:`.parameters`. ``notes`` are
    sentences about what was left out, and why.
    """

    base: str
    region: str | None
    aliases: tuple[str, ...]
    tables: tuple[Table, ...]
    watched: tuple[TableSpec, ...]
    parts: frozenset[str]
    parameters: Mapping[str, Parameter]
    alarms: tuple[Alarm, ...]
    targets: tuple[ScalingTarget, ...]
    backups: BackupPlan | None
    notes: tuple[str, ...]

    def value(self, name: str) -> Any:
        """Return the value of a parameter."""
        return self.parameters[name].default

    def has(self, part: str) -> bool:
        """Return whether a part is wanted."""
        return part in self.parts

    @property
    def topic_name(self) -> str:
        """The name of the topic of SNS that gets the alarms."""
        return plain(f"{self.base}-alarms")

    @property
    def dashboard_name(self) -> str:
        """The name of the dashboard."""
        return plain(self.base)

    @property
    def trail_name(self) -> str:
        """The name of the trail of CloudTrail."""
        return plain(f"{self.base}-data-events", 128)

    def dashboard(self, region: str) -> dict[str, Any]:
        """Return the body of the dashboard."""
        return dashboard_body(self.base, self.watched, self.aliases, region)


def describe(
    specs: Sequence[TableSpec],
    using: Sequence[str],
    *,
    with_: Collection[str] = (),
    without: Collection[str] = (),
    values: Mapping[str, str] | None = None,
    is_named: bool = False,
) -> list[Deployment]:
    """
    Return what is to exist for the tables ``specs`` and the aliases ``using``, for each region of
    each account.

    ``values`` are parameters by name. With ``is_named`` the tables were named, so alarms of no
    table are left out, and names begin with that of the first table. Raises ConfigurationError.
    """
    parts = frozenset([*with_, *(each for each in USUAL if each not in without)])
    parameters = chosen_parameters(parts, values or {})
    if is_named:
        using = list(dict.fromkeys(spec.using for spec in specs))
    places: dict[Any, list[str]] = {}
    for each in [*using, *(spec.using for spec in specs)]:
        here = places.setdefault(_place(each), [])
        if each not in here:
            here.append(each)
    return [
        _describe_place(
            [spec for spec in specs if spec.using in here],
            [each for each in here if each in using],
            parts, parameters, is_named=is_named,
        )
        for here in places.values()
    ]  # fmt: skip


def place_name(using: str) -> str:
    """Return the region and the account of an alias as text."""
    config = get_config(using)
    account = config.role_arn or config.profile or config.session
    return f"{config.region or 'the default region'}{f' of {account}' if account else ''}"


def _place(using: str) -> tuple[Any, ...]:
    config = get_config(using)
    return (
        config.endpoint_url, config.region, config.profile, config.role_arn, config.session
    )  # fmt: skip


def _describe_place(
    specs: list[TableSpec],
    using: list[str],
    parts: frozenset[str],
    parameters: Mapping[str, Parameter],
    *,
    is_named: bool,
) -> Deployment:
    config = get_config((using or [specs[0].using])[0])
    base = specs[0].name if is_named else config.store_table
    tables = [_table(spec, parts) for spec in specs if not _is_elsewhere(spec, parts)]
    alarms: list[Alarm] = []
    notes: list[str] = []
    if ALARMS in parts:
        alarms = [alarm for spec in specs for alarm in alarms_of_table(spec)]
        if not is_named:
            alarms += alarms_of_aliases(using, base)
        notes += notes_of(dict.fromkeys([*using, *(spec.using for spec in specs)]))
    if AUTO_SCALING in parts:
        notes += scaling_notes([table.spec for table in tables if not table.replicas])
    kept = tuple(table.name for table in tables if not _is_control(table.spec))
    limits = {alarm.threshold for alarm in alarms}
    # Without a table there is nothing to do.
    parts -= {*([] if kept else [BACKUPS]), *([] if tables else [CLOUDTRAIL])}
    plan = None
    if BACKUPS in parts:
        plan = BackupPlan(plain(f"{base}-backups", _LONGEST_VAULT), kept)
    return Deployment(
        base=base,
        region=config.region,
        aliases=tuple(using),
        tables=tuple(tables),
        watched=tuple(specs),
        parts=parts,
        parameters={
            name: each
            for name, each in parameters.items()
            if each.part in parts and (name in limits or not (each.part == ALARMS and each.low))
        },
        alarms=tuple(alarms),
        targets=tuple(target for table in tables for target in _targets(table, parts)),
        backups=plan,
        notes=tuple(dict.fromkeys(notes)),
    )


def _targets(table: Table, parts: Collection[str]) -> Iterable[ScalingTarget]:
    if AUTO_SCALING in parts and (table.replicas or not stands_aside(table.spec)):
        return targets_of(table.spec)
    # DynamoDB requires it for the writes of a provisioned table with replicas.
    wanted = targets_of(table.spec) if table.replicas else ()
    return [target for target in wanted if target.kind == "Write"]


def _is_control(spec: TableSpec) -> bool:
    return spec.name == get_config(spec.using).control_table


def _replicating_alias(spec: TableSpec) -> str | None:
    """Return the alias of ``FAILOVER`` whose table of the same name is a replica of this one."""
    config = get_config(spec.using)
    if config.failover is None or _is_control(spec):
        return None
    other = get_config(config.failover)
    if other.region == config.region or other.same_table(config, spec.name) != spec.name:
        return None
    order = aliases()
    if other.failover == spec.using and order.index(config.failover) < order.index(spec.using):
        return None
    return config.failover


def _is_elsewhere(spec: TableSpec, parts: Collection[str]) -> bool:
    """Return whether the table is a replica, which the document of the first region creates."""
    return REPLICAS in parts and any(
        each.name == spec.name and _replicating_alias(each) == spec.using
        for each in wanted_tables()
    )


def _table(spec: TableSpec, parts: Collection[str]) -> Table:
    other = _replicating_alias(spec) if REPLICAS in parts else None
    if other is None:
        return Table(spec)
    config = get_config(other)
    if config.region is None:
        raise ConfigurationError(
            f"The alias {other!r} is FAILOVER of {spec.using!r} and has no REGION, which is that "
            "of the replicas. Set it."
        )
    if spec.options.stream not in (None, _STREAM):
        raise ConfigurationError(
            f"{spec.name}: its STREAM is {spec.options.stream}, and replication needs one of "
            f"{_STREAM}. Set STREAM to {_STREAM!r}, or leave the replicas out."
        )
    own = spec.options
    options = TableOptions.of(config.for_table(spec.name))
    filled = {
        field.name: getattr(own, field.name)
        for field in dataclasses.fields(options)
        if getattr(options, field.name) is None
    }
    options = dataclasses.replace(options, **filled)
    options = dataclasses.replace(
        options, stream=_STREAM, encryption_key=_key_there(spec, options, config.region)
    )
    spec = dataclasses.replace(spec, options=dataclasses.replace(own, stream=_STREAM))
    return Table(spec, (Replica(other, config.region, options),))


def _key_there(spec: TableSpec, options: TableOptions, region: str) -> str | None:
    """Return the key of a replica. A key of KMS is one of its region, unless it is for many."""
    own, key = spec.options.encryption_key, options.encryption_key
    if (own in (None, AWS_OWNED)) != (key in (None, AWS_OWNED)):
        raise ConfigurationError(
            f"{spec.name}: its ENCRYPTION_KEY is {own or AWS_OWNED}, and that of its replica in "
            f"{region} is {key or AWS_OWNED}. Set a key of KMS for both, or for none."
        )
    if key is None or key != own or key in AWS_MANAGED or key.startswith(("alias/", "mrk-")):
        return key
    if ":key/mrk-" in key or ":alias/" in key:
        parts = key.split(":")
        return ":".join([*parts[:3], region, *parts[4:]])
    if key == AWS_OWNED:
        return key
    raise ConfigurationError(
        f"{spec.name}: its key of KMS is one of a single region. Set ENCRYPTION_KEY of the alias "
        f"of {region}, or use a key for several regions."
    )
