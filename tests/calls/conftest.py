"""Pools of connections, and requests through them."""

from __future__ import annotations

import time

import pytest

from dynamo_stores.calls.pool import Pool
from dynamo_stores.calls.wire import Endpoint
from dynamo_stores.concurrency.effects import run

REQUEST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture
def make_pool():
    """Return a function that makes a pool; closed at the end."""
    made = []

    def make(url, context=None, **kwargs):
        kwargs = {"connect_timeout": 30.0, "keep": 10, **kwargs}
        made.append(Pool(Endpoint(url, "r", "a"), make_context=lambda: context, **kwargs))
        return made[-1]

    yield make
    for each in made:
        each.close()


def send(pool, *, seconds=60.0, may_repeat=False, request=REQUEST):
    """Send a request and return the answer's body."""
    return run(pool.send(request, time.monotonic() + seconds, may_repeat)).body
