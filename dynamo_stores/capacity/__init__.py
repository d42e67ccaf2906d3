"""The capacity of provisioned tables: demand, decisions and changes."""

from typing import TYPE_CHECKING, Any

from ..calls.backpressure import background

if TYPE_CHECKING:
    from .wrapper import ThroughputScaler, with_throughput_scaling

__all__ = ["ThroughputScaler", "background", "with_throughput_scaling"]


def __getattr__(name: str) -> Any:
    # Reports need the arithmetic of capacity in every process, and not what changes it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import wrapper

    return getattr(wrapper, name)
