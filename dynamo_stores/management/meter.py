"""A progress bar with an estimate, and lines where there is no terminal."""

from __future__ import annotations

import threading
from typing import Any

from .. import clock

_WIDTH = 30
# Seconds between two updates, of a bar and of lines.
_BAR_EVERY, _LINE_EVERY = 0.2, 5.0


def bar(done: int, total: int) -> str:
    """Return a bar of text for ``done`` of ``total``."""
    filled = _WIDTH if total <= done else _WIDTH * done // total
    return f"[{'#' * filled}{'.' * (_WIDTH - filled)}]"


def duration(seconds: float) -> str:
    """Return ``seconds`` as text: ``3 h 05 min``, ``4 min 10 s``, ``7 s``."""
    whole = int(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    if whole >= 60:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole} s"


class Meter:
    """
    Shows how many items are done, of ``total`` or of an unknown number (0), and how long the rest
    takes. Thread-safe.
    """

    def __init__(self, stream: Any, total: int, *, is_silent: bool = False) -> None:
        self._stream = stream
        self._total = total
        self._is_silent = is_silent
        self._is_terminal = bool(getattr(stream, "isatty", bool)())
        self._phase = ""
        self._began = self._shown_at = clock.monotonic()
        self._at_begin = 0
        self._is_open = False
        self._lock = threading.Lock()

    def update(self, phase: str, done: int) -> None:
        """Show that ``done`` items are done in ``phase``, such as ``Handled``."""
        with self._lock:
            now = clock.monotonic()
            if phase != self._phase:
                self._end()
                self._phase, self._began, self._at_begin = phase, now, done
            every = _BAR_EVERY if self._is_terminal else _LINE_EVERY
            if not self._is_silent and now - self._shown_at >= every:
                self._shown_at = now
                self._show(self.line(done, now))

    def end(self) -> None:
        """End the line of a bar."""
        with self._lock:
            self._end()

    def line(self, done: int, now: float) -> str:
        """Return the text for ``done`` items at ``now``, in seconds of ``clock.monotonic``."""
        count = f"{self._phase} {done:,} items"
        if not self._total:
            return count
        share = min(1.0, done / self._total)
        text = f"{bar(done, self._total)} {share:.0%} {count}"
        fresh = done - self._at_begin
        if fresh > 0 and done < self._total:
            left = (self._total - done) * (now - self._began) / fresh
            text += f", about {duration(left)} left"
        return text

    def _show(self, text: str) -> None:
        if self._is_terminal:
            self._stream.write(f"\r{text}\x1b[K", ending="")
            self._stream.flush()
            self._is_open = True
        else:
            self._stream.write(text)

    def _end(self) -> None:
        if self._is_open:
            self._stream.write("")
            self._is_open = False
