"""
Scaling for calls outside of models and stores, such as those of a boto3 client.

Models and stores do not need it, because their calls are observed. A throttled call is reported to
the scaler and retried with growing delays; it does not wait until the table is ACTIVE.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction
from botocore.exceptions import ClientError

from .. import clock
from ..calls.observer import Measurement, kind_of
from ..calls.retry import delays
from ..conf import DEFAULT_ALIAS, get_config
from ..conf.groups import ScalingConfig
from ..conf.rules import setting_problems
from ..exceptions import ConfigurationError, ThrottlingError, unavailable
from .description import KINDS
from .scale_up import get_scaler

logger = logging.getLogger(__name__)

R = TypeVar("R")

# Operations that read or write: which, only their statement shows.
_PARTIQL = frozenset(["BatchExecuteStatement", "ExecuteStatement", "ExecuteTransaction"])


class ThroughputScaler:
    """
    Scales one table for calls that are not observed, such as those of a boto3 client.

    ``overrides`` are settings of ``SCALING`` in lower case (``max_read_capacity=200``). Scaling is
    on, even if ``ENABLED`` is False. ``table`` is the name in DynamoDB, or a model's name for it.

    After the first throttle of a call, its demand is measured by ``ConsumedCapacity`` if it returns
    a response of botocore with that (``ReturnConsumedCapacity="INDEXES"``); otherwise each attempt
    counts as one unit.
    Raises ConfigurationError if an override is wrong.
    """

    def __init__(self, table: str, *, using: str = DEFAULT_ALIAS, **overrides: Any) -> None:
        self._table = table
        self.using = using
        self._overrides = overrides
        # By the name of a call: the operation of DynamoDB that was throttled in it.
        self._operations: dict[str, str] = {}
        own = {name.upper(): value for name, value in overrides.items()}
        if problems := setting_problems(ScalingConfig, own, "ThroughputScaler"):
            raise ConfigurationError(" ".join(problem.message for problem in problems))

    @property
    def table(self) -> str:
        """The name of the table in DynamoDB."""
        return get_config(self.using).name_in_dynamodb(self._table)

    @property
    def config(self) -> ScalingConfig:
        """The scaling settings of the table, with the overrides."""
        own = get_config(self.using).for_table(self.table).scaling
        return dataclasses.replace(own, **{"enabled": True, **self._overrides})

    def execute_with_scaling(self, function: Callable[[], R], operation: str = "operation") -> R:
        """
        Call ``function``, again while it is throttled, and return its result.

        ``operation`` names the call in logs.
        Raises ThrottlingError after the ``OPERATION_TIMEOUT``, and other errors of ``function``.
        """
        attempts = _Attempts(self, operation)
        while True:
            try:
                return attempts.done(function())
            except Exception as exc:  # noqa: BLE001 - other errors are raised again
                wait = attempts.wait_after(exc)
            clock.sleep(wait)

    async def aexecute_with_scaling(
        self, function: Callable[[], Awaitable[R]], operation: str = "operation"
    ) -> R:
        """See :meth:`execute_with_scaling`; ``function`` is a coroutine function."""
        attempts = _Attempts(self, operation)
        while True:
            try:
                return attempts.done(await function())
            except Exception as exc:  # noqa: BLE001 - other errors are raised again
                wait = attempts.wait_after(exc)
            await asyncio.sleep(wait)

    def on_throttle(self, exc: BaseException, operation: str) -> ThrottlingError | None:
        """Report a throttled call to the scaler; return None if ``exc`` is not a throttle."""
        if not isinstance(exc, Exception):
            return None
        error = unavailable(exc, operation=operation, table=self.table)
        if not isinstance(error, ThrottlingError):
            return None
        name = exc.operation_name if isinstance(exc, ClientError) else operation
        self._operations[operation] = name
        self._count(name, None, throttled=True)
        kinds = KINDS if name in _PARTIQL else (kind_of(name),)
        get_scaler(self.using).on_throttle(self.table, error.reasons, kinds, self.config)
        return error

    def on_answer(self, answer: object, operation: str) -> None:
        """Count a call that returned ``answer``, if such a call was throttled before."""
        if (name := self._operations.get(operation)) is not None:
            consumed = answer.get("ConsumedCapacity") if isinstance(answer, Mapping) else None
            one = {"TableName": self.table, "CapacityUnits": 1.0}
            self._count(name, consumed or one, throttled=False)

    def _count(self, operation: str, consumed: Any, *, throttled: bool) -> None:
        get_scaler(self.using).count(
            Measurement(
                using=self.using,
                table=self.table,
                operation=operation,
                seconds=0.0,
                consumed=consumed,
                throttled=throttled,
            )
        )


class _Attempts:
    """The attempts of one call: the delay after each, and the deadline."""

    def __init__(self, scaler: ThroughputScaler, operation: str) -> None:
        config = get_config(scaler.using).for_table(scaler.table)
        self._scaler = scaler
        self._operation = operation
        self._attempt = 0
        self._waits = delays(config.retry)
        self._until = clock.monotonic() + config.operation_timeout

    def done(self, answer: R) -> R:
        """Return ``answer``; the call that returned it is counted."""
        self._scaler.on_answer(answer, self._operation)
        return answer

    def wait_after(self, exc: Exception) -> float:
        """Return the seconds until the retry; raises the error if it is not retried."""
        error = self._scaler.on_throttle(exc, self._operation)
        if error is None:
            raise exc
        self._attempt += 1
        wait = next(self._waits)
        if clock.monotonic() + wait >= self._until:
            error.retry_after = max(error.retry_after, wait)
            raise error from exc
        logger.debug(
            "The call %s was throttled by table %s (attempt %d) and will be retried in %.2f s.",
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
    Call ``function`` and return its result; raise the capacity of ``table`` and retry the call
    while it is throttled. The call of a coroutine function returns an awaitable.

    Without ``function`` return a decorator, which is also a context manager. A block cannot be run
    again, so its throttle is reported to the scaler and raised. ``operation`` names the call in
    logs; ``overrides`` are those of :class:`ThroughputScaler`.
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
