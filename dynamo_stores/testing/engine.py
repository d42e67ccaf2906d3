"""The embedded engine: a local DynamoDB over HTTP, for development and tests, on loopback."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Self

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

HOST = "127.0.0.1"
# Outgoing connections get ports from 32768 on with Linux, from 49152 on elsewhere.
_PORTS = range(15_000, 32_000)
_TRIES = 5

# The engine ends cleanly when its standard input is closed, so also if its parent is killed.
_ENGINE = """
import os, signal, sys, threading

def end_with_parent():
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=end_with_parent, daemon=True).start()
sys.argv = ["ministack"]
from ministack.app import main
main()
"""


class EngineError(RuntimeError):
    """The engine cannot be started; the message has the reason and a remedy."""


class _PortTakenError(EngineError):
    """Another process listens on the port."""


def find_free_port() -> int:
    """
    Return a free TCP port of 127.0.0.1.

    It is below the ports of outgoing connections, and chosen at random, so that processes that
    ask at the same time get different ones.
    """
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise EngineError(f"None of a hundred ports of 127.0.0.1 from {_PORTS[0]} on is free.")


def is_taken(port: int) -> bool:
    """Return whether a process listens on ``port`` at 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


class EmbeddedEngine:
    """
    ministack, limited to DynamoDB with its streams and to 127.0.0.1, in its own process.

    With ``data`` (a folder) its data is kept over clean stops, otherwise it is lost with the
    process. ``start`` returns when it answers; ``stop`` ends it cleanly.
    """

    def __init__(self, port: int | None = None, data: Path | None = None) -> None:
        self.port = port or find_free_port()
        self.data = data
        self._may_move = port is None
        self._process: subprocess.Popen[bytes] | None = None
        self._output: tempfile._TemporaryFileWrapper[bytes] | None = None
        self._data_lock: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """The value for ``ENDPOINT_URL``."""
        return f"http://{HOST}:{self.port}"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        if self._process is None:
            raise EngineError("The embedded DynamoDB is not running; call start() first.")
        return self._process

    def start(self, timeout: float = 30.0) -> Self:
        """
        Start the engine and wait until it answers, at most ``timeout`` seconds.

        Raises EngineError if the extra is not installed, the port is taken, or the time is over.
        """
        if importlib.util.find_spec("ministack") is None:
            raise EngineError(
                "The embedded DynamoDB is not installed: pip install 'dynamo-stores[local]'. "
                "Or set the endpoint of another DynamoDB."
            )
        if self.data is not None:
            self._lock_data(self.data)
        for _ in range(_TRIES if self._may_move else 1):
            try:
                self._start_once(timeout)
            except _PortTakenError as exc:
                taken = exc
                if self._may_move:
                    self.port = find_free_port()
            else:
                # After a kill, start() must use the port of the URL again.
                self._may_move = False
                return self
        raise taken

    def _lock_data(self, folder: Path) -> None:
        """Of two engines with one folder, the one that stops last would overwrite the other's."""
        folder.mkdir(parents=True, exist_ok=True)
        if fcntl is None or self._data_lock is not None:
            return
        lock = (folder / ".lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise EngineError(
                f"Another engine keeps its data in {folder}. Stop it, or name another folder "
                "('manage.py dynamo_local --data-dir FOLDER')."
            ) from None
        self._data_lock = lock

    def stop(self, timeout: float = 10.0) -> None:
        """End the engine after it has written ``data``; kill it after ``timeout`` seconds."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process is not None and process.stdin is not None:
            process.stdin.close()
        if self._output is not None:
            self._output.close()
            self._output = None
        if self._data_lock is not None:
            self._data_lock.close()
            self._data_lock = None

    def kill(self) -> None:
        """Kill the engine with SIGKILL, without writing ``data``. ``start`` starts it again."""
        process = self.process
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdin is not None:
            process.stdin.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def _start_once(self, timeout: float) -> None:
        if is_taken(self.port):
            raise self._port_taken()
        self._output = tempfile.NamedTemporaryFile(prefix="dynamo-local-")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ENGINE],
            env=self._environment(),
            stdin=subprocess.PIPE,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            # Ctrl-C in a terminal reaches only the parent, which stops the engine cleanly.
            start_new_session=True,
        )
        try:
            self._wait_until_ready(timeout)
        except BaseException:
            self.stop()
            raise

    def _port_taken(self) -> _PortTakenError:
        return _PortTakenError(
            f"Port {self.port} on {HOST} is taken. Stop the process that listens there, or "
            "choose another port with --port."
        )

    def _environment(self) -> dict[str, str]:
        own = {
            "BIND_HOST": HOST,
            "GATEWAY_PORT": str(self.port),
            "SERVICES": "dynamodb,dynamodbstreams",
            "LOG_LEVEL": "WARNING",
            "PERSIST_STATE": "1" if self.data is not None else "0",
        }
        if self.data is not None:
            own["STATE_DIR"] = str(self.data)
        return {**os.environ, **own}

    def _wait_until_ready(self, timeout: float) -> None:
        until = time.monotonic() + timeout
        while time.monotonic() < until:
            if self.process.poll() is not None:
                if is_taken(self.port):
                    raise self._port_taken()
                raise EngineError(f"The embedded DynamoDB did not start:\n{self._last_lines()}")
            if self._answers():
                return
            time.sleep(0.05)
        raise EngineError(
            f"The embedded DynamoDB did not answer within {timeout:g} s:\n{self._last_lines()}"
        )

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(HOST, self.port, timeout=1)
        with (
            contextlib.closing(connection),
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            connection.request("GET", "/_ministack/health")
            return connection.getresponse().status == 200
        return False

    def _last_lines(self) -> str:
        if self._output is None:
            return ""
        text = Path(self._output.name).read_text(errors="replace")
        return "\n".join(text.splitlines()[-10:])
