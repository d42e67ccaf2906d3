"""``manage.py forum_seed``: the sample forum of the project, or a large one for tests of load."""

from __future__ import annotations

import json
import tempfile
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

import forum
from forum.transfer.seeding import make_forum

DATA = Path(forum.__file__).parent / "data"
NAMES = ("users", "threads", "posts")
# The sizes that are not given, if another one is.
_SIZES = {"users": 100, "threads": 100, "posts": 1_000}


class Command(BaseCommand):
    help = (
        "Writes the sample forum; a second run changes nothing. With --users, --threads or "
        "--posts, writes a forum of that size, with trees of replies."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        for name in NAMES:
            parser.add_argument(
                f"--{name}", type=int, metavar="N", help=f"Number of {name}: {_SIZES[name]:,}."
            )
        parser.add_argument(
            "--seed",
            type=int,
            metavar="S",
            help="Another number makes another forum beside: 1.",
        )

    def handle(self, *args: Any, seed: int | None = None, **options: Any) -> None:
        given = {name: options[name] for name in NAMES if options.get(name) is not None}
        if not given and seed is None:
            self._migrate(DATA)
            return
        sizes = {**_SIZES, **given}
        if sizes["users"] < 1 or sizes["threads"] < 1 or sizes["posts"] < 0:
            raise CommandError("Expected 1 user and 1 thread at least, and no negative number.")
        with tempfile.TemporaryDirectory(prefix="forum-seed-") as folder:
            for name, rows in make_forum(**sizes, seed=1 if seed is None else seed).items():
                (Path(folder) / f"{name}.json").write_text(json.dumps({name: rows}))
            self._migrate(Path(folder))

    def _migrate(self, folder: Path) -> None:
        files = {name: folder / f"{name}.json" for name in NAMES}
        call_command("forum_migrate", **files, stdout=self.stdout, stderr=self.stderr)
