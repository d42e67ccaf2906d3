"""
DynamoDB's protocol without any I/O: a request to bytes, and the bytes of an answer to a dict.

The protocol is AWS JSON 1.0 over HTTP/1.1, signed with Signature Version 4. What botocore sends and
returns for the same operation is the reference; the tests compare both.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import sys
import time
import zlib
from collections.abc import Iterable, Mapping
from http.client import responses as _reasons
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import httptools
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError
from botocore.utils import normalize_url_path

from ..exceptions import StoreUnavailable
from ..keyed_hash import KeyedHash

try:
    import orjson
except ImportError:
    orjson = None  # type: ignore[assignment]
try:
    import pybase64 as base64
except ImportError:
    import base64  # type: ignore[no-redef]

CONTENT_TYPE = "application/x-amz-json-1.0"
# An answer of DynamoDB has at most 16 MB of items, and base64 makes them a third longer.
MAX_HEAD, MAX_BODY = 64 * 1024, 64 * 2**20

# Bytes that a piece of a body takes in memory, beside its content.
_OVERHEAD = 64
# Headers that decide what an answer means. Proxies may repeat others, such as Set-Cookie.
_SINGLE = frozenset(
    [b"content-encoding", b"content-length", b"date", b"transfer-encoding", b"x-amz-crc32"]
)
_TARGET = "DynamoDB_20120810."
_SERVICE = "dynamodb"
_BINARY = (bytes, bytearray, memoryview)


class DamagedAnswerError(ConnectionError):
    """The bytes are not an HTTP answer. The connection cannot be used any more."""


class Endpoint:
    """The host and path of the requests, and the region for which they are signed."""

    def __init__(self, url: str, region: str, user_agent: str) -> None:
        parts = urlsplit(url)
        self.url = url
        self.region = region
        self.user_agent = user_agent
        self.is_tls = parts.scheme == "https"
        self.host = parts.hostname or ""
        usual = 443 if self.is_tls else 80
        self.port = parts.port or usual
        name = f"[{self.host}]" if ":" in self.host else self.host
        self.authority = name if self.port == usual else f"{name}:{self.port}"
        self.path = quote(parts.path or "/", safe="/~%")
        self.canonical_path = quote(normalize_url_path(self.path), safe="/~")


class _Head(NamedTuple):
    """The part that all requests of one operation have in common for one second."""

    second: int
    credentials: ReadOnlyCredentials
    # Of the string to sign, and of the canonical request; each is continued for a request.
    signature: KeyedHash
    canonical: Any
    start: bytes


class Signer:
    """Signs the requests to one endpoint. Thread-safe: what it keeps is replaced as a whole."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._key: tuple[ReadOnlyCredentials | None, str, bytes] = (None, "", b"")
        self._heads: dict[str, _Head] = {}

    def request(
        self, operation: str, body: bytes, credentials: ReadOnlyCredentials, now: float
    ) -> bytes:
        """Return the bytes of the request, signed for ``now`` in seconds since the epoch."""
        head = self._heads.get(operation)
        second = int(now)
        if head is None or head.second != second or head.credentials is not credentials:
            head = self._heads[operation] = self._head(operation, second, credentials)
        canonical = head.canonical.copy()
        canonical.update(hashlib.sha256(body).hexdigest().encode())
        signature = head.signature.digest(canonical.hexdigest().encode()).hex()
        return b"%b%b\r\nContent-Length: %d\r\n\r\n%b" % (
            head.start, signature.encode(), len(body), body,
        )  # fmt: skip

    def _head(self, operation: str, second: int, credentials: ReadOnlyCredentials) -> _Head:
        endpoint = self._endpoint
        # A header is signed, and read by the server, without blanks around its value.
        token = " ".join((credentials.token or "").split())
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
        scope = f"{stamp[:8]}/{endpoint.region}/{_SERVICE}/aws4_request"
        signed = {
            "content-type": CONTENT_TYPE,
            "host": endpoint.authority,
            "x-amz-date": stamp,
            **({"x-amz-security-token": token} if token else {}),
            "x-amz-target": _TARGET + operation,
        }
        names = ";".join(signed)
        headers = "".join(f"{name}:{value}\n" for name, value in signed.items())
        start = "".join(
            [
                f"POST {endpoint.path} HTTP/1.1\r\n",
                *(f"{name}: {value}\r\n" for name, value in signed.items()),
                f"user-agent: {endpoint.user_agent}\r\n",
                "accept-encoding: identity\r\n",
                f"authorization: AWS4-HMAC-SHA256 Credential={credentials.access_key}/{scope}, "
                f"SignedHeaders={names}, Signature=",
            ]
        )
        if start.count("\n") != start.count("\r\n") or len(start.splitlines()) != len(signed) + 4:
            raise ValueError("A header of the request contains a line break.")
        return _Head(
            second,
            credentials,
            KeyedHash(
                self._day_key(stamp[:8], credentials),
                f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n".encode(),
            ),
            hashlib.sha256(f"POST\n{endpoint.canonical_path}\n\n{headers}\n{names}\n".encode()),
            start.encode(),
        )

    def _day_key(self, day: str, credentials: ReadOnlyCredentials) -> bytes:
        known, known_day, key = self._key
        if known is not credentials or known_day != day:
            key = b"AWS4" + str(credentials.secret_key).encode()
            for part in (day, self._endpoint.region, _SERVICE, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._key = (credentials, day, key)
        return key


class Answer(NamedTuple):
    """An HTTP answer. The names of ``headers`` are in lower case."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes
    keeps_connection: bool


class Reader:
    """The answers of one connection, out of the bytes that arrive: one for each request."""

    __slots__ = ("_answer", "_body", "_headers", "_parser", "_size")

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = 0

    def feed(self, data: Any) -> Answer | None:
        """
        Return the answer that ``data`` completes, None while it is incomplete.

        Raises DamagedAnswerError for anything else than one answer.
        """
        handled = sys.exception()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            damage = DamagedAnswerError("The response is not HTTP.")
            # The error of a callback, or an exception from outside that came in a callback; unless
            # this is called in an except block, which hides it.
            error = exc.__context__
            if error is None or error is handled:
                raise damage from exc
            raise error from None
        answer, self._answer = self._answer, None
        return answer

    def on_message_begin(self) -> None:
        """Called by the parser."""
        if self._answer is not None:
            raise DamagedAnswerError("There is more than one response.")
        self._headers, self._body, self._size = {}, [], 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        name = name.lower()
        self._size += len(name) + len(value)
        if self._size > MAX_HEAD or (name in self._headers and name in _SINGLE):
            raise DamagedAnswerError("The response has a header twice, or too many.")
        self._headers[name] = value

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._size += len(data) + _OVERHEAD
        if self._size > MAX_HEAD + MAX_BODY:
            raise DamagedAnswerError("The response is too long.")
        self._body.append(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        status = self._parser.get_status_code()
        if status < 200:
            # 100 Continue: the answer follows.
            return
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        keeps = self._parser.should_keep_alive()
        self._answer = Answer(status, self._headers, body, keeps)


def encode(request: Mapping[str, Any]) -> bytes:
    """Return the body of a request: its DynamoDB-JSON, with bytes as base64."""
    if orjson is not None:
        try:
            return orjson.dumps(request, _encode_value)
        except TypeError:
            # Lone surrogates, integers over 64 bits: json takes them, as botocore does.
            pass
    return json.dumps(request, default=_encode_value, separators=(",", ":")).encode()


def decode(operation: str, answer: Answer) -> dict[str, Any]:
    """
    Return DynamoDB's answer, with bytes for base64.

    Raises botocore's ClientError for an error of DynamoDB, with the class of its code, and
    StoreUnavailable for an answer that is incomplete or was changed on its way.
    """
    body = _checked(operation, answer)
    if answer.status >= 300:
        raise _error(operation, answer, body)
    try:
        found = _loads(body)
        if b'"B"' in body or b'"BS"' in body:
            item = found.get("Item") or found.get("Attributes")
            if item and len(found) == 1 + ("ConsumedCapacity" in found):
                _decode_items((item,))
            else:
                _decode_items(_items_of(found))
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        raise StoreUnavailable("The response of DynamoDB is not complete JSON.") from None
    return found


def _encode_value(value: Any) -> Any:
    if isinstance(value, _BINARY):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    raise TypeError(f"A value of the type {type(value).__name__} cannot be sent to DynamoDB.")


def _loads(body: bytes) -> dict[str, Any]:
    if orjson is None:
        found = json.loads(body)
    else:
        try:
            found = orjson.loads(body)
        except orjson.JSONDecodeError:
            found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError("This is not a JSON object.")
    return found


def _checked(operation: str, answer: Answer) -> bytes:
    """Return the body, unless it is incomplete or damaged."""
    checksum = answer.headers.get(b"x-amz-crc32")
    if answer.headers.get(b"content-encoding") != b"gzip":
        check_body(operation, answer.status, answer.body, checksum)
        return answer.body
    body = _unzip(answer.body)
    # The checksum is of the bytes that travelled.
    check_body(operation, answer.status, body if checksum is None else answer.body, checksum)
    return body


def check_body(operation: str, status: int, body: bytes, checksum: bytes | None) -> None:
    """
    Raise StoreUnavailable for a body that is incomplete or damaged, and ClientError, with the
    status as its code, for a page of a proxy.
    """
    # Errors are checked too: botocore puts a body that it cannot parse into the error's message.
    if checksum is not None:
        if str(zlib.crc32(body)).encode() != checksum:
            raise StoreUnavailable("The response of DynamoDB failed its checksum.")
        return
    # A 5xx is retried whatever its body is.
    if status >= 500 or is_complete_json(body):
        return
    if body[:1] not in (b"", b"{"):
        # A page of a proxy; botocore's error for an answer without a code of DynamoDB.
        raise _client_error(operation, {"Error": {"Code": str(status)}}, {"HTTPStatusCode": status})
    raise StoreUnavailable("The response of DynamoDB is not complete JSON.")


def is_complete_json(body: bytes) -> bool:
    """Return whether ``body`` is a complete JSON object; botocore takes a part of one for {}."""
    if body[:1] != b"{" or body[-1:] != b"}":
        return False
    if body.count(b"{") == body.count(b"}"):
        return True
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _unzip(body: bytes) -> bytes:
    unzip = zlib.decompressobj(31)
    try:
        found = unzip.decompress(body, MAX_BODY)
    except zlib.error:
        found = b""
    if not unzip.eof:
        raise StoreUnavailable("The response of DynamoDB is not complete gzip.")
    return found


def _items_of(answer: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Return the items and keys in an answer of the data plane, wherever they are."""
    for name in ("Item", "Attributes", "LastEvaluatedKey"):
        yield answer.get(name) or {}
    yield from answer.get("Items") or ()
    responses = answer.get("Responses") or ()
    if isinstance(responses, dict):
        for items in responses.values():
            yield from items
    else:
        for response in responses:
            yield response.get("Item") or {}
            yield (response.get("Error") or {}).get("Item") or {}
    for unprocessed in (answer.get("UnprocessedKeys") or {}).values():
        yield from unprocessed["Keys"]
    for requests in (answer.get("UnprocessedItems") or {}).values():
        for request in requests:
            for content in request.values():
                yield content["Item"] if "Item" in content else content["Key"]
    for reason in answer.get("CancellationReasons") or ():
        yield reason.get("Item") or {}
    metrics = answer.get("ItemCollectionMetrics") or {}
    of_one = isinstance(metrics.get("ItemCollectionKey"), dict)
    for several in ([metrics],) if of_one else metrics.values():
        for each in several:
            yield each.get("ItemCollectionKey") or {}


def _decode_items(items: Iterable[dict[str, Any]]) -> None:
    for item in items:
        for value in item.values():
            _decode_value(value)


def _decode_value(value: dict[str, Any]) -> None:
    if "B" in value:
        value["B"] = base64.b64decode(value["B"])
    elif "M" in value:
        for each in value["M"].values():
            _decode_value(each)
    elif "L" in value:
        for each in value["L"]:
            _decode_value(each)
    elif "BS" in value:
        value["BS"] = [base64.b64decode(each) for each in value["BS"]]


# botocore has classes for the errors that the service model of DynamoDB names.
_NAMED = frozenset(
    [
        "BackupInUseException", "ConditionalCheckFailedException", "DuplicateItemException",
        "IdempotentParameterMismatchException", "InternalServerError",
        "ItemCollectionSizeLimitExceededException", "LimitExceededException",
        "ProvisionedThroughputExceededException", "ReplicatedWriteConflictException",
        "RequestLimitExceeded", "ResourceInUseException", "ResourceNotFoundException",
        "ThrottlingException", "TransactionCanceledException", "TransactionConflictException",
        "TransactionInProgressException",
    ]
)  # fmt: skip
_CLASSES = {code: type(code, (ClientError,), {}) for code in _NAMED}


def _error(operation: str, answer: Answer, body: bytes) -> ClientError:
    headers = {
        name.decode("latin-1"): value.decode("latin-1") for name, value in answer.headers.items()
    }
    metadata: dict[str, Any] = {
        "HTTPStatusCode": answer.status, "HTTPHeaders": headers, "RetryAttempts": 0
    }  # fmt: skip
    if "x-amzn-requestid" in headers:
        metadata["RequestId"] = headers["x-amzn-requestid"]
    text = body.strip()
    if answer.status >= 500 and (not text or text.startswith(b"<html>")):
        reason = _reasons.get(answer.status, "")
        error = {"Error": {"Code": str(answer.status), "Message": reason}}
        return _client_error(operation, error, metadata)
    try:
        found = _loads(body) if body else {}
        _decode_items(_items_of(found))
    except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
        found = {}
    code = str(found.pop("__type", answer.status)).split(":", 1)[0].rsplit("#", 1)[-1]
    message = found.get("message", found.get("Message", ""))
    fields = found if code in _CLASSES else {}
    return _client_error(
        operation, {**fields, "Error": {"Message": message, "Code": code}}, metadata
    )


def _client_error(
    operation: str, response: dict[str, Any], metadata: dict[str, Any]
) -> ClientError:
    kind = _CLASSES.get(response["Error"]["Code"], ClientError)
    found: ClientError = kind({**response, "ResponseMetadata": metadata}, operation)
    return found
