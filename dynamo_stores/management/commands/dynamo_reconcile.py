"""``manage.py dynamo_reconcile``: lower the tables that are due; for cron without Celery."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from ... import conf
from ...capacity.scale_down import reconcile
from ...capacity.update import describe_changes
from ..tables import command_errors


class Command(BaseCommand):
    help = (
        "Lowers the capacity of every table that is due, and prints each decision. Running it "
        "twice, or together with Celery, is safe."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--using", default=None, help="Only this alias.")

    def handle(self, *args: Any, using: str | None, **options: Any) -> None:
        found = 0
        with command_errors():
            for alias in [using] if using else conf.aliases():
                for outcome in reconcile(alias):
                    found += 1
                    done = "not lowered"
                    if outcome.plan.changes:
                        done = f"changes to {describe_changes(outcome.plan.changes)}"
                    self.stdout.write(f"{outcome.table}: {done}, {outcome.plan.why}")
        if not found:
            self.stdout.write("No table is due.")
