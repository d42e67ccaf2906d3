"""``manage.py dynamo_create_tables``: create missing tables, change no existing table."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...infrastructure.tables import TableSpec, TableState, create_table, inspect_table
from ..tables import (
    add_choice_of_tables,
    await_engines,
    chosen_tables,
    command_errors,
    for_each_table,
)


class Command(BaseCommand):
    help = (
        "Creates the missing tables of every alias and of the models of installed apps, with "
        "indexes, TTL and the options in the settings. An existing table is never changed. If one "
        "differs from its model, or an alias fails, that is printed at the end, and the exit "
        "status is 1."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Print what would be created.")
        add_choice_of_tables(parser)

    def handle(
        self,
        *args: Any,
        dry_run: bool,
        table: list[str] | None,
        using: list[str] | None,
        **options: Any,
    ) -> None:
        different: list[str] = []

        def create(spec: TableSpec) -> None:
            found = inspect_table(spec)
            if found.status is None and not dry_run:
                is_created = create_table(spec, self.stdout.write)
                self.stdout.write(f"{spec.name}: created, {_summary(spec)}")
                if is_created:
                    return
                found = inspect_table(spec)
            self._report(spec, found)
            different.extend(f"{spec.name}: {each}" for each in found.differences)

        with command_errors():
            tables = chosen_tables(table, using)
        await_engines({spec.using for spec in tables}, self.stdout.write)
        failed = for_each_table(table, using, create, self.stdout.write)
        problems = []
        if different:
            problems.append(
                "Existing tables differ from the models and were not changed. Change them with "
                "'manage.py dynamo_update_tables', or use other tables in the settings:\n  "
                + "\n  ".join(different)
            )
        if failed:
            problems.append("Tables could not be created:\n  " + "\n  ".join(failed))
        if problems:
            raise CommandError("\n".join(problems))

    def _report(self, spec: TableSpec, found: TableState) -> None:
        if found.status is None:
            self.stdout.write(f"{spec.name}: would be created, {_summary(spec)}")
        elif not found.differences:
            self.stdout.write(f"{spec.name}: exists ({found.status})")


def _summary(spec: TableSpec) -> str:
    config = spec.config
    billing = "on demand"
    if spec.billing_mode == "PROVISIONED":
        scaling = config.scaling
        billing = f"{scaling.base_read_capacity} RCU and {scaling.base_write_capacity} WCU"
    indexes = ", ".join(index.name for index in spec.indexes) or "no index"
    ttl = f"TTL on {spec.ttl}" if spec.ttl else "no TTL"
    return f"key {spec.keys}, {indexes}, {ttl}, {billing}"
