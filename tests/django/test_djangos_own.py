"""Django's own cache tests, from the source distribution that CI fetches."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

ROOT = Path(settings.BASE_DIR)


@pytest.mark.skipif(
    "DJANGO_TESTS" not in os.environ,
    reason="DJANGO_TESTS is not set: the folder tests of Django's source, which CI fetches.",
)
def test_djangos_own_cache_tests_pass(dynamo_engine):
    """Sync and through the a* methods, sessions, middleware, cache tag; only culling is skipped."""
    folder = Path(os.environ["DJANGO_TESTS"])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(folder)]),
        "DJANGO_SETTINGS_MODULE": "tests.djangos_own.settings",
        "DYNAMODB_ENDPOINT": dynamo_engine,
        "DYNAMODB_TABLE_PREFIX": f"test-{secrets.token_hex(4)}-",
    }

    def django(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "django", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    made = django("dynamo_create_tables")
    assert made.returncode == 0, made.stderr
    done = django("test", "tests.djangos_own.suite", "--verbosity", "2")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-20000:]
    skipped = re.findall(r"^(test_\w+) .*skipped", done.stderr, re.MULTILINE)
    assert set(skipped) <= {"test_cull", "test_zero_cull"}, skipped
    assert int(re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE).group(1)) > 300
