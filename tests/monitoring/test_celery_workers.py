"""The processes of a Celery worker that is stopped in an orderly way report their end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from django.conf import settings

from dynamo_stores.monitoring.report_store import ReportStore


@pytest.fixture
def start_worker(dynamo_engine, default_alias, tables, tmp_path):
    """``start_worker()``: a worker with a pool of one process, whose first task calls DynamoDB."""
    started = []
    log = (tmp_path / "worker.log").open("w")

    def start():
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "celery", "--app", "project", "worker", "--beat"),
                *("--concurrency", "1", "--schedule", str(tmp_path / "beat")),
            ],
            cwd=settings.BASE_DIR,
            env={
                **os.environ,
                "ENV_FILE": os.devnull,
                "DYNAMODB_ENDPOINT": dynamo_engine,
                "DYNAMODB_TABLE_PREFIX": default_alias["TABLE_PREFIX"],
                "AWS_REGION": "us-east-1",
                "DYNAMODB_EXPIRY_INDEX": "true",
                "DYNAMODB_CLEANUP_INTERVAL": "1000",
                "CELERY_BROKER_FOLDER": str(tmp_path / "broker"),
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


@pytest.mark.slow
def test_a_stopped_worker_reports_the_end_of_its_processes(start_worker, until, tmp_path):
    """Those of its pool, too, which end without Python's exit handlers."""
    worker, began = start_worker(), time.time()

    def reports():
        nonlocal worker, began
        if worker.poll() is not None:
            # Celery's filesystem broker may read a message that is still being written.
            log = (tmp_path / "worker.log").read_text()
            assert "filesystem.py" in log, log
            worker, began = start_worker(), time.time()
        return [
            each
            for each in ReportStore().latest()
            if each.role == "celery worker" and each.started >= began
        ]

    before = until(reports, 60)
    worker.terminate()
    worker.wait(60)
    ended = {each.process: each.has_ended for each in ReportStore().latest()}
    assert [ended[each.process] for each in before] == [True] * len(before)
