"""Processes that are started together and end together."""

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
    """A process ended or did not get ready; the message holds its last lines."""


class Processes:
    """
    Long-running processes, each with a log in ``folder``; all are gone when the block ends.

    Each has a process group of its own, so that what it starts itself ends with it, and Ctrl-C
    reaches us alone.
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
            _end(process, patience=1)
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
        """Return when ``is_ready``. Raises ProcessFailed if ``name`` ends before, or is late."""
        until = time.monotonic() + timeout
        while not is_ready():
            self.check()
            if time.monotonic() > until:
                raise ProcessFailed(
                    f"{name} was not ready after {timeout:.0f} s:\n{self.last_lines(name)}"
                )
            time.sleep(0.1)

    def says(self, name: str, words: str) -> bool:
        """Return whether the log of ``name`` holds ``words``."""
        return words in self._log(name).read_text(errors="replace")

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
        """End all, the last started first."""
        while self._running:
            _, process = self._running.popitem()
            _end(process, patience=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name.replace(' ', '-')}.log"


def _end(process: subprocess.Popen[bytes], *, patience: float) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    # What it left of its group: a beat or pool process that outlived it, or itself.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
