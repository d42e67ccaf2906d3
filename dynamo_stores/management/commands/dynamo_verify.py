"""``manage.py dynamo_verify``: compare the existing tables with the models."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...infrastructure.tables import inspect_table
from ..tables import chosen_tables, command_errors


class Command(BaseCommand):
    help = (
        "Compares the existing tables with the models: keys, indexes, TTL, billing mode. The exit "
        "status is 1 if a table is missing or differs."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--table", action="append", metavar="NAME", help="Only this table; may be repeated."
        )

    def handle(self, *args: Any, table: list[str] | None, **options: Any) -> None:
        wrong = []
        with command_errors():
            for spec in chosen_tables(table):
                found = inspect_table(spec)
                if found.status is None:
                    wrong.append(f"{spec.name}: does not exist")
                elif found.differences:
                    wrong += [f"{spec.name}: {each}" for each in found.differences]
                else:
                    self.stdout.write(f"{spec.name}: matches its model ({found.status})")
        if wrong:
            raise CommandError("Tables differ from their models:\n  " + "\n  ".join(wrong))
