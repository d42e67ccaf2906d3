"""``manage.py forum_migrate``: import a forum from three JSON files."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from dynamo_stores.exceptions import StoreError
from dynamo_stores.management.meter import Meter
from forum.transfer.importing import MAX_PROBLEMS, ImportRefused, read_forum
from forum.transfer.migration import Differs, Migration


class Command(BaseCommand):
    help = (
        "Writes the users, threads and posts of three JSON files to the forum's tables. Everything "
        "is checked before the first write; a second run writes what is missing. That includes "
        "threads that were deleted since the first run, with all their posts; --dry-run says how "
        "many. Posts that were deleted in threads that exist are left out."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        for name in ("users", "threads", "posts"):
            parser.add_argument(
                f"--{name}", type=Path, required=True, metavar="FILE", help=f"JSON file of {name}."
            )
        parser.add_argument("--dry-run", action="store_true", help="Check, and write nothing.")

    def handle(
        self,
        *args: Any,
        users: Path,
        threads: Path,
        posts: Path,
        dry_run: bool = False,
        **options: Any,
    ) -> None:
        meter: Meter | None = None
        try:
            forum = read_forum(users, threads, posts)
        except ImportRefused as exc:
            raise CommandError("The files were not imported:\n" + "\n".join(exc.problems)) from exc
        try:
            migration = Migration(forum, self._progress)
            meter = self._meter = Meter(self.stdout, migration.size())
            counts = migration.write(dry_run=dry_run)
        except Differs as exc:
            more = len(exc.problems) - MAX_PROBLEMS
            shown = exc.problems[:MAX_PROBLEMS] + ([f"… and {more} more."] if more > 0 else [])
            what = (
                "Something else was written meanwhile:" if exc.is_written
                else "Nothing was written, because the forum has something else:"
            )  # fmt: skip
            raise CommandError("\n".join([what, *shown])) from exc
        except StoreError as exc:
            raise CommandError(
                f"Not all items were written. Run the command again to finish. {exc}"
            ) from exc
        finally:
            if meter is not None:
                meter.end()
        verb = "would be written" if dry_run else "written"
        for name, count in counts.items():
            left_out = f", {count.left_out} left out" if count.left_out else ""
            self.stdout.write(
                f"{name}: {count.written} {verb}, {count.unchanged} unchanged{left_out}"
            )
        if not dry_run:
            self.stdout.write("All of it was read again and is as in the files.")

    def _progress(self, phase: str, done: int) -> None:
        self._meter.update(phase, done)
