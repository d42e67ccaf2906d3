"""
Kept-alive connections to one endpoint, shared by the threads and event loops of a process.

A connection carries one request at a time. After any exception it is closed: bytes that arrive
later would be taken for the answer to another request.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import select
import socket
import ssl
import threading
from _socket import socket as _SystemSocket
from collections import deque
from collections.abc import Callable
from typing import Any

from botocore import exceptions as botocore

from .. import clock
from ..concurrency.effects import Effect, Reading
from ..concurrency.flights import finish
from ..concurrency.own_thread import OwnThread
from .wire import Answer, DamagedAnswerError, Endpoint, Reader

_BUFFER = 64 * 1024


class ClosedError(ConnectionError):
    """The connection ended before the first byte of the answer."""


class _Connected(Effect[None]):
    """A socket is connected. Raises TimeoutError or OSError."""

    __slots__ = ("_address", "_seconds", "_sock")

    def __init__(self, sock: socket.socket, address: Any, seconds: float) -> None:
        self._sock = sock
        self._address = address
        self._seconds = seconds

    def run(self) -> None:
        self._sock.settimeout(self._seconds)
        self._sock.connect(self._address)

    async def arun(self) -> None:
        self._sock.setblocking(False)
        async with asyncio.timeout(self._seconds):
            await asyncio.get_running_loop().sock_connect(self._sock, self._address)


class _Stream:
    """A connected socket that never blocks by itself, and the bytes that arrived last."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray(_BUFFER)
        self.view = memoryview(self.buffer)
        self._poll: Any = None
        sock.setblocking(False)

    def begin(self) -> None:
        """Prepare the socket, which is connected now."""
        self.sock.setblocking(False)
        # Windows has no poll(); sockets of gevent are not the system's, and wait in their own way.
        if hasattr(select, "poll") and isinstance(self.sock, _SystemSocket):
            self._poll = select.poll()
            self._poll.register(self.sock, select.POLLIN)

    @property
    def can_poll(self) -> bool:
        """Whether its thread can wait for several of them at once."""
        return self._poll is not None

    def send_some(self, data: bytes | memoryview) -> bytes | memoryview:
        """Send what can be sent at once; return the rest."""
        try:
            count = self.sock.send(data)
        except BlockingIOError:
            return data
        return b"" if count == len(data) else memoryview(data)[count:]

    def send(self, data: bytes | memoryview, until: float) -> None:
        left = _left(until)
        if rest := self.send_some(data):
            self.sock.settimeout(left)
            try:
                self.sock.sendall(rest)
            finally:
                self.sock.setblocking(False)

    async def asend(self, data: bytes | memoryview, until: float) -> None:
        left = _left(until)
        if rest := self.send_some(data):
            async with asyncio.timeout(left):
                await asyncio.get_running_loop().sock_sendall(self.sock, rest)

    def receive(self, until: float) -> int:
        # An answer that trickles in has the time of one that does not.
        left = _left(until)
        if self._poll is None:
            self.sock.settimeout(left)
            try:
                return self.sock.recv_into(self.buffer)
            finally:
                self.sock.setblocking(False)
        while self._poll.poll(math.ceil(left * 1000)):
            try:
                return self.sock.recv_into(self.buffer)
            except BlockingIOError:
                # It was readable for a moment only.
                left = _left(until)
        raise TimeoutError

    async def areceive(self, until: float) -> int:
        loop, sock = asyncio.get_running_loop(), self.sock
        while True:
            left = _left(until)
            readable: asyncio.Future[None] = loop.create_future()
            try:
                loop.add_reader(sock, finish, readable)
            except NotImplementedError:
                # Windows' loop.
                async with asyncio.timeout(left):
                    return await loop.sock_recv_into(sock, self.buffer)
            timer = loop.call_later(left, finish, readable)
            try:
                await readable
            finally:
                timer.cancel()
                loop.remove_reader(sock)
            with contextlib.suppress(BlockingIOError):
                return sock.recv_into(self.buffer)


class _Sent(Effect[None]):
    """All of ``data`` is sent. Raises TimeoutError or OSError."""

    __slots__ = ("_data", "_stream", "_until")

    def __init__(self, stream: _Stream, data: bytes, until: float) -> None:
        self._stream = stream
        self._data = data
        self._until = until

    def run(self) -> None:
        self._stream.send(self._data, self._until)

    async def arun(self) -> None:
        await self._stream.asend(self._data, self._until)


class _Received(Reading[int]):
    """
    Bytes have arrived in the buffer, after ``request`` was sent: their number, 0 at the end of the
    connection. Raises TimeoutError or OSError.
    """

    __slots__ = ("_request", "_stream", "_until")

    def __init__(self, stream: _Stream, until: float, request: bytes = b"") -> None:
        self._stream = stream
        self._until = until
        # What is not sent yet.
        self._request: bytes | memoryview = request

    def begin(self) -> tuple[int, float] | None:
        stream = self._stream
        if self._request:
            _left(self._until)
            self._request = stream.send_some(self._request)
        # What the system does not take at once is for a thread that may wait.
        if self._request or not stream.can_poll:
            return None
        return stream.sock.fileno(), self._until

    def end(self) -> int:
        return self._stream.sock.recv_into(self._stream.buffer)

    def run(self) -> int:
        if self._request:
            self._stream.send(self._request, self._until)
        return self._stream.receive(self._until)

    async def arun(self) -> int:
        if self._request:
            await self._stream.asend(self._request, self._until)
        return await self._stream.areceive(self._until)


class Link:
    """A connected socket with the state of its TLS and of its answers. It belongs to no loop."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None, host: str) -> None:
        self._stream = _Stream(sock)
        self._reader = Reader()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls: ssl.SSLObject | None = None
        # Whether a byte of the present answer has come, within TLS.
        self._has_begun = False
        if context is not None:
            self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)

    async def connect(self, address: Any, seconds: float) -> None:
        """Connect the socket. A verb. Raises TimeoutError or OSError."""
        sock = self._stream.sock
        await _Connected(sock, address, seconds)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._stream.begin()

    async def start_tls(self, until: float) -> None:
        """Begin TLS. A verb. Raises TimeoutError, OSError or ssl.SSLError."""
        tls = self._tls
        if tls is None:
            return
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                await self._flush(until)
                count = await _Received(self._stream, until)
                if not count:
                    raise ConnectionResetError("The server closed the TLS handshake.") from None
                self._incoming.write(self._stream.view[:count])
        await self._flush(until)

    async def ask(self, request: bytes, until: float) -> Answer:
        """
        Send the request and return the answer. A verb. Raises TimeoutError, ClosedError if no byte
        of it came, or another OSError.
        """
        try:
            if self._tls is not None:
                self._has_begun = False
                self._tls.write(request)
                request = self._outgoing.read()
            count = await _Received(self._stream, until, request)
        except TimeoutError:
            raise
        except OSError as exc:
            raise ClosedError("The connection was closed.") from exc
        if not count:
            raise ClosedError("The connection was closed.")
        while (answer := self._feed(count)) is None:
            count = await _Received(self._stream, until)
            if not count:
                raise ConnectionResetError("The connection was closed within the answer.")
        return answer

    def is_alive(self) -> bool:
        """Return whether the idle connection can be used: it is open, and nothing came unasked."""
        try:
            count = self._stream.sock.recv_into(self._stream.buffer)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not count or self._tls is None:
            return False
        # Messages of TLS itself, such as session tickets, may come at any time.
        self._incoming.write(self._stream.view[:count])
        try:
            self._tls.read(1)
        except ssl.SSLWantReadError:
            return True
        except OSError:
            pass
        return False

    def close(self) -> None:
        """Close the socket."""
        self._stream.sock.close()

    def _feed(self, count: int) -> Answer | None:
        """Return the answer that the received bytes complete, None while it is incomplete."""
        tls = self._tls
        if tls is None:
            return self._reader.feed(self._stream.view[:count])
        self._incoming.write(self._stream.view[:count])
        answer = None
        with contextlib.suppress(ssl.SSLWantReadError):
            while data := tls.read(_BUFFER):
                if answer is not None:
                    raise DamagedAnswerError("There is more than one response.")
                self._has_begun = True
                answer = self._reader.feed(data)
            # The server ended TLS, which it may do right after the answer, also after the last one.
            if not self._has_begun:
                raise ClosedError("The server ended TLS.")
            if answer is None:
                raise ConnectionResetError("The server ended TLS within the answer.")
            return answer._replace(keeps_connection=False)
        return answer

    async def _flush(self, until: float) -> None:
        if self._outgoing.pending:
            await _Sent(self._stream, self._outgoing.read(), until)


class Pool:
    """
    The connections to one endpoint. The one used last is used first; ``keep`` stay idle.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        connect_timeout: float,
        keep: int,
        make_context: Callable[[], ssl.SSLContext],
    ) -> None:
        self.endpoint = endpoint
        self._connect_timeout = connect_timeout
        self._keep = keep
        self._make_context = make_context
        self._idle: deque[Link] = deque()
        self._lookup: OwnThread[list[Any]] | None = None
        # A signal handler may connect while its thread has it.
        self._lookup_lock = threading.RLock()

    async def send(self, request: bytes, until: float, may_repeat: bool) -> Answer:
        """
        Return the answer. A verb. Raises botocore's errors of connections, ReadTimeoutError at
        ``until``.

        If a kept connection turns out to be closed before the answer begins, a request that
        ``may_repeat`` is sent again on another one.
        """
        idle = self._idle
        while True:
            kept = _take(idle)
            link = kept or await self._connect(until)
            try:
                answer = await link.ask(request, until)
            except BaseException as exc:
                link.close()
                if isinstance(exc, ClosedError) and kept is not None and may_repeat:
                    continue
                if isinstance(exc, TimeoutError):
                    raise self._error(botocore.ReadTimeoutError, exc) from exc
                if isinstance(exc, OSError):
                    raise self._error(botocore.ConnectionClosedError, exc) from exc
                raise
            if answer.keeps_connection and idle is self._idle:
                self._keep_open(link)
            else:
                link.close()
            return answer

    def close(self) -> None:
        """Close the idle connections. Those in use are closed after their request."""
        idle, self._idle = self._idle, deque()
        with contextlib.suppress(IndexError):
            while True:
                idle.pop().close()

    def _keep_open(self, link: Link) -> None:
        idle = self._idle
        idle.append(link)
        if len(idle) > self._keep:
            with contextlib.suppress(IndexError):
                idle.popleft().close()

    async def _connect(self, until: float) -> Link:
        until = min(until, clock.monotonic() + self._connect_timeout)
        try:
            return await self._open(await self._addresses(until), until)
        except TimeoutError as exc:
            raise self._error(botocore.ConnectTimeoutError, exc) from exc
        except ssl.SSLError as exc:
            raise self._error(botocore.SSLError, exc) from exc
        except OSError as exc:
            raise self._error(botocore.EndpointConnectionError, exc) from exc

    async def _addresses(self, until: float) -> list[Any]:
        """Look up the addresses of the host until then. A verb. Raises TimeoutError or OSError."""
        host, port = self.endpoint.host, self.endpoint.port
        if found := _numeric(host, port):
            return found
        before = self._lookup
        with self._lookup_lock:
            lookup = self._lookup
            # One that another thread began meanwhile is new enough, also if it is done.
            if lookup is None or (lookup is before and lookup.is_done):
                # The system's look-up cannot be ended: one that hangs must not take a thread for
                # each connection.
                lookup = OwnThread(functools.partial(_look_up, host, port), "lookup")
                self._lookup = lookup
        return list(await lookup.result(until))

    async def _open(self, addresses: list[Any], until: float) -> Link:
        error: OSError = OSError("The name has no address.")
        while addresses:
            family, kind, protocol, _, address = addresses.pop(0)
            # An address that does not answer, or not in TLS, leaves time for the others.
            share = _left(until) / (len(addresses) + 1)
            share_ends_at = clock.monotonic() + share
            context = self._make_context() if self.endpoint.is_tls else None
            link = None
            try:
                # The system may have no sockets of this family.
                sock = _closing(socket.socket)(family, kind, protocol)
                link = Link(sock, context, self.endpoint.host)
                await link.connect(address, share)
                await link.start_tls(share_ends_at)
            except OSError as exc:
                if link is not None:
                    link.close()
                error = exc
                if isinstance(exc, ssl.SSLError):
                    break
            else:
                return link
        raise error

    def _error(self, kind: Any, error: BaseException) -> Exception:
        made: Exception = kind(endpoint_url=self.endpoint.url, error=error)
        return made


@functools.cache
def _closing(base: type[socket.socket]) -> type[socket.socket]:
    """Return a class of sockets that close without a warning when nothing refers to them."""

    # Pools are dropped when settings change and after a fork, and an exception from outside may
    # come before any caller can close a connection. It cannot come within the system's close().
    if issubclass(base, _SystemSocket):
        return type("Socket", (base,), {"__del__": _SystemSocket.close})

    class Socket(base):  # type: ignore[misc, valid-type]
        def __del__(self) -> None:
            with contextlib.suppress(AttributeError):
                self.close()

    return Socket


def _take(idle: deque[Link]) -> Link | None:
    while True:
        try:
            link = idle.pop()
        except IndexError:
            return None
        if link.is_alive():
            return link
        link.close()


def _left(until: float) -> float:
    left = until - clock.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _numeric(host: str, port: int) -> list[Any]:
    """Return the addresses if the host is an address and not a name, else none."""
    with contextlib.suppress(OSError, UnicodeError):
        # For a name as text Python imports its codec of international names, which takes longer
        # than the first request. An address needs none.
        address, flags = host.encode("ascii"), socket.AI_NUMERICHOST
        return socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=flags)
    return []


def _look_up(host: str, port: int) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as exc:
        raise OSError(f"The name of the host is not valid: {exc}.") from exc
