"""Processes of servers and workers, on the tables of the tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest
from django.conf import settings


def kill(processes):
    """Kill the processes and their children, each a session of its own."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


@pytest.fixture
def interruptible():
    """Children get SIGINT, also where the parent of the tests ignores it, as in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupted_command(url, *command, after, with_signal, **environment):
    """
    Run ``manage.py`` on the DynamoDB at ``url``, send it the signal after a line that contains the
    text ``after``, and return its exit status and what it printed to stderr.
    """
    process = subprocess.Popen(
        [sys.executable, "manage.py", *command],
        cwd=settings.BASE_DIR,
        env={
            **os.environ,
            "ENV_FILE": os.devnull,
            "DYNAMODB_ENDPOINT": url,
            "AWS_REGION": "us-east-1",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while after not in (line := process.stdout.readline()):
            assert line, process.stderr.read()
        process.send_signal(with_signal)
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, error


@pytest.fixture
def start_process(dynamo_engine, default_alias, tables, tmp_path):
    """
    ``start_process("gunicorn", …, NAME="value")``: a process of ``python -m gunicorn …``, which is
    killed afterwards. All write to ``process.log``.
    """
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
    kill(started)
    log.close()


@pytest.fixture
def start_worker(start_process, tmp_path):
    """
    ``start_worker("--pool", "solo")``: a Celery worker with beat, whose task deletes expired
    entries every second. It gets its messages over the file system.
    """

    def start(*options):
        return start_process(
            *("celery", "--app", "project", "worker", "--beat", "--loglevel", "INFO"),
            *("--schedule", str(tmp_path / "beat"), *options),
            DYNAMODB_EXPIRY_INDEX="true",
            DYNAMODB_CLEANUP_INTERVAL="1000",
            CELERY_BROKER_FOLDER=str(tmp_path / "broker"),
        )

    return start


def has_lost_its_broker(worker, tmp_path):
    """
    Return whether the worker ended because Celery read a message that was still being written,
    as it may over the file system. Another end fails the test.
    """
    if worker.poll() is None:
        return False
    log = (tmp_path / "process.log").read_text()
    assert "filesystem.py" in log, log
    return True
