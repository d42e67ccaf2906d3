"""The threads in which async methods make their calls: per alias and process."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from typing import ParamSpec, TypeVar

from .. import clock
from ..conf import get_config
from .per_process import PerProcess

P = ParamSpec("P")
R = TypeVar("R")


def _make(using: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(get_config(using).max_pool_connections, "dynamo-stores-async")


_threads = PerProcess(_make)

# When a task called the function that runs in this thread, in monotonic seconds.
_called_at: ContextVar[float | None] = ContextVar("dynamo_stores_called_at", default=None)


async def in_thread(using: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call ``function`` in a thread, with this task's context variables; return its result."""
    context = contextvars.copy_context()
    context.run(_called_at.set, clock.monotonic())
    run = functools.partial(context.run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_threads.get(using), run)


def deadline_begins_at() -> float:
    """
    Return the monotonic time from which a deadline counts: now, but for the first deadline of a
    function that was called by :func:`in_thread` the time of that call.
    """
    called_at = _called_at.get()
    if called_at is None:
        return clock.monotonic()
    _called_at.set(None)
    return called_at
