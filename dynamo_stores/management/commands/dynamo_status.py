"""``manage.py dynamo_status``: what tables have, why, and what comes next."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import clock
from ...capacity.changes import describe
from ...capacity.description import TableCapacity
from ...capacity.records import CapacityRecords, Record
from ...conf import ScalingConfig
from ..tables import chosen_tables, sentences


class Command(BaseCommand):
    help = (
        "Shows for each table and index the capacity that it has, its baseline and maximum, how "
        "many decreases are left, the last decision and why, and when it comes down."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--table", action="append", metavar="NAME", help="Only this table; may be repeated."
        )

    def handle(self, *args: Any, table: list[str] | None, **options: Any) -> None:
        missing = []
        with sentences():
            for spec in chosen_tables(table):
                capacity = describe(spec.using, spec.name)
                if capacity is None:
                    missing.append(spec.name)
                    self.stdout.write(f"{spec.name}: there is no such table")
                    continue
                record = None
                if not capacity.is_on_demand:
                    record = CapacityRecords(spec.using).get(spec.name)
                for line in lines(capacity, record, spec.config.scaling):
                    self.stdout.write(line)
        if missing:
            raise CommandError(
                f"{', '.join(missing)}: missing. 'manage.py dynamo_create_tables' makes them."
            )


def lines(capacity: TableCapacity, record: Record | None, config: ScalingConfig) -> list[str]:
    """Return what there is to say of a table."""
    if capacity.is_on_demand:
        return [f"{capacity.table}: {capacity.status}, on demand"]
    now = clock.now()
    found = [
        f"{capacity.table}: {capacity.status}, baseline {config.base_read_capacity} RCU and "
        f"{config.base_write_capacity} WCU, maximum {config.max_read_capacity} and "
        f"{config.max_write_capacity}, scaling {'on' if config.enabled else 'off'}"
    ]
    for name, resource in capacity.resources.items():
        left = resource.decreases_left(now)
        found.append(
            f"  {f'index {name}' if name else 'table'}: {resource.units.read} RCU and "
            f"{resource.units.write} WCU, {left} decrease{'' if left == 1 else 's'} left now"
        )
    if record is None:
        return [*found, "  nothing was decided yet"]
    if record.decision:
        found.append(
            f"  last decision: {record.decision['code']}, {_ago(now - record.decision['at'])}: "
            f"{record.decision['why']}"
        )
    if record.deadline is not None:
        moment = datetime.fromtimestamp(record.deadline, UTC)
        found.append(f"  comes down at {moment:%Y-%m-%d %H:%M:%S} UTC")
    return found


def _ago(seconds: float) -> str:
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return "just now"
