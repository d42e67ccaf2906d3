"""Handlers of records: for whole batches, for single records, as a function of AWS Lambda."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

from asgiref.sync import async_to_sync, iscoroutinefunction

from ..exceptions import ConfigurationError, StoreError
from .records import StreamRecord

logger = logging.getLogger(__name__)

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


class HandlerFailedError(StoreError):
    """
    A handler failed: in a worker that stops on errors, or in a function of AWS Lambda. The message
    names the class of its error, and has nothing of its text.
    """


class HandlerResultError(HandlerFailedError):
    """A handler returned a coroutine or a generator, which nothing runs: it handled nothing."""


def plain(function: Callable[[T], object]) -> Callable[[T], None]:
    """
    Return a function for ``function``, which may be a coroutine function. It raises
    HandlerResultError if the result is to be awaited or iterated over.
    """
    call: Callable[[T], object] = function
    if iscoroutinefunction(function) or iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        call = async_to_sync(cast(Any, function))

    def checked(argument: T) -> None:
        _check_result(call(argument))

    return checked


def _check_result(result: Any) -> None:
    is_lazy = inspect.isgenerator(result) or inspect.isasyncgen(result)
    if not is_lazy and not inspect.isawaitable(result):
        return
    # Without that Python warns of a coroutine that was never awaited.
    end = getattr(result, "close", None) or getattr(result, "cancel", None)
    if end is not None:
        end()
    raise HandlerResultError(
        f"The handler returned a {type(result).__name__}, which nothing runs, so no record was "
        "handled. Expected a function that handles the records before it returns, or one defined "
        "with 'async def' and without 'yield'."
    )


def each_record(function: Callable[[StreamRecord], object]) -> Handler:
    """Make a handler of a function of one record. A decorator."""

    call = plain(function)

    @functools.wraps(function, updated=())
    def handle(records: list[StreamRecord]) -> None:
        for record in records:
            try:
                call(record)
            except HandlerResultError:
                raise
            except Exception as exc:
                raise RecordFailed(record) from exc

    return handle


def cause_of(exc: Exception) -> BaseException:
    """Return the error of a handler itself, also where it came with RecordFailed."""
    return (exc.__cause__ or exc) if isinstance(exc, RecordFailed) else exc


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
    If no record is known to be handled it raises HandlerFailedError, and Lambda repeats the whole
    batch. An event without records calls nothing, and one of another source is a
    ConfigurationError.
    """

    call = plain(handler)

    @functools.wraps(handler, assigned=("__module__", "__doc__"), updated=())
    def function(event: Mapping[str, Any], context: Any = None) -> dict[str, Any]:
        records = _records_of(event)
        if not records:
            return {"batchItemFailures": []}
        try:
            call(records)
        except HandlerResultError:
            raise
        except Exception as exc:  # noqa: BLE001 - a handler may raise anything
            error = exc
        else:
            return {"batchItemFailures": []}
        # Outside of the except block: Lambda and its extensions log what an error comes from.
        cause, position = cause_of(error), failed_position(error, records)
        name = type(cause).__name__
        logger.debug("The handler raised.", exc_info=cause)
        if not position:
            raise HandlerFailedError(
                f"The handler failed on {len(records)} records of the stream of "
                f"{records[0].table} ({name}). Its traceback: logger {__name__}, level DEBUG."
            )
        number = records[position].sequence_number
        logger.warning(
            "The handler of the stream of %s failed on the record %s (%s); AWS Lambda begins there "
            "again. Its traceback: logger %s, level DEBUG.",
            records[position].table, number, name, __name__,
        )  # fmt: skip
        return {"batchItemFailures": [{"itemIdentifier": number}]}

    return function


def _records_of(event: Mapping[str, Any]) -> list[StreamRecord]:
    try:
        return [StreamRecord.from_lambda(each) for each in event["Records"]]
    except (AttributeError, KeyError, TypeError):
        pass
    # Outside of the except block: the error may have content of the event.
    raise ConfigurationError(
        f"The function was called with {_source_of(event)}; expected an event of an event source "
        "mapping of a DynamoDB stream, whose records have the event source 'aws:dynamodb'."
    )


def _source_of(event: Any) -> str:
    records = event.get("Records") if isinstance(event, Mapping) else None
    if not isinstance(records, list) or not records:
        return "an event without a list of Records"
    first = records[0] if isinstance(records[0], Mapping) else {}
    # SNS has another spelling.
    source = first.get("eventSource") or first.get("EventSource")
    return f"records of the event source {source!r}"
