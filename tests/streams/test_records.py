"""Records: the same from the streams API and from an event of AWS Lambda."""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from dynamo_stores.exceptions import ConfigurationError
from dynamo_stores.streams import StreamRecord, each_record, lambda_handler
from dynamo_stores.streams.client import streams_endpoint
from dynamo_stores.streams.handlers import HandlerFailedError
from dynamo_stores.streams.records import plain_item

ARN = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2026-01-01T00:00:00.000"

FROM_API = {
    "eventID": "1",
    "eventName": "MODIFY",
    "dynamodb": {
        "ApproximateCreationDateTime": datetime(2026, 1, 1, tzinfo=UTC),
        "Keys": {"id": {"B": b"\x00\xff"}},
        "OldImage": {"id": {"B": b"\x00\xff"}, "tags": {"BS": [b"a"]}},
        "NewImage": {"id": {"B": b"\x00\xff"}, "m": {"M": {"l": {"L": [{"B": b"z"}]}}}},
        "SequenceNumber": "111",
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    },
}
FROM_LAMBDA = {
    "eventID": "1",
    "eventName": "MODIFY",
    "eventSourceARN": ARN,
    "dynamodb": {
        "ApproximateCreationDateTime": 1767225600.0,
        "Keys": {"id": {"B": "AP8="}},
        "OldImage": {"id": {"B": "AP8="}, "tags": {"BS": ["YQ=="]}},
        "NewImage": {"id": {"B": "AP8="}, "m": {"M": {"l": {"L": [{"B": "eg=="}]}}}},
        "SequenceNumber": "111",
        "StreamViewType": "NEW_AND_OLD_IMAGES",
    },
}


def event(*numbers):
    """An event of AWS Lambda with records of these sequence numbers."""
    return {
        "Records": [
            {**FROM_LAMBDA, "dynamodb": {**FROM_LAMBDA["dynamodb"], "SequenceNumber": number}}
            for number in numbers
        ]
    }


def test_both_sources_give_the_same_record():
    """Bytes, times and nested values are equal, and the table is known."""
    record = StreamRecord.from_api(FROM_API, ARN)
    assert record == StreamRecord.from_lambda(FROM_LAMBDA)
    assert record.table == "orders"
    assert record.keys == {"id": b"\x00\xff"}
    assert record.old_image == {"id": b"\x00\xff", "tags": {b"a"}}
    assert record.new_image == {"id": b"\x00\xff", "m": {"l": [b"z"]}}


def test_values_are_plain():
    """Whole numbers are int, others Decimal without a lost digit, sets are sets."""
    digits = "0." + "1" * 38
    assert plain_item(
        {
            "i": {"N": "5.0"},
            "d": {"N": digits},
            "big": {"N": "1E+30"},
            "n": {"NULL": True},
            "b": {"BOOL": False},
            "s": {"SS": ["a", "b"]},
            "ns": {"NS": ["1", "2.5"]},
        }
    ) == {
        "i": 5,
        "d": Decimal(digits),
        "big": 10**30,
        "n": None,
        "b": False,
        "s": {"a", "b"},
        "ns": {1, Decimal("2.5")},
    }


def test_a_deletion_by_ttl_is_told():
    """DynamoDB's own deletions of expired items have its principal, in both spellings."""
    identity = {"type": "Service", "principalId": "dynamodb.amazonaws.com"}
    assert StreamRecord.from_lambda({**FROM_LAMBDA, "userIdentity": identity}).is_expiry
    identity = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
    assert StreamRecord.from_api({**FROM_API, "userIdentity": identity}).is_expiry
    assert not StreamRecord.from_api(FROM_API).is_expiry


def test_a_record_shows_no_content():
    """Its text, which may get into logs, has neither key nor value."""
    record = StreamRecord.from_lambda(FROM_LAMBDA)
    assert repr(record) == "<StreamRecord MODIFY 111 of orders>"


def test_a_lambda_function_hands_over_all_records():
    """In their order; nothing is reported as failed."""
    seen = []
    function = lambda_handler(lambda records: seen.extend(r.sequence_number for r in records))
    assert function(event("1", "2", "3"), None) == {"batchItemFailures": []}
    assert seen == ["1", "2", "3"]


def test_a_lambda_function_names_the_record_that_failed():
    """Lambda begins there again, and does not repeat those before it."""
    seen = []

    @each_record
    def handle(record):
        if record.sequence_number == "2":
            raise ValueError
        seen.append(record.sequence_number)

    assert lambda_handler(handle)(event("1", "2", "3")) == {
        "batchItemFailures": [{"itemIdentifier": "2"}]
    }
    assert seen == ["1"]


@pytest.mark.parametrize("make", [each_record, lambda function: function], ids=["each", "list"])
def test_a_lambda_function_raises_if_nothing_is_handled(make):
    """Lambda repeats the batch; the error's text is not in what its logs get, only its class."""

    @make
    def handle(record):
        raise ValueError("secret value")

    with pytest.raises(
        HandlerFailedError, match=r"failed on 2 records .* \(ValueError\)"
    ) as failed:
        lambda_handler(handle)(event("1", "2"))
    assert "secret" not in "".join(traceback.format_exception(failed.value))
    assert failed.value.__context__ is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"key1": "secret"}, "an event without a list of Records"),
        (["secret"], "an event without a list of Records"),
        ({"Records": None}, "an event without a list of Records"),
        ({"Records": ["secret"]}, "records of the event source None"),
        ({"Records": [{"eventSource": "aws:sqs", "body": "secret"}]}, "event source 'aws:sqs'"),
        ({"Records": [{"EventSource": "aws:sns", "Sns": "secret"}]}, "event source 'aws:sns'"),
        (
            {"Records": [{"eventSource": "aws:kinesis", "kinesis": {}}]},
            "event source 'aws:kinesis'",
        ),
    ],
)
def test_a_lambda_function_names_the_source_of_another_event(other, words):
    """And not the content of the event."""
    function = lambda_handler(lambda records: pytest.fail("There are none."))
    with pytest.raises(ConfigurationError, match=words) as refused:
        function(other)
    assert "expected an event of an event source mapping of a DynamoDB stream" in str(refused.value)
    assert "secret" not in "".join(traceback.format_exception(refused.value))


def test_a_lambda_function_without_records_calls_nothing():
    """Also a handler that fails on an empty list; there is nothing to repeat."""
    function = lambda_handler(lambda records: records[0])
    assert function({"Records": []}) == {"batchItemFailures": []}


@pytest.mark.filterwarnings("error")
def test_a_lambda_function_raises_for_a_result_that_nothing_runs():
    """Lambda would take the batch for handled."""

    async def handle(records):
        pytest.fail("It is not awaited.")

    with pytest.raises(HandlerFailedError, match="returned a coroutine, which nothing runs"):
        lambda_handler(lambda records: handle(records))(event("1", "2"))


def test_a_lambda_function_logs_what_failed_without_its_text(caplog):
    """The traceback is there at DEBUG, of the logger that the warning names."""

    @each_record
    def handle(record):
        if record.sequence_number == "2":
            raise ValueError("secret value")

    logger = "dynamo_stores.streams.handlers"
    with caplog.at_level(logging.DEBUG, logger):
        lambda_handler(handle)(event("1", "2"))
    debug, warning = caplog.records
    assert (debug.levelno, debug.name, str(debug.exc_info[1])) == (10, logger, "secret value")
    assert "on the record 2 (ValueError)" in warning.getMessage()
    assert f"logger {logger}, level DEBUG" in warning.getMessage()
    assert "secret" not in warning.getMessage()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, None),
        ("http://127.0.0.1:8400", "http://127.0.0.1:8400"),
        (
            "https://dynamodb.eu-west-1.amazonaws.com",
            "https://streams.dynamodb.eu-west-1.amazonaws.com",
        ),
        (
            "https://vpce-1.dynamodb.vpce.amazonaws.com",
            "https://vpce-1.dynamodb.vpce.amazonaws.com",
        ),
    ],
)
def test_the_endpoint_of_streams_follows_that_of_the_tables(url, expected):
    """A local engine has both at one address, AWS a host of its own."""
    assert streams_endpoint(url) == expected
