"""Correlation ids: one id for a request and all that it causes, in logs, spans and tasks."""

from __future__ import annotations

import logging
from contextvars import ContextVar

_current: ContextVar[str] = ContextVar("dynamo_stores_correlation", default="")


def current() -> str:
    """Return the correlation id of this thread or task, ``""`` without one."""
    return _current.get()


class CorrelationFilter(logging.Filter):
    """Gives each record the attribute ``correlation_id``, ``""`` without one."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.correlation_id = current()
        return True
