"""Limited views under real servers with several workers, hammered over loopback."""

from __future__ import annotations

import http.client
import os
import secrets
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from django.conf import settings

from dynamo_stores.stores import RateLimitStore
from dynamo_stores.testing import find_free_port

ROOT = Path(settings.BASE_DIR)
HAMMERS, SECONDS = 12, 6.0
SERVERS = {
    "gunicorn": ["gunicorn", "tests.engines.limited_site:wsgi", "-w", "3", "--threads", "8", "-b"],
    "uvicorn": ["uvicorn", "tests.engines.limited_site:asgi", "--workers", "3", "--port"],
}


@pytest.fixture(params=SERVERS)
def server(request, tables, dynamo_engine, default_alias):
    """The port of a running server, and the path of its page."""
    port = find_free_port()
    where = f"127.0.0.1:{port}" if request.param == "gunicorn" else str(port)
    process = subprocess.Popen(
        [sys.executable, "-m", *SERVERS[request.param], where],
        cwd=ROOT,
        env={
            **os.environ,
            "DYNAMODB_ENDPOINT": dynamo_engine,
            "DYNAMODB_TABLE_PREFIX": default_alias["TABLE_PREFIX"],
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                ask(port, "/none", "nobody")
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
        yield port, "/page" if request.param == "gunicorn" else "/async"
    finally:
        process.terminate()
        process.wait(30)


def ask(port, path, client):
    """Return status, headers and body of one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"X-Client": client})
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


def test_no_window_admits_more_than_the_limit(server):
    """Of 200s, whichever worker answers; the headers are right, and Retry-After is honest."""
    port, path = server
    client = secrets.token_hex(6)
    begin = time.monotonic()
    admitted, refused, workers = [], [], set()

    def hammer(_):
        while time.monotonic() < begin + SECONDS:
            asked_at = time.monotonic()
            status, headers, body = ask(port, path, client)
            if status == 200:
                admitted.append((asked_at, time.monotonic()))
                workers.add(body)
                assert 0 <= int(headers["X-RateLimit-Remaining"]) < 50
                assert "Retry-After" not in headers
            else:
                assert status == 429
                refused.append(headers)
            assert headers["X-RateLimit-Limit"] == "50"
            assert headers["RateLimit-Policy"] == '"2s";q=50;w=2'
            time.sleep(0.01)

    with ThreadPoolExecutor(HAMMERS) as threads:
        list(threads.map(hammer, range(HAMMERS)))
    assert len(workers) > 1
    assert len(admitted) >= 100
    for start, _ in admitted:
        inside = [1 for asked, got in admitted if asked >= start and got < start + 2.0]
        assert len(inside) <= 50
    assert refused
    assert all(1 <= int(headers["Retry-After"]) <= 10 for headers in refused)
    # Nobody asks any more: who waits as long as he is told is let in.
    while (answer := ask(port, path, client))[0] == 200:
        pass
    time.sleep(int(answer[1]["Retry-After"]))
    assert ask(port, path, client)[0] == 200
    RateLimitStore().reset("page", key=client)
