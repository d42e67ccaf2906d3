"""What the errors of DynamoDB, of AWS and of proxies become."""

from __future__ import annotations

import ssl

import pytest
from botocore import exceptions as botocore

from dynamo_stores.calls.environment import place_of
from dynamo_stores.exceptions import (
    THROTTLING_CODES,
    ConfigurationError,
    InvalidRequestError,
    ItemTooLargeError,
    StoreRefused,
    StoreUnavailable,
    TableMissingError,
    ThrottlingError,
    client_error,
    store_error,
)

PLACE = "endpoint dynamodb.eu-west-1.amazonaws.com, region eu-west-1"


def answer(code, message="", status=400, **others):
    return botocore.ClientError(
        {
            "Error": {"Code": code, "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": status},
            **others,
        },
        "GetItem",
    )


def translated(exc, operation="GetItem"):
    return store_error(exc, operation=operation, table="t", using="default", place=PLACE)


@pytest.mark.parametrize(
    "code",
    [
        "ExpiredToken", "ExpiredTokenException", "UnrecognizedClientException",
        "InvalidSignatureException", "RequestExpired", "IncompleteSignature",
        "MissingAuthenticationToken", "InvalidClientTokenId", "AccessDenied",
        "AccessDeniedException", "KMSAccessDeniedException",
    ],
)  # fmt: skip
def test_what_aws_refuses_is_named_with_its_sentence(code):
    """Operation, table, endpoint and region; further lines of AWS, which quote the request, not."""
    error = translated(answer(code, "It is expired.\n\nThe Canonical String was secret-7"))
    assert type(error) is StoreRefused
    sentence = "" if code == "IncompleteSignature" else ": It is expired."
    assert str(error) == f"GetItem on t was refused ({code}; {PLACE}){sentence}"
    assert error.counts


@pytest.mark.parametrize(
    "exc",
    [
        botocore.NoCredentialsError(),
        botocore.PartialCredentialsError(provider="env", cred_var="x"),
        botocore.CredentialRetrievalError(provider="sso", error_msg="x"),
        RuntimeError(
            "Credentials were refreshed, but the refreshed credentials are still expired."
        ),
    ],
)
def test_a_request_without_credentials_is_refused(exc):
    """It is not sent."""
    error = translated(exc)
    assert type(error) is StoreRefused
    assert PLACE in str(error)
    assert "no valid AWS credentials" in str(error)


@pytest.mark.parametrize("code", sorted(THROTTLING_CODES))
def test_every_code_of_throttling_is_throttling(code):
    """With HTTP 400 or 429."""
    for status in (400, 429):
        assert type(translated(answer(code, status=status))) is ThrottlingError


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("408", 408), ("429", 429), ("RequestTimeout", 400), ("InternalServerError", 400),
        ("InternalFailure", 500), ("ServiceUnavailable", 503), ("502", 502),
    ],
)  # fmt: skip
def test_what_passes_by_itself_is_no_answer(code, status):
    """It is attempted again, and counts against the breaker."""
    error = translated(answer(code, status=status))
    assert type(error) is StoreUnavailable
    assert error.counts
    assert PLACE in str(error)


def test_a_conflict_is_attempted_again_and_is_no_outage():
    """Of two requests for one item; in a transaction, unless it is refused for good, too."""
    for code in ("TransactionConflictException", "ReplicatedWriteConflictException"):
        error = translated(answer(code))
        assert type(error) is StoreUnavailable
        assert not error.counts

    def cancelled(*codes):
        reasons = [{"Code": code} for code in codes]
        exc = answer("TransactionCanceledException", CancellationReasons=reasons)
        return type(translated(exc))

    assert cancelled("None", "TransactionConflict") is StoreUnavailable
    assert cancelled("ThrottlingError", "TransactionConflict") is StoreUnavailable
    assert cancelled("ThrottlingError", "None") is ThrottlingError
    assert cancelled("ConditionalCheckFailed", "TransactionConflict") is type(None)


@pytest.mark.parametrize("status", [302, 400, 403, 404, 407])
def test_an_answer_without_a_code_is_not_dynamodbs(status):
    """botocore has the status for the code."""
    error = translated(answer(str(status), "<html>secret-7</html>", status))
    assert type(error) is StoreRefused
    assert "was not answered by DynamoDB" in str(error)
    assert "secret-7" not in str(error)


def test_an_endpoint_without_tls_is_named_with_advice():
    """It may be no endpoint of DynamoDB; that nothing listens there says nothing of it."""
    cause = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    error = translated(botocore.SSLError(endpoint_url="https://x", error=cause))
    assert type(error) is StoreUnavailable
    assert str(error) == (
        f"GetItem on t got no answer ([ssl: wrong_version_number] wrong version number; {PLACE}). "
        "Check ENDPOINT_URL, and proxies on the way."
    )
    refused = botocore.EndpointConnectionError(endpoint_url="x", error=ConnectionRefusedError())
    assert "ENDPOINT_URL" not in str(translated(refused))


@pytest.mark.parametrize(
    ("endpoint", "is_here"),
    [
        ("127.0.0.1:8400", True),
        ("localhost:8000", True),
        ("[::1]:8000", True),
        ("127.example.com:8000", False),
        ("dynamodb.eu-west-1.amazonaws.com", False),
    ],
)
def test_an_engine_on_this_machine_that_is_not_running(endpoint, is_here):
    """The message says how to start one."""
    error = ConnectionRefusedError(111, "Connection refused")
    exc = botocore.EndpointConnectionError(endpoint_url="x", error=error)
    place = place_of(f"http://{endpoint}", "eu-west-1")
    text = str(store_error(exc, operation="GetItem", table="t", using="default", place=place))
    assert text.endswith(" by 'manage.py dynamo_local'.") == is_here
    assert f"GetItem on t got no answer (connection refused; {place})." in text


@pytest.mark.parametrize(
    ("operation", "words"),
    [("GetItem", "the table 't' of"), ("BatchGetItem", "the table 't' (or another table of the")],
)
def test_a_missing_table_is_an_error_of_the_configuration(operation, words):
    """With the table, the alias, the endpoint, the region and what to do."""
    error = translated(answer("ResourceNotFoundException", "x"), operation)
    assert type(error) is TableMissingError
    for part in (operation, words, "'default'", PLACE, "dynamo_create_tables"):
        assert part in str(error)


def test_an_invalid_request_is_an_error_of_the_configuration():
    """DynamoDB's sentence is shown if it quotes nothing."""
    index = "The table does not have the specified index: GSI1"
    error = translated(answer("ValidationException", index))
    assert type(error) is InvalidRequestError
    assert PLACE in str(error)
    assert index in str(error)
    error = translated(answer("ValidationException", "Value 'secret-7' is no number"))
    assert type(error) is InvalidRequestError
    assert "secret-7" not in str(error)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        (
            "Invalid UpdateExpression: Attribute name is a reserved keyword; reserved keyword: "
            "total",
            "Invalid UpdateExpression: Attribute name is a reserved keyword; reserved keyword: "
            'total. Write #total instead in the expression, and pass names={"#total": "total"}.',
        ),
        (
            "One or more parameter values are not valid. The AttributeValue for a key attribute "
            "cannot contain an empty string value. Key: PK",
            "The key attribute 'PK' is empty. Pass a value that is not empty.",
        ),
        (
            "One or more parameter values are not valid. A value specified for a secondary index "
            "key is not supported. The AttributeValue for a key attribute cannot contain an empty "
            "string value. IndexName: GSI1, IndexKey: GSI1PK",
            "The key attribute 'GSI1PK' is empty.",
        ),
        (
            "Query condition missed key schema element: PK",
            "The condition does not fit the key at the attribute 'PK'. Compare the partition key "
            "with =,",
        ),
        ("Query key condition not supported", "The condition does not fit the key. Compare"),
        ("The provided starting key is invalid: secret-7", "Pass last_key of one of its pages"),
        (
            "Exclusive Start Key must have same size as table's key schema",
            "Pass last_key of one of its pages as start",
        ),
        (
            "One or more parameter values were invalid: Cannot update attribute SK. This attribute "
            "is part of the key",
            "The key attribute 'SK' of an item cannot be changed.",
        ),
        (
            'Invalid FilterExpression: Syntax error; token: "secret-7", near: "= secret-7 unused '
            'in expressions"',
            "An expression has a syntax error. Correct the expression.",
        ),
        ("The value secret-7 is not valid", "Correct the arguments."),
        (
            "The parameter cannot be converted to a numeric value: Missing the key secret-7",
            "A value is no number of DynamoDB.",
        ),
        (
            "One or more parameter values were invalid: Input collection [unused in expressions, "
            "secret-7, secret-7] contains duplicates.",
            "A set has a member twice.",
        ),
    ],
)
def test_an_invalid_request_is_named_with_what_to_change(message, sentence):
    """By the kind of DynamoDB's message, without the values that it may quote."""
    text = str(translated(answer("ValidationException", message)))
    assert f" {sentence}" in text
    assert text.endswith(" DynamoDB's message is in the __cause__.")
    assert "secret-7" not in text


def test_an_item_over_the_limit_is_too_large():
    """DynamoDB says so for an update that makes it larger."""
    text = "Item size to update has exceeded the maximum allowed size"
    assert type(translated(answer("ValidationException", text))) is ItemTooLargeError


def test_other_answers_are_answers():
    """They reach the caller as they are."""
    for code in ("ConditionalCheckFailedException", "ResourceInUseException", "SomethingNew"):
        assert translated(answer(code)) is None
    assert translated(ValueError("x")) is None


def test_a_client_that_cannot_be_made():
    """For want of a region or by a malformed one; other errors of botocore are its own."""
    missing = client_error(botocore.NoRegionError(), "other")
    assert type(missing) is ConfigurationError
    assert "DYNAMO_STORES['other']['REGION'] is not set" in str(missing)
    malformed = client_error(botocore.InvalidRegionError(region_name="eu_west_1 "), "other")
    assert type(malformed) is ConfigurationError
    assert "'eu_west_1 '" in str(malformed)
    partial = botocore.PartialCredentialsError(provider="env", cred_var="x")
    assert type(client_error(partial, "other")) is StoreRefused
    assert (
        client_error(botocore.UnknownServiceError(service_name="x", known_service_names=""), "")
        is None
    )
