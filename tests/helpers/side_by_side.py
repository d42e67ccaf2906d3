"""The order of parallel tests: one at a time for each worker, a few groups in one worker."""

from __future__ import annotations

import pytest

TOGETHER = (
    # They share a browser.
    "tests/browser/test_status_pages.py",
    # They share a wheel, which takes long to build.
    "tests/processes/test_wheel.py",
    # Both want port 8080.
    "tests/processes/test_dynamo_local.py::test_the_demo_ends_with_all_its_processes",
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each worker one test, or one group of tests, at a time."""
    from xdist.scheduler import LoadScopeScheduling

    class OneByOne(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return next((each for each in TOGETHER if nodeid.startswith(each)), nodeid)

    return OneByOne(config, log)
