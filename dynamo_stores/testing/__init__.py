"""
Help for tests: a clock to advance, faults by name, an embedded engine, and assertions about
operations.

``pytest_plugins = ["dynamo_stores.testing.fixtures"]`` in a ``conftest.py`` adds the fixtures
``dynamo_stores``, ``dynamo_engine``, ``dynamo_prefix``, ``dynamo_clock``, ``dynamo_faults``,
``dynamo_streams`` and ``dynamo_capacity``.
"""

from .assertions import DynamoDBAssertions, assertNoAdvice, assertNoScan, assertNumOperations
from .canned import CannedServer
from .clock import FakeClock
from .connected import connected, test_tables
from .engine import EmbeddedEngine, EngineError, find_free_port
from .faults import FaultProxy
from .streams import ScriptedStream, StreamServer

__all__ = [
    "CannedServer",
    "DynamoDBAssertions",
    "EmbeddedEngine",
    "EngineError",
    "FakeClock",
    "FaultProxy",
    "ScriptedStream",
    "StreamServer",
    "assertNoAdvice",
    "assertNoScan",
    "assertNumOperations",
    "connected",
    "find_free_port",
    "test_tables",
]
