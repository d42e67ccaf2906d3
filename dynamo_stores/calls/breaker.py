"""
The circuit breaker: after enough failures no requests are sent for a while.

It sends nothing itself; callers ask it for admission and report the outcome.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from .. import clock
from ..conf.groups import BreakerConfig
from ..exceptions import CircuitBreakerOpenError


class State(StrEnum):
    """``closed``: calls are admitted; ``open``: refused; ``half_open``: one probe is under way."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Admission:
    """An admitted call: the generation of the breaker's state, and whether it is the probe."""

    generation: int
    probe: bool = False


@dataclass(frozen=True, slots=True)
class BreakerStatus:
    """
    The status of a breaker.

    ``failures``: consecutive failures; ``error``: class name of the last one; ``since``: when it
    was closed, or when it opened, whatever probes failed since then (seconds since the epoch);
    ``retry_after``: seconds to the next probe (0 if closed).
    """

    state: State
    failures: int
    error: str
    since: float
    retry_after: float


class CircuitBreaker:
    """
    One breaker for one table in one process, shared by its threads.

    It opens after ``failure_threshold`` consecutive failures, or, if configured, when the share
    of failed or of slow calls in a window is too high. ``recovery_timeout`` seconds later one
    call, the probe, is admitted; its outcome closes the breaker or opens it again. Outcomes of
    calls admitted in an earlier state are ignored.
    """

    def __init__(
        self,
        config: BreakerConfig,
        *,
        name: str = "",
        on_change: Callable[[State, State, str], None] = lambda old, new, error: None,
    ) -> None:
        self.name = name
        self._config = config
        self._on_change = on_change
        self._lock = threading.Lock()
        self._state = State.CLOSED
        self._admission = Admission(0)
        # Weakly: a probe whose frame an exception from outside has ended is no probe.
        self._probe: weakref.ref[Admission] | None = None
        self._failures = 0
        self._error = ""
        self._since = clock.now()
        self._opened_at = 0.0
        self._probe_began_at = 0.0
        self._window = _Window(config.window) if _needs_window(config) else None

    @property
    def state(self) -> State:
        """The current state."""
        return self._state

    @property
    def admission(self) -> Admission:
        """The current admission, to report the outcome of a call that another breaker admitted."""
        return self._admission

    def status(self) -> BreakerStatus:
        """Return the current status."""
        with self._lock:
            wait = 0.0 if self._state is State.CLOSED else max(0.0, self._remaining())
            return BreakerStatus(self._state, self._failures, self._error, self._since, wait)

    def reset(self) -> None:
        """Close the breaker and reset its failures; calls under way no longer count."""
        with self._lock:
            self._error = ""
            change = self._move(State.CLOSED)
        self._report(change)

    def admit(self) -> Admission:
        """
        Return the admission of a call.

        Raises CircuitBreakerOpenError at once if the call is not admitted.
        """
        if self._state is State.CLOSED:
            return self._admission
        with self._lock:
            if self._is_closed():
                return self._admission
            wait = self._remaining()
            if wait > 0 or self._is_probing():
                raise CircuitBreakerOpenError(
                    f"The circuit breaker of {self.name or 'this table'} is {self._state} "
                    f"after {self._error or 'failures'}; next try in {max(wait, 0):.1f} s.",
                    retry_after=max(wait, 0.0),
                )
            change = self._move(State.HALF_OPEN)
            admission = Admission(self._admission.generation, probe=True)
            self._probe = weakref.ref(admission)
        self._report(change)
        return admission

    def succeeded(self, admission: Admission, seconds: float = 0.0) -> None:
        """Count an operation with an answer, also one that DynamoDB refused."""
        if not self._failures and self._state is State.CLOSED and self._window is None:
            return
        with self._lock:
            if not self._is_current(admission):
                return
            self._failures = 0
            change = None
            if admission.probe:
                change = self._move(State.CLOSED)
            elif self._window is not None:
                self._record(failed=False, seconds=seconds)
                if self._is_too_bad():
                    self._error = self._error or "slow calls"
                    change = self._move(State.OPEN)
        self._report(change)

    def failed(self, admission: Admission, error: str, seconds: float = 0.0) -> None:
        """Count an operation without an answer; ``error`` is the class name of its error."""
        with self._lock:
            if not self._is_current(admission):
                return
            self._failures += 1
            self._error = error
            self._record(failed=True, seconds=seconds)
            change = None
            if (
                admission.probe
                or self._failures >= self._config.failure_threshold
                or self._is_too_bad()
            ):
                change = self._move(State.OPEN)
        self._report(change)

    def throttled(self, admission: Admission, seconds: float = 0.0) -> None:
        """Count a throttled operation: an answer, or a failure with ``count_throttles``."""
        if self._config.count_throttles:
            self.failed(admission, "ThrottlingError", seconds)
        else:
            self.succeeded(admission, seconds)

    def release(self, admission: Admission) -> None:
        """End a probe without an outcome, so that the next call may probe."""
        if not admission.probe:
            return
        with self._lock:
            if not self._is_current(admission) or self._state is not State.HALF_OPEN:
                return
            opened_at = self._opened_at
            change = self._move(State.OPEN)
            self._opened_at = opened_at
        self._report(change)

    def _is_closed(self) -> bool:
        return self._state is State.CLOSED or not self._config.enabled

    def _is_current(self, admission: Admission) -> bool:
        return self._config.enabled and admission.generation == self._admission.generation

    def _remaining(self) -> float:
        return self._opened_at + self._config.recovery_timeout - clock.monotonic()

    def _is_probing(self) -> bool:
        # A frame may live on in a traceback, so even a lost probe counts for a time.
        return (
            self._state is State.HALF_OPEN
            and self._probe is not None
            and self._probe() is not None
            and clock.monotonic() < self._probe_began_at + self._config.recovery_timeout
        )

    def _move(self, new: State) -> tuple[State, State]:
        old, self._state = self._state, new
        self._admission = Admission(self._admission.generation + 1)
        if old is not new and State.CLOSED in (old, new):
            self._since = clock.now()
        if new is State.OPEN:
            self._opened_at = clock.monotonic()
        elif new is State.HALF_OPEN:
            self._probe_began_at = clock.monotonic()
        else:
            self._failures = 0
            if self._window is not None:
                self._window.clear()
        return old, new

    def _report(self, change: tuple[State, State] | None) -> None:
        if change is not None and change[0] is not change[1]:
            self._on_change(*change, self._error)

    def _record(self, *, failed: bool, seconds: float) -> None:
        if self._window is not None:
            limit = self._config.slow_call_duration
            self._window.add(failed=failed, slow=limit is not None and seconds > limit)

    def _is_too_bad(self) -> bool:
        if self._window is None:
            return False
        calls, failures, slow = self._window.totals()
        if calls < self._config.minimum_calls:
            return False
        rate = self._config.failure_rate
        return (rate is not None and failures >= rate * calls) or (
            self._config.slow_call_duration is not None
            and slow >= self._config.slow_call_rate * calls
        )


def _needs_window(config: BreakerConfig) -> bool:
    return config.failure_rate is not None or config.slow_call_duration is not None


class _Window:
    """Counts of calls, failures and slow calls of the last ``seconds``, in ten buckets."""

    BUCKETS = 10

    def __init__(self, seconds: float) -> None:
        self._width = seconds / self.BUCKETS
        self._buckets: dict[int, list[int]] = {}

    def add(self, *, failed: bool, slow: bool) -> None:
        bucket = self._buckets.setdefault(self._now(), [0, 0, 0])
        bucket[0] += 1
        bucket[1] += failed
        bucket[2] += slow

    def totals(self) -> tuple[int, int, int]:
        oldest = self._now() - self.BUCKETS
        for number in [number for number in self._buckets if number <= oldest]:
            del self._buckets[number]
        calls, failures, slow = (
            sum(column) for column in zip(*self._buckets.values(), strict=True)
        )
        return calls, failures, slow

    def clear(self) -> None:
        self._buckets.clear()

    def _now(self) -> int:
        return int(clock.monotonic() / self._width)
