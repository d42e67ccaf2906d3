"""``manage.py dynamo_scale``: change the capacity of a table manually."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import conf
from ...capacity.manual import DOWN, TO, UP, NoSuchTable, change_manually
from ...capacity.update import describe_changes
from ...checks import beat_lowers_tables
from ...infrastructure.tables import wanted_tables
from ...monitoring.notifications.notifier import wait_until_sent
from ..tables import (
    add_choice_of_aliases,
    chosen_aliases,
    command_errors,
    for_each_alias,
    name_in_dynamodb,
)


class Command(BaseCommand):
    help = (
        "Raises a provisioned table and its indexes by SCALE_UP_FACTOR, lowers them to their "
        "baseline, or sets their capacity. Capacity above the baseline is lowered after "
        "SCALE_DOWN_DELAY."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("table", help="The table, by its name in DynamoDB or in a model.")
        parser.add_argument("direction", choices=[UP, DOWN, TO])
        parser.add_argument("--read", type=int, metavar="N", help="Read units, for 'to'.")
        parser.add_argument("--write", type=int, metavar="N", help="Write units, for 'to'.")
        add_choice_of_aliases(parser, default=conf.DEFAULT_ALIAS)
        parser.add_argument("--dry-run", action="store_true", help="Print what would be done.")

    def handle(
        self,
        *args: Any,
        table: str,
        direction: str,
        using: list[str] | None,
        dry_run: bool,
        **options: Any,
    ) -> None:
        read, write = options["read"], options["write"]
        if (direction == TO) != (read is not None or write is not None):
            raise CommandError("'to' requires --read or --write; 'up' and 'down' take neither.")
        for option, units in (("--read", read), ("--write", write)):
            if units is not None and units < 1:
                raise CommandError(f"{option} is {units}; expected 1 or more.")
        with command_errors():
            aliases = chosen_aliases(using or [conf.DEFAULT_ALIAS])
        failed = for_each_alias(
            aliases,
            lambda each: self._scale(
                each, table, direction, read=read, write=write, dry_run=dry_run
            ),
        )
        if failed:
            raise CommandError("\n".join(failed))

    def _scale(
        self,
        using: str,
        table: str,
        direction: str,
        *,
        read: int | None,
        write: int | None,
        dry_run: bool,
    ) -> None:
        table = name_in_dynamodb(using, table)
        try:
            plan = change_manually(
                using,
                table,
                direction,
                read=read,
                write=write,
                by="dynamo_scale",
                dry_run=dry_run,
            )
        except NoSuchTable as exc:
            known = sorted(spec.name for spec in wanted_tables() if spec.using == using)
            raise CommandError(f"{exc} Known tables: {', '.join(known)}.") from exc
        finally:
            wait_until_sent(using)
        if not plan.changes and not dry_run:
            raise CommandError(f"{table} was not changed: {plan.why}.")
        changes = describe_changes(plan.changes)
        self.stdout.write(f"{table} changes to {changes}." if plan.changes else f"{plan.why}.")
        if plan.changes and direction != DOWN and not beat_lowers_tables():
            self.stdout.write(
                "Celery beat does not run 'dynamo_stores.reconcile_capacity' in this project. "
                "Nothing lowers the table again unless 'manage.py dynamo_reconcile' runs every "
                "minute."
            )
