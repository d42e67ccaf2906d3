"""Workers of scripted streams, driven by the fake clock."""

from __future__ import annotations

import secrets

import pytest

from dynamo_stores.streams.checkpoints import Checkpoints
from dynamo_stores.streams.client import StreamsClient
from dynamo_stores.streams.reader import Options
from dynamo_stores.streams.worker import StreamWorker

LEASE = 30.0


@pytest.fixture
def using(alias, dynamo_streams):
    """An alias whose endpoint is the server of scripted streams."""
    return alias(ENDPOINT_URL=dynamo_streams.url)


@pytest.fixture
def stream(dynamo_streams, dynamo_prefix):
    """The stream of a table of its own."""
    return dynamo_streams.enable(f"{dynamo_prefix}orders-{secrets.token_hex(4)}")


@pytest.fixture
def make_worker(using, stream):
    """
    ``make_worker(handler, from_latest=True, tries=3)``: a worker of the consumer ``test``, which
    :func:`drive` lets work.
    """

    def make(handler, *, consumer="test", from_latest=False, **options):
        return StreamWorker(
            StreamsClient(stream.table, using),
            Checkpoints(stream.table, consumer, using, LEASE),
            handler,
            Options(**options),
            from_latest=from_latest,
        )

    return make


@pytest.fixture
def drive(dynamo_clock):
    """``drive(worker, until=condition)`` lets workers take turns, without waiting."""

    def work(*workers, until=None, turns=400):
        for _ in range(turns):
            waits = [worker.turn() for worker in workers]
            if until is not None and until():
                return
            dynamo_clock.advance(max(min(waits), 0.01))
        assert until is None, "It did not happen."

    return work


@pytest.fixture
def received():
    """``received(signal)``: the list of what the signal sends during the test."""
    connected = []

    def listen(signal):
        sent = []

        def receive(**named):
            sent.append(named)

        signal.connect(receive)
        connected.append((signal, receive))
        return sent

    yield listen
    for signal, receive in connected:
        signal.disconnect(receive)
