"""The protocol without I/O: what botocore sends and returns for the same operation is right."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import zlib
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.errorfactory import ClientExceptionsFactory
from botocore.exceptions import ClientError
from botocore.parsers import create_parser
from botocore.serialize import create_serializer
from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo_stores.calls import wire
from dynamo_stores.exceptions import StoreUnavailable

MODEL = botocore.session.get_session().get_service_model("dynamodb")
MANY = settings(max_examples=400, deadline=None)

NAMES = st.text(min_size=1, max_size=8)
BINARY = st.binary(max_size=40)
NUMBERS = st.decimals(allow_nan=False, allow_infinity=False).map(str) | st.integers().map(str)
TEXT = st.text(max_size=20) | st.sampled_from(["\ud800", '"B"', "B", "\x00", "é\U0001f600"])
LEAVES = st.one_of(
    st.builds(lambda v: {"S": v}, TEXT),
    st.builds(lambda v: {"N": v}, NUMBERS),
    st.builds(lambda v: {"B": v}, BINARY),
    st.builds(lambda v: {"BOOL": v}, st.booleans()),
    st.just({"NULL": True}),
    st.builds(lambda v: {"SS": v}, st.lists(TEXT, min_size=1, max_size=3)),
    st.builds(lambda v: {"NS": v}, st.lists(NUMBERS, min_size=1, max_size=3)),
    st.builds(lambda v: {"BS": v}, st.lists(BINARY, min_size=1, max_size=3)),
)
VALUES = st.recursive(
    LEAVES,
    lambda each: (
        st.builds(lambda v: {"L": v}, st.lists(each, max_size=3))
        | st.builds(lambda v: {"M": v}, st.dictionaries(NAMES, each, max_size=3))
    ),
    max_leaves=8,
)
ITEMS = st.dictionaries(NAMES, VALUES, max_size=4)
TABLES = st.sampled_from(["t", "Item", "Key", "ItemCollectionKey", "a-table.1"])
REQUESTS = st.one_of(
    st.tuples(
        st.just("GetItem"),
        st.fixed_dictionaries({"TableName": TABLES, "Key": ITEMS, "ConsistentRead": st.booleans()}),
    ),
    st.tuples(
        st.just("PutItem"),
        st.fixed_dictionaries(
            {
                "TableName": TABLES,
                "Item": ITEMS,
                "ConditionExpression": TEXT,
                "ExpressionAttributeValues": ITEMS,
            }
        ),
    ),
    st.tuples(
        st.just("BatchWriteItem"),
        st.fixed_dictionaries(
            {
                "RequestItems": st.dictionaries(
                    TABLES,
                    st.lists(
                        st.builds(lambda i: {"PutRequest": {"Item": i}}, ITEMS)
                        | st.builds(lambda i: {"DeleteRequest": {"Key": i}}, ITEMS),
                        max_size=3,
                    ),
                    max_size=2,
                )
            }
        ),
    ),
    st.tuples(
        st.just("TransactWriteItems"),
        st.fixed_dictionaries(
            {
                "ClientRequestToken": st.text(min_size=1, max_size=36),
                "TransactItems": st.lists(
                    st.builds(lambda t, i: {"Put": {"TableName": t, "Item": i}}, TABLES, ITEMS),
                    max_size=3,
                ),
            }
        ),
    ),
)
UNITS = st.fixed_dictionaries({"TableName": TABLES, "CapacityUnits": st.just(0.5)})
METRIC = st.fixed_dictionaries(
    {"ItemCollectionKey": ITEMS, "SizeEstimateRangeGB": st.just([0.0, 1.0])}
)
ANSWERS = st.one_of(
    st.tuples(
        st.just("GetItem"),
        st.fixed_dictionaries({}, optional={"Item": ITEMS, "ConsumedCapacity": UNITS}),
    ),
    st.tuples(
        st.sampled_from(["PutItem", "UpdateItem", "DeleteItem"]),
        st.fixed_dictionaries({}, optional={"Attributes": ITEMS, "ItemCollectionMetrics": METRIC}),
    ),
    st.tuples(
        st.sampled_from(["Query", "Scan"]),
        st.fixed_dictionaries(
            {"Items": st.lists(ITEMS, max_size=3), "Count": st.integers(0, 3)},
            optional={"LastEvaluatedKey": ITEMS},
        ),
    ),
    st.tuples(
        st.just("BatchGetItem"),
        st.fixed_dictionaries(
            {"Responses": st.dictionaries(TABLES, st.lists(ITEMS, max_size=3), max_size=2)},
            optional={
                "UnprocessedKeys": st.dictionaries(
                    TABLES, st.builds(lambda k: {"Keys": k}, st.lists(ITEMS, max_size=2))
                )
            },
        ),
    ),
    st.tuples(
        st.just("BatchWriteItem"),
        st.fixed_dictionaries(
            {},
            optional={
                "UnprocessedItems": st.dictionaries(
                    TABLES,
                    st.lists(
                        st.builds(lambda i: {"PutRequest": {"Item": i}}, ITEMS)
                        | st.builds(lambda i: {"DeleteRequest": {"Key": i}}, ITEMS),
                        max_size=2,
                    ),
                ),
                "ItemCollectionMetrics": st.dictionaries(TABLES, st.lists(METRIC, max_size=2)),
            },
        ),
    ),
    st.tuples(
        st.just("TransactGetItems"),
        st.fixed_dictionaries(
            {"Responses": st.lists(st.builds(lambda i: {"Item": i}, ITEMS), max_size=2)}
        ),
    ),
    st.tuples(
        st.just("BatchExecuteStatement"),
        st.fixed_dictionaries(
            {
                "Responses": st.lists(
                    st.fixed_dictionaries(
                        {},
                        optional={
                            "Item": ITEMS,
                            "Error": st.builds(
                                lambda i: {"Code": "DuplicateItem", "Item": i}, ITEMS
                            ),
                        },
                    ),
                    max_size=2,
                )
            }
        ),
    ),
)
ERRORS = st.one_of(
    st.fixed_dictionaries(
        {"__type": st.sampled_from(["com.amazon#ConditionalCheckFailedException"])},
        optional={"message": TEXT, "Item": ITEMS},
    ),
    st.fixed_dictionaries(
        {
            "__type": st.just("com.amazonaws.dynamodb.v20120810#TransactionCanceledException"),
            "Message": TEXT,
            "CancellationReasons": st.lists(
                st.fixed_dictionaries(
                    {"Code": st.sampled_from(["None", "ConditionalCheckFailed"])},
                    optional={"Message": TEXT, "Item": ITEMS},
                ),
                max_size=3,
            ),
        }
    ),
    st.fixed_dictionaries(
        {
            "__type": st.just("com.amazonaws.dynamodb.v20120810#ThrottlingException"),
            "message": TEXT,
            "throttlingReasons": st.lists(
                st.fixed_dictionaries({"reason": TEXT, "resource": TEXT}), max_size=2
            ),
        }
    ),
    st.fixed_dictionaries(
        {
            "__type": st.sampled_from(
                ["com.amazon.coral.validate#ValidationException", "Unheard:http://x/", "A#B:c"]
            )
        },
        optional={"message": TEXT, "Message": TEXT},
    ),
    st.fixed_dictionaries({}, optional={"message": TEXT}),
)
URLS = st.sampled_from(
    [
        "https://dynamodb.eu-west-1.amazonaws.com",
        "https://123456789012.ddb.eu-west-1.amazonaws.com:443/",
        "http://localhost:8000",
        "http://127.0.0.1:80/",
        "http://[::1]:8000/a%20path/../~x//",
        "https://vpce-1.dynamodb.eu-west-1.vpce.amazonaws.com:8443/a%20b",
    ]
)


def parse(request):
    """Return the start line, the headers and the body of a request."""
    head, _, body = request.partition(b"\r\n\r\n")
    start, *lines = head.decode().split("\r\n")
    return start, dict(line.split(": ", 1) for line in lines), body


def to_wire(value):
    """Return DynamoDB-JSON as it travels: with base64 for bytes."""
    if isinstance(value, dict):
        return {name: to_wire(each) for name, each in value.items()}
    if isinstance(value, list):
        return [to_wire(each) for each in value]
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def answer(body, status=200, **headers):
    """Return an answer as the Reader gives it."""
    found = {name.replace("_", "-").encode(): value for name, value in headers.items()}
    return wire.Answer(status, found, body, True)


def botocores(operation, body, status=200):
    """Return what botocore makes of the answer: a dict, or its error."""
    shape = MODEL.operation_model(operation)
    parser = create_parser(MODEL.metadata["protocol"])
    response = {"status_code": status, "headers": {"x-amzn-requestid": "R"}, "body": body}
    parsed = parser.parse(response, shape.output_shape)
    if status < 300:
        parsed.pop("ResponseMetadata")
        return parsed
    error = MODEL.shape_for_error_code(parsed["Error"]["Code"])
    if error is not None:
        parsed.update(parser.parse(response, error))
    classes = ClientExceptionsFactory().create_client_exceptions(MODEL)
    return classes.from_code(parsed["Error"]["Code"])(parsed, operation)


@given(REQUESTS)
@MANY
def test_a_request_is_botocores(request_):
    """The body has the same content, with bytes as base64."""
    operation, params = request_
    theirs = create_serializer("json", include_validation=False).serialize_to_request(
        params, MODEL.operation_model(operation)
    )
    assert json.loads(wire.encode(params)) == json.loads(theirs["body"])
    assert theirs["headers"] == {
        "X-Amz-Target": f"DynamoDB_20120810.{operation}",
        "Content-Type": wire.CONTENT_TYPE,
    }


@given(
    URLS,
    st.sampled_from(["GetItem", "PutItem"]),
    st.binary(max_size=30),
    st.none() | st.text("abcXYZ/+=", min_size=1),
    st.integers(0, 4_000_000_000),
)
@MANY
def test_a_signature_is_botocores(url, operation, body, token, now):
    """For every kind of endpoint, with and without a session token."""
    signer = wire.Signer(wire.Endpoint(url, "eu-west-1", "agent/1"))
    frozen = ReadOnlyCredentials("AKID", "secret/key+", token, None)
    start, headers, sent = parse(signer.request(operation, body, frozen, now))
    assert sent == body
    assert headers.pop("Content-Length") == str(len(body))
    signature = headers.pop("authorization")
    assert (headers.pop("user-agent"), headers.pop("accept-encoding")) == ("agent/1", "identity")
    assert headers["x-amz-target"] == f"DynamoDB_20120810.{operation}"
    auth = SigV4Auth(Credentials("AKID", "secret/key+", token), "dynamodb", "eu-west-1")
    theirs = AWSRequest("POST", url, data=body, headers=headers)
    theirs.context["timestamp"] = headers["x-amz-date"]
    canonical = auth.canonical_request(theirs)
    assert start.split(" ")[1] == (urlsplit(url).path or "/")
    to_sign = auth.string_to_sign(theirs, canonical)
    scope = f"AKID/{headers['x-amz-date'][:8]}/eu-west-1/dynamodb/aws4_request"
    assert signature == (
        f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={';'.join(sorted(headers))}, "
        f"Signature={auth.signature(to_sign, theirs)}"
    )


def test_a_signature_changes_with_the_second_the_operation_and_the_credentials():
    """The parts that are kept are those of this second, operation and credentials."""
    signer = wire.Signer(wire.Endpoint("http://localhost", "r", "a"))
    first = ReadOnlyCredentials("A", "a", None, None)
    second = ReadOnlyCredentials("B", "b", None, None)
    cases = [
        (operation, credentials, now)
        for operation in ("GetItem", "PutItem")
        for credentials in (first, second)
        for now in (0.0, 1.5, 86_400.0)
    ]
    made = [signer.request(operation, b"{}", who, now) for operation, who, now in cases]
    again = [signer.request(operation, b"{}", who, now) for operation, who, now in cases[::-1]]
    assert made == again[::-1]
    assert len(set(made)) == len(cases)
    assert signer.request("GetItem", b"{}", first, 1.9) == made[1]


@pytest.mark.parametrize("agent", ["a\r\nX-Other: 1", "a\nb"])
def test_a_header_with_a_line_break_is_refused(agent):
    """It would be another header."""
    signer = wire.Signer(wire.Endpoint("http://localhost", "r", agent))
    with pytest.raises(ValueError, match="line break"):
        signer.request("GetItem", b"", ReadOnlyCredentials("A", "b", None, None), 0)


@pytest.mark.parametrize("token", [" tok en ", "tok  en\n", "tok\r\nen"])
def test_blanks_in_a_token_are_not_signed(token):
    """As by botocore: the environment or a file may have one at the end."""
    signer = wire.Signer(wire.Endpoint("http://localhost", "r", "a"))
    made = [
        signer.request("GetItem", b"", ReadOnlyCredentials("A", "b", each, None), 0)
        for each in (token, "tok en")
    ]
    assert made[0] == made[1]


@given(ANSWERS)
@MANY
def test_an_answer_is_botocores(found):
    """With bytes for base64, wherever items and keys are."""
    operation, content = found
    body = json.dumps(to_wire(content)).encode()
    assert wire.decode(operation, answer(body)) == botocores(operation, body)


@given(ERRORS, st.sampled_from([400, 413, 500, 503]))
@MANY
def test_an_error_is_botocores(content, status):
    """Its class, message, and everything that DynamoDB says."""
    body = json.dumps(to_wire(content)).encode()
    theirs = botocores("TransactWriteItems", body, status)
    with pytest.raises(ClientError) as caught:
        wire.decode("TransactWriteItems", answer(body, status, x_amzn_requestid=b"R"))
    ours = caught.value
    assert (type(ours).__name__, str(ours)) == (type(theirs).__name__, str(theirs))
    metadata = ours.response.pop("ResponseMetadata")
    assert metadata == {
        "HTTPStatusCode": status, "HTTPHeaders": {"x-amzn-requestid": "R"},
        "RetryAttempts": 0, "RequestId": "R",
    }  # fmt: skip
    theirs.response.pop("ResponseMetadata")
    assert ours.response == theirs.response


@pytest.mark.parametrize(("status", "body"), [(500, b""), (502, b" <html>x"), (503, b"\n")])
def test_a_page_of_a_server_has_its_status_as_code(status, body):
    """As with botocore."""
    with pytest.raises(ClientError) as caught:
        wire.decode("GetItem", answer(body, status))
    assert str(caught.value) == str(botocores("GetItem", body, status))


@pytest.mark.parametrize("status", [200, 302, 403])
def test_a_page_of_a_proxy_has_its_status_as_code(status):
    """Its content is not shown."""
    with pytest.raises(ClientError, match=rf"\({status}\)") as caught:
        wire.decode("GetItem", answer(b"<html>secret", status))
    assert "secret" not in str(caught.value.response)


WHOLE = b'{"Item": {"k": {"B": "aGk="}}}'


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (WHOLE, {"x_amz_crc32": b"1"}),
        (WHOLE, {"x_amz_crc32": b"-1"}),
        (WHOLE, {"x_amz_crc32": b"x"}),
        (WHOLE[:-1], {}),
        (b"", {}),
        (b"{", {}),
        (b"[]", {"x_amz_crc32": str(zlib.crc32(b"[]")).encode()}),
        (b'{"Item": {"k": {"B": "a"}}}', {}),
        (b'{"Item": {"k": {"B": 1}}}', {}),
        (b'{"Item": {"k": "B"}, "x": {"B": 1}}', {}),
        (b'{"Item": [{"B": "aGk="}]}', {}),
        (b'{"Items": {"k": "B"}, "x": {"B": 1}}', {}),
        (b'{"Item": {"k": {"S": "\xff"}}}', {}),
        (b'{"a": "{", "b": ' + b"[" * 200_000 + b"}", {}),
        (b'{"Item": {"k": ' + b'{"L": [' * 100_000 + b"]}" * 100_000 + b', "B": 1}}', {}),
        (gzip.compress(WHOLE)[:-9], {"content_encoding": b"gzip"}),
        (WHOLE, {"content_encoding": b"gzip"}),
        (gzip.compress(bytes(wire.MAX_BODY + 1)), {"content_encoding": b"gzip"}),
    ],
    ids=range(18),
)
def test_a_damaged_answer_is_no_value(body, headers):
    """It is an error that is retried, never a part of an answer, or an empty one."""
    with pytest.raises((StoreUnavailable, ClientError)):
        wire.decode("GetItem", answer(body, **headers))


def test_the_checksum_is_of_the_bytes_that_travelled():
    """Also if they are compressed."""
    packed = gzip.compress(WHOLE)
    found = wire.decode(
        "GetItem",
        answer(packed, content_encoding=b"gzip", x_amz_crc32=str(zlib.crc32(packed)).encode()),
    )
    assert found == {"Item": {"k": {"B": b"hi"}}}


def test_without_the_extra_packages_the_bytes_mean_the_same(monkeypatch):
    """The standard library's json takes the place of orjson."""
    request = {"Item": {"k": {"B": b"hi"}, "t": {"S": "é"}, "n": {"N": "1"}}, "x": (1, 2)}
    fast = json.loads(wire.encode(request))
    monkeypatch.setattr(wire, "orjson", None)
    assert json.loads(wire.encode(request)) == fast
    assert wire.decode("GetItem", answer(WHOLE)) == {"Item": {"k": {"B": b"hi"}}}


@pytest.mark.parametrize("value", [object(), 1.5j])
def test_what_is_not_dynamodb_json_is_refused(value):
    """The error names the type, not the value."""
    with pytest.raises(TypeError, match=f"type {type(value).__name__} cannot be sent"):
        wire.encode({"Item": {"k": value}})


RESPONSE = (
    b"HTTP/1.1 200 OK\r\nServer: Server\r\nX-Amz-Crc32: 1\r\nContent-Length: %d\r\n\r\n%b"
    % (len(WHOLE), WHOLE)
)
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    b"5\r\n" + WHOLE[:5] + b"\r\n%x\r\n" % (len(WHOLE) - 5) + WHOLE[5:] + b"\r\n0\r\n\r\n"
)


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_an_answer_is_read_from_any_pieces(size):
    """One after the other, with a length or in chunks, after 100 Continue, too."""
    reader = wire.Reader()
    found = []
    for message in (RESPONSE, b"HTTP/1.1 100 Continue\r\n\r\n" + RESPONSE, CHUNKED):
        pieces = [message[at : at + size] for at in range(0, len(message), size)]
        answers = [reader.feed(memoryview(piece)) for piece in pieces]
        assert answers[:-1] == [None] * (len(answers) - 1)
        found.append(answers[-1])
    assert [each.body for each in found] == [WHOLE] * 3
    assert [each.keeps_connection for each in found] == [True, True, False]
    assert found[0].headers[b"x-amz-crc32"] == b"1"


@pytest.mark.parametrize(
    "data",
    [
        b"220 mail.example\r\n",
        RESPONSE + b"HTTP/1.1 200 OK\r\n",
        RESPONSE + b"x",
        RESPONSE + RESPONSE,
        RESPONSE.replace(b"Server:", b"content-length: 3\r\nServer:"),
        RESPONSE.replace(b"Server:", b"Date: 1\r\ndate: 2\r\nServer:"),
        RESPONSE.replace(b"Server:", b"x-amz-crc32: 2\r\nServer:"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 1_100_000,
        b"HTTP/1.1 200 OK\r\n" + b"".join(b"H%d: v\r\n" % n for n in range(20_000)),
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * (wire.MAX_HEAD + 1) + b"\r\n\r\n",
        CHUNKED.replace(b"5\r\n", b"-5\r\n", 1),
        CHUNKED.replace(b"chunked\r\n", b"chunked\r\nContent-Length: 5\r\n", 1),
    ],
)
def test_bytes_that_are_no_answer_are_refused(data):
    """And not taken for an answer of another request."""
    with pytest.raises(wire.DamagedAnswerError):
        wire.Reader().feed(data)


def test_other_headers_may_be_repeated():
    """A proxy may set two cookies; the write was carried out all the same."""
    twice = RESPONSE.replace(b"Server:", b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer:")
    found = wire.Reader().feed(twice)
    assert (found.body, found.headers[b"set-cookie"]) == (WHOLE, b"b=2")


def test_an_answer_without_a_length_is_never_complete():
    """An end of the connection cannot be told from a fault on the way."""
    assert wire.Reader().feed(b"HTTP/1.1 200 OK\r\n\r\n" + WHOLE) is None


def test_an_answer_that_never_ends_is_refused():
    """Before it fills the memory."""
    reader = wire.Reader()
    reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    piece = b"100000\r\n" + bytes(2**20) + b"\r\n"
    for _ in range(64):
        assert reader.feed(piece) is None
    with pytest.raises(wire.DamagedAnswerError, match="too long"):
        reader.feed(piece)


@given(st.binary(max_size=200))
@MANY
def test_any_bytes_are_an_answer_or_refused(data):
    """No other error comes out."""
    for start in (b"", b"HTTP/1.1 200 OK\r\n", RESPONSE[:-20]):
        try:
            found = wire.Reader().feed(start + data)
        except wire.DamagedAnswerError:
            continue
        if found is not None:
            with contextlib.suppress(StoreUnavailable, ClientError):
                wire.decode("GetItem", found)


@pytest.mark.parametrize("callback", ["on_header", "on_body", "on_message_complete"])
def test_an_exception_from_outside_in_the_parser_is_raised(monkeypatch, callback):
    """A time limit is no damage of the answer."""

    def interrupted(*arguments):
        raise TimeoutError("soft time limit")

    monkeypatch.setattr(wire.Reader, callback, interrupted)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with pytest.raises(TimeoutError, match="soft time limit"):
        wire.Reader().feed(answer)


def test_the_parser_does_not_raise_what_its_caller_handles():
    """Python makes it the context of every exception that is raised meanwhile."""
    try:
        raise KeyError
    except KeyError:
        with pytest.raises(wire.DamagedAnswerError):
            wire.Reader().feed(b"nonsense\r\n\r\n")
