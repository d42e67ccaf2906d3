"""Limited views under real servers with several workers, under load over loopback."""

from __future__ import annotations

import http.client
import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from dynamo_stores.stores import RateLimitStore
from dynamo_stores.testing import find_free_port

HAMMERS, SECONDS = 12, 6.0
SERVERS = {
    "gunicorn": [
        "gunicorn",
        "tests.processes.limited_site:wsgi",
        "-w",
        "2",
        "--threads",
        "8",
        "-b",
    ],
    "uvicorn": ["uvicorn", "tests.processes.limited_site:asgi", "--workers", "2", "--port"],
}


@pytest.fixture(params=SERVERS)
def servers(request, start_process):
    """The ports of two running servers, and the path of their page."""
    # Two, since the workers of one need not share the connections: one of them may take them all.
    ports = [find_free_port(), find_free_port()]
    wsgi = request.param == "gunicorn"
    deadline = time.monotonic() + 60
    for port in ports:
        process = start_process(*SERVERS[request.param], f"127.0.0.1:{port}" if wsgi else str(port))
        while time.monotonic() < deadline:
            try:
                ask(port, "/none", "none")
                break
            except OSError:
                assert process.poll() is None
                time.sleep(0.1)
    return ports, "/page" if wsgi else "/async"


def ask(port, path, client):
    """Return status, headers and body of one request on a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"X-Client": client})
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


@pytest.mark.slow
def test_no_window_admits_more_than_the_limit(servers):
    """Of 200s, whichever server answers; the headers are right, and Retry-After is correct."""
    ports, path = servers
    client = secrets.token_hex(6)
    begin = time.monotonic()
    admitted, refused, admitting = [], [], set()

    def hammer(number):
        port = ports[number % 2]
        while time.monotonic() < begin + SECONDS:
            asked_at = time.monotonic()
            status, headers, _ = ask(port, path, client)
            if status == 200:
                admitted.append((asked_at, time.monotonic()))
                admitting.add(port)
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
    assert len(admitting) == 2
    assert len(admitted) > 50
    for start, _ in admitted:
        inside = [1 for asked, got in admitted if asked >= start and got < start + 2.0]
        assert len(inside) <= 50
    assert refused
    assert all(1 <= int(headers["Retry-After"]) <= 10 for headers in refused)
    # No other requests: a client that waits for Retry-After is admitted. Each of the two workers
    # may refuse it once by an earlier answer, and once since it knows the time less exactly.
    while (answer := ask(ports[0], path, client))[0] == 200:
        pass
    waits = []
    while answer[0] == 429 and len(waits) < 4:
        waits.append(int(answer[1]["Retry-After"]))
        time.sleep(waits[-1])
        answer = ask(ports[0], path, client)
    assert answer[0] == 200, waits
    RateLimitStore().reset("page", key=client)
