"""Verbs that take turns in one thread, against servers that answer when the test says."""

from __future__ import annotations

import contextlib
import contextvars
import gc
import os
import socket
import ssl
import threading
import time
from collections.abc import Sequence

import pytest
from botocore import exceptions as botocore

from dynamo_stores.concurrency import together as side_by_side
from dynamo_stores.concurrency.effects import Effect, run
from dynamo_stores.concurrency.own_thread import OwnThread
from dynamo_stores.concurrency.together import together
from tests.calls.conftest import REQUEST
from tests.helpers.faults import Interrupted, interrupt_often
from tests.helpers.peers import Peer, answering, make_certificate, response


class Call(Effect):
    """Calls a function that blocks."""

    def __init__(self, function):
        self.run = function


@pytest.fixture(params=["plain", "TLS"])
def contexts(request, tmp_path):
    """The TLS contexts of server and client, or None."""
    if request.param == "plain":
        return None, None
    path = tmp_path / "server.pem"
    return make_certificate(path), ssl.create_default_context(cafile=path)


@pytest.fixture
def no_threads(monkeypatch):
    """Return a function after which no thread may be started for verbs."""

    def forbid(error=AssertionError):
        class Thread(threading.Thread):
            def start(self):
                raise error("can't start new thread")

        class Threading:
            pass

        Threading.Thread = Thread
        monkeypatch.setattr(side_by_side, "threading", Threading)

    return forbid


def requests_of(pool, *, seconds=60.0, size=2):
    """Return a verb that sends a request whose body ends with the item; it returns the answer."""

    async def verb(item):
        body = (b"%d" % item).rjust(size)
        request = REQUEST.replace(b"2\r\n\r\n{}", b"%d\r\n\r\n%b" % (size, body))
        return (await pool.send(request, time.monotonic() + seconds, False)).body

    return verb


@contextlib.contextmanager
def connected(make_pool, serve, count, contexts=(None, None)):
    """A server, and a pool with so many connections to it."""
    with Peer(serve, contexts[0]) as peer:
        pool = make_pool(peer.url, contexts[1])
        for link in [run(pool._connect(time.monotonic() + 60)) for _ in range(count)]:
            pool._keep_open(link)
        try:
            yield peer, pool
        finally:
            pool.close()


def test_requests_are_under_way_at_once_without_another_thread(contexts, make_pool, no_threads):
    """Each connection answers when both have a request; large answers come in pieces."""
    both = threading.Barrier(2)

    def serve(peer, connection, number):
        while True:
            body = peer.receive(connection)
            both.wait(60)
            connection.sendall(response(body * 100_000))

    with connected(make_pool, serve, 2, contexts) as (peer, pool):
        no_threads()
        found = run(together(range(8), requests_of(pool), max_concurrency=2))
        assert found == [b" %d" % item * 100_000 for item in range(8)]
        assert (peer.connections, len(peer.requests)) == (2, 8)


def test_a_request_that_hangs_takes_no_answer_from_another(make_pool):
    """It ends at its deadline; meanwhile the others are answered, and new ones sent."""

    def serve(peer, connection, number):
        while (body := peer.receive(connection)) != b"51":
            connection.sendall(response(body))
        peer.ended.wait(60)

    async def verb(item):
        try:
            return await requests_of(pool, seconds=1.0 if item == 51 else 60.0)(item)
        except botocore.ReadTimeoutError:
            return "late"

    with connected(make_pool, serve, 2) as (_, pool):
        found = run(together([51, *range(52, 60)], verb, max_concurrency=2))
        assert found == ["late", *(b"%d" % item for item in range(52, 60))]
        # The connection of the one that hung is closed.
        assert len(pool._idle) == 1


def test_an_answer_that_came_in_time_is_read_however_busy_the_thread_is(make_pool):
    """Its deadline passes while another verb computes, which does not let it take its turn."""
    with connected(make_pool, answering(response(b"in time")), 2) as (_, pool):

        async def verb(item):
            answer = await requests_of(pool, seconds=0.5 if item else 60.0)(item)
            time.sleep(0 if item else 1.0)
            return answer

        assert run(together([0, 1], verb, max_concurrency=2)) == [b"in time"] * 2


def test_an_answer_in_pieces_that_came_in_time_is_read_as_well(make_pool):
    """All of its bytes are here when its deadline passes."""
    is_busy, body = threading.Event(), b"x" * 100_000

    def serve(peer, connection, number):
        while int(peer.receive(connection)) == 0:
            connection.sendall(response(b"x"))
        assert is_busy.wait(60)
        connection.sendall(response(body))

    async def verb(item):
        answer = await requests_of(pool, seconds=60.0 if item == 0 else 1.0)(item)
        if item == 0:
            is_busy.set()
            time.sleep(2.0)
        return answer

    with connected(make_pool, serve, 2) as (_, pool):
        assert run(together([0, 1], verb, max_concurrency=2)) == [b"x", body]


def test_a_request_ends_at_its_deadline_while_others_are_answered(make_pool):
    """Whenever the thread looks, one of them has its answer."""

    def serve(peer, connection, number):
        while peer.receive(connection) != b"99":
            time.sleep(0.01 + 0.02 * number)
            connection.sendall(response(b"x"))
        peer.ended.wait(60)

    ended = []

    async def verb(item):
        try:
            await requests_of(pool, seconds=0.5 if item == 99 else 60.0)(item)
            time.sleep(0.05)
        except botocore.ReadTimeoutError:
            pass
        ended.append(item)

    with connected(make_pool, serve, 3) as (_, pool):
        run(together([99, *range(10, 50)], verb, max_concurrency=3))
        assert ended.index(99) < 25


@pytest.mark.parametrize("in_thread", [False, True])
def test_the_error_of_what_makes_a_verb_is_raised(in_thread):
    """Also where a thread goes on with it, which has the context variables of the caller."""
    variable = contextvars.ContextVar("variable")
    variable.set("set")
    other, failed = threading.get_ident(), threading.Event()

    def make(item):
        assert variable.get(None) == "set"
        if item < 2:
            return verb(item)
        failed.set()
        raise KeyError("of the maker", item)

    async def verb(item):
        # Either this thread or the other one begins the last one.
        await Call(lambda: None if (threading.get_ident() != other) is in_thread else wait())

    def wait():
        assert failed.wait(60)

    with pytest.raises(KeyError, match="of the maker"):
        run(together(range(3), make, max_concurrency=2))


def test_what_ends_the_thread_is_not_hidden_by_an_error():
    """Such as Ctrl-C, while the verb of another thread has failed already."""
    both, threads = threading.Barrier(2), []

    def fail():
        threads.append(threading.current_thread())
        both.wait(60)
        raise ValueError

    def stop():
        both.wait(60)
        threads[0].join(60)
        raise KeyboardInterrupt

    async def verb(item):
        await Call(stop if item else fail)

    with pytest.raises(KeyboardInterrupt):
        run(together([0, 1], verb, max_concurrency=2))


def test_items_that_are_made_when_asked_for():
    """A sequence is not read by several threads."""

    class Lazy(Sequence):
        def __len__(self):
            return 6

        def __getitem__(self, number):
            time.sleep(0.02)
            if number >= 6:
                raise IndexError
            return number

    async def verb(item):
        await Call(lambda: None)
        return item

    assert run(together(Lazy(), verb, max_concurrency=3)) == list(range(6))


def test_a_verb_that_waits_for_something_else_goes_on_in_a_thread(make_pool):
    """All of them do at once, after a request of each, and their threads take the next ones."""
    all_here = threading.Barrier(3)
    idents = set()

    async def verb(item):
        answer = await requests_of(pool)(item)
        await Call(lambda: all_here.wait(60))
        idents.add(threading.get_ident())
        return answer, await requests_of(pool)(item)

    with connected(make_pool, answering(response(b"x")), 3) as (_, pool):
        assert run(together(range(12), verb, max_concurrency=3)) == [(b"x", b"x")] * 12
        assert len(idents) == 3
        assert threading.get_ident() in idents
        assert not [each for each in threading.enumerate() if each.name == "dynamo-stores-side"]


def test_where_no_thread_starts_one_verb_follows_the_other(make_pool, no_threads):
    """As at the end of the interpreter."""

    async def verb(item):
        await Call(lambda: None)
        return await requests_of(pool)(item)

    with connected(make_pool, answering(response(b"x")), 1) as (peer, pool):
        no_threads(RuntimeError)
        assert run(together(range(5), verb, max_concurrency=3)) == [b"x"] * 5
        assert peer.connections == 1


def test_where_no_thread_starts_a_verb_may_wait_for_what_another_does(make_pool, no_threads):
    """Such as the end of its request, where few may be under way."""
    is_answered = threading.Event()

    async def verb(item):
        answer = await requests_of(pool)(item)
        if not item:
            is_answered.set()
            return answer
        return await Call(lambda: is_answered.wait(2)) and answer

    def serve(peer, connection, number):
        while body := peer.receive(connection):
            time.sleep(0 if int(body) else 0.5)
            connection.sendall(response(body))

    with connected(make_pool, serve, 3) as (_, pool):
        no_threads(RuntimeError)
        assert run(together(range(3), verb, max_concurrency=3)) == [b" 0", b" 1", b" 2"]


@pytest.mark.parametrize("has_ended", [False, True])
def test_an_exception_from_outside_while_a_thread_begins(monkeypatch, has_ended):
    """It is raised, where Python raises another error; nothing is called in this thread, too."""
    start, go, calls = threading.Thread.start, threading.Event(), []

    def interrupted(thread):
        start(thread)
        if has_ended:
            go.set()
            thread.join(60)
        try:
            raise Interrupted
        finally:
            raise RuntimeError("release unlocked lock")

    def call():
        calls.append(threading.current_thread())
        go.wait(60)

    async def verb(item):
        await Call(call)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    ending = threading.Timer(0.2, go.set)
    start(ending)
    with pytest.raises(Interrupted):
        run(together([1, 2], verb, max_concurrency=2))
    with pytest.raises(Interrupted):
        OwnThread(call, "test")
    ending.join(60)
    assert threading.current_thread() not in calls


def test_a_verb_is_ended_whose_thread_never_begins(monkeypatch):
    """After an exception from outside Python keeps a reference to such a thread."""
    kept, ended = [], []

    def interrupted(thread):
        kept.append(thread)
        raise Interrupted

    async def verb(item):
        try:
            await Call(None)
        finally:
            ended.append(item)

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(Interrupted):
        run(together([1, 2], verb, max_concurrency=2))
    assert ended == [1]
    # It may begin later, and does nothing then.
    kept[0].run()
    assert ended == [1]


def test_a_request_that_is_not_taken_at_once_holds_nobody_up(make_pool):
    """The server reads the large one when it has answered the small one."""
    is_answered = threading.Event()

    def serve(peer, connection, number):
        while head := connection.recv(len(REQUEST), socket.MSG_PEEK):
            if b" %d\r\n" % size in head:
                assert is_answered.wait(60)
            peer.receive(connection)
            connection.sendall(response(b"x"))

    async def verb(item):
        answer = await requests_of(pool, size=2 if item else size)(item)
        if item:
            is_answered.set()
        return answer

    size = 30_000_000
    with connected(make_pool, serve, 2) as (_, pool):
        assert run(together([0, 1], verb, max_concurrency=2)) == [b"x", b"x"]


def test_exceptions_from_outside_leave_no_connection_behind(make_pool, monkeypatch, no_threads):
    """At any step of the verbs and of what drives them in one thread."""
    with connected(make_pool, answering(response(b"x")), 3) as (_, pool):
        # They come to threads that are just being started, too, which do not start then.
        no_threads(RuntimeError)

        def work():
            assert run(together(range(6), requests_of(pool), max_concurrency=3)) == [b"x"] * 6

        work()
        before = len(os.listdir("/proc/self/fd"))
        interrupt_often(monkeypatch, work)
        work()
        gc.collect()
        assert len(pool._idle) <= 3
        # The server closes its sides, which are in this process, too.
        deadline = time.monotonic() + 30
        while len(os.listdir("/proc/self/fd")) > before + 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(os.listdir("/proc/self/fd")) <= before + 2
