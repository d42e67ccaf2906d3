"""Connections of the lean transport, against servers that do everything that servers do."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import select
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from asgiref.sync import async_to_sync
from botocore import exceptions as botocore

from dynamo_stores.calls import pool as pools
from dynamo_stores.calls.pool import Link, Pool
from dynamo_stores.calls.wire import Endpoint, decode
from dynamo_stores.concurrency.effects import arun, run
from tests.calls.conftest import REQUEST, send
from tests.helpers.peers import Peer, answering, item_response, make_certificate, reset, response


@pytest.fixture(params=["plain", "TLS"])
def contexts(request, tmp_path):
    """The TLS contexts of server and client, or None."""
    if request.param == "plain":
        return None, None
    path = tmp_path / "server.pem"
    return make_certificate(path), ssl.create_default_context(cafile=path)


def open_files():
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


def test_one_connection_serves_one_request_after_the_other(contexts, make_pool):
    """It is kept, with TLS too, whose server sends session tickets at any time."""
    server, client = contexts
    with Peer(answering(response(b"1"), response(b"2")), server) as peer:
        pool = make_pool(peer.url, client)
        assert [send(pool) for _ in range(20)] == [b"1"] + [b"2"] * 19
        assert peer.connections == 1
        pool.close()


@pytest.mark.parametrize("size", [1, 65_536, 3_000_000])
def test_large_requests_and_answers(contexts, make_pool, size):
    """In as many pieces as they need."""
    server, client = contexts
    body = random.Random(size).randbytes(size)
    with Peer(answering(response(body)), server) as peer:
        pool = make_pool(peer.url, client)
        request = REQUEST.replace(b"2\r\n\r\n{}", b"%d\r\n\r\n%b" % (size, body))
        for _ in range(3):
            assert send(pool, request=request) == body
        assert peer.requests == [body] * 3
        pool.close()


@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_kept_connection_that_was_closed_is_not_used(make_pool, end):
    """A write is sent once, on a new one."""

    def serve(peer, connection, number):
        peer.receive(connection)
        connection.sendall(response(b"%d" % number))
        end(connection)

    with Peer(serve) as peer:
        pool = make_pool(peer.url)
        for number in range(3):
            assert send(pool) == b"%d" % number
            deadline = time.monotonic() + 30
            while pool._idle and pool._idle[0].is_alive() and time.monotonic() < deadline:
                time.sleep(0.001)
        assert len(peer.requests) == 3


@pytest.mark.parametrize("end", [socket.socket.close, reset])
def test_a_connection_that_ends_before_the_answer(contexts, make_pool, end):
    """A read is sent again if the connection was a kept one; a write is an error."""
    server, client = contexts

    def serve(peer, connection, number):
        for _ in range(2 - number % 2):
            peer.receive(connection)
            connection.sendall(response(b"whole"))
        peer.receive(connection)
        end(connection)

    with Peer(serve, server) as peer:
        pool = make_pool(peer.url, client)
        assert [send(pool), send(pool)] == [b"whole"] * 2
        # The third request of the first connection, then the first one of the second.
        assert send(pool, may_repeat=True) == b"whole"
        assert (peer.connections, len(peer.requests)) == (2, 4)
        with pytest.raises(botocore.ConnectionClosedError):
            send(pool)
        assert (peer.connections, len(peer.requests)) == (2, 5)


def test_a_new_connection_that_ends_is_an_error_for_reads_too(make_pool):
    """Otherwise a server that closes every connection would be asked for ever."""

    def serve(peer, connection, number):
        peer.receive(connection)

    with Peer(serve) as peer:
        pool = make_pool(peer.url)
        with pytest.raises(botocore.ConnectionClosedError):
            send(pool, may_repeat=True)
        assert peer.connections == 1


BROKEN = [
    b"220 mail.example ESMTP\r\n",
    response(b"old") + b"HTTP/1.1 200 OK\r\n",
    response(b"old") + response(b"older"),
    response(b"old", Content_Length="3, 4"),
    response(b"old", Transfer_Encoding="chunked"),
    b"HTTP/1.1 200 OK\r\n\r\nold",
    b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nold",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nold\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2,
    b"",
]


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_answer_is_an_error_and_the_next_one_is_right(make_pool, broken):
    """No byte of the first one is taken for the second."""

    def serve(peer, connection, number):
        peer.receive(connection)
        connection.sendall(response(b"new") if number else broken)
        if number:
            peer.receive(connection)

    with Peer(serve) as peer:
        pool = make_pool(peer.url)
        with pytest.raises((botocore.ConnectionClosedError, botocore.ReadTimeoutError)):
            send(pool, seconds=5)
        assert send(pool) == b"new"
        pool.close()


def test_a_late_answer_is_nobodys(make_pool):
    """The connection of a request that ran out of time is closed."""
    go = threading.Event()

    def serve(peer, connection, number):
        peer.receive(connection)
        if not number:
            go.wait(60)
        connection.sendall(response(b"%d" % number))
        peer.receive(connection)

    with Peer(serve) as peer:
        pool = make_pool(peer.url)
        with pytest.raises(botocore.ReadTimeoutError):
            send(pool, seconds=0.05)
        go.set()
        assert send(pool) == b"1"
        pool.close()


def test_an_answer_that_trickles_has_the_time_of_others(contexts, make_pool, monkeypatch):
    """Each wait is for what is left, in the handshake and in the answer."""
    server, client = contexts
    waits = []

    class Recording:
        def __init__(self):
            self._poll = poll()
            self.register = self._poll.register

        def poll(self, milliseconds):
            waits.append((milliseconds / 1000, time.monotonic()))
            return self._poll.poll(milliseconds)

    poll = select.poll

    def serve(peer, connection, number):
        peer.receive(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while not peer.ended.wait(0.01):
            connection.sendall(b"y")

    with Peer(serve, server) as peer:
        pool = make_pool(peer.url, client)
        monkeypatch.setattr(pools.select, "poll", Recording)
        until = time.monotonic() + 1.5
        with pytest.raises(botocore.ReadTimeoutError):
            run(pool.send(REQUEST, until, True))
        assert len(waits) > 10
        assert all(seconds <= until - at + 0.1 for seconds, at in waits)


def test_closing_ends_the_connections_in_use_after_their_request(make_pool):
    """None of them is kept."""
    begun, go = threading.Event(), threading.Event()

    def serve(peer, connection, number):
        peer.receive(connection)
        begun.set()
        go.wait(60)
        connection.sendall(response(b"%d" % number))
        peer.receive(connection)

    with Peer(serve) as peer, ThreadPoolExecutor(1) as threads:
        pool = make_pool(peer.url)
        early = threads.submit(send, pool)
        assert begun.wait(60)
        pool.close()
        go.set()
        assert early.result(60) == b"0"
        assert not pool._idle
        assert send(pool) == b"1"
        pool.close()


def test_a_pool_that_is_dropped_closes_its_connections(make_pool):
    """Settings changed, or the process forked: nothing else refers to them."""
    with Peer(answering(response())) as peer:
        before = open_files()
        pool = Pool(
            Endpoint(peer.url, "r", "a"), connect_timeout=5, keep=5, make_context=lambda: None
        )
        send(pool)
        del pool
        gc.collect()
    assert open_files() <= before


def test_no_more_idle_connections_are_kept_than_configured(make_pool):
    """Those of a burst are closed after it."""
    barrier = threading.Barrier(8)

    def serve(peer, connection, number):
        peer.receive(connection)
        barrier.wait(60)
        connection.sendall(response())
        peer.receive(connection)

    with Peer(serve) as peer, ThreadPoolExecutor(8) as threads:
        pool = make_pool(peer.url, keep=3)
        assert list(threads.map(lambda _: send(pool), range(8))) == [b"{}"] * 8
        assert len(pool._idle) == 3
        pool.close()


def test_threads_with_short_deadlines_get_their_own_answers(make_pool):
    """Each answer repeats its request, and many requests run out of time."""

    def serve(peer, connection, number):
        chance = random.Random(number)
        while True:
            body = peer.receive(connection)
            if chance.random() < 0.1:
                time.sleep(0.03)
            connection.sendall(item_response(body.decode()))
            if chance.random() < 0.02:
                return

    with Peer(serve) as peer:
        pool = make_pool(peer.url)
        before = open_files()
        late = []

        def ask(number):
            for count in range(150):
                text = f"{number}-{count}"
                request = REQUEST.replace(b"2\r\n\r\n{}", f"{len(text)}\r\n\r\n{text}".encode())
                try:
                    answer = run(pool.send(request, time.monotonic() + 0.02, True))
                except (botocore.ReadTimeoutError, botocore.ConnectTimeoutError):
                    late.append(text)
                except botocore.ConnectionClosedError:
                    pass
                else:
                    assert decode("GetItem", answer)["Item"]["k"]["S"] == text

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(ask, range(8)))
        assert late
        pool.close()
        assert open_files() <= before + peer.connections


def test_unasked_bytes_are_no_answer(contexts, make_pool):
    """Neither a whole one nor a part of one that came before the request."""
    server, client = contexts
    received, sent = threading.Event(), threading.Event()

    def serve(peer, connection, number):
        peer.receive(connection)
        connection.sendall(response(b"%d" % number))
        received.wait(60)
        received.clear()
        connection.sendall([b"HTTP/1.1 200 OK\r\nX: ", response(b"unasked"), b""][number])
        sent.set()
        peer.ended.wait(60)

    with Peer(serve, server) as peer:
        pool = make_pool(peer.url, client)
        for number in range(3):
            assert send(pool) == b"%d" % number
            received.set()
            assert sent.wait(60)
            sent.clear()
            time.sleep(0.05)
        pool.close()


def test_an_idle_connection_with_unasked_bytes_is_not_used():
    """They would be the answer to the next request."""
    ours, theirs = socket.socketpair()
    link = Link(ours, None, "x")
    assert link.is_alive()
    theirs.sendall(response(b"stray"))
    assert not link.is_alive()
    link.close()
    theirs.close()


async def asend(pool, *, seconds=60.0, may_repeat=False, request=REQUEST):
    """The same as ``send`` on an event loop."""
    return (await arun(pool.send(request, time.monotonic() + seconds, may_repeat))).body


def test_threads_and_event_loops_share_a_connection(contexts, make_pool):
    """Also the loops that end after one call."""
    server, client = contexts
    with Peer(answering(response(b"here")), server) as peer:
        pool = make_pool(peer.url, client)
        for _ in range(20):
            assert send(pool) == b"here"
            assert asyncio.run(asend(pool)) == b"here"
            assert async_to_sync(asend)(pool) == b"here"
        assert peer.connections == 1
        pool.close()


def test_tasks_send_side_by_side(contexts, make_pool):
    """Each gets its own answer, with large ones among them."""
    server, client = contexts

    def serve(peer, connection, number):
        while True:
            size = int(peer.receive(connection))
            time.sleep(0.01)
            connection.sendall(response(b"%d" % size + b"x" * size))

    async def ask(pool, size):
        body = b"%d" % size
        request = REQUEST.replace(b"2\r\n\r\n{}", b"%d\r\n\r\n%b" % (len(body), body))
        return await asend(pool, request=request)

    async def work(pool):
        sizes = [10**6 if number % 20 == 0 else number for number in range(60)]
        found = await asyncio.gather(*(ask(pool, size) for size in sizes))
        assert found == [b"%d" % size + b"x" * size for size in sizes]

    with Peer(serve, server) as peer:
        pool = make_pool(peer.url, client, keep=5)
        asyncio.run(work(pool))
        assert len(pool._idle) <= 5
        pool.close()


def test_a_cancelled_task_closes_its_connection(contexts, make_pool):
    """Whenever it is cancelled; the number of open files stays."""
    server, client = contexts

    def serve(peer, connection, number):
        while peer.receive(connection):
            time.sleep(random.uniform(0, 0.004))
            connection.sendall(response(b"here"))

    async def ask(pool):
        try:
            async with asyncio.timeout(random.choice((random.uniform(0, 0.01), 30.0))):
                assert await asend(pool) == b"here"
                return 1
        except TimeoutError:
            return 0

    async def work(pool):
        answered = 0
        for _ in range(20):
            answered += sum(await asyncio.gather(*(ask(pool) for _ in range(20))))
        assert 0 < answered < 400
        assert await asyncio.gather(*(asend(pool) for _ in range(8))) == [b"here"] * 8

    with Peer(serve, server) as peer:
        pool = make_pool(peer.url, client, keep=4)
        before = open_files()
        asyncio.run(work(pool))
        for _ in range(20):
            assert async_to_sync(asend)(pool) == b"here"
        pool.close()
        gc.collect()
        # The peer's own ends of closed connections are closed by its threads.
        deadline = time.monotonic() + 30
        while open_files() > before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert open_files() <= before


def test_an_answer_has_the_time_of_its_deadline_on_a_loop(contexts, make_pool):
    """However slowly its bytes come."""
    server, client = contexts

    def serve(peer, connection, number):
        peer.receive(connection)
        for byte in response(b"here" * 100):
            connection.sendall(bytes([byte]))
            time.sleep(0.02)

    with Peer(serve, server) as peer:
        began_at = time.monotonic()
        with pytest.raises(botocore.ReadTimeoutError):
            asyncio.run(asend(make_pool(peer.url, client), seconds=0.3))
        assert time.monotonic() - began_at < 5


def test_a_pool_of_a_loop_that_ended_in_the_middle_works(make_pool):
    """Its request is dropped with it, its connection closed."""

    def serve(peer, connection, number):
        while peer.receive(connection):
            time.sleep(0.3)
            connection.sendall(response(b"here"))

    with Peer(serve) as peer:
        pool = make_pool(peer.url, keep=1)
        loop = asyncio.new_event_loop()
        task = loop.create_task(asend(pool))
        loop.call_later(0.1, loop.stop)
        loop.run_forever()
        task.cancel()
        loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()
        assert send(pool) == asyncio.run(asend(pool)) == b"here"
        pool.close()
