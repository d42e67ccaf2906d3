"""The end of a process: one time for all who wait for what is still to be sent."""

from __future__ import annotations

from collections.abc import Callable

from .. import clock

# Seconds from the begin of the end for all together, and those after which another end begins.
_SECONDS, _OVER = 1.5, 10.0

_when_ending: list[Callable[[], None]] = []
_until: float | None = None


def when_ending(begin: Callable[[], None]) -> Callable[[], None]:
    """Call ``begin``, which must not block, when the process begins to end; a decorator."""
    _when_ending.append(begin)
    return begin


def time_left() -> float:
    """Return for how many seconds the end of the process may wait, from the first call on."""
    global _until
    now = clock.monotonic()
    if _until is None or now >= _until + _OVER - _SECONDS:
        _until = now + _SECONDS
        for begin in _when_ending:
            begin()
    return max(0.0, _until - now)
