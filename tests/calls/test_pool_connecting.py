"""Connecting of the lean transport: names and their addresses, TLS, and ends of both."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore import exceptions as botocore

from dynamo_stores.calls import pool as pools
from dynamo_stores.calls.pool import Pool
from dynamo_stores.concurrency.effects import arun
from dynamo_stores.concurrency.own_thread import OwnThread
from tests.calls.conftest import REQUEST, send
from tests.helpers.peers import Peer, answering, make_certificate, response


def test_connecting_ends_with_the_request(make_pool):
    """Or with CONNECT_TIMEOUT, if that is earlier."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        held = []
        for _ in range(4):
            held.append(socket.socket())
            held[-1].setblocking(False)
            held[-1].connect_ex(full.getsockname())
        for pool, seconds in (
            (make_pool(url), 0.2),
            (make_pool(url, connect_timeout=0.2), 600),
        ):
            with pytest.raises(botocore.ConnectTimeoutError):
                send(pool, seconds=seconds)
        for each in held:
            each.close()


def test_a_server_that_is_not_there(make_pool):
    """The error names the endpoint."""
    with socket.create_server(("127.0.0.1", 0)) as gone:
        url = f"http://127.0.0.1:{gone.getsockname()[1]}"
    with pytest.raises(botocore.EndpointConnectionError, match=url):
        send(make_pool(url))


def test_a_certificate_of_another_name_is_refused(tmp_path, make_pool):
    """And so is one that the CA bundle does not know."""
    path = tmp_path / "other.pem"
    server = make_certificate(path, of="127.0.0.2")
    for client in (ssl.create_default_context(cafile=path), ssl.create_default_context()):
        with Peer(answering(response()), server) as peer:
            with pytest.raises(botocore.SSLError, match="CERTIFICATE_VERIFY_FAILED"):
                send(make_pool(peer.url, client))
            assert not peer.requests


def test_an_answer_with_the_end_of_tls_is_an_answer(tmp_path, make_pool):
    """The connection is not used again."""
    path = tmp_path / "server.pem"
    server, client = make_certificate(path), ssl.create_default_context(cafile=path)

    def serve(peer, connection, number):
        peer.receive(connection)
        connection.sendall(response(b"%d" % number))
        # TCP stays open until the client closes it.
        connection.unwrap()

    with Peer(serve, server) as peer:
        pool = make_pool(peer.url, client)
        # The end may arrive after the next request, which is repeated then.
        assert [send(pool, may_repeat=True) for _ in range(3)] == [b"0", b"1", b"2"]


def test_the_end_of_tls_before_an_answer_repeats_the_request(tmp_path, make_pool):
    """If it may be repeated: as the end of the connection itself does."""
    path = tmp_path / "server.pem"
    server, client = make_certificate(path), ssl.create_default_context(cafile=path)

    def serve(peer, connection, number):
        peer.receive(connection)
        connection.sendall(response(b"%d" % number))
        peer.receive(connection)
        connection.unwrap()

    with Peer(serve, server) as peer:
        pool = make_pool(peer.url, client)
        assert [send(pool, may_repeat=True) for _ in range(3)] == [b"0", b"1", b"2"]
        with pytest.raises(botocore.ConnectionClosedError):
            send(pool)


def test_a_name_whose_lookup_hangs_ends_in_time(make_pool, monkeypatch):
    """The rest of the process goes on."""
    go = threading.Event()
    getaddrinfo = socket.getaddrinfo

    def hang(host, *args, **kwargs):
        if host == "hangs.example" and not kwargs.get("flags"):
            go.wait(60)
            raise socket.gaierror("no such name")
        return getaddrinfo(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    pool = make_pool("http://hangs.example")
    with pytest.raises(botocore.ConnectTimeoutError):
        send(pool, seconds=0.1)
    go.set()
    with pytest.raises(botocore.EndpointConnectionError, match=r"hangs\.example"):
        send(pool)


@pytest.fixture
def hanging(monkeypatch):
    """Let the look-up of ``hangs.example`` hang until ``go`` is set; ``count`` of them began."""

    class Hanging:
        count = 0
        go = threading.Event()

    getaddrinfo = socket.getaddrinfo

    def look_up(host, *args, **kwargs):
        if host != "hangs.example" or kwargs.get("flags"):
            return getaddrinfo(host, *args, **kwargs)
        Hanging.count += 1
        Hanging.go.wait(60)
        return getaddrinfo("127.0.0.1", *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield Hanging
    Hanging.go.set()


def test_connections_wait_for_one_lookup_of_their_name(make_pool, hanging):
    """A name server that hangs takes one thread. A later connection looks it up anew."""
    with Peer(answering(response(b"here"))) as peer:
        pool = make_pool(peer.url.replace("127.0.0.1", "hangs.example"))

        async def send_all():
            until = time.monotonic() + 60
            tasks = [
                asyncio.ensure_future(arun(pool.send(REQUEST, until, False))) for _ in range(20)
            ]
            # Each goes on until it waits.
            await asyncio.sleep(0)
            hanging.go.set()
            return [answer.body for answer in await asyncio.gather(*tasks)]

        assert asyncio.run(send_all()) == [b"here"] * 20
        pool.close()
        assert hanging.count == 1
        assert send(pool) == b"here"
        assert hanging.count == 2
        pool.close()


def test_threads_wait_for_one_lookup_of_their_name(make_pool, hanging, monkeypatch):
    """Also those that connect while its thread starts."""
    lookups = []

    class Slow(OwnThread):
        def __init__(self, *args):
            time.sleep(0.05)
            super().__init__(*args)
            lookups.append(self)

    monkeypatch.setattr(pools, "OwnThread", Slow)
    with (
        Peer(answering(response(b"here"))) as peer,
        ThreadPoolExecutor(20) as threads,
    ):
        pool = make_pool(peer.url.replace("127.0.0.1", "hangs.example"))
        answers = [threads.submit(send, pool) for _ in range(20)]
        deadline = time.monotonic() + 30
        while sum(len(each._gates) for each in lookups) < 20 and time.monotonic() < deadline:
            time.sleep(0.001)
        hanging.go.set()
        assert [each.result() for each in answers] == [b"here"] * 20
        pool.close()
    assert hanging.count == 1


@pytest.mark.parametrize("host", ["no..name", "x" * 64 + ".example"])
def test_a_name_that_is_not_valid(make_pool, host):
    """An error of the endpoint, as for a name that does not exist."""
    with pytest.raises(botocore.EndpointConnectionError):
        send(make_pool(f"http://{host}"))


def test_a_name_is_looked_up_where_no_thread_can_start(make_pool, monkeypatch):
    """As while the interpreter shuts down."""

    def start(thread):
        raise RuntimeError("can't start new thread")

    with Peer(answering(response(b"here"))) as peer:
        monkeypatch.setattr(threading.Thread, "start", start)
        with pytest.raises(botocore.EndpointConnectionError):
            send(make_pool("http://no-such-name.invalid"), seconds=30)
        monkeypatch.undo()
        pool = make_pool(peer.url.replace("127.0.0.1", "localhost"))
        assert send(pool) == b"here"
        pool.close()


@pytest.fixture
def resolve(monkeypatch):
    """``resolve(*addresses)``: what the look-up of any name finds."""

    def make(*addresses):
        async def look_up(*args):
            return [(socket.AF_INET, socket.SOCK_STREAM, *each) for each in addresses]

        monkeypatch.setattr(Pool, "_addresses", look_up)

    return make


def test_a_dead_address_leaves_time_for_the_others(make_pool, resolve):
    """Of a name with several."""
    with Peer(answering(response(b"here"))) as peer:
        port = int(peer.url.rpartition(":")[2])
        resolve((6, "", ("192.0.2.1", port)), (6, "", ("127.0.0.1", port)))
        pool = make_pool(peer.url)
        assert send(pool, seconds=4) == b"here"
        pool.close()


def test_an_address_that_does_not_answer_in_tls_leaves_time_for_the_others(
    tmp_path, make_pool, resolve
):
    """It accepts connections, and sends nothing."""
    path = tmp_path / "server.pem"
    server, client = make_certificate(path), ssl.create_default_context(cafile=path)
    with (
        Peer(answering(response(b"here")), server) as peer,
        socket.create_server(("127.0.0.1", 0)) as silent,
    ):
        port = int(peer.url.rpartition(":")[2])
        resolve((6, "", silent.getsockname()), (6, "", ("127.0.0.1", port)))
        pool = make_pool(peer.url, client)
        assert send(pool, seconds=4) == b"here"
        pool.close()


def test_an_address_without_a_socket_is_left_out(make_pool, resolve):
    """As one of IPv6 where the system has none; the others are tried."""
    with Peer(answering(response(b"here"))) as peer:
        port = int(peer.url.rpartition(":")[2])
        # No system has this socket.
        impossible = (socket.IPPROTO_UDP, "", ("127.0.0.1", port))
        resolve(impossible, (6, "", ("127.0.0.1", port)))
        pool = make_pool(peer.url)
        assert send(pool) == b"here"
        pool.close()
        resolve(impossible)
        with pytest.raises(botocore.EndpointConnectionError):
            send(make_pool(peer.url))
