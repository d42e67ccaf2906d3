"""What applications measure themselves: values, blocks and correlated work."""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from contextvars import ContextVar, Token
from typing import Any, NamedTuple, TypeVar

from asgiref.sync import iscoroutinefunction

from .. import clock
from ..concurrency.bounded import BoundedDict
from ..conf import DEFAULT_ALIAS
from ..conf.functions import is_coroutine_function
from . import correlation
from .exporter import get_exporters
from .health import HealthResult, perform_health_check
from .meter import get_meter
from .sinks.base import Metric

F = TypeVar("F", bound=Callable[..., Any])

# Correlations that were begun and not ended; the oldest ones are dropped.
_MOST_OPEN = 10_000


class _Open(NamedTuple):
    """A correlation that was begun."""

    name: str
    started: float
    token: Token[str] | None
    stack: ExitStack
    thread: int


class Monitor:
    """Measurements of the application for the sinks of one alias. Thread-safe."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._open: BoundedDict[str, _Open] = BoundedDict(_MOST_OPEN)
        self._numbers = itertools.count(1)

    def record_metric(
        self,
        name: str,
        value: float,
        unit: str = "Count",
        *,
        dimensions: Mapping[str, str] | None = None,
        timestamp: float | None = None,
    ) -> None:
        """
        Pass a value to the sinks, measured at ``timestamp`` in seconds since the epoch (now).

        ``unit`` is one of CloudWatch's. Raises ValueError for another one, or for a value that is
        not a number.
        """
        metric = Metric.of(name, value, unit, dimensions, timestamp)
        get_exporters(self.using).metric(metric)

    def start_correlation(self, name: str, attributes: Mapping[str, str] | None = None) -> str:
        """
        Begin correlated work and return its id, which log lines, spans and tasks of this thread or
        task have until :meth:`end_correlation`. Within other correlated work the id is the same.
        """
        outer = correlation.current()
        found = outer or correlation.new_id()
        # The same work may be begun several times, and at the same time.
        key = f"{found}/{name}/{next(self._numbers)}" if outer else found
        # The id of outer work is that work's to end, which may be earlier.
        token = None if outer else correlation.begin(found)
        stack = ExitStack()
        stack.enter_context(get_exporters(self.using).block(name, dict(attributes or {})))
        self._open.put(key, _Open(name, clock.monotonic(), token, stack, threading.get_ident()))
        return key

    def end_correlation(self, correlation_id: str, success: bool = True) -> float:
        """
        End correlated work and return its seconds, which are counted by name and success. Raises
        ValueError for work that was not begun, or that has ended.
        """
        found = self._open.get(correlation_id)
        if found is None:
            raise ValueError(
                f"The correlation {correlation_id!r} was not begun, or it has ended already."
            )
        self._open.drop(correlation_id)
        if found.token is not None:
            correlation.end(found.token)
        seconds = clock.monotonic() - found.started
        get_meter(self.using).record_block(found.name, "" if success else "failed", seconds)
        if found.thread == threading.get_ident():
            found.stack.close()
        return seconds

    def perform_health_check(self) -> HealthResult:
        """Return whether the alias answers; see ``perform_health_check`` of monitoring.health."""
        return perform_health_check(self.using)


class _Block:
    """One run of a block that is measured."""

    def __init__(self, using: str, name: str, attributes: Mapping[str, str]) -> None:
        self._using = using
        self._name = name
        self._attributes = attributes
        self.is_counted = True

    def __enter__(self) -> None:
        self._stack = ExitStack()
        self._stack.enter_context(correlation.correlated(correlation.current() or None))
        self._stack.enter_context(get_exporters(self._using).block(self._name, self._attributes))
        self._started = clock.monotonic()

    def __exit__(self, *exc_info: Any) -> None:
        error = "" if exc_info[0] is None else exc_info[0].__name__
        seconds = clock.monotonic() - self._started
        if self.is_counted:
            get_meter(self._using).record_block(self._name, error, seconds)
        self._stack.__exit__(*exc_info)


class _Measured:
    """A context manager and decorator, for sync and async code."""

    def __init__(self, using: str, name: str, attributes: Mapping[str, str]) -> None:
        self.make = functools.partial(_Block, using, name, attributes)

    def __enter__(self) -> None:
        block = self.make()
        block.__enter__()
        _entered.set((*_entered.get(), (self, block)))

    def __exit__(self, *exc_info: Any) -> None:
        # Other threads and tasks may use the same object.
        entered = _entered.get()
        own = next(each for each in reversed(entered) if each[0] is self)
        _entered.set(tuple(each for each in entered if each is not own))
        own[1].__exit__(*exc_info)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(self, *exc_info: Any) -> None:
        self.__exit__(*exc_info)

    async def awaited(self, result: Awaitable[Any]) -> Any:
        """Measure an awaitable."""
        with self.make():
            return await result

    def __call__(self, function: F) -> F:
        wrapper: Any
        if iscoroutinefunction(function):

            @functools.wraps(function)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                with self.make():
                    return await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                with self.make():
                    return function(*args, **kwargs)

        found: F = wrapper
        return found


# The blocks that this thread or task has entered.
_entered: ContextVar[tuple[tuple[_Measured, _Block], ...]] = ContextVar(
    "dynamo_stores_blocks", default=()
)


def monitor_operation(
    name: str,
    function: Callable[[], Any] | None = None,
    attributes: Mapping[str, str] | None = None,
    *,
    using: str = DEFAULT_ALIAS,
) -> Any:
    """
    Measure a block: what it took and whether it raised, counted by name and class of the error,
    with one correlation id for all that it calls. Spans have ``attributes``.

    With a ``function`` call it and return its result, an awaitable for a coroutine function. If
    another function returns an awaitable, its call and the wait have a span each.
    Without one return a context manager (``with`` and ``async with``) that is a decorator, too.
    Raises TypeError if the name is not a string, as for a decorator without parentheses.
    """
    if not isinstance(name, str):
        raise TypeError(
            f"monitor_operation needs a name first, not {name!r}. Write "
            "@monitor_operation('name') or monitor_operation('name', function)."
        )
    measured = _Measured(using, name, dict(attributes or {}))
    if function is None:
        return measured
    if is_coroutine_function(function):
        # Its call does nothing yet, and would be a span of its own.
        return measured.awaited(function())
    block = measured.make()
    with block:
        result = function()
        # The work of a coroutine begins when it is awaited.
        block.is_counted = not inspect.isawaitable(result)
    return result if block.is_counted else measured.awaited(result)
