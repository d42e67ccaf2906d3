"""``manage.py dynamo_replicas``: replicas of tables in other regions."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...conf import get_config
from ...conf.rules import POSITIVE, or_none
from ...infrastructure.replicas import Replication
from ...infrastructure.tables import TableSpec
from ..confirmation import add_no_input, confirm
from ..options import check_options
from ..tables import (
    add_choice_of_tables,
    chosen_tables,
    command_errors,
    for_each,
    interruptible,
)


class Command(BaseCommand):
    help = (
        "Lists the replicas of tables in other regions, adds or removes them. A table with "
        "replicas is a global table of DynamoDB. The control table is left out unless --table "
        "names it: what it has belongs to one region."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--add", metavar="REGION", help="Add a replica of each table there.")
        what.add_argument(
            "--remove",
            metavar="REGION",
            help="Remove the replicas there, with their items; requires --allow-removal.",
        )
        parser.add_argument("--allow-removal", action="store_true", help="Allow --remove.")
        add_no_input(parser)
        parser.add_argument(
            "--timeout", type=float, metavar="SECONDS", help="Wait at most this long for a replica."
        )
        add_choice_of_tables(parser)

    def handle(
        self,
        *args: Any,
        table: list[str] | None,
        using: list[str] | None,
        add: str | None,
        remove: str | None,
        **options: Any,
    ) -> None:
        check_options(options, timeout=or_none(POSITIVE))
        if remove is not None and not options["allow_removal"]:
            raise CommandError(
                f"--remove deletes the tables in {remove} with their items; add --allow-removal."
            )
        with command_errors():
            tables = chosen_tables(table, using)
        if (add or remove) and not table:
            tables = [spec for spec in tables if not _is_control(spec)]
        if add:
            self._check_add(tables, add)
        names = [spec.name for spec in tables]
        if options["interactive"] and (add or remove):
            what = f"Add replicas in {add}" if add else f"Delete the replicas in {remove}"
            confirm(f"{what} of {', '.join(names)}?")

        def work(spec: TableSpec) -> None:
            replication = Replication(spec.using, spec.name, self._line, timeout=options["timeout"])
            if add:
                replication.add(add)
            elif remove:
                replication.remove(remove)
            found = replication.replicas()
            shown = ", ".join(f"{each.region} {each.status}" for each in found)
            self._line(f"{spec.name}: {shown or 'no replicas'}")

        with interruptible(
            "What was requested goes on in DynamoDB; the same command waits for it and continues."
        ):
            failed = for_each(tables, work, self._line)
        if failed:
            raise CommandError("\n".join(failed))

    def _check_add(self, tables: list[TableSpec], region: str) -> None:
        failed = for_each(
            tables,
            lambda spec: Replication(spec.using, spec.name, self._line).check_add(region),
            lambda line: None,
        )
        if failed:
            raise CommandError("\n".join([*failed, "Nothing was requested."]))

    def _line(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _is_control(spec: TableSpec) -> bool:
    # Aliases may share their tables; the name in any of them is the same.
    return spec.name == get_config(spec.using).control_table
