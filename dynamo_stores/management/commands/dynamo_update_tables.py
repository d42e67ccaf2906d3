"""``manage.py dynamo_update_tables``: change existing tables in place, to what is required."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...conf.rules import POSITIVE, or_none
from ...infrastructure.changes import Plan
from ...infrastructure.tables import TableSpec
from ...infrastructure.updates import Result, TableUpdate
from ..confirmation import add_no_input, confirm
from ..options import check_options
from ..tables import add_choice_of_tables, for_each, for_each_table, interruptible


class Command(BaseCommand):
    help = (
        "Changes existing tables to what the models and the settings require, one change at a "
        "time: indexes, billing mode, TTL, and the options in the settings. The plan is printed "
        "and confirmed first. Nothing is removed without --allow-removal. The exit status is 1 if "
        "a table still differs at the end."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="Print the plan only.")
        parser.add_argument(
            "--allow-removal",
            action="store_true",
            help="Also delete indexes that no model has, and switch off what the settings say.",
        )
        add_no_input(parser)
        parser.add_argument(
            "--timeout",
            type=float,
            metavar="SECONDS",
            help="Wait at most this long for one change (default: until it is done).",
        )
        add_choice_of_tables(parser)

    def handle(
        self, *args: Any, table: list[str] | None, using: list[str] | None, **options: Any
    ) -> None:
        check_options(options, timeout=or_none(POSITIVE))
        planned: list[tuple[TableUpdate, Plan]] = []
        problems: list[str] = []

        def plan(spec: TableSpec) -> None:
            update = TableUpdate(
                spec,
                self._line,
                allow_removal=options["allow_removal"],
                timeout=options["timeout"],
            )
            found, under_way = update.plan()
            self._print(spec.name, found, under_way)
            if found.changes or under_way:
                planned.append((update, found))
            else:
                problems.extend(_left_over(spec.name, found))

        failed = for_each_table(table, using, plan, self._line)
        count = sum(len(found.changes) for _, found in planned)
        if options["dry_run"]:
            problems += [
                line for update, found in planned for line in _left_over(update.spec.name, found)
            ]
        elif planned:
            if count and options["interactive"]:
                confirm(f"Apply {count} change{'s' if count > 1 else ''}?")
            failed += self._apply(planned, problems)
        if problems:
            failed.insert(0, "Tables still differ:\n  " + "\n  ".join(problems))
        if failed:
            raise CommandError("\n".join(failed))

    def _apply(self, planned: list[tuple[TableUpdate, Plan]], problems: list[str]) -> list[str]:
        plans = {update.spec: (update, found) for update, found in planned}

        def apply(spec: TableSpec) -> None:
            update, found = plans[spec]
            result = update.apply(found)
            problems.extend(_left_over(spec.name, result.plan))
            problems.extend(_not_applied(spec.name, result))
            count = len(result.done)
            self._line(f"{spec.name}: {count} change{'' if count == 1 else 's'} applied")

        with interruptible(
            "A change that was requested goes on in DynamoDB; run the command again to wait for it "
            "and to continue."
        ):
            return for_each(plans, apply, lambda line: None)

    def _line(self, line: str) -> None:
        self.stdout.write(line)
        # A change may take hours, and its progress may be read from a file.
        self.stdout.flush()

    def _print(self, name: str, plan: Plan, under_way: list[str]) -> None:
        lines = [f"being changed: {each}" for each in under_way]
        lines += [f"{'removal: ' if each.is_removal else ''}{each}" for each in plan.changes]
        lines += [f"not without --allow-removal: {each}" for each in plan.kept]
        lines += [f"in a later run: {each}" for each in plan.later]
        lines += [f"not possible: {each}" for each in plan.impossible]
        self._line(f"{name}:" if lines else f"{name}: nothing to change")
        for line in lines:
            self._line(f"  {line}")


def _left_over(name: str, plan: Plan) -> list[str]:
    """Return the differences that are not among the changes of ``plan``."""
    lines = [f"not without --allow-removal: {each}" for each in plan.kept if not each.is_extra]
    lines += [f"in a later run: {each}" for each in plan.later]
    return [f"{name}: {line}" for line in (*lines, *plan.impossible)]


def _not_applied(name: str, result: Result) -> list[str]:
    lines = [f"DynamoDB refused to {change.sentence}: {why}" for change, why in result.refused]
    lines += [
        f"{each.sentence} became necessary meanwhile; run the command again" for each in result.new
    ]
    return [f"{name}: {line}" for line in lines]
