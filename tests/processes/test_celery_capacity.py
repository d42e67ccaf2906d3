"""Lowering by real workers and beats, in other processes, over the file system and Redis."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from django.conf import settings

from dynamo_stores.capacity.records import CapacityRecords
from dynamo_stores.capacity.update import describe
from dynamo_stores.conf import get_config
from dynamo_stores.testing import find_free_port
from tests.helpers.processes import kill


@pytest.fixture(params=["filesystem", "redis"])
def broker(request, tmp_path):
    """The environment of a broker, and a function that empties its queue."""
    if request.param == "filesystem":
        folder = tmp_path / "broker"
        yield (
            {"CELERY_BROKER_URL": "filesystem://", "CELERY_BROKER_FOLDER": str(folder)},
            lambda: shutil.rmtree(folder / "queue", ignore_errors=True),
        )
        return
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed.")
    port = find_free_port()
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
    )

    def flush():
        import redis

        with redis.Redis(port=port) as client:
            client.flushall()

    yield {"CELERY_BROKER_URL": f"redis://127.0.0.1:{port}/0"}, flush
    server.terminate()
    server.wait(10)


@pytest.fixture
def project(broker, tmp_path):
    """``project(using, relay)``: starts workers with beat, and sends tasks, as the project does."""
    processes = []

    class Project:
        def __init__(self, using, relay):
            self.wipe = broker[1]
            self.environment = {
                **os.environ,
                **broker[0],
                "ENV_FILE": os.devnull,
                "DJANGO_SETTINGS_MODULE": "project.settings",
                "DYNAMODB_ENDPOINT": relay.url,
                "DYNAMODB_TABLE_PREFIX": get_config(using).table_prefix,
                "AWS_REGION": "us-east-1",
                "DYNAMODB_BILLING_MODE": "PROVISIONED",
                "DYNAMODB_RECONCILE_INTERVAL": "1000",
            }

        def start(self):
            number = len(processes)
            with (tmp_path / f"worker{number}.log").open("w") as log:
                process = subprocess.Popen(
                    [
                        sys.executable, "-m", "celery", "--app", "project", "worker", "--beat",
                        "--pool", "solo", "--loglevel", "INFO", "--hostname", f"w{number}@%h",
                        "--schedule", str(tmp_path / f"beat{number}"),
                    ],
                    cwd=settings.BASE_DIR,
                    env=self.environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )  # fmt: skip
            processes.append(process)
            return process

        def deliver(self, table, times):
            code = (
                "import django; django.setup()\n"
                "from project.celery import app\n"
                f"for _ in range({times}):\n"
                f"    app.send_task('dynamo_stores.scale_down', args=[{table!r}])\n"
            )
            command = [sys.executable, "-c", code]
            subprocess.run(command, cwd=settings.BASE_DIR, env=self.environment, check=True)

        def logs(self):
            return "\n".join(path.read_text() for path in tmp_path.glob("worker*.log"))

    yield Project
    kill(processes)


@pytest.mark.slow
def test_a_table_comes_down_once_whatever_happens_to_workers_and_queue(
    provisioned,
    run,
    project,
):
    """
    The worker is killed before the deadline, the queue wiped, the task delivered fourteen times,
    and two beats run: one lowering, soon after the deadline.
    """
    using, table, relay = provisioned(SCALING={"SCALE_DOWN_DELAY": 12})
    work = project(using, relay)
    first = work.start()
    run("dynamo_scale", table, "up", using=using)
    deadline = CapacityRecords(using).get(table).deadline
    time.sleep(2)
    os.killpg(first.pid, signal.SIGKILL)
    work.wipe()
    assert describe(using, table).resources[""].units == (10, 10)
    work.start()
    work.start()
    work.deliver(table, 14)
    while describe(using, table).resources[""].units != (5, 5):
        assert time.time() < deadline + 60, work.logs()
        time.sleep(0.2)
    assert time.time() >= deadline
    time.sleep(3)
    assert relay.status()["tables"][table]["updates"] == 2
