"""Measuring processes: started, stopped with the command, and their best figures."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from django.core.management.base import CommandError

from .operations import Plan
from .rounds import Row

_MEASURE = "from dynamo_stores.management.benchmark.rounds import main; main()"


@contextlib.contextmanager
def python(code: str, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Run Python code in a process of its own, which is killed at the end of the block."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        # Ctrl-C reaches only the command, which ends the process.
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the JSON object in the last line that a process writes. Raises CommandError."""
    out, err = process.communicate()
    if process.returncode:
        last = (err.strip().splitlines() or ["it wrote no error."])[-1]
        raise CommandError(f"A measuring process ended with status {process.returncode}: {last}")
    found: dict[str, Any] = json.loads(out.splitlines()[-1])
    return found


def measure_in_processes(
    plan: Plan, environment: Mapping[str, str], count: int, progress: Callable[[str], object]
) -> tuple[list[Row], dict[str, str]]:
    """
    Measure in ``count`` processes, one after the other. Return for each operation and client the
    row of the process with the lowest CPU ratio, and why clients were skipped.
    """
    found: list[Row] = []
    skipped: dict[str, str] = {}
    for number in range(1, count + 1):
        progress(f"process {number} of {count}")
        with _measuring(plan, environment) as process:
            result = result_of(process)
        found += [Row(**row) for row in result["rows"]]
        skipped = result["skipped"]
    return best(found), skipped


def measure_together(plan: Plan, environment: Mapping[str, str], count: int) -> list[Row]:
    """
    Measure in ``count`` processes at the same time. A row has the median CPU of their calls, and
    the wall time of a call divided by ``count``, which is that of the machine.
    """
    with contextlib.ExitStack() as stack:
        running = [stack.enter_context(_measuring(plan, environment)) for _ in range(count)]
        rows = [Row(**row) for process in running for row in result_of(process)["rows"]]
    return _of_machine(rows, count)


@contextlib.contextmanager
def _measuring(plan: Plan, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    with python(_MEASURE, environment) as process:
        if process.stdin is not None:
            # If it has ended already, its status and its error say why.
            with contextlib.suppress(OSError):
                process.stdin.write(json.dumps(asdict(plan)))
                process.stdin.close()
            process.stdin = None
        yield process


def best(rows: Iterable[Row]) -> list[Row]:
    """Return for each operation and client the row with the lowest ratio, or else the least CPU."""
    return [
        replace(min(same, key=_rank), ratios=[row.ratio for row in same]) for same in _grouped(rows)
    ]


def _of_machine(rows: Iterable[Row], count: int) -> list[Row]:
    """Return one row for the rows of processes that measured at the same time."""
    return [
        replace(
            same[0],
            cpu=statistics.median(row.cpu for row in same),
            wall=statistics.median(row.wall for row in same) / count,
            ratio=statistics.median(row.ratio or 1.0 for row in same),
            wall_ratio=statistics.median(row.wall_ratio or 1.0 for row in same),
            ratios=[row.ratio for row in same],
        )
        for same in _grouped(rows)
    ]


def _grouped(rows: Iterable[Row]) -> Iterable[list[Row]]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row.operation, row.subject), []).append(row)
    return found.values()


def _rank(row: Row) -> tuple[float, float]:
    return (row.ratio or 0.0, row.cpu)
