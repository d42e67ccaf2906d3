"""
The call policy: get the breaker's admission; attempt until the deadline; report the outcome.

An attempt that is throttled or gets no answer is repeated after a delay if there is time.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError
from pynamodb.exceptions import VerboseClientError

from .. import clock
from ..conf.groups import RetryConfig
from ..exceptions import OperationTimeoutError, StoreUnavailable, ThrottlingError, unavailable
from . import observer
from .backpressure import Backpressure
from .breaker import Admission, CircuitBreaker
from .retry import delays

# Sends one request within so many seconds and returns the answer.
Send = Callable[[float], dict[str, Any]]

_deadline: ContextVar[float | None] = ContextVar("dynamo_stores_deadline", default=None)


class deadline:
    """
    Set one deadline for all calls of a block, instead of the alias's ``OPERATION_TIMEOUT``.

    Of nested blocks the earlier deadline applies. ``copy_context()`` copies it into threads.
    """

    __slots__ = ("_seconds", "_token")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        until = clock.monotonic() + self._seconds
        outer = _deadline.get()
        self._token = _deadline.set(until if outer is None or until < outer else outer)

    def __exit__(self, *exc_info: object) -> None:
        _deadline.reset(self._token)


@dataclass(frozen=True, slots=True)
class CallPolicy:
    """The policy for one table of one alias. ``timeout``, in seconds, is for all attempts."""

    using: str
    table: str
    breaker: CircuitBreaker
    retry: RetryConfig
    timeout: float
    read_timeout: float
    backpressure: Backpressure

    def call(
        self,
        operation: str,
        send: Send,
        breaker_of: Callable[[str], CircuitBreaker] | None = None,
        partition_of: Callable[[], str] = str,
    ) -> dict[str, Any]:
        """
        Return the answer of ``send``, with the retries of the policy.

        ``partition_of`` returns the partition key of the call, if it has one; ``breaker_of`` the
        breaker of another table of the same call. Raises StoreUnavailable without an answer. Other
        exceptions of ``send`` are answers (or errors in the call) and are raised unchanged.
        """
        started = clock.monotonic()
        until = _deadline.get()
        if until is None:
            until = started + self.timeout
        elif started >= until:
            # Not a failure of the store, so it is not reported to the breaker.
            raise OperationTimeoutError(
                f"{operation} on {self.table} was not sent: the deadline had passed."
            )
        admission = self.breaker.admit()
        try:
            answer = self._attempts(operation, send, until, partition_of, probe=admission.probe)
        except ThrottlingError as exc:
            self._throttled(exc, admission, clock.monotonic() - started, breaker_of)
            raise
        except StoreUnavailable as exc:
            cause = exc.__cause__ or exc
            self.breaker.failed(admission, type(cause).__name__, clock.monotonic() - started)
            raise
        except ClientError:
            # DynamoDB answered with an error.
            self.breaker.succeeded(admission, clock.monotonic() - started)
            raise
        else:
            self.breaker.succeeded(admission, clock.monotonic() - started)
            return answer
        finally:
            # Without effect after an outcome, because the admission is of an earlier state then.
            self.breaker.release(admission)

    def _attempts(
        self,
        operation: str,
        send: Send,
        until: float,
        partition_of: Callable[[], str],
        *,
        probe: bool,
    ) -> dict[str, Any]:
        waits = delays(self.retry)
        attempt = failures = throttles = 0
        while True:
            attempt += 1
            # Not retried: if this fails, the limit allows no request before the deadline.
            self.backpressure.enter(until)
            try:
                return self._attempt(operation, send, until, attempt, partition_of)
            except ThrottlingError as exc:
                throttles += 1
                last: StoreUnavailable = exc
                limit = self.retry.throttle_retries
                is_out = limit is not None and throttles > limit
            except StoreUnavailable as exc:
                failures += 1
                last = exc
                is_out = failures > self.retry.max_retries
            wait = next(waits)
            if probe or is_out:
                raise self._last(last, wait)
            now = clock.monotonic() + wait
            if now < until:
                clock.sleep(wait)
                now = clock.monotonic()
            if now >= until:
                raise self._out_of_time(last, operation, attempt, wait)

    def _attempt(
        self,
        operation: str,
        send: Send,
        until: float,
        attempt: int,
        partition_of: Callable[[], str],
    ) -> dict[str, Any]:
        started = clock.monotonic()
        throttled = False
        try:
            answer = send(max(0.001, min(self.read_timeout, until - started)))
        except Exception as exc:
            original = original_error(exc)
            failure = unavailable(original, operation=operation, table=self.table)
            throttled = isinstance(failure, ThrottlingError)
            hot = partition_of() if _is_hot(failure) else ""
            self._observe(operation, started, attempt, error=failure or original, partition=hot)
            if failure is None:
                raise
            if failure is exc:
                raise
            raise failure from original
        finally:
            self.backpressure.leave(clock.monotonic() - started, throttled=throttled)
        if observer.is_observed():
            self._observe(operation, started, attempt, answer=answer)
        return answer

    def _observe(
        self,
        operation: str,
        started: float,
        attempt: int,
        *,
        answer: dict[str, Any] | None = None,
        error: BaseException | None = None,
        partition: str = "",
    ) -> None:
        throttling = error if isinstance(error, ThrottlingError) else None
        reasons = throttling.reasons if throttling else ()
        observer.observe(
            observer.Measurement(
                using=self.using,
                table=_named_table(reasons) or self.table,
                operation=operation,
                seconds=clock.monotonic() - started,
                attempt=attempt,
                units=observer.units_of(answer) if answer else {},
                error=type(error).__name__ if error else "",
                reasons=reasons,
                throttled=throttling is not None,
                partition=partition,
            )
        )

    def _throttled(
        self,
        exc: ThrottlingError,
        admission: Admission,
        seconds: float,
        breaker_of: Callable[[str], CircuitBreaker] | None,
    ) -> None:
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
        return late


def original_error(exc: Exception) -> Exception:
    """Return botocore's own error if PynamoDB raised a copy of it."""
    # PynamoDB raises a copy of botocore's error that has lost the reasons for throttling.
    cause = exc.__cause__
    return cause if isinstance(exc, VerboseClientError) and isinstance(cause, ClientError) else exc


def _is_hot(failure: StoreUnavailable | None) -> bool:
    return isinstance(failure, ThrottlingError) and any(
        "KeyRange" in reason.reason for reason in failure.reasons
    )


def _named_table(reasons: Any) -> str:
    return next((reason.table for reason in reasons if reason.table), "")
