"""A function that blocks and cannot be ended, in a thread of its own that nobody has to await."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from .. import clock
from ..exceptions import copy_of
from .effects import Opened
from .flights import Gate
from .threads import start

T = TypeVar("T")


class OwnThread(Generic[T]):
    """
    Calls ``function`` once, in a daemon thread that begins now. Any number of threads and tasks
    wait for its result; a thread that nobody awaits any more is left behind.
    """

    def __init__(self, function: Callable[[], T], name: str) -> None:
        self._function = function
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._gates: list[Gate] = []
        self.is_done = False
        if not start(
            threading.Thread(target=self._call, name=f"dynamo-stores-{name}", daemon=True)
        ):
            self._call()

    async def result(self, until: float) -> T:
        """
        Return the result, or raise the error of the function; TimeoutError at the monotonic time
        ``until``. A verb.
        """
        gate = Gate()
        self._gates.append(gate)
        try:
            while not self.is_done:
                left = until - clock.monotonic()
                if left <= 0:
                    raise TimeoutError
                await Opened(gate, left)
        finally:
            with contextlib.suppress(ValueError):
                self._gates.remove(gate)
        if self._error is not None:
            raise copy_of(self._error)
        return self._results[0]

    def _call(self) -> None:
        try:
            self._results.append(self._function())
        except BaseException as exc:  # noqa: BLE001 - its callers raise it
            self._error = exc
        self.is_done = True
        for gate in list(self._gates):
            gate.open()
