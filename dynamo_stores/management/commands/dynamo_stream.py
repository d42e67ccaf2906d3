"""``manage.py dynamo_stream``: hand the records of a table's stream to a function."""

from __future__ import annotations

import json
import logging
import signal
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import close_old_connections

from ...conf import DEFAULT_ALIAS, imported
from ...conf.rules import NOT_NEGATIVE, URL, or_none
from ...exceptions import StoreUnavailable
from ...streams.checkpoints import Checkpoints, State
from ...streams.client import StreamsClient
from ...streams.failures import FailedRecord, as_event, failed_records
from ...streams.handlers import Handler, HandlerResultError, cause_of, plain
from ...streams.reader import Options
from ...streams.records import StreamRecord
from ...streams.worker import StreamWorker
from ..options import between, check_options, whole_between
from ..tables import chosen_aliases, command_errors, interruptible, name_in_dynamodb

logger = logging.getLogger(__name__)


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
            metavar="PATH",
            help="The dotted path of a function of a list of records; may be left out with "
            "--failed --consumer NAME.",
        )
        parser.add_argument(
            "--using",
            action="append",
            metavar="ALIAS",
            help=f"The alias of the table (default: {DEFAULT_ALIAS}).",
        )
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
            help="The wait before the second try; later ones grow up to a minute, or stay the same "
            "if it is longer (default: %(default)s).",
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
        instead = parser.add_mutually_exclusive_group()
        instead.add_argument(
            "--failed",
            action="store_true",
            help="Only print the records that were set aside, one JSON object a line.",
        )
        instead.add_argument(
            "--retry-failed",
            action="store_true",
            help="Only hand the records that were set aside to the handler again, one by one in "
            "the order in which they were set aside, and delete those that it handles.",
        )
        parser.add_argument(
            "--without-images",
            action="store_true",
            help="With --retry-failed: also those whose images were not kept.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        check_options(
            options,
            tries=whole_between(1, 1_000),
            retry_wait=NOT_NEGATIVE,
            lease=between(1, 3_600),
            stream_endpoint=or_none(URL),
        )
        with command_errors():
            using, *others = chosen_aliases(options["using"] or [DEFAULT_ALIAS])
        if others:
            raise CommandError(
                "--using names several aliases; expected one. Start a worker for each of them."
            )
        path = options["handler"]
        consumer = options["consumer"] or path
        if options["without_images"] and not options["retry_failed"]:
            raise CommandError("--without-images is set; expected --retry-failed beside it.")
        only_lists = options["failed"] and consumer
        with command_errors():
            handler = None if only_lists else _handler(path)
            table = name_in_dynamodb(using, options["table"])
            checkpoints = Checkpoints(table, consumer, using, options["lease"])
            if handler is None:
                for failed in _set_aside(checkpoints):
                    self.stdout.write(json.dumps(_as_json(failed)))
            elif options["retry_failed"]:
                with interruptible("Start the command again: what was handled is deleted."):
                    self._retry(_set_aside(checkpoints), handler, options["without_images"])
            else:
                self._run(checkpoints, handler, options)

    def _retry(self, found: list[FailedRecord], handler: Handler, without_images: bool) -> None:
        call = _with_connections(handler)
        kept = 0
        for failed in found:
            which = f"The record {failed.record.sequence_number} of shard {failed.shard}"
            if failed.lacks_images and not without_images:
                kept += 1
                self._write(
                    f"{which} is left: its images were not kept. If the handler needs its key "
                    "only, add --without-images."
                )
                continue
            try:
                call([failed.record])
            except HandlerResultError:
                raise
            except Exception as exc:
                cause = cause_of(exc)
                if isinstance(cause, StoreUnavailable):
                    raise cause from exc
                # Its message may quote keys and values.
                logger.debug("The handler raised.", exc_info=cause)
                kept += 1
                self._write(f"{which} failed again ({type(cause).__name__}).")
            else:
                failed.delete()
        self._write(f"Handled and deleted: {len(found) - kept} of {len(found)} records.")
        if kept:
            raise CommandError(
                f"{kept} records are still set aside. The logger {__name__} has the tracebacks "
                "of errors at the level DEBUG."
            )

    def _run(self, checkpoints: Checkpoints, handler: Handler, options: dict[str, Any]) -> None:
        table, from_latest = checkpoints.table, options["start"] == "latest"
        client = StreamsClient(table, checkpoints.using, options["stream_endpoint"])
        worker = StreamWorker(
            client,
            checkpoints,
            _with_connections(handler),
            Options(
                tries=options["tries"],
                first_wait=options["retry_wait"],
                stops_on_error=options["stop_on_error"],
                keeps_images=options["keep_images"],
            ),
            from_latest=from_latest,
            progress=self._write if options["verbosity"] > 0 else lambda line: None,
        )
        before = {
            number: signal.signal(number, lambda *_: worker.stop())
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            self._write(
                f"Reads the stream of {table} for the consumer {checkpoints.consumer!r}, which "
                f"{_beginning(checkpoints.read(), from_latest)}."
            )
            worker.run()
        finally:
            for number, earlier in before.items():
                signal.signal(number, earlier)
            client.close()
        self._write("Stopped.")

    def _write(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _handler(path: str | None) -> Handler:
    if not path:
        raise CommandError(
            "--handler is missing; expected the dotted path of a function of a list of records. "
            "With --failed, --consumer is enough."
        )
    handler = imported(path)
    if not callable(handler):
        raise CommandError(
            f"--handler is {path}, which is a {type(handler).__name__}; expected a function of a "
            "list of records."
        )
    return handler  # type: ignore[no-any-return]


def _set_aside(checkpoints: Checkpoints) -> list[FailedRecord]:
    """Return the failed records of a consumer, which must have begun to read the table."""
    table, consumer = checkpoints.table, checkpoints.consumer
    found = failed_records(table, consumer, checkpoints.using)
    if not found and not checkpoints.read().is_begun:
        raise CommandError(
            f"The consumer {consumer!r} has never read the stream of {table}. Correct --consumer "
            "(by default the path of the handler), --using or the table."
        )
    return found


def _beginning(state: State, from_latest: bool) -> str:
    """Return where reading begins, after "which"."""
    if state.is_begun and state.shards:
        return "goes on where it stopped"
    if state.is_begun:
        return "has no position any more and begins at the oldest records, up to 24 hours back"
    if from_latest:
        return "is new and begins at the latest records"
    return "is new and begins at the oldest records, up to 24 hours back"


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
    record = as_event(failed.record)
    return {"error": failed.error, "at": failed.at, "shard": failed.shard, "record": record}
