"""Faults by name, over a real socket: a small HTTP relay before an engine on loopback."""

from __future__ import annotations

import functools
import http.client
import json
import socket
import struct
import threading
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

from botocore.session import get_session

from ..conf.rules import WHOLE_POSITIVE, suggestion
from .engine import HOST
from .lag import LaggingReplica, TurnTimeoutError, region_of
from .server import QuietServer

_BATCHES = ("BatchGetItem", "BatchWriteItem")

# The action of a fault on a request; returns True if no answer of the engine is to be sent.
Act = Callable[["_Handler", bytes], bool]


@dataclass
class _Fault:
    operation: str
    times: int | None
    act: Act


class FaultProxy:
    """
    An HTTP relay before an engine that injects faults and the lag of replicas.

    ``url`` is the endpoint to use instead of ``upstream``, an ``http`` URL. ``operation`` is an
    operation of DynamoDB or its streams, or ``"*"``; ``times`` is the number of requests with the
    fault, None for all until ``clear``. ``requests`` counts the received requests by operation.
    Raises ValueError for another URL, operation or number.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = urlsplit(upstream)
        # urlsplit() raises ValueError for a port that is no number.
        if self.upstream.scheme != "http" or not self.upstream.hostname or self.upstream.port == 0:
            raise ValueError(
                f"{upstream!r} is not the http URL of an engine; expected one such as "
                "'http://127.0.0.1:8400'."
            )
        self.requests: Counter[str] = Counter()
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self._faults: list[_Fault] = []
        self._replica: LaggingReplica | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = _Server((HOST, 0), _Handler)
        self._server.faults = self
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        """The value for ``ENDPOINT_URL``."""
        return f"http://{HOST}:{self._server.server_address[1]}"

    def start(self) -> Self:
        """Start to listen."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop to listen, and end every request that hangs."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._replica is not None:
            self._replica.stop()

    def lag(self, seconds: float) -> None:
        """
        Answer reads without ``ConsistentRead`` with the items as they were ``seconds`` ago, as
        DynamoDB may do, until the relay stops. Indexes are always read so. Takes a second to start.
        """
        self._replica = LaggingReplica(self.upstream.geturl(), seconds).start()

    def clear(self) -> None:
        """Remove all faults and reset the counts."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()
            self.bodies.clear()

    def throttle(
        self,
        operation: str = "*",
        times: int | None = None,
        *,
        reason: str = "",
        resource: str = "",
        code: str = "ProvisionedThroughputExceededException",
    ) -> None:
        """Throttle with ``code``, with ``reason`` and the ARN ``resource`` if given."""
        key = "throttlingReasons" if code == "ThrottlingException" else "ThrottlingReasons"
        body = {"message": "Throttled by a test."}
        reasons = {key: [{"reason": reason, "resource": resource}]} if reason else {}
        self.fail(operation, times, status=400, code=code, body={**body, **reasons})

    def fail(
        self,
        operation: str = "*",
        times: int | None = None,
        *,
        status: int = 500,
        code: str = "InternalServerError",
        body: dict[str, Any] | None = None,
    ) -> None:
        """Answer with an error of DynamoDB, without forwarding the request."""
        answer = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", **(body or {})}

        def act(handler: _Handler, request: bytes) -> bool:
            handler.answer(status, json.dumps(answer).encode())
            return True

        self._add(operation, times, act)

    def delay(self, seconds: float, operation: str = "*", times: int | None = None) -> None:
        """Wait ``seconds`` before forwarding the request."""

        def act(handler: _Handler, request: bytes) -> bool:
            self._closing.wait(seconds)
            return False

        self._add(operation, times, act)

    def hang(self, operation: str = "*", times: int | None = None) -> None:
        """Accept the request and never answer."""

        def act(handler: _Handler, request: bytes) -> bool:
            self._closing.wait(120)
            handler.close_connection = True
            return True

        self._add(operation, times, act)

    def lose_answer(self, operation: str = "*", times: int | None = None) -> None:
        """Forward the request, and reset the connection instead of answering."""

        def act(handler: _Handler, request: bytes) -> bool:
            handler.forward(request)
            handler.reset()
            return True

        self._add(operation, times, act)

    def reset(self, operation: str = "*", times: int | None = None) -> None:
        """Reset the connection in the middle of the answer."""

        def act(handler: _Handler, request: bytes) -> bool:
            status, headers, body = handler.forward(request)
            handler.answer(status, body, headers, upto=len(body) // 2)
            handler.reset()
            return True

        self._add(operation, times, act)

    def cut(self, operation: str = "*", times: int | None = None) -> None:
        """Answer with half of the body, as if it were all of it."""

        def act(handler: _Handler, request: bytes) -> bool:
            status, headers, body = handler.forward(request)
            kept = {name: value for name, value in headers.items() if "crc32" not in name}
            handler.answer(status, body[: len(body) // 2], kept)
            return True

        self._add(operation, times, act)

    def take_in_part(self, operation: str, items: int, times: int | None = None) -> None:
        """Forward the first ``items`` items of a batch and return the rest as unprocessed."""
        if operation not in _BATCHES:
            raise ValueError(
                f"{operation!r} is not an operation with a batch{suggestion(operation, _BATCHES)}"
            )

        def act(handler: _Handler, request: bytes) -> bool:
            wanted = json.loads(request)
            (table, content), *_ = wanted["RequestItems"].items()
            if operation == "BatchGetItem":
                taken = {**content, "Keys": content["Keys"][:items]}
                left = {**content, "Keys": content["Keys"][items:]}
                is_left, name = bool(left["Keys"]), "UnprocessedKeys"
            else:
                taken, left = content[:items], content[items:]
                is_left, name = bool(left), "UnprocessedItems"
            answer: dict[str, Any] = {"Responses": {table: []}} if "Keys" in taken else {}
            if items:
                part = {**wanted, "RequestItems": {table: taken}}
                _, _, body = handler.forward(json.dumps(part).encode())
                answer = json.loads(body)
            answer[name] = {table: left} if is_left else {}
            handler.answer(200, json.dumps(answer).encode())
            return True

        self._add(operation, times, act)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _add(self, operation: str, times: int | None, act: Act) -> None:
        if operation != "*" and operation not in _operations():
            raise ValueError(
                f"{operation!r} is not an operation of DynamoDB"
                f"{suggestion(operation, sorted(_operations()))}"
            )
        if times is not None and not WHOLE_POSITIVE.accepts(times):
            raise ValueError(
                f"times is {times!r}; expected the number of requests, 1 or more, or None for all."
            )
        with self._lock:
            self._faults.append(_Fault(operation, times, act))

    def _next(self, operation: str, request: bytes) -> Act | None:
        with self._lock:
            self.requests[operation] += 1
            self.bodies.append((operation, json.loads(request or b"{}")))
            for fault in self._faults:
                if fault.operation in ("*", operation) and fault.times != 0:
                    if fault.times is not None:
                        fault.times -= 1
                    return fault.act
        return None


@functools.cache
def _operations() -> frozenset[str]:
    loader = get_session().get_component("data_loader")
    found: set[str] = set()
    for service in ("dynamodb", "dynamodbstreams"):
        # Not load_service_model(), which first lists the folders of all services.
        version = loader.determine_latest_version(service, "service-2")
        found.update(loader.load_data(f"{service}/{version}/service-2")["operations"])
    return frozenset(found)


class _Server(QuietServer):
    faults: FaultProxy


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        act = self.server.faults._next(operation, request)
        if act is None or not act(self, request):
            status, headers, body = self.forward(request)
            self.answer(status, body, headers)

    def forward(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Forward the request and return the engine's answer."""
        upstream, replica = self.server.faults.upstream, self.server.faults._replica
        if replica is None:
            return self._forward(request, upstream)
        operation = self.headers.get("X-Amz-Target", "").rpartition(".")[2]
        body = json.loads(request or b"{}")
        region = region_of(self.headers.get("Authorization", ""))
        if replica.serves(region, operation, body):
            return self._forward(request, urlsplit(replica.url))
        try:
            with replica.writing(region, operation, body):
                return self._forward(request, upstream)
        except TurnTimeoutError:
            self.reset()
            raise

    def _forward(self, request: bytes, upstream: SplitResult) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(
            upstream.hostname or HOST, upstream.port, timeout=60
        )
        try:
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in ("host", "content-length", "connection")
            }
            connection.request("POST", self.path, request, headers)
            answer = connection.getresponse()
            kept = {n: v for n, v in answer.getheaders() if n.lower().startswith(("x-amz", "date"))}
            return answer.status, kept, answer.read()
        except OSError:
            # Without an answer of the engine the relay does not answer either.
            self.reset()
            raise
        finally:
            connection.close()

    def answer(
        self,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
        upto: int | None = None,
    ) -> None:
        """Answer, with only the first ``upto`` bytes of the announced body."""
        self.send_response_only(status)
        own = {"x-amz-crc32": str(zlib.crc32(body)), "Date": self.date_time_string()}
        for name, value in (headers or own).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/x-amz-json-1.0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body if upto is None else body[:upto])
        self.wfile.flush()

    def reset(self) -> None:
        """Close with a TCP reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()
