"""
The call policy: get the breaker's admission; attempt until the deadline; report the outcome.

An attempt that is throttled or gets no answer is repeated after a delay if there is time.
"""

from __future__ import annotations

import contextlib
import random
import sys
import weakref
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from botocore.exceptions import ClientError

from .. import clock
from ..concurrency.effects import Verb, Wait
from ..conf.groups import RetryConfig
from ..exceptions import (
    OperationTimeoutError,
    StoreError,
    StoreRefused,
    StoreUnavailable,
    ThrottlingError,
    code_of,
    store_error,
)
from . import observer
from .backpressure import Backpressure
from .breaker import Admission, CircuitBreaker
from .counters import get_counters
from .places import Place, Places, is_task
from .retry import delays

# An attempt that is not the last has half of the time that is left, and at least these seconds.
_SHARE, _SHORTEST = 0.5, 0.2
# With this share of a second, or of the alias's own time-outs, an attempt that got no answer is a
# failure. With less it was the deadline that was short.
_ENOUGH = 0.9

_NOTHING: Mapping[str, Any] = MappingProxyType({})

# Sends one request until a monotonic time and returns the answer.
Send = Callable[[float], Verb[dict[str, Any]]]


class _Bound:
    """
    The deadline of a block, in monotonic seconds, and that of the block around it.

    An exception from outside may come before the block begins, or before its end is recorded; then
    nothing refers to the block, and its deadline is not in force. After its end it is: in the
    contexts that were copied from it.
    """

    __slots__ = ("block", "has_ended", "outer", "until")

    def __init__(self, until: float, outer: _Bound | None, block: deadline) -> None:
        self.until = until
        self.outer = outer
        self.block = weakref.ref(block)
        self.has_ended = False


_bound: ContextVar[_Bound | None] = ContextVar("dynamo_stores_deadline", default=None)


def _in_force() -> _Bound | None:
    bound = _bound.get()
    while bound is not None and bound.block() is None and not bound.has_ended:
        bound = bound.outer
    return bound


class deadline:
    """
    Set one deadline for all calls of a block, instead of the alias's ``OPERATION_TIMEOUT``.

    Of nested blocks the earlier deadline applies. ``copy_context()`` copies it into threads.
    """

    __slots__ = ("__weakref__", "_bound", "_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        until = clock.monotonic() + self._seconds
        outer = _in_force()
        self._bound = _Bound(until if outer is None else min(until, outer.until), outer, self)
        self._token = _bound.set(self._bound)

    def __exit__(self, *exc_info: object) -> None:
        # A task's context is not that of who drops the task.
        with contextlib.suppress(ValueError):
            _bound.reset(self._token)
        self._bound.has_ended = True


def time_left(most: float) -> float:
    """Return the seconds to the deadline in force, at most ``most``."""
    bound = _in_force()
    return most if bound is None else max(0.0, min(most, bound.until - clock.monotonic()))


class _Call:
    """
    One call: what it sends, its begin in monotonic seconds, and its attempts if observed. If
    ``is_recorded``, it was answered at its first attempt, and is observed already.
    """

    __slots__ = ("attempts", "is_recorded", "operation", "partition_of", "send", "started")

    def __init__(self, operation: str, send: Send, partition_of: Callable[[], str]) -> None:
        self.operation = operation
        self.send = send
        self.partition_of = partition_of
        self.started = clock.monotonic()
        self.attempts: list[observer.Measurement] = []
        self.is_recorded = False


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """
    The policy for one table of one alias. ``timeout``, in seconds, is for all attempts;
    ``place_of`` returns the endpoint and the region as text, for messages.
    """

    using: str
    table: str
    breaker: CircuitBreaker
    retry: RetryConfig
    timeout: float
    read_timeout: float
    backpressure: Backpressure
    places: Places
    place_of: Callable[[], str] = str
    # Whether another alias is asked after the first attempt without an answer.
    has_failover: bool = False

    async def call(
        self,
        operation: str,
        send: Send,
        breaker_of: Callable[[str], CircuitBreaker] | None = None,
        partition_of: Callable[[], str] = str,
        timeout: float | None = None,
        request: Mapping[str, Any] = _NOTHING,
    ) -> dict[str, Any]:
        """
        Return the answer of ``send``, with the retries of the policy. A verb.

        ``partition_of`` returns the partition key of the call, if it has one; ``breaker_of`` the
        breaker of another table of the same call; observers see ``request``. The call has
        ``timeout`` seconds at most, by default ``OPERATION_TIMEOUT``, which a ``deadline``
        replaces. Raises StoreUnavailable
        without an answer, and ConfigurationError or ItemTooLargeError for a call that can have
        none. Other exceptions of ``send`` are answers (or errors in the call) and are raised
        unchanged.
        """
        call = _Call(operation, send, partition_of)
        started = call.started
        answer: dict[str, Any] | None = None
        try:
            until = self._until(operation, started, timeout)
            admission = self.breaker.admit()
            is_last = admission.probe or not self.retry.max_retries or self.has_failover
            failed: StoreUnavailable | None = None
            try:
                try:
                    first = self._end_of_first(started, until)
                    found = await self._attempt(call, first, 1, is_last)
                except StoreRefused:
                    raise
                except StoreUnavailable as exc:
                    failed = exc
                if failed is not None:
                    found = await self._repeat(failed, call, until, is_last=admission.probe)
                    # Its traceback refers to this frame.
                    failed = None
            except StoreUnavailable as exc:
                self._report(exc, admission, clock.monotonic() - started, breaker_of)
                raise
            except (ClientError, StoreError) as exc:
                if isinstance(exc, ClientError) or isinstance(exc.__cause__, ClientError):
                    # DynamoDB answered with an error.
                    self.breaker.succeeded(admission, clock.monotonic() - started)
                raise
            else:
                self.breaker.succeeded(admission, clock.monotonic() - started)
                answer = found
                return found
            finally:
                if admission.probe:
                    # Without effect after an outcome: the admission is of an earlier state then.
                    self.breaker.release(admission)
        finally:
            if not call.is_recorded and observer.is_observed():
                attempts = call.attempts
                is_one = len(attempts) == 1 and not attempts[0].error
                if not is_one or observer.is_every_operation_observed():
                    self._observe_operation(call, request, answer)

    def _until(self, operation: str, started: float, timeout: float | None) -> float:
        bound = _in_force()
        if bound is None:
            return started + (timeout or self.timeout)
        until = min(bound.until, started + timeout) if timeout else bound.until
        if started >= until:
            # Not a failure of the store, so it is not reported to the breaker.
            raise OperationTimeoutError(
                f"{operation} on {self.table} was not sent: the deadline had passed."
            )
        return until

    def _end_of_first(self, started: float, until: float) -> float:
        if not self.has_failover:
            return until
        # The other alias has the rest of the time.
        return started + _SHARE * (until - started)

    async def _repeat(
        self,
        error: StoreUnavailable,
        call: _Call,
        until: float,
        *,
        is_last: bool,
    ) -> dict[str, Any]:
        """Repeat a request whose first attempt ended in ``error``, unless that was the last one."""
        waits, retry = delays(self.retry), self.retry
        attempt, failures, throttles = 1, 0, 0
        last = error
        while True:
            # What says nothing about DynamoDB does not replace an error that does.
            last = error if error.counts else last
            wait = next(waits)
            is_throttled = isinstance(error, ThrottlingError)
            if is_throttled and not error.counts:
                # Not sent: the limit allows no request before the deadline.
                raise self._out_of_time(last, call.operation, attempt, wait)
            throttles += is_throttled
            failures += not is_throttled
            limit = retry.throttle_retries
            is_last |= failures > (0 if self.has_failover else retry.max_retries)
            is_last |= limit is not None and throttles > limit
            if is_last:
                raise self._last(last, wait)
            left = until - clock.monotonic()
            if is_throttled and wait >= left > 0:
                wait, is_last = random.uniform(0, _ENOUGH * left), True
            if wait < left:
                await Wait(wait)
            if clock.monotonic() >= until or wait >= left:
                raise self._out_of_time(last, call.operation, attempt, wait)
            attempt += 1
            has_all = is_last or failures >= retry.max_retries
            try:
                return await self._attempt(call, until, attempt, has_all)
            except StoreRefused:
                raise
            except StoreUnavailable as exc:
                error = exc

    async def _attempt(
        self, call: _Call, until: float, attempt: int, is_last: bool
    ) -> dict[str, Any]:
        backpressure = self.backpressure
        request = backpressure.try_enter(until)
        if request is None:
            get_counters(self.using).add("waits", "throughput")
            request = await backpressure.enter(until)
        throttled = has_place = False
        started = clock.monotonic()
        try:
            if is_task():
                # What it waits for is not DynamoDB.
                has_place = await Place(self.places, until)
                started = clock.monotonic()
            left = until - started
            share = left if is_last else max(_SHORTEST, _SHARE * left)
            seconds = min(self.read_timeout, left, share)
            answer = await call.send(started + max(0.001, seconds))
        except Exception as exc:
            failure = store_error(
                exc,
                operation=call.operation,
                table=self.table,
                using=self.using,
                place=self.place_of(),
            )
            throttled = isinstance(failure, ThrottlingError)
            if isinstance(failure, OperationTimeoutError) and failure.counts:
                enough = _ENOUGH * min(self.read_timeout, self.timeout, 1.0)
                failure.counts = left >= (_SHARE * enough if self.has_failover else enough)
            hot = call.partition_of() if _is_hot(failure) else ""
            self._observe_error(call, started, attempt, failure or exc, hot)
            if failure is None or failure is exc:
                raise
            raise failure from exc
        finally:
            if has_place:
                self.places.leave()
            backpressure.leave(request, clock.monotonic() - started, throttled=throttled)
        if observer.is_observed():
            self._observe_answer(call, started, attempt, answer.get("ConsumedCapacity"))
        return answer

    def _observe_answer(self, call: _Call, started: float, attempt: int, consumed: Any) -> None:
        ended = clock.monotonic()
        seconds = ended - call.started
        if attempt == 1 and observer.record(
            self.using, self.table, call.operation, seconds, consumed
        ):
            call.is_recorded = True
            return
        waited = started - call.started
        measurement = observer.answered(
            self.using, self.table, call.operation, ended - started, attempt, consumed, waited
        )
        call.attempts.append(measurement)
        observer.observe(measurement)

    def _observe_error(
        self, call: _Call, started: float, attempt: int, error: BaseException, partition: str
    ) -> None:
        throttling = error if isinstance(error, ThrottlingError) else None
        reasons = throttling.reasons if throttling else ()
        measurement = observer.Measurement(
            using=self.using,
            table=(_named_table(reasons) if reasons else "") or self.table,
            operation=call.operation,
            seconds=clock.monotonic() - started,
            attempt=attempt,
            error=type(error).__name__,
            reasons=reasons,
            throttled=throttling is not None,
            partition=partition,
            waited=started - call.started,
        )
        call.attempts.append(measurement)
        observer.observe(measurement)

    def _observe_operation(
        self, call: _Call, request: Mapping[str, Any], answer: dict[str, Any] | None
    ) -> None:
        # The caller may handle an exception of its own.
        error = sys.exception() if answer is None else None
        observer.observe_operation(
            observer.Operation(
                using=self.using,
                table=self.table,
                operation=call.operation,
                seconds=clock.monotonic() - call.started,
                ended=clock.now(),
                attempts=tuple(call.attempts),
                error="" if error is None else type(error).__name__,
                request=request,
                answer=answer,
            )
        )

    def _report(
        self,
        exc: StoreUnavailable,
        admission: Admission,
        seconds: float,
        breaker_of: Callable[[str], CircuitBreaker] | None,
    ) -> None:
        """Report an operation without an answer to the breaker, unless the error says nothing."""
        if not exc.counts:
            return
        if not isinstance(exc, ThrottlingError):
            code = code_of(exc) if isinstance(exc, StoreRefused) else ""
            error = code or type(exc.__cause__ or exc).__name__
            self.breaker.failed(admission, error, seconds)
            return
        named = _named_table(exc.reasons)
        if breaker_of is not None and named and named != self.table:
            other = breaker_of(named)
            other.throttled(other.admission, seconds)
            self.breaker.succeeded(admission, seconds)
        else:
            self.breaker.throttled(admission, seconds)

    @staticmethod
    def _last(last: StoreUnavailable, wait: float) -> StoreUnavailable:
        if isinstance(last, ThrottlingError):
            last.retry_after = max(last.retry_after, wait)
        return last

    def _out_of_time(
        self, last: StoreUnavailable, operation: str, attempt: int, wait: float
    ) -> StoreUnavailable:
        if isinstance(last, ThrottlingError | OperationTimeoutError):
            return self._last(last, wait)
        late = OperationTimeoutError(
            f"{operation} on {self.table} did not succeed in time after {attempt} "
            f"attempt{'s' if attempt > 1 else ''}: {last}"
        )
        late.__cause__ = last.__cause__ or last
        late.counts = last.counts
        return late


def _is_hot(failure: StoreError | None) -> bool:
    return isinstance(failure, ThrottlingError) and any(
        "KeyRange" in reason.reason for reason in failure.reasons
    )


def _named_table(reasons: Any) -> str:
    return next((reason.table for reason in reasons if reason.table), "")
