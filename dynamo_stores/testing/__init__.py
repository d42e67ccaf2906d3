"""
Help for tests: a clock to advance, faults by name, an embedded engine.

``pytest_plugins = ["dynamo_stores.testing.fixtures"]`` in a ``conftest.py`` adds the fixtures
``dynamo_engine``, ``dynamo_prefix``, ``dynamo_clock`` and ``dynamo_faults``.
"""

from .clock import FakeClock
from .engine import EmbeddedEngine, EngineError, find_free_port
from .faults import FaultProxy

__all__ = ["EmbeddedEngine", "EngineError", "FakeClock", "FaultProxy", "find_free_port"]
