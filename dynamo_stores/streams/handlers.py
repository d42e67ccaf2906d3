"""Handlers of records: for whole batches, for single records, as a function of AWS Lambda."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from asgiref.sync import async_to_sync, iscoroutinefunction

from .records import StreamRecord

T = TypeVar("T")

# Gets records of one shard in their order, also as a coroutine function. What it raises is tried
# again.
Handler = Callable[[list[StreamRecord]], object]


class RecordFailed(Exception):
    """
    A handler could not handle ``record``, and has handled all records before it in the batch. Its
    ``__cause__`` is the error.
    """

    def __init__(self, record: StreamRecord) -> None:
        super().__init__(f"The record {record.sequence_number} could not be handled.")
        self.record = record


def plain(function: Callable[[T], object]) -> Callable[[T], object]:
    """Return a function for ``function``, which may be a coroutine function."""
    if iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return async_to_sync(cast(Any, function))
    return function


def each_record(function: Callable[[StreamRecord], object]) -> Handler:
    """Make a handler of a function of one record. A decorator."""

    call = plain(function)

    @functools.wraps(function, updated=())
    def handle(records: list[StreamRecord]) -> None:
        for record in records:
            try:
                call(record)
            except Exception as exc:
                raise RecordFailed(record) from exc

    return handle


def failed_position(exc: BaseException, records: Sequence[StreamRecord]) -> int | None:
    """Return the position in ``records`` of the one that a handler names, None if it names none."""
    if not isinstance(exc, RecordFailed):
        return None
    wanted = exc.record.sequence_number
    numbers = [record.sequence_number for record in records]
    return numbers.index(wanted) if wanted in numbers else None


def lambda_handler(handler: Handler) -> Callable[[Mapping[str, Any], Any], dict[str, Any]]:
    """
    Return the function of AWS Lambda for ``handler``, for an event source mapping of a stream that
    has ``FunctionResponseTypes: ["ReportBatchItemFailures"]``.

    It returns the record that the handler names by RecordFailed, so that Lambda begins there again.
    Any other error is raised, and Lambda repeats the whole batch.
    """

    call = plain(handler)

    @functools.wraps(handler, assigned=("__module__", "__doc__"), updated=())
    def function(event: Mapping[str, Any], context: Any = None) -> dict[str, Any]:
        records = [StreamRecord.from_lambda(each) for each in event["Records"]]
        try:
            call(records)
        except RecordFailed as exc:
            position = failed_position(exc, records)
            if not position:
                # Nothing of the batch is done.
                raise
            return {"batchItemFailures": [{"itemIdentifier": exc.record.sequence_number}]}
        return {"batchItemFailures": []}

    return function
