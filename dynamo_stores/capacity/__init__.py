"""How much capacity a provisioned table has, needs and gets."""

from .using import ThroughputScaler, with_throughput_scaling

__all__ = ["ThroughputScaler", "with_throughput_scaling"]
