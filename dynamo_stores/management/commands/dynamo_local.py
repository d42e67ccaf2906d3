"""``manage.py dynamo_local``: a DynamoDB for development."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ...testing.engine import EmbeddedEngine, EngineError

DEFAULT_PORT = 8000


class Command(BaseCommand):
    help = (
        "Runs a DynamoDB for development on 127.0.0.1, until Ctrl-C. What it holds is kept over "
        "clean stops, in a folder that git ignores."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--port", type=int, default=DEFAULT_PORT, help="TCP port (default: %(default)s)."
        )
        parser.add_argument("--in-memory", action="store_true", help="Keep nothing.")
        parser.add_argument(
            "--data-dir",
            type=Path,
            default=None,
            help="Folder to keep data in (default: .dynamo-local beside manage.py).",
        )

    def handle(
        self, *args: Any, port: int, in_memory: bool, data_dir: Path | None, **options: Any
    ) -> None:
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        data = None if in_memory else data_dir or _default_folder()
        if data is not None:
            _make_ignored(data)
        engine = EmbeddedEngine(port, data)
        try:
            engine.start()
        except EngineError as exc:
            raise CommandError(str(exc)) from exc
        try:
            kept = f"keeping its data in {data}" if data else "keeping nothing"
            self.stdout.write(f"DynamoDB answers at {engine.url}, {kept}. Ctrl-C stops it.")
            self.stdout.flush()
            while not stopping.wait(0.2):
                if (status := engine.process.poll()) is not None:
                    raise CommandError(f"The embedded DynamoDB ended with status {status}.")
        finally:
            engine.stop()
        self.stdout.write("Stopped.")


def _default_folder() -> Path:
    return Path(getattr(settings, "BASE_DIR", None) or Path.cwd()) / ".dynamo-local"


def _make_ignored(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n")
