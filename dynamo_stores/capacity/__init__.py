"""How much capacity a provisioned table has, needs and gets."""

from ..calls.backpressure import background
from .wrapper import ThroughputScaler, with_throughput_scaling

__all__ = ["ThroughputScaler", "background", "with_throughput_scaling"]
