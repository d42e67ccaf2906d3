"""``manage.py dynamo_backup``: write all items of a table to compressed files."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand

from ...conf.rules import POSITIVE
from ...infrastructure.backups.backup import BackupJob, back_up, describe, interrupted
from ...infrastructure.backups.pacing import read_rate, read_units
from ..backups import add_pace, check_pace, for_each_chosen, pace_of, resumable
from ..meter import Meter, duration
from ..options import check_options
from ..tables import name_in_dynamodb


class Command(BaseCommand):
    help = (
        "Writes all items of a table to a folder, with its schema and digests. A Scan is no "
        "snapshot: what is written meanwhile may be in the backup or not. An interrupted backup "
        "is continued by the same command."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("table", help="The table, by its name in DynamoDB or in a model.")
        parser.add_argument(
            "--output",
            type=Path,
            metavar="PATH",
            required=True,
            help="A new or empty folder; with several aliases it gets a folder for each.",
        )
        add_pace(parser, "read")
        parser.add_argument(
            "--eventual",
            action="store_true",
            help="Read with eventual consistency, for half the units. An item that was written "
            "just before the Scan may be missing.",
        )
        parser.add_argument(
            "--checkpoint",
            type=float,
            default=60.0,
            metavar="SECONDS",
            help="Finish the file of each segment so often: what a crash loses at most "
            "(default: %(default)s).",
        )
        begin = parser.add_mutually_exclusive_group()
        begin.add_argument(
            "--resume",
            action="store_true",
            help="Continue an interrupted backup, which is the default.",
        )
        begin.add_argument(
            "--restart", action="store_true", help="Delete an interrupted backup, and begin again."
        )
        parser.add_argument("--dry-run", action="store_true", help="Print what would be read.")

    def handle(
        self,
        *args: Any,
        table: str,
        output: Path,
        using: list[str] | str | None,
        **options: Any,
    ) -> None:
        check_pace(options)
        check_options(options, checkpoint=POSITIVE)

        def work(each: str, is_one_of_many: bool) -> None:
            self._back_up(table, output / each if is_one_of_many else output, each, options)

        for_each_chosen(using, work)

    def _back_up(self, table: str, output: Path, using: str, options: dict[str, Any]) -> None:
        advice = "Run the same command again: it continues from the files that are finished."
        with resumable(advice):
            table = name_in_dynamodb(using, table)
            description = describe(using, table)
            rate = read_rate(description, options["share"], options["units"])
            consistent = not options["eventual"]
            if options["dry_run"]:
                self._plan(description, rate, consistent=consistent)
                return
            before = None if options["restart"] else interrupted(output)
            if before is not None:
                self.stdout.write(
                    f"Continues the backup of {before[0]}, which has {before[1]:,} items."
                )
            job = BackupJob(
                table,
                output,
                using,
                options["segments"],
                rate,
                consistent=consistent,
                file_seconds=options["checkpoint"],
            )
            meter = Meter(
                self.stdout,
                description.get("ItemCount") or 0,
                is_silent=options["verbosity"] == 0,
            )
            self.stdout.write(f"Reads {table}, {pace_of(rate, 'read')}.")
            try:
                manifest = back_up(
                    job,
                    progress=lambda items: meter.update("Read", items),
                    restart=options["restart"],
                )
            finally:
                meter.end()
        size = sum(each.size for each in manifest.files)
        self.stdout.write(
            f"{table}: {manifest.digest.items:,} items in {output}, {len(manifest.files)} files, "
            f"{size:,} bytes, read from {manifest.started} to {manifest.finished}. "
            f"Digest {manifest.digest}."
        )
        self._say_what_it_is_not()

    def _plan(self, description: dict[str, Any], rate: float | None, *, consistent: bool) -> None:
        size, items = description.get("TableSizeBytes") or 0, description.get("ItemCount") or 0
        units = read_units(size, consistent=consistent)
        seconds = f", about {duration(units / rate)}" if rate else ""
        self.stdout.write(
            f"Would read {description['TableName']}, {pace_of(rate, 'read')}: about {items:,} "
            f"items, {size:,} bytes, {units:,.1f} read units{seconds}. DynamoDB counts items and "
            "bytes every six hours."
        )
        self._say_what_it_is_not()

    def _say_what_it_is_not(self) -> None:
        self.stdout.write(
            "A Scan is no snapshot: items that are written meanwhile may be in the backup or not. "
            "'dynamo_backups export' starts DynamoDB's own export, which is of one point in time "
            "and which dynamo_restore reads, too."
        )
