"""A table that throttles under load: what gets through, how late, and at how many changes."""

from __future__ import annotations

import math
import multiprocessing
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from django.test.utils import override_settings

from ..calls.control import get_control
from ..capacity.changes import describe, in_words
from ..capacity.description import Units
from ..exceptions import StoreUnavailable
from ..infrastructure.tables import create_table, table_of
from ..models import ControlItem, StoreItem
from ..stores import CacheStore
from ..testing.engine import EmbeddedEngine
from ..testing.relay import CapacityRelay

_UNITS = 10
_PROCESSES, _THREADS = 4, 4


class Figures(NamedTuple):
    """What came of it."""

    done: int
    wanted: int
    failed: int
    p50: float
    p95: float
    updates: int
    capacity: dict[str, Units]


def scaling_benchmark(say: Callable[[str], object], *, rate: int, seconds: float) -> Figures:
    """
    Put ``rate`` values a second for so long, from 4 processes with 4 threads, into a table and an
    index of 10 units behind a relay that throttles (UPDATING 3 s, burst 5 s); print the figures.
    """
    with EmbeddedEngine() as engine, CapacityRelay(engine.url, updating=3.0, burst=5.0) as relay:
        alias = {
            "ENDPOINT_URL": relay.url,
            "REGION": "us-east-1",
            "TABLE_PREFIX": f"benchmark-{secrets.token_hex(4)}-",
            "BILLING_MODE": "PROVISIONED",
            "CACHE": {"EXPIRY_INDEX": True},
            "SCALING": {
                "ENABLED": True,
                "BASE_READ_CAPACITY": _UNITS,
                "BASE_WRITE_CAPACITY": _UNITS,
                "MAX_WRITE_CAPACITY": 1000,
            },
        }
        with override_settings(DYNAMO_STORES={"default": alias}):
            spec = table_of(StoreItem)
            for each in (spec, table_of(ControlItem)):
                create_table(each, lambda line: None)
            taken, failed = _load(rate, seconds)
            capacity = describe("default", spec.name)
            updates = relay.status()["tables"][spec.name]["updates"]
            for each in (spec, table_of(ControlItem)):
                get_control().call("DeleteTable", {"TableName": each.name})
    taken.sort()
    figures = Figures(
        done=len(taken),
        wanted=round(rate * seconds),
        failed=failed,
        p50=_percentile(taken, 0.5),
        p95=_percentile(taken, 0.95),
        updates=updates,
        capacity={}
        if capacity is None
        else {name: each.units for name, each in capacity.resources.items()},
    )
    say(
        f"{figures.done:,} of {figures.wanted:,} puts done, {figures.failed} failed; "
        f"p50 {figures.p50 * 1000:.0f} ms, p95 {figures.p95 * 1000:.0f} ms; "
        f"{figures.updates} UpdateTable, then {in_words(figures.capacity)}."
    )
    return figures


def _load(rate: int, seconds: float) -> tuple[list[float], int]:
    fork = multiprocessing.get_context("fork")
    results: Any = fork.SimpleQueue()
    begin = time.time() + 1.0

    def process(number: int) -> None:
        taken: list[float] = []
        failures: list[int] = []

        def thread(each: int) -> None:
            store = CacheStore("default", prefix=f"{number}-{each}")
            pause = _PROCESSES * _THREADS / rate
            turn = (number * _THREADS + each) / (_PROCESSES * _THREADS)
            due = begin + pause * turn
            while due < begin + seconds:
                time.sleep(max(0.0, due - time.time()))
                due = max(due + pause, time.time())
                asked_at = time.perf_counter()
                try:
                    store.set(secrets.token_hex(4), "x" * 100, 3600)
                except StoreUnavailable:
                    failures.append(1)
                else:
                    taken.append(time.perf_counter() - asked_at)

        running = [threading.Thread(target=thread, args=(each,)) for each in range(_THREADS)]
        for each in running:
            each.start()
        for each in running:
            each.join()
        results.put((taken, len(failures)))

    children = [fork.Process(target=process, args=(number,)) for number in range(_PROCESSES)]
    for child in children:
        child.start()
    found = [results.get() for _ in children]
    for child in children:
        child.join()
    return [each for taken, _ in found for each in taken], sum(failed for _, failed in found)


def _percentile(values: list[float], share: float) -> float:
    return values[min(len(values) - 1, math.floor(len(values) * share))] if values else math.nan
