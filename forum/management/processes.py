"""Processes that are started and ended together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self


class ProcessFailed(Exception):
    """A process ended or did not become ready; the message has the last lines of its log."""


class ProcessGroup:
    """
    Long-running processes, each with a log in ``folder``; all are ended at the end of the block.

    Each has its own process group, so that its children end with it, and Ctrl-C reaches only this
    process.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], cwd: Path) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._cwd = cwd
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        """Start ``command``."""
        with self._log(name).open("wb") as log:
            self._running[name] = subprocess.Popen(
                command,
                cwd=self._cwd,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, name: str, *command: str, **environment: str) -> str:
        """Run ``command`` to its end and return what it printed."""
        self.start_with(name, command, environment)
        process = self._running.pop(name)
        try:
            status = process.wait(120)
        except BaseException:
            _end(process, timeout=1)
            raise
        if status != 0:
            raise ProcessFailed(f"{name} ended with status {status}:\n{self.last_lines(name)}")
        return self._log(name).read_text(errors="replace")

    def start_with(
        self, name: str, command: tuple[str, ...], environment: Mapping[str, str]
    ) -> None:
        """Start ``command`` with more ``environment``."""
        before = self._environment
        self._environment = {**before, **environment}
        try:
            self.start(name, *command)
        finally:
            self._environment = before

    def wait_until(self, name: str, is_ready: Callable[[], bool], timeout: float) -> None:
        """Wait until ``is_ready``. Raises ProcessFailed at the timeout, or if a process ends."""
        until = time.monotonic() + timeout
        while not is_ready():
            self.check()
            if time.monotonic() > until:
                raise ProcessFailed(
                    f"{name} was not ready after {timeout:.0f} s:\n{self.last_lines(name)}"
                )
            time.sleep(0.1)

    def has_logged(self, name: str, text: str) -> bool:
        """Return whether the log of ``name`` contains ``text``."""
        return text in self._log(name).read_text(errors="replace")

    def check(self) -> None:
        """Raise ProcessFailed if any process has ended."""
        for name, process in self._running.items():
            if (status := process.poll()) is not None:
                raise ProcessFailed(f"{name} ended with status {status}:\n{self.last_lines(name)}")

    def last_lines(self, name: str, count: int = 15) -> str:
        """Return the last lines of the log of ``name``."""
        lines = self._log(name).read_text(errors="replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-count:])

    def stop(self) -> None:
        """End all processes, the last started first."""
        while self._running:
            _, process = self._running.popitem()
            _end(process, timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name.replace(' ', '-')}.log"


def _end(process: subprocess.Popen[bytes], *, timeout: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout)
    # The rest of its group: a beat or pool process that is still alive, or itself.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
