"""``manage.py forum_demo``: the forum with all its processes on this machine."""

from __future__ import annotations

import contextlib
import http.client
import os
import secrets
import signal
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from dynamo_stores.testing import find_free_port
from dynamo_stores.testing.engine import HOST, is_taken
from forum.management.processes import ProcessFailed, ProcessGroup
from forum.management.smoke_test import Browser, SmokeTestFailed, smoke_test

WEB_PORT = 8080
ADMIN = "admin"


class Command(BaseCommand):
    help = (
        "Starts an embedded DynamoDB, a sample forum, a Celery worker with beat and a web server, "
        "and prints their addresses. Ctrl-C stops all of them."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--check",
            action="store_true",
            help="Run a smoke test over HTTP, print its results, and stop.",
        )

    def handle(self, *args: Any, check: bool, **options: Any) -> None:
        try:
            with _stopped_by_signals(), tempfile.TemporaryDirectory(prefix="forum-demo-") as folder:
                self._run(Path(folder), check=check)
        except KeyboardInterrupt:
            if check:
                raise CommandError("Interrupted.") from None
            self.stdout.write("\nStopped.")
        except (ProcessFailed, SmokeTestFailed, OSError, http.client.HTTPException) as exc:
            raise CommandError(str(exc)) from exc

    def _run(self, folder: Path, *, check: bool) -> None:
        started = time.monotonic()
        engine_port = find_free_port()
        web_port = find_free_port() if check or is_taken(WEB_PORT) else WEB_PORT
        password = secrets.token_urlsafe(9)
        environment = _environment(folder, engine_port)
        with ProcessGroup(folder, environment, Path(settings.BASE_DIR)) as processes:
            manage = (sys.executable, "manage.py")
            self._print("Starting an embedded DynamoDB …")
            processes.start(
                "DynamoDB", *manage, "dynamo_local", "--in-memory", "--port", str(engine_port)
            )
            processes.wait_until(
                "DynamoDB", lambda: processes.has_logged("DynamoDB", "answers at"), 60
            )
            for step, *command in (
                ("create tables", "dynamo_create_tables"),
                ("load the sample forum", "forum_seed"),
                ("create the admin's database", "migrate", "--verbosity", "0"),
            ):
                printed = processes.run(step, *manage, *command)
                for line in printed.splitlines():
                    self._print(f"  {line}")
            processes.run(
                "create an administrator", *manage, "createsuperuser", "--noinput",
                "--username", ADMIN, "--email", "admin@example.com",
                DJANGO_SUPERUSER_PASSWORD=password,
            )  # fmt: skip
            self._print("Starting a Celery worker with beat, and the web server …")
            processes.start(
                "worker", sys.executable, "-m", "celery", "--app", "project", "worker", "--beat",
                "--concurrency", "1", "--loglevel", "INFO", "--schedule", str(folder / "beat"),
            )  # fmt: skip
            processes.start("web server", *manage, "runserver", "--noreload", f"{HOST}:{web_port}")
            processes.wait_until("web server", lambda: is_taken(web_port), 60)
            processes.wait_until(
                "worker",
                lambda: (
                    processes.has_logged("worker", "ready.")
                    and processes.has_logged("worker", "beat: Starting")
                ),
                60,
            )
            if check:
                self._print("The worker and its beat are ready.")
                for line in smoke_test(Browser(HOST, web_port), ADMIN, password):
                    self._print(line)
                self._print("A table of 10 units that throttles, with 80 writes a second for 8 s:")
                load = ("--scenario", "scaling", "--rate", "80", "--seconds", "8")
                self._print(processes.run("load", *manage, "dynamo_benchmark", *load).strip())
                processes.check()
                self._print(f"All checks passed after {time.monotonic() - started:.0f} s.")
                return
            self._print(
                f"\n  Forum     http://{HOST}:{web_port}/\n"
                f"  Admin     http://{HOST}:{web_port}/admin/   {ADMIN} / {password}\n"
                f"  Status    http://{HOST}:{web_port}/admin/dynamo-stores/\n"
                f"  DynamoDB  http://{HOST}:{engine_port}\n"
                f"  Logs      {folder}\n\n"
                "Ctrl-C stops all of them."
            )
            while True:
                processes.check()
                time.sleep(0.5)

    def _print(self, line: str) -> None:
        self.stdout.write(line)
        self.stdout.flush()


def _environment(folder: Path, engine_port: int) -> dict[str, str]:
    # Without the user's own settings: no .env, no other endpoint, no AWS credentials.
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "DYNAMODB_", "CELERY_", "DJANGO_", "SECURE_", "TEST_"))
    }
    return {
        **kept,
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "ENV_FILE": os.devnull,
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DJANGO_DEBUG": "true",
        "ALLOWED_HOSTS": HOST,
        "USE_DYNAMODB": "true",
        "DYNAMODB_ENDPOINT": f"http://{HOST}:{engine_port}",
        "DYNAMODB_BILLING_MODE": "PROVISIONED",
        "DYNAMODB_SCALING_ENABLED": "true",
        "DYNAMODB_METRICS_SINKS": "dynamo_stores.monitoring.sinks.LoggingSink,"
        "dynamo_stores.monitoring.sinks.prometheus.PrometheusSink",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "CELERY_BROKER_FOLDER": str(folder / "broker"),
        "PYTHONUNBUFFERED": "1",
    }


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Handle SIGTERM and SIGHUP like Ctrl-C, each only once."""

    def interrupt(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {
        number: signal.signal(number, interrupt)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
