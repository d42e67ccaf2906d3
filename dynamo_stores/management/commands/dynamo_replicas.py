"""``manage.py dynamo_replicas``: replicas of tables in other regions."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...conf.rules import POSITIVE, or_none
from ...infrastructure.replicas import Replication
from ...infrastructure.tables import TableSpec
from ..confirmation import confirm
from ..options import check_options
from ..tables import add_choice_of_tables, chosen_tables, command_errors, for_each_table

_INTERRUPTED = 130


class Command(BaseCommand):
    help = (
        "Lists the replicas of tables in other regions, adds or removes them. A table with "
        "replicas is a global table of DynamoDB."
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
        parser.add_argument(
            "--no-input", "--noinput", action="store_false", dest="interactive", help="Do not ask."
        )
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
            names = [spec.name for spec in chosen_tables(table, using)]
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

        try:
            failed = for_each_table(table, using, work, self._line)
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted. What was requested goes on in DynamoDB; the same command waits for "
                "it and continues.",
                returncode=_INTERRUPTED,
            ) from None
        if failed:
            raise CommandError("\n".join(failed))

    def _line(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()
