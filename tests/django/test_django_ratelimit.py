"""django-ratelimit's own tests with ours in its place, from the source that CI fetches."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

OURS = Path(settings.BASE_DIR) / "tests" / "django_ratelimit_own"


@pytest.mark.skipif(
    "DJANGO_RATELIMIT" not in os.environ,
    reason="DJANGO_RATELIMIT is not set: the folder of django-ratelimit's source, fetched by CI.",
)
def test_django_ratelimits_own_tests_pass(dynamo_engine):
    """Keys, rates, methods, groups, masks, stacking, classes: an import is all that changes."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(OURS),
        "DJANGO_SETTINGS_MODULE": "limits_settings",
        "DYNAMODB_ENDPOINT": dynamo_engine,
        "DYNAMODB_TABLE_PREFIX": f"test-{secrets.token_hex(4)}-",
    }

    def django(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "django", *arguments],
            cwd=OURS,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    made = django("dynamo_create_tables")
    assert made.returncode == 0, made.stderr
    done = django("test", "limits_suite")
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-10_000:]
    assert int(re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE).group(1)) > 40
    assert "skipped" not in done.stderr
