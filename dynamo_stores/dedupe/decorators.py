"""``@deduplicated``: runs a function or a Celery task once for the same arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction

from ..conf import DEFAULT_ALIAS
from ..key_templates import key_maker
from .jobs import check_ttls
from .store import DedupeStore

F = TypeVar("F", bound=Callable[..., Any])


def deduplicated(
    *,
    key: str | Callable[..., str],
    ttl: float | None = None,
    failure_ttl: float | None = None,
    wait: bool = True,
    using: str = DEFAULT_ALIAS,
) -> Callable[[F], F]:
    """
    Run the function once for all callers with the same ``key``; the others get its result.

    ``key`` is a template of the parameters (``"report:{day}"``) or a function of them, which gets
    the defaults of those that a call leaves out; the function's own name is part of it. Results
    must be JSON serializable. They are kept for ``ttl`` seconds (``DEDUPE["TTL"]``), failures for
    ``failure_ttl``. Without ``wait`` a call returns None while another one is in progress. For
    coroutine functions and, under ``@app.task``, for Celery tasks too. Raises the errors of
    :meth:`DedupeStore.run`.
    """
    check_ttls(ttl, failure_ttl)

    def decorate(function: F) -> F:
        make_key = key_maker(key, inspect.signature(function))
        name = f"{function.__module__}.{function.__qualname__}"

        def job_key(*args: Any, **kwargs: Any) -> str:
            return f"{name}:{make_key(*args, **kwargs)}"

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            store, job = DedupeStore(using), job_key(*args, **kwargs)
            work = functools.partial(function, *args, **kwargs)
            return store.run(job, work, ttl=ttl, failure_ttl=failure_ttl, wait=wait)

        @functools.wraps(function)
        async def async_wrapper(*args: Any, **kwargs: Any) -> Any:
            store, job = DedupeStore(using), job_key(*args, **kwargs)
            work = functools.partial(function, *args, **kwargs)
            return await store.arun(job, work, ttl=ttl, failure_ttl=failure_ttl, wait=wait)

        chosen: Any = async_wrapper if iscoroutinefunction(function) else wrapper
        chosen.job_key = job_key
        return cast(F, chosen)

    return decorate
