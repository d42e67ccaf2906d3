"""``manage.py dynamo_local``: a local DynamoDB for development."""

from __future__ import annotations

import signal
import threading
from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from ... import conf
from ...calls.environment import is_loopback
from ...conf.rules import NOT_NEGATIVE, POSITIVE
from ...exceptions import ConfigurationError
from ...testing.engine import EmbeddedEngine, EngineError
from ...testing.throttling.buckets import Partitions
from ..options import check_options

if TYPE_CHECKING:
    from ...testing.throttling.relay import CapacityRelay

# Not the port of runserver.
DEFAULT_PORT = 8400


class Command(BaseCommand):
    help = (
        "Runs a local DynamoDB for development on 127.0.0.1, until Ctrl-C. Its data is kept in a "
        "folder that git ignores, unless the process is killed."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--port",
            type=int,
            default=_default_port(),
            help="TCP port (default: that of ENDPOINT_URL on this machine, here %(default)s).",
        )
        parser.add_argument(
            "--in-memory", action="store_true", help="Keep the data in memory only."
        )
        parser.add_argument(
            "--data-dir",
            type=Path,
            default=None,
            help="Folder for the data (default: .dynamo-local beside manage.py).",
        )

        parser.add_argument(
            "--enforce-capacity",
            action="store_true",
            help="Throttle provisioned tables as DynamoDB does; GET / returns their buckets.",
        )
        parser.add_argument(
            "--updating",
            type=float,
            default=30.0,
            metavar="SECONDS",
            help="How long an UpdateTable takes, with --enforce-capacity (default: %(default)s).",
        )
        parser.add_argument(
            "--burst",
            type=float,
            default=300.0,
            metavar="SECONDS",
            help="How many seconds of unused capacity are kept, with --enforce-capacity "
            "(default: %(default)s).",
        )
        parser.add_argument(
            "--hot-partitions",
            action="store_true",
            help="Limit each partition key to 3,000 read and 1,000 write units as well.",
        )

    def handle(
        self,
        *args: Any,
        port: int,
        in_memory: bool,
        data_dir: Path | None,
        enforce_capacity: bool,
        **options: Any,
    ) -> None:
        if not 0 <= port <= 65535:
            raise CommandError(
                f"--port is {port}; expected a number from 1 to 65535, or 0 for any free port."
            )
        check_options(options, updating=NOT_NEGATIVE, burst=POSITIVE)
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        data = None if in_memory else data_dir or _default_folder()
        if data is not None:
            _make_ignored(data)
        engine = EmbeddedEngine(None if enforce_capacity else port, data)
        relay = None
        try:
            engine.start()
            if enforce_capacity:
                relay = _relay(engine.url, port, options).start()
        except EngineError as exc:
            engine.stop()
            raise CommandError(str(exc)) from exc
        try:
            mode = f"keeping its data in {data}" if data else "in memory"
            if relay is not None:
                mode += ", throttling provisioned tables"
            url = engine.url if relay is None else relay.url
            self.stdout.write(f"DynamoDB answers at {url}, {mode}. Ctrl-C stops it.")
            self.stdout.flush()
            while not stopping.wait(0.2):
                if (status := engine.process.poll()) is not None:
                    raise CommandError(f"The embedded DynamoDB exited with status {status}.")
        finally:
            if relay is not None:
                relay.stop()
            engine.stop()
        self.stdout.write("Stopped.")


def _relay(upstream: str, port: int, options: dict[str, Any]) -> CapacityRelay:
    try:
        from ...testing.throttling.relay import CapacityRelay
    except ImportError as exc:
        raise EngineError(f"{exc}. Install dynamo-stores[local].") from exc
    return CapacityRelay(
        upstream,
        port=port,
        updating=options["updating"],
        burst=options["burst"],
        partitions=Partitions() if options["hot_partitions"] else None,
    )


def _default_port() -> int:
    try:
        urls = [conf.get_config(using).endpoint_url for using in conf.aliases()]
    except ConfigurationError:
        return DEFAULT_PORT
    ports = [urlsplit(url).port for url in urls if url is not None and is_loopback(url)]
    return next((port for port in ports if port), DEFAULT_PORT)


def _default_folder() -> Path:
    return Path(getattr(settings, "BASE_DIR", None) or Path.cwd()) / ".dynamo-local"


def _make_ignored(folder: Path) -> None:
    ignore = folder / ".gitignore"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as exc:
        raise CommandError(
            f"The folder for the data, {folder}, cannot be used: {exc.strerror}. Name another one "
            "by --data-dir, or use --in-memory."
        ) from exc
