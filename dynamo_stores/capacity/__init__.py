"""The capacity of provisioned tables: demand, decisions and changes."""

from ..calls.backpressure import background
from .wrapper import ThroughputScaler, with_throughput_scaling

__all__ = ["ThroughputScaler", "background", "with_throughput_scaling"]
