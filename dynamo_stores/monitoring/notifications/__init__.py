"""Notifications: a topic of SNS, a webhook or a function is told what changed (``NOTIFY``)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .messages import Notification

__all__ = ["Notification"]


# A web process imports what it uses, because its start takes time.
def __getattr__(name: str) -> Any:
    if name != "Notification":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .messages import Notification

    return Notification
