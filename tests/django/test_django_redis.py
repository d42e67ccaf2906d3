"""django-redis's own tests of the names that we share, from the source that CI fetches."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

OURS = Path(settings.BASE_DIR) / "tests" / "django_redis_own"
SHARED = "ttl or persist or expire or touch or iter_keys or delete_pattern or incr or lock_released"
# They count calls of Redis's client.
REDIS_ITSELF = "custom_count or scan_count"


@pytest.mark.skipif(
    "DJANGO_REDIS" not in os.environ,
    reason="DJANGO_REDIS is not set: the folder of django-redis's source, which CI fetches.",
)
def test_django_rediss_own_tests_pass(dynamo_engine):
    """What they say of ttl, persist, expire, keys, delete_pattern and lock holds here too."""
    folder = Path(os.environ["DJANGO_REDIS"])
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(OURS), str(folder)]),
        "DJANGO_SETTINGS_MODULE": "on_dynamodb_settings",
        "DYNAMODB_ENDPOINT": dynamo_engine,
        "DYNAMODB_TABLE_PREFIX": f"test-{secrets.token_hex(4)}-",
    }

    def python(*arguments):
        return subprocess.run(
            [sys.executable, "-m", *arguments],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    made = python("django", "dynamo_create_tables")
    assert made.returncode == 0, made.stderr
    done = python(
        *(
            "pytest",
            "--noconftest",
            "-p",
            "on_dynamodb",
            "-c",
            os.devnull,
            "--rootdir",
            str(folder),
        ),
        *("tests/test_backend.py", "-k", f"({SHARED}) and not ({REDIS_ITSELF})"),
    )
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr
    assert int(re.search(r"(\d+) passed", done.stdout).group(1)) >= 25
    assert "skipped" not in done.stdout
