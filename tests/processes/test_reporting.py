"""All kinds of processes report themselves: servers with threads, greenlets, ASGI; Celery."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from django.conf import settings

from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.testing import find_free_port

from .test_servers import ask

SITE = "tests.processes.limited_site"
SERVERS = {
    "threads": (["gunicorn", f"{SITE}:wsgi", "--threads", "4", "-b"], "/page", "gunicorn"),
    "gevent": (["gunicorn", f"{SITE}:wsgi", "-k", "gevent", "-b"], "/page", "gunicorn"),
    "asgi": (["uvicorn", f"{SITE}:asgi", "--port"], "/async", "uvicorn"),
}


@pytest.fixture
def start(dynamo_engine, default_alias, tables, tmp_path):
    """``start(…)``: a process of ``python -m …`` on the tests' tables; it is ended afterwards."""
    started = []
    log = (tmp_path / "process.log").open("w")

    def start(*command, **environment):
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=settings.BASE_DIR,
            env={
                **os.environ,
                "ENV_FILE": os.devnull,
                "DYNAMODB_ENDPOINT": dynamo_engine,
                "DYNAMODB_TABLE_PREFIX": default_alias["TABLE_PREFIX"],
                "AWS_REGION": "us-east-1",
                **environment,
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    log.close()


def reports_since(moment, role):
    """The reports of processes of that role that started later."""
    return [each for each in ReportStore().latest() if each.role == role and each.started >= moment]


@pytest.mark.parametrize("kind", SERVERS)
def test_a_web_server_reports(start, until, kind):
    """From its first call, by a thread or greenlet; if it can, also its end."""
    command, path, role = SERVERS[kind]
    if kind == "gevent":
        pytest.importorskip("gevent")
    began, port = time.time(), find_free_port()
    server = start(*command, f"127.0.0.1:{port}" if role == "gunicorn" else str(port))

    def answers():
        assert server.poll() is None
        try:
            return ask(port, path, "reporting")[0]
        except OSError:
            return None

    assert until(answers, 60) == 200
    (report,) = until(lambda: reports_since(began, role))
    assert not report.has_ended
    ((table, calls),) = report.calls.items()
    assert table.endswith("dynamo-stores")
    assert calls.attempts >= 1
    server.terminate()
    server.wait(30)
    (report,) = reports_since(began, role)
    # uvicorn is ended by the signal itself, without Python's exit handlers: it is late.
    assert report.has_ended is (role == "gunicorn")


def test_a_celery_worker_reports(start, until, tmp_path):
    """The children of its pool, where the tasks run; a killed one reports no end."""
    began = time.time()

    def start_worker():
        return start(
            *("celery", "--app", "project", "worker", "--beat", "--concurrency", "1"),
            *("--schedule", str(tmp_path / "beat")),
            DYNAMODB_EXPIRY_INDEX="true",
            DYNAMODB_CLEANUP_INTERVAL="1000",
            CELERY_BROKER_FOLDER=str(tmp_path / "broker"),
        )

    worker = start_worker()

    def reports():
        nonlocal worker
        if worker.poll() is not None:
            # Celery's filesystem broker may read a message that is still being written.
            log = (tmp_path / "process.log").read_text()
            assert "filesystem.py" in log, log
            worker = start_worker()
        return reports_since(began, "celery worker")

    (report,) = until(reports)
    assert report.pid != worker.pid
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(30)
    (report,) = reports_since(began, "celery worker")
    assert not report.has_ended
    assert report.is_late(time.time() + 200)
