"""Django's own cache tests, from the source distribution that CI fetches."""

from __future__ import annotations

import os
import re

import pytest
from django.conf import settings

from tests.suites.sources import needs_source, run_their_tests


@pytest.mark.slow
@needs_source("DJANGO_TESTS", "Django")
def test_djangos_own_cache_tests_pass(dynamo_engine):
    """Sync and through the a* methods, sessions, middleware, cache tag; only culling is skipped."""
    printed = run_their_tests(
        dynamo_engine,
        *("django", "test", "tests.suites.django_suite.suite", "--verbosity", "2"),
        folder=settings.BASE_DIR,
        settings="tests.suites.django_suite.settings",
        path=[settings.BASE_DIR, os.environ["DJANGO_TESTS"]],
    )
    skipped = re.findall(r"^(test_\w+) .*skipped", printed, re.MULTILINE)
    assert set(skipped) <= {"test_cull", "test_zero_cull"}, skipped
    assert int(re.search(r"^Ran (\d+) tests", printed, re.MULTILINE).group(1)) > 300
