"""``manage.py dynamo_verify``: compare the existing tables with the models."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...infrastructure.tables import TableSpec, inspect_table
from ..tables import add_choice_of_tables, for_each_table


class Command(BaseCommand):
    help = (
        "Compares the existing tables with the models: keys, indexes, TTL, billing mode. The exit "
        "status is 1 if a table is missing or differs."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_choice_of_tables(parser)

    def handle(
        self, *args: Any, table: list[str] | None, using: list[str] | None, **options: Any
    ) -> None:
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
        problems = []
        if wrong:
            problems.append("Tables differ from their models:\n  " + "\n  ".join(wrong))
        if failed:
            problems.append("Tables could not be compared:\n  " + "\n  ".join(failed))
        if problems:
            raise CommandError("\n".join(problems))
