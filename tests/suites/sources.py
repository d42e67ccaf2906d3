"""Running the test suites of other projects, from the sources that CI fetches."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

import pytest


def needs_source(variable, name):
    """Skip where ``variable`` of the environment does not name the folder of the source."""
    return pytest.mark.skipif(
        variable not in os.environ,
        reason=f"{variable} is not set: the folder of {name}'s source, which CI fetches.",
    )


def run_their_tests(engine, *arguments, folder, settings, path):
    """Run ``python -m …arguments`` on new tables under these settings; return what it printed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "DJANGO_SETTINGS_MODULE": settings,
        "DYNAMODB_ENDPOINT": engine,
        "DYNAMODB_TABLE_PREFIX": f"test-{secrets.token_hex(4)}-",
    }

    def python(*arguments):
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-20_000:]
        return done.stdout + done.stderr

    python("django", "dynamo_create_tables")
    return python(*arguments)
