"""
Correlation ids: one id for a request and all that it causes, in logs, spans and tasks.

An id is taken from the request's header, or made; see ``CorrelationMiddleware``. Celery tasks have
the id of the code that sent them.
"""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, Token

# What a header may have; another id is made in its place, because it gets into logs.
_ID = re.compile(r"[A-Za-z0-9._:;=/+-]{1,128}")

# Of a request: its id, which log records find when the middleware has returned.
ATTRIBUTE = "_dynamo_stores_correlation"

_current: ContextVar[str] = ContextVar("dynamo_stores_correlation", default="")


def current() -> str:
    """Return the correlation id of this thread or task, ``""`` without one."""
    return _current.get()


def new_id() -> str:
    """Return a random id of 32 hexadecimal digits, as those of traces are."""
    return secrets.token_hex(16)


def id_or_new(text: object) -> str:
    """Return ``text`` if it can be an id, else a new one."""
    return text if isinstance(text, str) and _ID.fullmatch(text) else new_id()


@contextmanager
def correlated(correlation_id: str | None = None) -> Iterator[str]:
    """Use the id, or a new one, for the block."""
    found = id_or_new(correlation_id)
    token = begin(found)
    try:
        yield found
    finally:
        end(token)


def begin(correlation_id: str) -> Token[str]:
    """Use the id from now on in this thread or task, until :func:`end`."""
    return _current.set(correlation_id)


def end(token: Token[str]) -> None:
    """Use the id from before; does nothing in another thread or task."""
    with suppress(ValueError):
        _current.reset(token)


class CorrelationFilter(logging.Filter):
    """
    Gives each record the attribute ``correlation_id``, ``""`` without one.

    Django logs a response with a status of 400 or more when all middleware has returned. The record
    of such a line has the request, and gets its id.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        found = current() or getattr(getattr(record, "request", None), ATTRIBUTE, "")
        record.correlation_id = found if isinstance(found, str) else ""
        return True
