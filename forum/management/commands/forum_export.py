"""``manage.py forum_export``: write the forum to three JSON files."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from dynamo_stores.exceptions import StoreError
from dynamo_stores.management.meter import Meter
from forum.transfer.exporting import Export, Row


class Command(BaseCommand):
    help = (
        "Writes users, threads and posts to three JSON files, which forum_migrate imports. What "
        "users write meanwhile may be missing. A file is replaced when it is complete."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        for name in ("users", "threads", "posts"):
            parser.add_argument(
                f"--{name}", type=Path, required=True, metavar="FILE", help=f"JSON file of {name}."
            )
        parser.add_argument("--overwrite", action="store_true", help="Replace files that exist.")

    def handle(
        self,
        *args: Any,
        users: Path,
        threads: Path,
        posts: Path,
        overwrite: bool = False,
        **options: Any,
    ) -> None:
        files = {"users": users, "threads": threads, "posts": posts}
        if not overwrite and (existing := [str(p) for p in files.values() if p.exists()]):
            raise CommandError(f"{existing[0]} exists. Choose another file, or add --overwrite.")
        meter = Meter(self.stdout, 0)
        try:
            export = Export()
            counts = {
                name: _write(path, name, getattr(export, name)(), meter)
                for name, path in files.items()
            }
        except OSError as exc:
            raise CommandError(f"A file was not written: {exc}") from exc
        except StoreError as exc:
            raise CommandError(f"The forum was not read. {exc}") from exc
        finally:
            meter.end()
        for name, count in counts.items():
            self.stdout.write(f"{name}: {count} exported")
        if export.left_out:
            self.stdout.write(
                f"{export.left_out} posts were left out: their thread or author does not exist."
            )


def _write(path: Path, name: str, rows: Iterable[Row], meter: Meter) -> int:
    """Write the rows as a file, one on each line; return how many."""
    beside, count = path.with_name(f".{path.name}.new"), 0
    with beside.open("w", encoding="utf-8") as file:
        file.write(f'{{"{name}": [')
        for count, row in enumerate(rows, start=1):
            file.write(",\n  " if count > 1 else "\n  ")
            file.write(json.dumps(row, ensure_ascii=False))
            meter.update(f"Exported {name},", count)
        file.write("\n]}\n")
    beside.replace(path)
    return count
