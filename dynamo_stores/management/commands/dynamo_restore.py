"""``manage.py dynamo_restore``: write the items of a backup, or of an export, to a table."""

from __future__ import annotations

import re
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...calls.control import get_control
from ...conf.aliases import imported
from ...conf.rules import POSITIVE
from ...infrastructure.backups.backup import describe, schema_of
from ...infrastructure.backups.restore import (
    Mode,
    RestoreJob,
    inspect_target,
    item_check,
    planned_rate,
    restore,
)
from ...infrastructure.backups.schema import Schema
from ...infrastructure.backups.source import Source, open_source
from ...infrastructure.live import LiveTable
from ...infrastructure.tables import table_of
from ...models import DynamoModel
from ..backups import add_pace, check_pace, for_each_chosen, pace_of, resumable
from ..meter import Meter
from ..options import check_options
from ..tables import name_in_dynamodb


class Command(BaseCommand):
    help = (
        "Writes the items of a backup, or of an export of DynamoDB to S3, to a table, and compares "
        "both. All files are checked first. A missing table is created with the keys and indexes "
        "of the backup. Nothing is ever deleted."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", type=Path, help="The folder of the backup or export.")
        parser.add_argument(
            "--table",
            required=True,
            metavar="NAME",
            help="The table, by its name in DynamoDB or in a model.",
        )
        add_pace(parser, "write")
        merge = parser.add_mutually_exclusive_group()
        merge.add_argument(
            "--overwrite",
            action="store_true",
            help="The table may have items; those with equal keys are replaced.",
        )
        merge.add_argument(
            "--keep-existing",
            action="store_true",
            help="The table may have items; those with equal keys are kept.",
        )
        parser.add_argument(
            "--resume", action="store_true", help="Continue an interrupted restore."
        )
        schema = parser.add_mutually_exclusive_group()
        schema.add_argument(
            "--like", metavar="TABLE", help="Create a missing table with the schema of this one."
        )
        schema.add_argument(
            "--model",
            metavar="PATH",
            help="Create a missing table with the schema of this model, such as "
            "'mysite.models.Invoice'.",
        )
        parser.add_argument(
            "--no-verify",
            action="store_true",
            help="Do not compare the table with the backup in the end.",
        )
        parser.add_argument(
            "--checkpoint",
            type=float,
            default=10.0,
            metavar="SECONDS",
            help="Save the progress of each file so often (default: %(default)s).",
        )
        parser.add_argument(
            "--state",
            type=Path,
            metavar="FILE",
            help="Keep the progress in this file instead of one beside the backup.",
        )
        parser.add_argument("--dry-run", action="store_true", help="Check, and write nothing.")

    def handle(
        self,
        *args: Any,
        path: Path,
        table: str,
        using: list[str] | str | None,
        **options: Any,
    ) -> None:
        check_pace(options)
        check_options(options, checkpoint=POSITIVE)

        def work(each: str, is_one_of_many: bool) -> None:
            if is_one_of_many and options["state"] is not None:
                raise CommandError("--state is the progress of one restore; expected one --using.")
            self._restore(path, table, each, options)

        for_each_chosen(using, work)

    def _restore(self, path: Path, table: str, using: str, options: dict[str, Any]) -> None:
        with resumable("Run the same command with --resume: it continues where it ended."):
            table = name_in_dynamodb(using, table)
            own_state = re.sub(r"[^\w.-]", "_", f"restore-{using}-{table}.jsonl")
            state: Path = options["state"] or path / own_state
            source = open_source(path)
            job = RestoreJob(
                source,
                table,
                using,
                state,
                mode=_mode(options),
                resume=options["resume"],
                verify=not options["no_verify"],
                schema=_schema(using, options["like"], options["model"]),
                threads=options["segments"],
                share=options["share"],
                units=options["units"],
                checkpoint=options["checkpoint"],
            )
            meter = Meter(self.stdout, source.items, is_silent=options["verbosity"] == 0)
            kind = "the export" if source.is_export else "the backup"
            self.stdout.write(
                f"Reads {kind} of {source.table} of {source.taken}: {source.items:,} items in "
                f"{len(source.files)} files."
            )
            description = get_control(using).describe(table)
            pace = pace_of(planned_rate(job, description), "write")
            verb = "Would write" if options["dry_run"] else "Writes"
            self.stdout.write(f"{verb} to {table}, {pace}.")
            if description is not None and (view := LiveTable(description).stream) is not None:
                self._warn_of_stream(table, view)
            try:
                if options["dry_run"]:
                    self._plan(job, source, meter)
                    return
                result = restore(job, progress=meter.update)
            finally:
                meter.end()
        kept = f", {result.kept:,} kept as they were" if result.kept else ""
        if kept and result.was_resumed:
            kept += " (also items that this restore wrote just before it was interrupted)"
        done = "compared by digest" if result.verified else "not compared"
        self.stdout.write(f"{table}: {result.written:,} items written{kept}, {done}.")
        if result.missing_ttl is not None:
            self.stderr.write(
                self.style.WARNING(
                    f"{table} existed already. Its TTL could not be read, or is not on the "
                    f"attribute {result.missing_ttl}, which it is in the backup. Enable it if "
                    "items are to expire."
                )
            )

    def _warn_of_stream(self, table: str, view: str) -> None:
        self.stderr.write(
            self.style.WARNING(
                f"{table} has a stream of {view}, in which each written item is a change. Stop its "
                "consumers and event source mappings first, or restore into a new table."
            )
        )

    def _plan(self, job: RestoreJob, source: Source, meter: Meter) -> None:
        done = 0
        for file in source.check(item_check(job)):
            done += file.items
            meter.update("Checked", done)
        target = inspect_target(job)
        if target.description is None:
            self.stdout.write(f"Would create {job.table}, and write {source.items:,} items.")
            if (schema := job.schema or source.schema) is not None:
                self.stdout.write(f"Its billing: {schema.billing}.")
        elif target.is_empty:
            self.stdout.write(f"Would write {source.items:,} items to {job.table}, which is empty.")
        elif job.mode is None:
            raise CommandError(
                f"{job.table} is not empty; expected --overwrite or --keep-existing."
            )
        else:
            self.stdout.write(
                f"Would write {source.items:,} items to {job.table}, which is not empty; items "
                f"with equal keys are {'replaced' if job.mode is Mode.OVERWRITE else 'kept'}."
            )


def _mode(options: dict[str, Any]) -> Mode | None:
    if options["overwrite"]:
        return Mode.OVERWRITE
    return Mode.KEEP if options["keep_existing"] else None


def _schema(using: str, like: str | None, model: str | None) -> Schema | None:
    if like is not None:
        return schema_of(using, describe(using, name_in_dynamodb(using, like)))
    if model is None:
        return None
    found = imported(model)
    if not (isinstance(found, type) and issubclass(found, DynamoModel)):
        raise CommandError(f"--model is {model}; expected the dotted path of a DynamoModel.")
    return Schema.of_spec(table_of(found.bound_to(using)))
