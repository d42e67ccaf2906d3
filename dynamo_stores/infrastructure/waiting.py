"""Waiting for what DynamoDB does by itself: with lines about the progress, over short outages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .. import clock
from ..exceptions import StoreError, StoreRefused, StoreUnavailable

R = TypeVar("R")

# Seconds for which DynamoDB may not answer, or not show a change, before a wait is given up.
PATIENCE = 60.0
# Seconds between two lines about the same progress.
_BETWEEN_LINES = 15.0


class Waiting:
    """
    A wait for something with a ``name``; ``write`` gets a line when it changes, and now and then.

    After ``timeout`` seconds (None: without end) StoreError is raised.
    """

    def __init__(self, name: str, write: Callable[[str], None], timeout: float | None) -> None:
        self._name = name
        self._write = write
        self._timeout = timeout
        self._started = self._printed = clock.monotonic()
        self._before = ""

    def go_on(self, state: str) -> None:
        """Wait a little, because of ``state``, a phrase."""
        now = clock.monotonic()
        waited = now - self._started
        if self._timeout is not None and waited > self._timeout:
            raise StoreError(
                f"After {waited:.0f} s {state}. That goes on in DynamoDB; run the command again to "
                "continue."
            )
        if state != self._before or now - self._printed >= _BETWEEN_LINES:
            self._write(f"{self._name}: {state}, for {waited:.0f} s")
            self._before, self._printed = state, now
        clock.sleep(0.2 if waited < 5 else 1.0 if waited < 60 else 5.0)


def patiently(read: Callable[[], R], name: str, write: Callable[[str], None]) -> R:
    """
    Return what ``read`` returns. While DynamoDB does not answer, it is called again for a minute;
    then StoreUnavailable is raised.
    """
    until = clock.monotonic() + PATIENCE
    while True:
        try:
            return read()
        except StoreRefused:
            raise
        except StoreUnavailable as exc:
            if clock.monotonic() >= until:
                raise
            write(f"{name}: {exc}")
            clock.sleep(2.0)
