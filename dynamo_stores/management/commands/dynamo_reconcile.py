"""``manage.py dynamo_reconcile``: lower the tables that are due; for cron without Celery."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import conf
from ...capacity.scale_down import Outcome, reconcile
from ...capacity.update import describe_changes
from ...monitoring.notifications.notifier import wait_until_sent
from ...monitoring.notifications.sources import check as check_notifications
from ...monitoring.roll_up import roll_up
from ..tables import add_choice_of_aliases, chosen_aliases, command_errors, for_each_alias


class Command(BaseCommand):
    help = (
        "Lowers the capacity of every table that is due, and prints each decision. Running it "
        "twice, or together with Celery, is safe."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_choice_of_aliases(parser)

    def handle(self, *args: Any, using: list[str] | None, **options: Any) -> None:
        outcomes: list[Outcome] = []
        with command_errors():
            aliases = chosen_aliases(using)
        failures = for_each_alias(aliases, lambda each: outcomes.extend(self._reconcile(each)))
        failures += for_each_alias(aliases, self._notify)
        for outcome in outcomes:
            done = "not lowered"
            if outcome.plan.changes:
                done = f"changes to {describe_changes(outcome.plan.changes)}"
            self.stdout.write(f"{outcome.table}: {done}, {outcome.plan.why}")
        if failures:
            raise CommandError("\n".join(failures))
        if not outcomes:
            self.stdout.write("No table is due.")

    @staticmethod
    def _reconcile(using: str) -> list[Outcome]:
        if using in conf.provisioned_aliases() and conf.get_config(using).reports.enabled:
            # Without Celery beat nobody else sums up the use, which decides about the capacity.
            roll_up(using)
        return reconcile(using)

    @staticmethod
    def _notify(using: str) -> None:
        check_notifications(using)
        wait_until_sent(using)
