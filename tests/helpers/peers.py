"""HTTP servers of tests, whose every byte the test decides."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import struct
import threading
import zlib

import pytest

from dynamo_stores.testing.canned import write_certificate


def response(body=b"{}", status=200, **headers):
    """Return the bytes of an HTTP answer with a checksum."""
    fields = {"Content-Length": len(body), "x-amz-crc32": zlib.crc32(body)} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode() + body


def item_response(text):
    """Return the answer to GetItem with one attribute."""
    return response(json.dumps({"Item": {"k": {"S": text}}}).encode())


class Peer:
    """
    A server that calls ``serve(peer, connection, number)`` in a thread for each connection.

    ``connections`` counts them; ``heads`` and ``requests`` have the heads and bodies of the
    requests.
    """

    def __init__(self, serve, context=None):
        self._serve = serve
        self._context = context
        self.connections = 0
        self.heads = []
        self.requests = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self.ended = threading.Event()

    def __enter__(self):
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info):
        self.ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _accept(self):
        while True:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            thread = threading.Thread(
                target=self._run, args=(plain, self.connections - 1), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _run(self, plain, number):
        with plain:
            plain.settimeout(60)
            connection = plain
            # A client may leave in the middle.
            with contextlib.suppress(OSError):
                if self._context is not None:
                    connection = self._context.wrap_socket(plain, server_side=True)
                with connection:
                    self._serve(self, connection, number)

    def receive(self, connection):
        """Return the body of the next request; raises ConnectionError at the end."""
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65536)
            if not piece:
                raise ConnectionResetError
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        (length,) = [
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length:")
        ]
        while len(body) < length:
            body += connection.recv(65536)
        self.heads.append(head)
        self.requests.append(body)
        return body


def answering(*answers):
    """Return a ``serve`` with one answer after the other, the last one for ever."""
    left = list(answers)

    def serve(peer, connection, number):
        while True:
            peer.receive(connection)
            connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    return serve


def reset(connection):
    """Close with a RST instead of a FIN."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def make_certificate(path, *, of="127.0.0.1"):
    """Write a certificate with its key for an address, valid today; return the server's context."""
    pytest.importorskip("cryptography")
    write_certificate(path.with_suffix(".crt"), path, of)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context
