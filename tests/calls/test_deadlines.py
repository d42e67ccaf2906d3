"""Deadlines over real sockets, threads and tasks."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynamo_stores import clock
from dynamo_stores.calls.breaker import State
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.policy import deadline
from dynamo_stores.exceptions import OperationTimeoutError, StoreRefused, StoreUnavailable
from dynamo_stores.testing import FakeClock
from tests.helpers.peers import make_certificate


def test_a_hung_connection_leaves_time_for_another(faulty, dynamo_faults):
    """The attempt after it gets the answer, within the deadline."""
    cache = faulty({"OPERATION_TIMEOUT": 4.0})
    dynamo_faults.hang("GetItem", times=1)
    assert cache.get("k", "missing") == "missing"
    assert dynamo_faults.requests["GetItem"] == 2


def test_an_open_breaker_drops_idle_connections(faulty, dynamo_faults, dynamo_clock: FakeClock):
    """They may be dead; the probe opens a new one."""
    cache = faulty(RETRY={"MAX_RETRIES": 0})
    clients = []

    def record(handler, request):
        clients.append(handler.client_address)
        return False

    dynamo_faults._add("GetItem", 2, record)
    cache.get("k")
    cache.get("k")
    dynamo_faults.clear()
    dynamo_faults.fail("GetItem", 3)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            cache.get("k")
    assert cache.store.get_circuit_breaker_status().state is State.OPEN
    dynamo_clock.advance(1)
    dynamo_faults._add("GetItem", 1, record)
    cache.get("k")
    first, second, probe = clients
    assert first == second
    assert probe != first


@pytest.fixture
def slow_handshake(tmp_path, monkeypatch):
    """The URL of a server whose TLS handshake takes a second, and which never answers."""
    pem = tmp_path / "server.pem"
    context = make_certificate(pem)
    monkeypatch.setenv("AWS_CA_BUNDLE", str(pem))
    done = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with listener.accept()[0] as plain:
            time.sleep(1.0)
            with context.wrap_socket(plain, server_side=True):
                done.wait(60)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}"
    done.set()
    thread.join(60)
    listener.close()


def test_the_handshake_and_the_answer_have_one_end(alias, make_cache, slow_handshake):
    """The read timeout of botocore is what the handshake has left of the attempt's time."""
    using = alias(ENDPOINT_URL=slow_handshake, RETRY={"MAX_RETRIES": 0}, TRANSPORT="botocore")
    cache = make_cache(using, OPTIONS={"OPERATION_TIMEOUT": 3.0})
    with pytest.raises(OperationTimeoutError) as caught:
        cache.store.get("k")
    (seconds,) = re.findall(r"read timeout=([0-9.]+)", str(caught.value.__cause__.kwargs["error"]))
    assert float(seconds) < 2.1


@pytest.fixture
def hanging_metadata(monkeypatch, tmp_path):
    """No credentials but those of a metadata service that accepts and never answers."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED", raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    accepted = []
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_METADATA_SERVICE_TIMEOUT", "1")
    monkeypatch.setenv("AWS_METADATA_SERVICE_NUM_ATTEMPTS", "1")

    def serve():
        while True:
            try:
                accepted.append(listener.accept()[0])
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield accepted
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(60)
    for connection in accepted:
        connection.close()


def test_threads_without_credentials_do_not_queue_for_them(alias, hanging_metadata):
    """One looks; the others wait to their deadlines, and for a while nobody looks again."""
    using = alias(
        ENDPOINT_URL="http://192.0.2.1:8000",
        CIRCUIT_BREAKER={"ENABLED": False},
        RETRY={"MAX_RETRIES": 0},
    )
    connection = get_connection(using)

    def call(seconds):
        with deadline(seconds), pytest.raises(StoreUnavailable) as caught:
            connection.dispatch("GetItem", {"TableName": "t", "Key": {"PK": {"S": "k"}}})
        return caught.value

    with ThreadPoolExecutor(8) as threads:
        first = threads.submit(call, 60.0)
        while not hanging_metadata:
            time.sleep(0.001)
        hurried = [threads.submit(call, 0.2) for _ in range(3)]
        patient = [threads.submit(call, 60.0) for _ in range(4)]
        assert {type(each.result()) for each in hurried} == {OperationTimeoutError}
        assert not first.done()
        errors = [first.result(), *(each.result() for each in patient)]
    assert {type(error) for error in errors} == {StoreRefused}
    looked = len(hanging_metadata)
    assert type(call(60.0)) is StoreRefused
    assert len(hanging_metadata) == looked


def test_credentials_are_looked_for_again_after_a_while(
    alias, hanging_metadata, monkeypatch, dynamo_clock: FakeClock
):
    """Those that came meanwhile are found."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    connection = get_connection(alias(ENDPOINT_URL="http://192.0.2.1:8000"))
    assert not connection._transport.prepare(clock.monotonic() + 60).has_credentials
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    assert not connection._transport.prepare(clock.monotonic() + 60).has_credentials
    dynamo_clock.advance(5.0)
    assert connection._transport.prepare(clock.monotonic() + 60).has_credentials


def test_the_time_that_a_task_waits_for_a_connection_counts(alias, make_cache, dynamo_faults):
    """Its deadline ends the wait, which says nothing about DynamoDB."""
    using = alias(
        ENDPOINT_URL=dynamo_faults.url,
        MAX_POOL_CONNECTIONS=1,
        CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1},
    )
    cache = make_cache(using)
    cache.set("k", "v")
    dynamo_faults.delay(1.0, times=1)

    async def work():
        first = asyncio.create_task(cache.aget("k"))
        await asyncio.sleep(0.2)
        with deadline(0.3), pytest.raises(OperationTimeoutError) as late:
            await cache.aget("k")
        assert late.value.counts is False
        assert await first == await cache.aget("k") == "v"

    asyncio.run(work())
    assert cache.store.get_circuit_breaker_status().state is State.CLOSED
