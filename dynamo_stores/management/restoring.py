"""Restoring a table from the service's backups, with what DynamoDB does not restore."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..capacity.auto_scaling_copy import copy_auto_scaling
from ..infrastructure.live import read_live
from ..infrastructure.options import TableOptions
from ..infrastructure.restored import lost_in_restore, restored_spec
from ..infrastructure.service_backups import ServiceBackups, Source
from ..infrastructure.tables import TableSpec, wanted_tables
from ..infrastructure.updates import TableUpdate

# Whatever the settings say, these are asked for, because a restore does not restore them.
_ASKED_FOR = TableOptions(point_in_time_recovery=True, tags={})


@dataclass(frozen=True)
class Restored:
    """
    The sentences of what was ``done`` again, of what DynamoDB ``refused``, each with its reason,
    and the resources that are ``scaled`` by Application Auto Scaling as those of the source are.
    """

    done: list[str]
    refused: list[str]
    scaled: list[str]


def restore(
    backups: ServiceBackups,
    source: Source,
    target: str,
    write: Callable[[str], None],
    *,
    timeout: float | None = None,
) -> Restored:
    """
    Restore the table ``target``, and set again what DynamoDB does not restore.

    It may be called again after it was interrupted, and continues. Raises StoreError.
    """
    using, features = backups.using, None
    if source.arn is not None:
        described, description = backups.describe(source.arn)
        table, features = described.table, description.get("SourceTableFeatureDetails")
    else:
        table = str(source.table)
    # Read before, so that a mistake is found before a restore that takes hours.
    spec = _spec_of(using, target) or _spec_of(using, table)
    live = read_live(using, table, _ASKED_FOR) if table != target else None
    restored = backups.restore(source, target)
    wanted = restored_spec(using, restored, spec=spec, source=live, backup=features)
    update = TableUpdate(wanted, write, timeout=timeout)
    plan, _ = update.plan()
    result = update.apply(lost_in_restore(plan))
    scaled = []
    if table != target:
        indexes = [index.name for index in wanted.indexes if index.is_global]
        scaled = copy_auto_scaling(using, table, target, indexes)
    return Restored(
        done=[change.sentence for change in result.done],
        refused=[f"{change.sentence}: {why}" for change, why in result.refused],
        scaled=scaled,
    )


def _spec_of(using: str, table: str) -> TableSpec | None:
    specs = (spec for spec in wanted_tables() if spec.name == table and spec.using == using)
    return next(specs, None)
