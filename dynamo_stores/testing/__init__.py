"""
Help for tests, ours and yours: a clock to turn, faults with names, an engine to start.

``pytest_plugins = ["dynamo_stores.testing.fixtures"]`` in a ``conftest.py`` brings the fixtures
``dynamo_engine``, ``dynamo_prefix``, ``dynamo_clock`` and ``dynamo_faults``.
"""

from .clock import FakeClock
from .engine import EmbeddedEngine, EngineError, find_free_port
from .faults import FaultProxy

__all__ = ["EmbeddedEngine", "EngineError", "FakeClock", "FaultProxy", "find_free_port"]
