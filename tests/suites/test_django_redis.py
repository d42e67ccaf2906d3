"""django-redis's own tests of the names that we share, from the source that CI fetches."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from django.conf import settings

from tests.suites.sources import needs_source, run_their_tests

OURS = Path(settings.BASE_DIR) / "tests" / "suites" / "django_redis_suite"
SHARED = "ttl or persist or expire or touch or iter_keys or delete_pattern or incr or lock_released"
# They count calls of Redis's client.
REDIS_ITSELF = "custom_count or scan_count"


@pytest.mark.slow
@needs_source("DJANGO_REDIS", "django-redis")
def test_django_rediss_own_tests_pass(dynamo_engine):
    """What they say of ttl, persist, expire, keys, delete_pattern and lock holds here too."""
    folder = os.environ["DJANGO_REDIS"]
    printed = run_their_tests(
        dynamo_engine,
        *("pytest", "--noconftest", "-p", "on_dynamodb", "-c", os.devnull, "--rootdir", folder),
        *("tests/test_backend.py", "-k", f"({SHARED}) and not ({REDIS_ITSELF})"),
        folder=folder,
        settings="on_dynamodb_settings",
        path=[OURS, folder],
    )
    assert int(re.search(r"(\d+) passed", printed).group(1)) >= 25
    assert "skipped" not in printed
