"""All kinds of processes report themselves: servers with threads, greenlets, ASGI; Celery."""

from __future__ import annotations

import os
import signal
import time

import pytest

from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.testing import find_free_port
from tests.helpers.processes import has_lost_its_broker

from .test_servers import ask

SITE = "tests.processes.limited_site"
SERVERS = {
    "threads": (["gunicorn", f"{SITE}:wsgi", "--threads", "4", "-b"], "/page", "gunicorn"),
    "gevent": (["gunicorn", f"{SITE}:wsgi", "-k", "gevent", "-b"], "/page", "gunicorn"),
    "asgi": (["uvicorn", f"{SITE}:asgi", "--port"], "/async", "uvicorn"),
}


def reports_since(moment, role):
    """The reports of processes of that role that started later."""
    return [each for each in ReportStore().latest() if each.role == role and each.started >= moment]


@pytest.mark.parametrize("kind", SERVERS)
def test_a_web_server_reports(start_process, until, kind):
    """From its first call, by a thread or greenlet, to its end."""
    command, path, role = SERVERS[kind]
    if kind == "gevent":
        pytest.importorskip("gevent")
    began, port = time.time(), find_free_port()
    server = start_process(*command, f"127.0.0.1:{port}" if role == "gunicorn" else str(port))

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
    assert report.has_ended


def test_a_celery_worker_reports(start_worker, until, tmp_path):
    """The children of its pool, where the tasks run; a killed one reports no end."""
    began = time.time()
    worker = start_worker("--concurrency", "1")

    def reports():
        nonlocal worker
        if has_lost_its_broker(worker, tmp_path):
            worker = start_worker("--concurrency", "1")
        return reports_since(began, "celery worker")

    (report,) = until(reports)
    assert report.pid != worker.pid
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait(30)
    (report,) = reports_since(began, "celery worker")
    assert not report.has_ended
    assert report.is_late(time.time() + 200)
