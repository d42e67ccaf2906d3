"""Scaling under load: its exact results, not the speed of this machine."""

from __future__ import annotations

import pytest

from dynamo_stores.management.scaling_benchmark import scaling_benchmark

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]


@pytest.mark.parametrize(
    ("kind", "read", "write"),
    [("puts", False, True), ("gets", True, False), ("batches", False, True)],
)
def test_a_throttled_table_goes_up_in_few_steps_and_down_in_one(kind, read, write):
    """Four processes with four threads: no write is lost, and the baseline is reached again."""
    lines = []
    figures = scaling_benchmark(lines.append, rate=80, seconds=8.0, kind=kind)
    assert figures.updates <= 3
    assert (figures.capacity[""].read > 10, figures.capacity[""].write > 10) == (read, write)
    # Without a raise it would be 10 a second and a burst of 50.
    assert figures.done > 8 * 10 + 50
    if kind == "puts":
        assert figures.done <= figures.stored <= figures.done + figures.failed
    if kind == "batches":
        assert figures.done <= figures.stored
    # A load that ended late on a busy machine is still needed at the first.
    assert 1 <= figures.decreases <= 2
    assert figures.after == {"": (10, 10), "GSI1": (10, 10)}
    assert len(lines) == 2
