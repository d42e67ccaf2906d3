"""
The streams API over shards that a test scripts: splits, trimming, expired iterators, throttling.

Local engines have one shard that never ends. This server answers the operations of
DynamoDBStreams_20120810 from memory, and forwards all others to an engine.
"""

from __future__ import annotations

import base64
import http.client
import json
import threading
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import urlsplit

from .. import clock
from .engine import HOST
from .server import QuietServer

_TARGET = "DynamoDBStreams_20120810."
_ACCOUNT = "arn:aws:dynamodb:us-east-1:000000000000"
_FIRST_NUMBER = 10**20


class _Refused(Exception):
    def __init__(self, code: str, status: int = 400) -> None:
        super().__init__(code)
        self.code = code
        self.status = status


@dataclass
class _Shard:
    name: str
    parent: str | None
    records: list[dict[str, Any]] = field(default_factory=list)
    # How many of the records are trimmed.
    trimmed: int = 0
    is_closed: bool = False
    is_gone: bool = False


@dataclass
class _Fault:
    operation: str
    times: int | None
    code: str
    status: int


class ScriptedStream:
    """
    The stream of one table. Shards are named by what :meth:`open` and :meth:`split` return, and
    records by their sequence numbers.
    """

    def __init__(self, server: StreamServer, table: str, label: str) -> None:
        self.table = table
        self.label = label
        self.arn = f"{_ACCOUNT}:table/{table}/stream/{label}"
        self._server = server
        self._shards: dict[str, _Shard] = {}

    def open(self, parent: str | None = None) -> str:
        """Open a shard and return its name."""
        with self._server.lock:
            number = self._server.next_number()
            name = f"shardId-{number}-{zlib.crc32(str(number).encode()):08x}"
            self._shards[name] = _Shard(name, parent)
            return name

    def put(
        self,
        shard: str,
        keys: Mapping[str, Any],
        *,
        event: str = "MODIFY",
        old: Mapping[str, Any] | None = None,
        new: Mapping[str, Any] | None = None,
        at: float | None = None,
        by_ttl: bool = False,
    ) -> str:
        """
        Append a record to an open shard and return its sequence number. ``keys``, ``old`` and
        ``new`` are as DynamoDB writes them, with bytes for ``B``; ``at`` is in seconds since the
        epoch, by default now.
        """
        images = {"OldImage": old, "NewImage": new}
        with self._server.lock:
            found = self._shards[shard]
            if found.is_closed:
                raise ValueError(f"The shard {shard} is closed; put the record into a child.")
            number = str(self._server.next_number())
            record: dict[str, Any] = {
                "eventID": f"{int(number):032x}",
                "eventName": event,
                "eventVersion": "1.1",
                "eventSource": "aws:dynamodb",
                "awsRegion": "us-east-1",
                "dynamodb": {
                    "ApproximateCreationDateTime": int(clock.now() if at is None else at),
                    "Keys": dict(keys),
                    "SequenceNumber": number,
                    "StreamViewType": "NEW_AND_OLD_IMAGES",
                    **{name: image for name, image in images.items() if image is not None},
                },
            }
            if by_ttl:
                record["userIdentity"] = {
                    "Type": "Service", "PrincipalId": "dynamodb.amazonaws.com",
                }  # fmt: skip
            found.records.append(record)
            return number

    def close(self, shard: str) -> None:
        """Close a shard: its readers get no further iterator at its end."""
        with self._server.lock:
            self._shards[shard].is_closed = True

    def split(self, shard: str, into: int = 2) -> list[str]:
        """Close a shard, and return the names of its children."""
        self.close(shard)
        return [self.open(shard) for _ in range(into)]

    def trim(self, shard: str, records: int | None = None) -> None:
        """Trim the oldest ``records`` of a shard; by default all of it, and the shard itself."""
        with self._server.lock:
            found = self._shards[shard]
            if records is None:
                found.is_closed = found.is_gone = True
                found.trimmed = len(found.records)
            else:
                found.trimmed = min(found.trimmed + records, len(found.records))

    # The operations.

    def describe(self, request: Mapping[str, Any], page: int) -> dict[str, Any]:
        """Return the answer to DescribeStream."""
        names = sorted(name for name, each in self._shards.items() if not each.is_gone)
        after = request.get("ExclusiveStartShardId", "")
        names = [name for name in names if name > after]
        description: dict[str, Any] = {
            "StreamArn": self.arn,
            "StreamLabel": self.label,
            "StreamStatus": "ENABLED",
            "StreamViewType": "NEW_AND_OLD_IMAGES",
            "TableName": self.table,
            "Shards": [_described(self._shards[name]) for name in names[:page]],
        }
        if len(names) > page:
            description["LastEvaluatedShardId"] = names[page - 1]
        return {"StreamDescription": description}

    def position(self, request: Mapping[str, Any]) -> int:
        """Return the position of an iterator of GetShardIterator."""
        shard = self.shard(request.get("ShardId", ""))
        match request.get("ShardIteratorType"):
            case "TRIM_HORIZON":
                return shard.trimmed
            case "LATEST":
                return len(shard.records)
            case "AT_SEQUENCE_NUMBER" | "AFTER_SEQUENCE_NUMBER" as kind:
                numbers = [each["dynamodb"]["SequenceNumber"] for each in shard.records]
                if request.get("SequenceNumber") not in numbers:
                    raise _Refused("ValidationException")
                found = numbers.index(request["SequenceNumber"])
                if found < shard.trimmed:
                    raise _Refused("TrimmedDataAccessException")
                return found + int(kind == "AFTER_SEQUENCE_NUMBER")
        raise _Refused("ValidationException")

    def shard(self, name: str) -> _Shard:
        """Return a shard that is not trimmed."""
        if name not in self._shards or self._shards[name].is_gone:
            raise _Refused("ResourceNotFoundException")
        return self._shards[name]


class StreamServer:
    """
    A server of the streams API: in ``with StreamServer(engine.url) as server`` use ``server.url``
    as the endpoint, and ``server.enable("orders")`` for the stream of a table, which need not
    exist.

    ``page`` is the most shards of a DescribeStream, ``most`` the most records of a GetRecords.
    ``requests`` counts the requests of the streams API by operation.
    """

    def __init__(self, upstream: str | None = None, *, page: int = 100, most: int = 1000) -> None:
        self.upstream = None if upstream is None else urlsplit(upstream)
        self.page = page
        self.most = most
        self.requests: Counter[str] = Counter()
        self.lock = threading.RLock()
        self._streams: list[ScriptedStream] = []
        self._faults: list[_Fault] = []
        self._numbers = _FIRST_NUMBER
        # Iterators of an earlier generation are expired.
        self._generation = 0
        self._server = _Server((HOST, 0), _Handler)
        self._server.streams = self
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )

    @property
    def url(self) -> str:
        """The value for ``ENDPOINT_URL``."""
        return f"http://{HOST}:{self._server.server_address[1]}"

    def start(self) -> Self:
        """Start to listen."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop to listen."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def enable(self, table: str) -> ScriptedStream:
        """Give ``table`` a stream without shards; its earlier ones are listed, too."""
        with self.lock:
            stream = ScriptedStream(self, table, f"2026-01-01T00:00:00.{len(self._streams):03}")
            self._streams.append(stream)
            return stream

    def expire_iterators(self) -> None:
        """Let all iterators that were given out be expired."""
        with self.lock:
            self._generation += 1

    def fail(
        self,
        operation: str = "*",
        times: int | None = None,
        *,
        code: str = "InternalServerError",
        status: int = 500,
    ) -> None:
        """Answer requests with an error, ``times`` of them or until :meth:`clear`."""
        with self.lock:
            self._faults.append(_Fault(operation, times, code, status))

    def throttle(self, operation: str = "*", times: int | None = None) -> None:
        """Answer requests with ``LimitExceededException``."""
        self.fail(operation, times, code="LimitExceededException", status=400)

    def clear(self) -> None:
        """Remove all faults and reset the counts."""
        with self.lock:
            self._faults.clear()
            self.requests.clear()

    def next_number(self) -> int:
        """Return the next sequence number; they rise over all shards."""
        self._numbers += 1
        return self._numbers

    def answer(self, operation: str, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Return the status and the body of an answer."""
        with self.lock:
            self.requests[operation] += 1
            try:
                self._raise_fault(operation)
                return 200, self._answer(operation, request)
            except _Refused as exc:
                return exc.status, {
                    "__type": f"com.amazonaws.dynamodb.v20120810#{exc.code}",
                    "message": "Refused by a test.",
                }

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _raise_fault(self, operation: str) -> None:
        for fault in self._faults:
            if fault.operation in ("*", operation) and fault.times != 0:
                if fault.times is not None:
                    fault.times -= 1
                raise _Refused(fault.code, fault.status)

    def _answer(self, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        match operation:
            case "ListStreams":
                found = [each for each in self._streams if each.table == request.get("TableName")]
                return {
                    "Streams": [
                        {"StreamArn": each.arn, "StreamLabel": each.label, "TableName": each.table}
                        for each in found
                    ]
                }
            case "DescribeStream":
                return self._stream(request.get("StreamArn", "")).describe(request, self.page)
            case "GetShardIterator":
                stream = self._stream(request.get("StreamArn", ""))
                position = stream.position(request)
                return {"ShardIterator": self._iterator(stream, request["ShardId"], position)}
            case "GetRecords":
                return self._records(request)
        raise _Refused("UnknownOperationException")

    def _stream(self, arn: str) -> ScriptedStream:
        for each in self._streams:
            if each.arn == arn:
                return each
        raise _Refused("ResourceNotFoundException")

    def _iterator(self, stream: ScriptedStream, shard: str, position: int) -> str:
        content = json.dumps([stream.arn, shard, position, self._generation])
        return base64.b64encode(content.encode()).decode()

    def _records(self, request: Mapping[str, Any]) -> dict[str, Any]:
        content = base64.b64decode(request.get("ShardIterator", ""))
        arn, name, position, generation = json.loads(content)
        if generation != self._generation:
            raise _Refused("ExpiredIteratorException")
        stream = self._stream(arn)
        shard = stream.shard(name)
        if position < shard.trimmed:
            raise _Refused("TrimmedDataAccessException")
        count = min(int(request.get("Limit") or self.most), self.most)
        found = shard.records[position : position + count]
        answer: dict[str, Any] = {"Records": found}
        end = position + len(found)
        if not shard.is_closed or end < len(shard.records):
            answer["NextShardIterator"] = self._iterator(stream, name, end)
        return answer


def _described(shard: _Shard) -> dict[str, Any]:
    live = [each["dynamodb"]["SequenceNumber"] for each in shard.records[shard.trimmed :]]
    numbers = {"StartingSequenceNumber": live[0] if live else shard.name.split("-")[1]}
    if shard.is_closed:
        numbers["EndingSequenceNumber"] = live[-1] if live else numbers["StartingSequenceNumber"]
    parent = {} if shard.parent is None else {"ParentShardId": shard.parent}
    return {"ShardId": shard.name, "SequenceNumberRange": numbers, **parent}


class _Server(QuietServer):
    streams: StreamServer


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target = self.headers.get("X-Amz-Target", "")
        if target.startswith(_TARGET):
            operation = target.removeprefix(_TARGET)
            status, answer = self.server.streams.answer(operation, json.loads(body or b"{}"))
            self._send(status, json.dumps(answer, default=_as_text).encode(), {})
        else:
            self._send(*self._forward(body))

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""

    def _forward(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        upstream = self.server.streams.upstream
        if upstream is None:
            return 400, b'{"__type":"UnknownOperationException","message":"No engine."}', {}
        connection = http.client.HTTPConnection(
            upstream.hostname or HOST, upstream.port, timeout=60
        )
        try:
            skipped = ("host", "content-length", "connection")
            headers = {n: v for n, v in self.headers.items() if n.lower() not in skipped}
            connection.request("POST", self.path, body, headers)
            answer = connection.getresponse()
            kept = {n: v for n, v in answer.getheaders() if n.lower().startswith(("x-amz", "date"))}
            return answer.status, answer.read(), kept
        finally:
            connection.close()

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response_only(status)
        names = {name.lower() for name in headers}
        if "x-amz-crc32" not in names:
            headers = {**headers, "x-amz-crc32": str(zlib.crc32(body))}
        if "date" not in names:
            headers = {**headers, "Date": self.date_time_string()}
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _as_text(value: Any) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{type(value).__name__} is no value of DynamoDB.")
