"""Threads that end together: when one fails, or at Ctrl-C, the others end at their next check."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from ...concurrency.effects import Verb, Wait, run
from ...concurrency.together import Aside, together

T = TypeVar("T")

# Seconds of a wait after which it is asked whether another thread failed.
_SLICE = 0.5
# Seconds that the threads have to end after Ctrl-C. What they do then is as after a crash.
_LAST = 3.0


class _Ended(Exception):
    """The work of this thread ended because that of another one failed."""


class Together:
    """Runs a verb for each of some items, in threads of which a failure ends all."""

    def __init__(self) -> None:
        self._has_failed = threading.Event()

    def run(self, items: Sequence[T], verb: Callable[[T], Verb[None]], *, threads: int = 0) -> None:
        """
        Run ``verb(item)`` for all items, in so many threads (by default one for each item).

        Raises the first error. The verbs call :meth:`check` or :meth:`wait` between two steps.
        """

        async def one(item: T) -> None:
            try:
                self.check()
                # Compressing and encrypting take longer than requests.
                await Aside()
                await verb(item)
            except _Ended:
                return
            except BaseException:
                self._has_failed.set()
                raise

        errors: list[BaseException] = []

        def work() -> None:
            try:
                run(together(items, one, max_concurrency=max(1, threads or len(items))))
            except BaseException as exc:  # noqa: BLE001 - raised in the caller's thread
                errors.append(exc)

        # This thread only waits, so Ctrl-C is not held up by a request that the table throttles.
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run, args=(work,), name="dynamo-stores-backup", daemon=True
        )
        thread.start()
        try:
            thread.join()
        except BaseException:
            self._has_failed.set()
            thread.join(_LAST)
            raise
        if errors:
            raise errors[0]

    def check(self) -> None:
        """End the verb if another one failed."""
        if self._has_failed.is_set():
            raise _Ended

    async def wait(self, seconds: float) -> None:
        """Wait, and end the verb if another one fails meanwhile. A verb."""
        self.check()
        while seconds > 0:
            await Wait(min(seconds, _SLICE))
            seconds -= _SLICE
            self.check()
