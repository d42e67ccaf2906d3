"""``manage.py dynamo_scale``: change a table's capacity by hand."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ... import clock, conf
from ...capacity.changes import apply, as_decision, describe, in_words
from ...capacity.description import TableCapacity, Units
from ...capacity.planner import Plan, plan_down
from ...capacity.records import CapacityRecords
from ...conf import ScalingConfig
from ..tables import sentences


class Command(BaseCommand):
    help = (
        "Raises a provisioned table and its indexes by SCALE_UP_FACTOR, lowers them to their "
        "baseline, or sets them. What is above the baseline comes down after SCALE_DOWN_DELAY."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("table", help="The table's name, as at AWS.")
        parser.add_argument("direction", choices=["up", "down", "to"])
        parser.add_argument("--read", type=int, metavar="N", help="Read units, for 'to'.")
        parser.add_argument("--write", type=int, metavar="N", help="Write units, for 'to'.")
        parser.add_argument("--using", default=conf.DEFAULT_ALIAS, help="Alias (%(default)s).")
        parser.add_argument("--dry-run", action="store_true", help="Only say what would be done.")

    def handle(
        self, *args: Any, table: str, direction: str, using: str, dry_run: bool, **options: Any
    ) -> None:
        read, write = options["read"], options["write"]
        if (direction == "to") != (read is not None or write is not None):
            raise CommandError("--read and --write go with 'to', which needs one of them at least.")
        with sentences():
            capacity = describe(using, table)
            if capacity is None:
                raise CommandError(f"Alias {using!r} has no table {table}.")
            if capacity.is_on_demand:
                raise CommandError(f"{table} is on demand: it has no capacity to change.")
            config = conf.get_config(using).for_table(table).scaling
            wanted = _plan(capacity, config, direction, read, write)
            if not dry_run:
                self._record(using, capacity, wanted, config)
            plan = apply(using, capacity, wanted, dry_run=dry_run)
        if not plan.changes and not dry_run:
            raise CommandError(f"{table} was not changed: {plan.why}.")
        done = f"{table} goes to {in_words(plan.changes)}." if plan.changes else f"{plan.why}."
        self.stdout.write(done)

    def _record(
        self, using: str, capacity: TableCapacity, plan: Plan, config: ScalingConfig
    ) -> None:
        base = Units(config.base_read_capacity, config.base_write_capacity)
        is_above = any(
            units.read > base.read or units.write > base.write for units in plan.changes.values()
        )
        if is_above:
            # Before the change: whoever dies in between leaves no table up that nobody lowers.
            deadline = clock.now() + config.scale_down_delay
            CapacityRecords(using).raised(capacity.table, deadline, as_decision(plan, capacity))


def _plan(
    capacity: TableCapacity, config: ScalingConfig, direction: str, read: Any, write: Any
) -> Plan:
    if direction == "down":
        return plan_down(capacity, config, clock.now(), reserve=0)
    changes = {}
    for name, resource in capacity.resources.items():
        units = resource.units
        if direction == "to":
            wanted = Units(read or units.read, write or units.write)
        else:
            wanted = Units(
                max(units.read, min(config.max_read_capacity, _raised(units.read, config))),
                max(units.write, min(config.max_write_capacity, _raised(units.write, config))),
            )
        if wanted != units:
            changes[name] = wanted
    if not changes:
        return Plan("nothing", "it has that already, or its maximum")
    return Plan("by_hand", "somebody asked for it", changes)


def _raised(units: int, config: ScalingConfig) -> int:
    return max(units + 1, int(units * config.scale_up_factor))
