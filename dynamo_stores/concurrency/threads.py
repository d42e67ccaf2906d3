"""The start of threads, and those in which tasks let something block: per alias and process."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from ..conf import get_config
from .per_process import PerProcess

R = TypeVar("R")


def _make(using: str) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(get_config(using).max_pool_connections, "dynamo-stores-async")


_threads = PerProcess(_make)


async def in_thread(using: str, function: Callable[[], R]) -> R:
    """Call ``function`` in a thread, with this task's context variables; return its result."""
    run = functools.partial(contextvars.copy_context().run, function)
    return await asyncio.get_running_loop().run_in_executor(_threads.get(using), run)


def start(thread: threading.Thread) -> bool:
    """
    Start a thread; return False if none can be started: there are too many, or the interpreter
    shuts down.
    """
    try:
        thread.start()
    except RuntimeError as exc:
        # Python raises another error where an exception from outside comes while it waits for the
        # thread to begin. One that has ended is not listed any more.
        if thread in threading.enumerate() or thread.ident is not None:
            raise exc.__context__ or exc from None
        return False
    return True
