"""Fixtures for tests of faults."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import random
import signal
import sys
import threading
import time
import warnings

import pytest

QUICK = {"DELAY": 0.01, "MAX_DELAY": 0.05}


class Interrupted(BaseException):
    """What a signal handler raises between any two steps of the main thread, or another thread."""


def interrupt_often(monkeypatch, work, times=300):
    """
    Call ``work`` in threads that are interrupted at random bytecodes, as by a soft time limit,
    until it was interrupted so often, or for a minute.
    """
    raise_in = ctypes.pythonapi.PyThreadState_SetAsyncExc
    interrupted, until = 0, time.monotonic() + 60
    # Interruptions may also come in the callbacks of references, and end the thread.
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: None)
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    def run():
        nonlocal interrupted
        while interrupted < times and time.monotonic() < until:
            try:
                work()
            except Interrupted:
                interrupted += 1

    while interrupted < times and time.monotonic() < until:
        thread = threading.Thread(target=run)
        thread.start()
        while thread.is_alive() and time.monotonic() < until:
            raise_in(ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupted))
            time.sleep(random.uniform(0, 0.0003))
        thread.join(60)
        assert not thread.is_alive()
    assert interrupted > 0


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
        with warnings.catch_warnings():
            # The exception may come between making a coroutine and running it.
            warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
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
