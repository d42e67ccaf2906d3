"""Fixtures for tests of faults."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import pytest

QUICK = {"DELAY": 0.01, "MAX_DELAY": 0.05}


class Interrupted(BaseException):
    """What a signal handler raises, between any two steps of the main thread."""


@contextlib.contextmanager
def interrupting():
    """Give a function that raises Interrupted in the main thread after so many seconds (0: not)."""
    is_expected = False

    def interrupt(*args):
        nonlocal is_expected
        # Another thread may get the signal, and this one notice it later, after the next one.
        if is_expected:
            is_expected = False
            raise Interrupted

    def interrupt_in(seconds):
        nonlocal is_expected
        is_expected = seconds > 0
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def unraisable(args):
        """An interrupted callback of the garbage collector or of a reference is not an error."""
        if not isinstance(args.exc_value, Interrupted):
            hook(args)

    before = signal.signal(signal.SIGALRM, interrupt)
    hook, sys.unraisablehook = sys.unraisablehook, unraisable
    try:
        yield interrupt_in
    finally:
        interrupt_in(0)
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook


@pytest.fixture
def faulty(alias, make_cache, dynamo_faults):
    """
    A cache behind the relay of faults; opens its breaker after three failures, for 0.3 s. It has
    time for what is answered: tests of deadlines name theirs.
    """

    def make(options=None, **changes):
        settings = {
            "ENDPOINT_URL": dynamo_faults.url,
            "RETRY": QUICK,
            "CIRCUIT_BREAKER": {"FAILURE_THRESHOLD": 3, "RECOVERY_TIMEOUT": 0.3},
            **changes,
        }
        return make_cache(alias(**settings), OPTIONS={"OPERATION_TIMEOUT": 30.0, **(options or {})})

    return make


async def cancelled_during(faults, operation, coroutine):
    """Cancel ``coroutine`` during a request of ``operation``, which DynamoDB gets after that."""
    before = faults.requests[operation]
    faults.delay(1.0, operation, times=1)
    task = asyncio.ensure_future(coroutine)
    while faults.requests[operation] == before:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(2.0)
