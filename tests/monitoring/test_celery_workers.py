"""The processes of a Celery worker that is stopped in an orderly way report their end."""

from __future__ import annotations

import time

import pytest

from dynamo_stores.monitoring.report_store import ReportStore
from tests.helpers.processes import has_lost_its_broker


@pytest.mark.slow
def test_a_stopped_worker_reports_the_end_of_its_processes(start_worker, until, tmp_path):
    """Those of its pool, too, which end without Python's exit handlers."""
    worker, began = start_worker("--concurrency", "1"), time.time()

    def reports():
        nonlocal worker, began
        if has_lost_its_broker(worker, tmp_path):
            worker, began = start_worker("--concurrency", "1"), time.time()
        return [
            each
            for each in ReportStore().latest()
            if each.role == "celery worker" and each.started >= began
        ]

    before = until(reports, 60)
    worker.terminate()
    worker.wait(60)
    ended = {each.process: each.has_ended for each in ReportStore().latest()}
    assert [ended[each.process] for each in before] == [True] * len(before)
