"""
pytest fixtures: ``pytest_plugins = ["dynamo_stores.testing.fixtures"]``.

Tests use the endpoint in ``TEST_DYNAMODB_ENDPOINT``, else an embedded engine. An endpoint on
another machine is refused unless ``TEST_DYNAMODB_ALLOW_REMOTE=1``: a test run must never change
real data.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ..calls.environment import is_loopback
from .clock import FakeClock
from .connected import connected, test_tables
from .engine import EmbeddedEngine
from .faults import FaultProxy
from .streams import StreamServer

if TYPE_CHECKING:
    from .throttling.relay import CapacityRelay


@pytest.fixture(scope="session")
def dynamo_engine() -> Iterator[str]:
    """The URL of a DynamoDB that the tests may use."""
    url = os.environ.get("TEST_DYNAMODB_ENDPOINT", "")
    if url:
        if not is_loopback(url) and os.environ.get("TEST_DYNAMODB_ALLOW_REMOTE") != "1":
            pytest.exit(
                f"TEST_DYNAMODB_ENDPOINT is {url}, which is not on this machine. Tests write and "
                "delete tables; set TEST_DYNAMODB_ALLOW_REMOTE=1 to allow it.",
                returncode=4,
            )
        yield url
        return
    with EmbeddedEngine() as engine:
        yield engine.url


@pytest.fixture(scope="session")
def dynamo_prefix() -> str:
    """A random prefix for the names of this run's tables (``TABLE_PREFIX``)."""
    return f"test-{secrets.token_hex(4)}-"


@pytest.fixture(scope="session")
def dynamo_stores(dynamo_engine: str, dynamo_prefix: str) -> Iterator[None]:
    """Every alias is connected to the engine, with tables of this run, deleted at its end."""
    with test_tables(dynamo_engine, dynamo_prefix):
        yield


@pytest.fixture
def dynamo_clock() -> Iterator[FakeClock]:
    """A clock that only tests advance; see :class:`~.clock.FakeClock`."""
    with FakeClock() as clock:
        yield clock


@pytest.fixture
def dynamo_faults(dynamo_engine: str, request: pytest.FixtureRequest) -> Iterator[FaultProxy]:
    """
    A relay before the engine that injects faults; its ``url`` is the endpoint to use. With the
    fixture ``dynamo_stores`` every alias uses it during the test.
    """
    with FaultProxy(dynamo_engine) as faults, contextlib.ExitStack() as stack:
        if "dynamo_stores" in request.fixturenames:
            request.getfixturevalue("dynamo_stores")
            stack.enter_context(connected(ENDPOINT_URL=faults.url))
        yield faults


@pytest.fixture
def dynamo_streams(dynamo_engine: str, request: pytest.FixtureRequest) -> Iterator[StreamServer]:
    """
    A server of the streams API before the engine; its ``url`` is the endpoint to use. With the
    fixture ``dynamo_stores`` every alias uses it during the test.
    """
    with StreamServer(dynamo_engine) as streams, contextlib.ExitStack() as stack:
        if "dynamo_stores" in request.fixturenames:
            request.getfixturevalue("dynamo_stores")
            stack.enter_context(connected(ENDPOINT_URL=streams.url))
        yield streams


@pytest.fixture
def dynamo_capacity(
    dynamo_engine: str, request: pytest.FixtureRequest
) -> Iterator[Callable[..., CapacityRelay]]:
    """
    ``dynamo_capacity(updating=3, burst=5)`` starts a throttling relay before the engine. With the
    fixture ``dynamo_stores`` every alias uses the last one that was started.
    """
    from .throttling.relay import CapacityRelay

    with contextlib.ExitStack() as stack:

        def start(**options: Any) -> CapacityRelay:
            relay = stack.enter_context(CapacityRelay(dynamo_engine, **options))
            if "dynamo_stores" in request.fixturenames:
                request.getfixturevalue("dynamo_stores")
                stack.enter_context(connected(ENDPOINT_URL=relay.url))
            return relay

        yield start
