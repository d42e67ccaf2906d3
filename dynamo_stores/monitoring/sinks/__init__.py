"""Where measurements go: the classes for ``METRICS["SINKS"]``."""

from .base import Metric, Sink
from .logs import LoggingSink

__all__ = ["LoggingSink", "Metric", "Sink"]
