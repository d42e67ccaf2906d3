"""The process of the canned server: HTTP/1.1 with connections that are kept open."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import ssl
import sys
import threading
import time
import uuid
import zlib
from email.utils import formatdate
from typing import Any

from ..engine import HOST
from .answers import Answers, Refusal

_BACKLOG = 2048


class _Connection(asyncio.Protocol):
    """Answers the requests of one connection, one after the other."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._received = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            headers = _headers(bytes(self._received[:end]))
            if headers.get(b"expect", b"").lower() == b"100-continue":
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            until = end + 4 + int(headers.get(b"content-length", b"0"))
            if len(self._received) < until:
                return
            body = bytes(self._received[end + 4 : until])
            del self._received[:until]
            self._transport.write(respond(self._answers, headers, body))
            if headers.get(b"connection", b"").lower() == b"close":
                self._transport.close()


def respond(answers: Answers, headers: dict[bytes, bytes], body: bytes) -> bytes:
    """Return the bytes of the answer to one request."""
    operation = headers.get(b"x-amz-target", b"").rpartition(b".")[2].decode("latin-1")
    status = b"200 OK"
    try:
        found = answers.answer(operation, json.loads(body or b"{}"))
    except Refusal as refusal:
        status = b"400 Bad Request"
        found = {
            "__type": f"com.amazonaws.dynamodb.v20120810#{refusal.code}",
            "message": str(refusal),
        }
    except (KeyError, ValueError, TypeError, AttributeError) as exc:
        status = b"400 Bad Request"
        found = {"__type": "com.amazon.coral.validate#ValidationException", "message": repr(exc)}
    text = json.dumps(found, separators=(",", ":")).encode()
    head = (
        f"Server: canned\r\nDate: {formatdate(time.time(), usegmt=True)}\r\n"
        "Content-Type: application/x-amz-json-1.0\r\n"
        f"Content-Length: {len(text)}\r\nConnection: keep-alive\r\n"
        f"x-amzn-RequestId: {uuid.uuid4()}\r\nx-amz-crc32: {zlib.crc32(text)}\r\n\r\n"
    )
    return b"HTTP/1.1 " + status + b"\r\n" + head.encode("latin-1") + text


def _headers(head: bytes) -> dict[bytes, bytes]:
    found = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        # A header that is sent twice is not needed here.
        found[name.strip().lower()] = value.strip()
    return found


async def _serve(context: ssl.SSLContext | None) -> None:
    answers, ended, loop = Answers(), asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    server = await loop.create_server(
        lambda: _Connection(answers), HOST, 0, ssl=context, backlog=_BACKLOG
    )
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await ended.wait()
    server.close()


def _end_with_parent() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serve until SIGTERM, or until the parent ends; the argument is a certificate with its key."""
    context = None
    if len(sys.argv) > 1:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(sys.argv[1])
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asyncio.run(_serve(context))
