"""``manage.py forum_seed``: the sample forum that comes with the project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import BaseCommand

import forum

DATA = Path(forum.__file__).parent / "data"


class Command(BaseCommand):
    help = "Writes the sample forum to DynamoDB; a second run changes nothing."

    def handle(self, *args: Any, **options: Any) -> None:
        files = {name: DATA / f"{name}.json" for name in ("users", "threads", "posts")}
        call_command("forum_migrate", **files, stdout=self.stdout, stderr=self.stderr)
