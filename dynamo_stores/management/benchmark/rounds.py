"""One measuring process: all clients take turns in each round, so that they share its noise."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import django
from django.test.utils import override_settings

from .clients import Call, Subject
from .operations import BARE, TRANSPORTS, Operation, Plan

# Makes so many calls and returns the seconds that each took.
Run = Callable[[int], list[float]]

# The stores read strongly what this process wrote in the last second.
_RECENT = 1.1


@dataclass
class Row:
    """
    The figures of one operation by one client, in microseconds a call. The ratios are to boto3,
    None where it has no such call. ``requests`` and ``units`` are those of one call, ``ratios``
    the CPU ratios of all processes that measured.
    """

    operation: str
    subject: str
    cpu: float
    wall: float
    ratio: float | None = None
    wall_ratio: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    requests: float | None = None
    units: float | None = None
    ratios: list[float | None] = field(default_factory=list)


class Timing(NamedTuple):
    """Microseconds a call in one round, and the time that each call took."""

    cpu: float
    wall: float
    taken: list[float]


def measure(plan: Plan) -> tuple[list[Row], dict[str, str]]:
    """Return the rows of the plan, and why clients were skipped, by name."""
    from .subjects import make_subjects

    subjects, skipped = make_subjects(plan)
    with asyncio.Runner() as runner:
        prepared = []
        for operation in plan.operations():
            runs: dict[Subject, Run] = {}
            for subject in subjects:
                try:
                    run = _prepare(operation, subject, plan, runner)
                except Exception as exc:
                    if subject.name in (BARE, *TRANSPORTS):
                        raise
                    # A peer need not be able to do it.
                    skipped[f"{operation.name} of {subject.name}"] = f"it raises {exc!r}"
                    continue
                if run is not None:
                    runs[subject] = run
            prepared.append((operation, runs))
        time.sleep(_RECENT)
        gc.collect()
        # The collector then looks only at what the calls make.
        gc.freeze()
        rows = [
            row for operation, runs in prepared for row in _measure_operation(operation, runs, plan)
        ]
    return rows, skipped


def _prepare(
    operation: Operation, subject: Subject, plan: Plan, runner: asyncio.Runner
) -> Run | None:
    """Return what makes the calls, after some calls; None if the client has no such call."""
    call = subject.prepare(operation.verb, operation.amount)
    if call is None:
        return None
    run = run_of(operation, call, runner)
    run(max(2, operation.calls(plan.calls) // 4))
    return run


def _measure_operation(operation: Operation, runs: dict[Subject, Run], plan: Plan) -> list[Row]:
    calls = operation.calls(plan.calls)
    timings: dict[Subject, list[Timing]] = {subject: [] for subject in runs}
    order = list(runs)
    for _ in range(plan.rounds):
        for subject in order:
            timings[subject].append(_time(runs[subject], calls))
        order.reverse()
    bare = next((found for subject, found in timings.items() if subject.name == BARE), None)
    return [
        _row(operation.name, subject, found, bare, runs[subject])
        for subject, found in timings.items()
    ]


def _row(
    name: str, subject: Subject, found: list[Timing], bare: list[Timing] | None, run: Run
) -> Row:
    row = Row(
        name,
        subject.name,
        cpu=statistics.median(each.cpu for each in found),
        wall=statistics.median(each.wall for each in found),
    )
    if bare is not None:
        pairs = list(zip(found, bare, strict=True))
        row.ratio = statistics.median(_share(own.cpu, other.cpu) for own, other in pairs)
        row.wall_ratio = statistics.median(_share(own.wall, other.wall) for own, other in pairs)
    if taken := sorted(itertools.chain.from_iterable(each.taken for each in found)):
        row.p50, row.p95, row.p99 = (percentile(taken, each) * 1e6 for each in (0.5, 0.95, 0.99))
        with subject.counting() as count:
            calls = len(run(1))
        if count is not None:
            row.requests, row.units = count.requests / calls, count.units / calls
    return row


def run_of(operation: Operation, call: Call, runner: asyncio.Runner) -> Run:
    """Return what makes many calls of an operation."""
    if operation.in_memory:
        return lambda times: _without_clock(call, times)
    if operation.tasks:
        at_once = operation.tasks
        return lambda times: runner.run(_in_tasks(call, times, at_once))
    if operation.threads > 1:
        return lambda times: _in_threads(call, times, operation.threads)
    return lambda times: _one_after_the_other(call, times)


def _one_after_the_other(call: Call, times: int) -> list[float]:
    taken, now = [], time.perf_counter
    for _ in range(times):
        started = now()
        call()
        taken.append(now() - started)
    return taken


def _without_clock(call: Call, times: int) -> list[float]:
    # Asking the clock would take about as long as the call.
    for _ in range(times):
        call()
    return []


def _in_threads(call: Call, times: int, threads: int) -> list[float]:
    found: list[list[float]] = []
    each = max(1, times // threads)
    running = [
        threading.Thread(target=lambda: found.append(_one_after_the_other(call, each)))
        for _ in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return [*itertools.chain.from_iterable(found)]


async def _in_tasks(call: Call, times: int, at_once: int) -> list[float]:
    taken, now = [], time.perf_counter

    async def one() -> None:
        started = now()
        await call()
        taken.append(now() - started)

    if at_once == 1:
        for _ in range(times):
            await one()
        return taken
    while len(taken) < times:
        await asyncio.gather(*(one() for _ in range(min(at_once, times - len(taken)))))
    return taken


def _time(run: Run, calls: int) -> Timing:
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    taken = run(calls)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    made = len(taken) or calls
    return Timing(cpu / made * 1e6, wall / made * 1e6, taken)


def percentile(in_order: Sequence[float], share: float) -> float:
    """Return the value below which ``share`` of the values are, by the nearest rank."""
    return in_order[max(0, math.ceil(len(in_order) * share) - 1)]


def _share(own: float, other: float) -> float:
    # A clock of low resolution may show nothing for few calls.
    return own / other if other else 1.0


def main() -> None:
    """Measure the plan of standard input; write the rows as JSON to standard output."""
    values: dict[str, Any] = json.load(sys.stdin)
    plan = Plan(**values)
    django.setup()
    shared = {"ENDPOINT_URL": plan.url, "REGION": plan.region, "TABLE_PREFIX": plan.prefix}
    aliases = {name: {**shared, "TRANSPORT": name} for name in TRANSPORTS}
    # An alias of that name is required.
    aliases["default"] = shared
    with override_settings(DYNAMO_STORES=aliases):
        rows, skipped = measure(plan)
    # The last line; an application may write others when it starts.
    sys.stdout.write("\n" + json.dumps({"rows": [asdict(row) for row in rows], "skipped": skipped}))
    sys.stdout.flush()
