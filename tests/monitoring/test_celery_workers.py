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
def worker(dynamo_engine, default_alias, tables, tmp_path):
    """A worker with a pool of one process, whose first task calls DynamoDB."""
    with (tmp_path / "worker.log").open("w") as log:
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
        yield process
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.mark.slow
def test_a_stopped_worker_reports_the_end_of_its_processes(worker, until):
    """Those of its pool, too, which end without Python's exit handlers."""
    began = time.time() - 60

    def reports():
        assert worker.poll() is None
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
