"""The stores in greenlets, whose time limits raise an exception at any wait."""

from __future__ import annotations

import pytest

pytest.importorskip("gevent")


@pytest.mark.slow
def test_operations_that_gevent_ends_leave_nothing_behind(start_process, tmp_path):
    """No deadline, no place and no shared read; locks and jobs can be taken again."""
    process = start_process("tests.processes.greenlets")
    log = tmp_path / "process.log"
    assert process.wait(180) == 0, log.read_text()
    assert "operations were ended by gevent.Timeout" in log.read_text()
