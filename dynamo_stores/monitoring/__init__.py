"""Reports and metrics of all processes, the status made of them, and where they go."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dashboard import create_dashboard, dashboard_json
    from .exporter import flush_metrics
    from .health import perform_health_check
    from .monitor import Monitor, monitor_operation
    from .sinks.cloudwatch import CloudWatchMetricsPublisher

__all__ = [
    "CloudWatchMetricsPublisher",
    "Monitor",
    "create_dashboard",
    "dashboard_json",
    "flush_metrics",
    "monitor_operation",
    "perform_health_check",
]

# A web process imports what it uses, because its start takes time.
_MODULES = {
    "CloudWatchMetricsPublisher": "sinks.cloudwatch",
    "Monitor": "monitor",
    "create_dashboard": "dashboard",
    "dashboard_json": "dashboard",
    "flush_metrics": "exporter",
    "monitor_operation": "monitor",
    "perform_health_check": "health",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
