"""django-ratelimit's own tests with ours in its place, from the source that CI fetches."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.conf import settings

from tests.suites.sources import needs_source, run_their_tests

OURS = Path(settings.BASE_DIR) / "tests" / "suites" / "django_ratelimit_suite"


@pytest.mark.slow
@needs_source("DJANGO_RATELIMIT", "django-ratelimit")
def test_django_ratelimits_own_tests_pass(dynamo_engine):
    """Keys, rates, methods, groups, masks, stacking, classes: an import is all that changes."""
    printed = run_their_tests(
        dynamo_engine,
        *("django", "test", "limits_suite"),
        folder=OURS,
        settings="limits_settings",
        path=[OURS],
    )
    assert int(re.search(r"^Ran (\d+) tests", printed, re.MULTILINE).group(1)) > 40
    assert "skipped" not in printed
