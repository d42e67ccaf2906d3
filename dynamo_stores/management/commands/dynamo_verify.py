"""``manage.py dynamo_verify``: compare tables with the models, with each other, with a backup."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...conf import DEFAULT_ALIAS, get_config
from ...conf.rules import POSITIVE, SHARE, or_none
from ...infrastructure.backups.backup import describe
from ...infrastructure.backups.comparison import (
    BackupContents,
    Comparison,
    Contents,
    TableContents,
    compare,
)
from ...infrastructure.backups.lines import RawItem, dump_item
from ...infrastructure.backups.pacing import mean_item_bytes, read_rate
from ...infrastructure.backups.scan import TableScan
from ...infrastructure.backups.schema import Schema
from ...infrastructure.backups.source import open_source
from ...infrastructure.references import (
    Dangling,
    Reference,
    declaring_models,
    find_dangling,
    references_of,
)
from ...infrastructure.replicas import ACTIVE, Replica, Replication, measure_lag
from ...infrastructure.tables import TableSpec, inspect_table, table_of
from ..meter import Meter
from ..options import check_options, whole_between
from ..tables import (
    add_choice_of_tables,
    command_errors,
    for_each_table,
    name_in_dynamodb,
    tables_of_apps,
)

_SHOWN = 100


class Command(BaseCommand):
    help = (
        "Compares the existing tables with the models and the settings: keys, indexes, TTL, "
        "billing mode, options. With --with or --with-backup, compares the items of one table with "
        "another one's or a backup's; with --references, looks for items that refer to nothing. "
        "The exit status is 1 if a table is missing or differs."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "args",
            metavar="app_label",
            nargs="*",
            help="Only the tables of the models of these apps.",
        )
        add_choice_of_tables(parser)
        kind = parser.add_mutually_exclusive_group()
        kind.add_argument(
            "--with",
            dest="other",
            metavar="TABLE",
            help="Compare the items of --table with those of this table.",
        )
        kind.add_argument(
            "--with-backup",
            type=Path,
            metavar="PATH",
            help="Compare the items of --table with this backup or export.",
        )
        kind.add_argument(
            "--references",
            action="store_true",
            help="Look for items whose 'references' lead to no item.",
        )
        kind.add_argument(
            "--replicas",
            action="store_true",
            help="Show the replicas of the tables, and how many seconds those of the stores are "
            "behind.",
        )
        parser.add_argument(
            "--with-using", metavar="ALIAS", help="Alias of --with; by default that of --table."
        )
        parser.add_argument(
            "--keys",
            action="store_true",
            help=f"Print keys of what differs, {_SHOWN} at most. They are content of your items.",
        )
        parser.add_argument(
            "--segments", type=int, default=4, help="Segments of a Scan (default: %(default)s)."
        )
        parser.add_argument(
            "--share",
            type=float,
            default=0.5,
            help="Share of a table's provisioned read capacity (default: %(default)s).",
        )
        parser.add_argument(
            "--units",
            type=float,
            default=None,
            metavar="N",
            help="So many read units a second instead; without it an on-demand table is not paced.",
        )

    def handle(
        self,
        *app_label: str,
        table: list[str] | None,
        using: list[str] | None,
        other: str | None,
        with_backup: Path | None,
        references: bool,
        **options: Any,
    ) -> None:
        check_options(options, segments=whole_between(1, 32), share=SHARE, units=or_none(POSITIVE))
        named = table
        if app_label:
            with command_errors():
                table = [*(table or []), *tables_of_apps(app_label)]
        if other is not None or with_backup is not None:
            self._compare(table or [], using or [DEFAULT_ALIAS], other, with_backup, options)
        elif options["replicas"]:
            self._check_replicas(table, using)
        elif references:
            self._check_references(table, using, options, is_named=bool(named))
        else:
            self._verify(table, using)

    def _verify(self, table: list[str] | None, using: list[str] | None) -> None:
        wrong: list[str] = []

        def verify(spec: TableSpec) -> None:
            found = inspect_table(spec)
            if found.status is None:
                wrong.append(f"{spec.name}: does not exist")
            elif found.differences:
                wrong.extend(f"{spec.name}: {each}" for each in found.differences)
            else:
                self.stdout.write(f"{spec.name}: matches its model ({found.status})")

        failed = for_each_table(table, using, verify, self.stdout.write)
        _raise_if(
            ("Tables differ from their models", wrong), ("Tables could not be compared", failed)
        )

    def _check_replicas(self, table: list[str] | None, using: list[str] | None) -> None:
        behind: list[str] = []

        def check(spec: TableSpec) -> None:
            replication = Replication(spec.using, spec.name, self.stdout.write)
            found = replication.replicas()
            if missing := _missing_replica(spec, replication):
                behind.append(f"{spec.name}: {missing}")
            if not found:
                self.stdout.write(f"{spec.name}: no replicas")
            for replica in found:
                line, is_good = _replica_line(spec, replica)
                self.stdout.write(f"{spec.name}: {line}")
                if not is_good:
                    behind.append(f"{spec.name}: {line}")

        failed = for_each_table(table, using, check, self.stdout.write)
        _raise_if(("Replicas are missing or behind", behind), ("Tables could not be read", failed))

    def _compare(
        self,
        tables: list[str],
        aliases: list[str],
        other: str | None,
        backup: Path | None,
        options: dict[str, Any],
    ) -> None:
        if len(tables) != 1 or len(aliases) != 1:
            raise CommandError(
                "--with and --with-backup compare one table; expected one --table, and at most one "
                "--using."
            )
        (table,), (using,) = tables, aliases
        with command_errors():
            table = name_in_dynamodb(using, table)
            left, keys, items = _table(using, table, options)
            right: Contents
            if backup is not None:
                source = open_source(backup)
                name, right = str(backup), BackupContents(source)
                fits = source.schema is None or source.schema.keys == keys
            else:
                other_using = options["with_using"] or using
                name = name_in_dynamodb(other_using, str(other))
                right, other_keys, _ = _table(other_using, name, options)
                fits = keys == other_keys
                if other_using != using:
                    table, name = f"{table} of {using!r}", f"{name} of {other_using!r}"
            if not fits:
                raise CommandError(f"{table} and {name} have different keys.")
            self.stdout.write(
                "Reads the items. What is written meanwhile may appear as a difference."
            )
            # Both sides are about as large.
            meter = Meter(self.stdout, 2 * items, is_silent=options["verbosity"] == 0)
            try:
                found = compare(left, right, keys, with_keys=options["keys"], progress=meter.update)
            finally:
                meter.end()
        for what, key in found.keys[:_SHOWN]:
            where = {"left": f"only in {table}", "right": f"only in {name}"}.get(what, what)
            self.stdout.write(f"{where}: {_shown(key)}")
        if not found.is_equal:
            raise CommandError(_differences(found, table, name))
        same = {0: "no items", 1: "the same item"}.get(found.left, f"the same {found.left:,} items")
        self.stdout.write(f"{table} and {name} have {same}.")

    def _check_references(
        self,
        names: list[str] | None,
        using: list[str] | None,
        options: dict[str, Any],
        *,
        is_named: bool,
    ) -> None:
        wrong: list[str] = []
        undeclared: list[str] = []
        read: set[str] = set()
        declared: dict[tuple[str, str], list[Reference]] = {}
        with command_errors():
            for model in declaring_models():
                spec = table_of(model)
                declared[spec.using, spec.name] = references_of(model)

        def check(spec: TableSpec) -> None:
            references = declared.get((spec.using, spec.name))
            if not references:
                if is_named:
                    undeclared.append(f"{spec.name}: its model declares no references")
                return
            read.add(spec.name)
            description = describe(spec.using, spec.name)
            rate = read_rate(description, options["share"], options["units"])
            items = description.get("ItemCount") or 0
            meter = Meter(self.stdout, items, is_silent=options["verbosity"] == 0)
            try:
                found = find_dangling(
                    references,
                    segments=options["segments"],
                    units_per_second=rate,
                    with_keys=options["keys"],
                    progress=lambda items: meter.update(f"{spec.name}: read", items),
                )
            finally:
                meter.end()
            for reference, dangling in zip(references, found, strict=True):
                wrong.extend(self._report(reference, dangling))

        if not declared:
            raise CommandError(
                "No model declares references. Declare them on the model, such as "
                "references = {'thread_id': 'forum.models.Thread'}."
            )
        failed = for_each_table(names, using, check, self.stdout.write)
        _raise_if(
            ("Items refer to nothing", wrong),
            ("Tables without references", undeclared),
            ("Tables could not be read", failed),
        )
        if not read:
            raise CommandError("No model of these tables declares references.")

    def _report(self, reference: Reference, dangling: Dangling) -> Iterable[str]:
        name = reference.attribute
        for key, value in dangling.keys[:_SHOWN]:
            self.stdout.write(
                f"{reference.table} {_shown(key)}: {name} {_shown(value)} is not in "
                f"{reference.to_table}"
            )
        if dangling.count:
            yield f"{reference}: {dangling.count:,} of {dangling.items:,} items"
            return
        items = {0: "no item", 1: "1 item"}.get(dangling.items, f"{dangling.items:,} items")
        if not dangling.read:
            found = "has no items"
        elif not dangling.items:
            found = f"{items} has {name!r}"
        else:
            found = f"{items}, and each {name!r} exists in {reference.to_table}"
        self.stdout.write(f"{reference.table}: {found}")


def _table(
    using: str, name: str, options: dict[str, Any]
) -> tuple[TableContents, tuple[str, ...], int]:
    description = describe(using, name)
    scan = TableScan(
        using,
        name,
        segments=options["segments"],
        units_per_second=read_rate(description, options["share"], options["units"]),
        mean_bytes=mean_item_bytes(description),
    )
    keys = Schema.of_description(description, None).keys
    return TableContents(scan), keys, description.get("ItemCount") or 0


def _differences(found: Comparison, left: str, right: str) -> str:
    least = "" if found.is_complete else "At least: "
    return (
        f"{left} has {found.left:,} items, {right} has {found.right:,}. {least}{found.only_left:,} "
        f"only in {left}, {found.only_right:,} only in {right}, {found.different:,} with equal "
        "keys differ."
    )


def _shown(key: RawItem) -> str:
    return json.dumps(json.loads(dump_item(key))["Item"], ensure_ascii=False)


def _raise_if(*problems: tuple[str, list[str]]) -> None:
    found = [f"{title}:\n  " + "\n  ".join(each) for title, each in problems if each]
    if found:
        raise CommandError("\n".join(found))


def _missing_replica(spec: TableSpec, replication: Replication) -> str | None:
    """Return a phrase if the region of ``FAILOVER`` does not have the table."""
    config = get_config(spec.using)
    # The control table is that of its region alone.
    if config.failover is None or spec.name == config.control_table:
        return None
    region = get_config(config.failover).region
    if region is None or region in replication.regions():
        return None
    return f"no replica in {region}, the region of FAILOVER ({config.failover!r})"


def _replica_line(spec: TableSpec, replica: Replica) -> tuple[str, bool]:
    """Return a line about a replica, and whether it is as it should be."""
    line = f"{replica.region} {replica.status}"
    if replica.status != ACTIVE or spec.name != get_config(spec.using).store_table:
        return line, replica.status == ACTIVE
    lag = measure_lag(spec.using, replica.region)
    if lag is None:
        return f"{line}, an item was not there after 30 s", False
    return f"{line}, {lag:.1f} s behind", True
