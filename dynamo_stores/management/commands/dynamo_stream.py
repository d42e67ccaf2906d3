"""``manage.py dynamo_stream``: hand the records of a table's stream to a function."""

from __future__ import annotations

import json
import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from ...conf import DEFAULT_ALIAS, get_config, imported
from ...conf.rules import NOT_NEGATIVE
from ...streams.checkpoints import Checkpoints
from ...streams.client import StreamsClient
from ...streams.failures import FailedRecord, as_event, failed_records
from ...streams.handlers import Handler, plain
from ...streams.reader import Options
from ...streams.records import StreamRecord
from ...streams.worker import StreamWorker
from ..options import between, check_options, whole_between
from ..tables import command_errors


class Command(BaseCommand):
    help = (
        "Hands the records of a table's stream to a function, in the order of the changes of each "
        "key, until SIGTERM or Ctrl-C. Several processes with the same consumer share the shards. "
        "Each record is handled at least once; after a kill, reading resumes where it was saved."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("table", help="The table, by its name in DynamoDB or in a model.")
        parser.add_argument(
            "--handler",
            required=True,
            metavar="PATH",
            help="The dotted path of a function of a list of records.",
        )
        parser.add_argument("--using", default=DEFAULT_ALIAS, help="The alias of the table.")
        parser.add_argument(
            "--consumer",
            metavar="NAME",
            help="The name by which positions are saved (default: the path of the handler).",
        )
        parser.add_argument(
            "--from",
            dest="start",
            choices=["trim_horizon", "latest"],
            default="trim_horizon",
            help="Where a new consumer begins: at the oldest records, or at those that are written "
            "from now on (default: %(default)s).",
        )
        parser.add_argument(
            "--tries",
            type=int,
            default=Options.tries,
            help="Tries of a record before it is set aside (default: %(default)s).",
        )
        parser.add_argument(
            "--retry-wait",
            type=float,
            default=Options.first_wait,
            metavar="SECONDS",
            help="The wait before the second try; it grows up to a minute (default: %(default)s).",
        )
        parser.add_argument(
            "--stop-on-error",
            action="store_true",
            help="End with status 1 instead of setting a record aside.",
        )
        parser.add_argument(
            "--keep-images",
            action="store_true",
            help="Set the images of the item aside, too, and not only its key.",
        )
        parser.add_argument(
            "--lease",
            type=float,
            default=30.0,
            metavar="SECONDS",
            help="After a kill, others take the shards over after so many seconds "
            "(default: %(default)s).",
        )
        parser.add_argument(
            "--stream-endpoint",
            metavar="URL",
            help="The endpoint of the streams API, if it is not that of ENDPOINT_URL or of AWS.",
        )
        parser.add_argument(
            "--failed",
            action="store_true",
            help="Only print the records that were set aside, one JSON object a line.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        check_options(
            options,
            tries=whole_between(1, 1_000),
            retry_wait=NOT_NEGATIVE,
            lease=between(1, 3_600),
        )
        using, path = options["using"], options["handler"]
        consumer = options["consumer"] or path
        with command_errors():
            table = get_config(using).name_in_dynamodb(options["table"])
            if options["failed"]:
                for failed in failed_records(table, consumer, using):
                    self.stdout.write(json.dumps(_as_json(failed)))
                return
            handler = imported(path)
            if not callable(handler):
                raise CommandError(
                    f"--handler is {path}, which is a {type(handler).__name__}; expected a "
                    "function of a list of records."
                )
            self._run(table, consumer, using, handler, options)

    def _run(
        self, table: str, consumer: str, using: str, handler: Handler, options: dict[str, Any]
    ) -> None:
        client = StreamsClient(table, using, options["stream_endpoint"])
        worker = StreamWorker(
            client,
            Checkpoints(table, consumer, using, options["lease"]),
            _with_connections(handler),
            Options(
                tries=options["tries"],
                first_wait=options["retry_wait"],
                stops_on_error=options["stop_on_error"],
                keeps_images=options["keep_images"],
            ),
            from_latest=options["start"] == "latest",
            progress=self._write if options["verbosity"] > 0 else lambda line: None,
        )
        before = {
            number: signal.signal(number, lambda *_: worker.stop())
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            self._write(f"Reads the stream of {table} for the consumer {consumer!r}.")
            worker.run()
        finally:
            for number, earlier in before.items():
                signal.signal(number, earlier)
            client.close()
        self._write("Stopped.")

    def _write(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _with_connections(handler: Handler) -> Handler:
    """Let the handler find usable connections to Django's databases, as a request does."""
    call = plain(handler)

    def handle(records: list[StreamRecord]) -> None:
        close_old_connections()
        try:
            call(records)
        finally:
            close_old_connections()

    return handle


def _as_json(failed: FailedRecord) -> dict[str, Any]:
    record = as_event(failed.record, True)
    return {"error": failed.error, "at": failed.at, "shard": failed.shard, "record": record}
