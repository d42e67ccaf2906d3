"""How much capacity a provisioned table has, needs and gets."""

from ..calls.pressure import background
from .using import ThroughputScaler, with_throughput_scaling

__all__ = ["ThroughputScaler", "background", "with_throughput_scaling"]
