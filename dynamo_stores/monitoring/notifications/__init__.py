"""Notifications: a topic of SNS, a webhook or a function is told what changed (``NOTIFY``)."""

from .messages import Notification

__all__ = ["Notification"]
