"""
Scaling for calls of one's own: boto3 clients and whatever else raises DynamoDB's errors.

Models and stores need none of this: their calls are observed. Here a call that is throttled tells
the scaler, and is tried again with growing waits; nobody waits for the table to be ACTIVE.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction
from botocore.exceptions import ClientError

from .. import clock
from ..calls.observer import kind_of
from ..calls.retry import delays
from ..conf import DEFAULT_ALIAS, get_config
from ..conf.groups import ScalingConfig
from ..conf.rules import setting_problems
from ..exceptions import ConfigurationError, ThrottlingError, unavailable
from .scale_up import get_scaler

logger = logging.getLogger(__name__)

R = TypeVar("R")


class ThroughputScaler:
    """
    Scales one table for calls of one's own; ``overrides`` are settings of ``SCALING`` in small
    letters (``max_read_capacity=200, scale_up_factor=3.0``).

    Scaling that is made here is meant: it is on whatever ``ENABLED`` says.
    """

    def __init__(self, table: str, *, using: str = DEFAULT_ALIAS, **overrides: Any) -> None:
        self.table = table
        self.using = using
        self._overrides = overrides
        own = {name.upper(): value for name, value in overrides.items()}
        if problems := setting_problems(ScalingConfig, own, "ThroughputScaler"):
            raise ConfigurationError(" ".join(problem.message for problem in problems))

    @property
    def config(self) -> ScalingConfig:
        """The table's settings with the overrides."""
        own = get_config(self.using).for_table(self.table).scaling
        return dataclasses.replace(own, **{"enabled": True, **self._overrides})

    def execute_with_scaling(self, function: Callable[[], R], operation: str = "operation") -> R:
        """
        Return what ``function`` returns, called again while it is throttled.

        Raises ThrottlingError after the alias's ``OPERATION_TIMEOUT``, and what else it raises.
        ``operation`` names it in logs.
        """
        attempts = _Attempts(self, operation)
        while True:
            try:
                return function()
            except Exception as exc:  # noqa: BLE001 - what is no throttling is raised again
                wait = attempts.wait_after(exc)
            clock.sleep(wait)

    async def aexecute_with_scaling(
        self, function: Callable[[], Awaitable[R]], operation: str = "operation"
    ) -> R:
        """See :meth:`execute_with_scaling`; ``function`` is a coroutine function."""
        attempts = _Attempts(self, operation)
        while True:
            try:
                return await function()
            except Exception as exc:  # noqa: BLE001 - what is no throttling is raised again
                wait = attempts.wait_after(exc)
            await asyncio.sleep(wait)

    def on_throttle(self, exc: BaseException, operation: str) -> ThrottlingError | None:
        """Tell the scaler of a throttled call; None for an error that is no throttling."""
        if not isinstance(exc, Exception):
            return None
        error = unavailable(exc, operation=operation, table=self.table)
        if not isinstance(error, ThrottlingError):
            return None
        name = exc.operation_name if isinstance(exc, ClientError) else operation
        get_scaler(self.using).on_throttle(self.table, error.reasons, {kind_of(name)}, self.config)
        return error


class _Attempts:
    """The attempts of one call: how long to wait after each, and when to give up."""

    def __init__(self, scaler: ThroughputScaler, operation: str) -> None:
        config = get_config(scaler.using).for_table(scaler.table)
        self._scaler = scaler
        self._operation = operation
        self._attempt = 0
        self._waits = delays(config.retry)
        self._until = clock.monotonic() + config.operation_timeout

    def wait_after(self, exc: Exception) -> float:
        """Return the seconds to wait; raises where trying again is no use."""
        error = self._scaler.on_throttle(exc, self._operation)
        if error is None:
            raise exc
        self._attempt += 1
        wait = next(self._waits)
        if clock.monotonic() + wait >= self._until:
            error.retry_after = max(error.retry_after, wait)
            raise error from exc
        logger.info(
            "%s hit the throughput limit of table %s (attempt %d); it is tried again in %.2f s.",
            self._operation, self._scaler.table, self._attempt, wait,
            extra={
                "dynamodb_table": self._scaler.table,
                "dynamodb_attempt": self._attempt,
                "dynamodb_wait": wait,
            },
        )  # fmt: skip
        return wait


def with_throughput_scaling(
    operation: str,
    function: Callable[[], Any] | None = None,
    *,
    table: str,
    using: str = DEFAULT_ALIAS,
    **overrides: Any,
) -> Any:
    """
    Call ``function`` and return what it returns, raising ``table`` and trying again while it is
    throttled; a coroutine function is to be awaited.

    Without ``function`` it is a decorator, and a context manager: a block cannot be run again, so
    a throttled one tells the scaler and raises. ``operation`` names the call in logs;
    ``overrides`` are those of :class:`ThroughputScaler`.
    """
    scaling = _Scaling(ThroughputScaler(table, using=using, **overrides), operation)
    return scaling if function is None else scaling(function)()


class _Scaling:
    def __init__(self, scaler: ThroughputScaler, operation: str) -> None:
        self._scaler = scaler
        self._operation = operation

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            call = functools.partial(function, *args, **kwargs)
            return self._scaler.execute_with_scaling(call, self._operation)

        @functools.wraps(function)
        async def async_wrapper(*args: Any, **kwargs: Any) -> Any:
            call = functools.partial(function, *args, **kwargs)
            return await self._scaler.aexecute_with_scaling(call, self._operation)

        return async_wrapper if iscoroutinefunction(function) else wrapper

    def __enter__(self) -> ThroughputScaler:
        return self._scaler

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None:
            self._scaler.on_throttle(exc, self._operation)
