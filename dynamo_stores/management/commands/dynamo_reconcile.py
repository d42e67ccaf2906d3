"""``manage.py dynamo_reconcile``: follow schedules, lower tables; for cron without Celery."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import conf
from ...capacity.scale_down import Outcome, reconcile
from ...capacity.schedule import EVERY, spans_of
from ...capacity.scheduled import Decided
from ...capacity.update import describe_changes
from ...monitoring.notifications.notifier import wait_until_sent
from ...monitoring.notifications.sources import check as check_notifications
from ...monitoring.roll_up import roll_up
from ...monitoring.schedules import follow, schedules
from ..tables import add_choice_of_aliases, chosen_aliases, command_errors, for_each_alias


class Command(BaseCommand):
    help = (
        "Raises tables ahead of the hours for which a schedule wants more, lowers the capacity of "
        "every table that is due, and prints each decision. Also sums up the reports of the "
        "processes. Running it twice, or together with Celery, is safe."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_choice_of_aliases(parser)
        parser.add_argument(
            "--show-schedules",
            action="store_true",
            help="Only print the schedules of tables, given or learnt, in the form of SCHEDULE.",
        )

    def handle(
        self, *args: Any, using: list[str] | None, show_schedules: bool = False, **options: Any
    ) -> None:
        outcomes: list[Outcome] = []
        decided: list[Decided] = []
        with command_errors():
            aliases = chosen_aliases(using)
            if show_schedules:
                for alias in aliases:
                    self._show(alias)
                return

        def work(alias: str) -> None:
            try:
                decided.extend(self._follow(alias))
            finally:
                # What is due comes down in any case.
                outcomes.extend(reconcile(alias))

        failures = for_each_alias(aliases, work)
        failures += for_each_alias(aliases, self._notify)
        for each in decided:
            done = "not raised"
            if each.plan.changes:
                done = f"changes to {describe_changes(each.plan.changes)}"
            self.stdout.write(f"{each.table}: {done}, {each.plan.why}")
        for outcome in outcomes:
            done = "not lowered"
            if outcome.plan.changes:
                done = f"changes to {describe_changes(outcome.plan.changes)}"
            self.stdout.write(f"{outcome.table}: {done}, {outcome.plan.why}")
        if failures:
            raise CommandError("\n".join(failures))
        if not outcomes and not decided:
            self.stdout.write("No table is due.")

    def _show(self, using: str) -> None:
        for table, schedule in schedules(using).items():
            scaling = conf.get_config(using).for_table(table).scaling
            dry = scaling.schedule_dry_run or scaling.dry_run
            acts = "only recorded" if dry else "followed"
            if schedule is None:
                self.stdout.write(f"{table}: nothing is learnt yet")
                continue
            self.stdout.write(f"{table}: {acts}, hours in {schedule.zone}")
            for name in schedule.minima:
                spans = spans_of(schedule, name)
                what = (
                    "table and indexes" if name == EVERY else f"index {name}" if name else "table"
                )
                self.stdout.write(f"  {what}: {spans or 'no minimums'}")

    @staticmethod
    def _follow(using: str) -> list[Decided]:
        if conf.get_config(using).reports.enabled:
            # Without Celery beat nobody else sums up the use, which decides about the capacity,
            # and is what dynamo_cost and the status pages show.
            roll_up(using)
        return follow(using)

    @staticmethod
    def _notify(using: str) -> None:
        check_notifications(using)
        wait_until_sent(using)
