"""Processes whose clocks are wrong."""

from __future__ import annotations

from dynamo_stores import clock
from tests.helpers.forking import in_processes
from tests.ratelimit.test_contention import SkewedClock


def with_clock(wrong, work):
    """Call ``work`` in a process whose clock is wrong by so many seconds; return its result."""

    def process(number):
        clock.use(SkewedClock(wrong))
        return work()

    return in_processes(1, process)[0]
