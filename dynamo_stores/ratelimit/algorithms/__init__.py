"""The algorithms that count requests, one in each module, all pure."""

from ...conf.rates import ResourceConfig
from .base import Algorithm, Decision, RateLimitStatus, Write
from .gcra import Gcra
from .log import Log
from .windows import Windows

__all__ = ["Algorithm", "Decision", "RateLimitStatus", "Windows", "Write", "algorithm_of"]


def algorithm_of(config: ResourceConfig) -> Algorithm:
    """Return the algorithm of ``config``."""
    match config.algorithm:
        case "fixed":
            return Windows(buckets=0)
        case "gcra":
            return Gcra(config.burst)
        case "log":
            return Log()
    return Windows()
