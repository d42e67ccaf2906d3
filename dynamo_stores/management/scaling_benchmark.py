"""A benchmark of a table that throttles under load: throughput, latency, UpdateTable calls."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from django.test.utils import override_settings

from ..cache.options import CacheOptions
from ..cache.store.store import CacheStore
from ..calls.account import get_account
from ..calls.client import make_client
from ..calls.control import get_control
from ..capacity.description import Units
from ..capacity.records import CapacityRecords
from ..capacity.scale_down import reconcile
from ..capacity.update import describe, describe_changes
from ..capacity.usage import Usage, UsageHistory, minute_of
from ..conf import get_config
from ..exceptions import StoreUnavailable
from ..infrastructure.tables import create_table, table_of
from ..models import ControlItem, StoreItem
from ..testing.engine import EmbeddedEngine
from ..testing.throttling.relay import CapacityRelay

_UNITS = 10
# Seconds from a raise until the table is lowered.
_DELAY = 15.0
_PROCESSES, _THREADS = 4, 4
_BATCH = 10
KINDS = ("puts", "gets", "batches")


class Figures(NamedTuple):
    """The results; ``stored`` is how many items are in the table."""

    done: int
    stored: int
    wanted: int
    failed: int
    p50: float
    p95: float
    updates: int
    capacity: dict[str, Units]
    decreases: int
    after: dict[str, Units]


def scaling_benchmark(
    write: Callable[[str], object], *, rate: int, seconds: float, kind: str = "puts"
) -> Figures:
    """
    Put ``rate`` values a second for ``seconds``, from 4 processes with 4 threads, into a table and
    an index of 10 units behind a throttling relay (UPDATING 3 s, burst 5 s), then wait until the
    table is lowered; print and return the figures. ``kind`` is ``puts``, ``gets`` (consistent
    reads) or ``batches`` (of ten).
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
                "MAX_READ_CAPACITY": 1000,
                "MAX_WRITE_CAPACITY": 1000,
                "SCALE_DOWN_DELAY": _DELAY,
            },
        }
        with override_settings(DYNAMO_STORES={"default": alias}):
            spec = table_of(StoreItem)
            for each in (spec, table_of(ControlItem)):
                create_table(each, lambda line: None)
            taken, failed = _load(rate, seconds, kind)

            def updates() -> int:
                found: int = relay.status()["tables"][spec.name]["updates"]
                return found

            raises, high = updates(), _units(spec.name)
            write(_summary(kind, taken, failed, rate * seconds, raises, high))
            # The use of the minute after the load, so that the table need not stay up for it.
            idle = {minute_of(time.time()) - 1: {spec.name: Usage()}}
            UsageHistory("default").roll_up(idle)
            _wait_until_lowered(spec.name)
            stored = _count(engine.url, spec.name)
            low, decreases = _units(spec.name), updates() - raises
            write(f"Lowered to {describe_changes(low)} by {decreases} UpdateTable.")
            for each in (spec, table_of(ControlItem)):
                get_control().call("DeleteTable", {"TableName": each.name})
    return Figures(
        done=len(taken),
        stored=stored,
        wanted=round(rate * seconds),
        failed=failed,
        p50=_percentile(taken, 0.5),
        p95=_percentile(taken, 0.95),
        updates=raises,
        capacity=high,
        decreases=decreases,
        after=low,
    )


def _summary(
    kind: str, taken: list[float], failed: int, wanted: float, raises: int, high: dict[str, Units]
) -> str:
    return (
        f"{len(taken):,} of {wanted:,.0f} {kind} done, {failed} failed; p50 "
        f"{_percentile(taken, 0.5) * 1000:.0f} ms, p95 {_percentile(taken, 0.95) * 1000:.0f} ms; "
        f"{raises} UpdateTable, then {describe_changes(high)}."
    )


def _count(endpoint: str, table: str) -> int:
    """Return the number of items of a table, counted without the relay."""
    config = dataclasses.replace(get_config(), endpoint_url=endpoint)
    client = make_client(config, get_account("default"))
    pages = client.get_paginator("scan").paginate(TableName=table, Select="COUNT")
    return sum(page["Count"] for page in pages)


def _units(table: str) -> dict[str, Units]:
    capacity = describe("default", table)
    if capacity is None:
        return {}
    return {name: each.units for name, each in capacity.resources.items()}


def _wait_until_lowered(table: str) -> None:
    """Reconcile every half a second until no table is due and the table is ACTIVE."""
    records, until = CapacityRecords("default"), time.monotonic() + 6 * _DELAY
    while time.monotonic() < until:
        reconcile("default")
        record, capacity = records.get(table), describe("default", table)
        if (record is None or record.deadline is None) and capacity and capacity.is_active:
            return
        time.sleep(0.5)


def _call(store: CacheStore, kind: str) -> int:
    """Make one call of ``kind``; return its number of values."""
    if kind == "gets":
        store.get("k")
        return 1
    if kind == "batches":
        values = {secrets.token_hex(4): "x" * 100 for _ in range(_BATCH)}
        return _BATCH - len(store.set_many(values, 3600))
    store.set(secrets.token_hex(4), "x" * 100, 3600)
    return 1


def _load(rate: int, seconds: float, kind: str) -> tuple[list[float], int]:
    fork = multiprocessing.get_context("fork")
    results: Any = fork.SimpleQueue()
    begin = time.time() + 1.0

    def process(number: int) -> None:
        taken: list[float] = []
        failures: list[int] = []

        def thread(each: int) -> None:
            options = CacheOptions(consistent_read=True)
            store = CacheStore("default", prefix=f"{number}-{each}", options=options)
            pause = _PROCESSES * _THREADS / rate * (_BATCH if kind == "batches" else 1)
            offset = (number * _THREADS + each) / (_PROCESSES * _THREADS)
            due = begin + pause * offset
            while due < begin + seconds:
                time.sleep(max(0.0, due - time.time()))
                due = max(due + pause, time.time())
                started = time.perf_counter()
                try:
                    count = _call(store, kind)
                except StoreUnavailable:
                    failures.append(1)
                else:
                    taken.extend([time.perf_counter() - started] * count)

        running = [threading.Thread(target=thread, args=(each,)) for each in range(_THREADS)]
        for each in running:
            each.start()
        for each in running:
            each.join()
        results.put((taken, len(failures)))

    children = [
        fork.Process(target=process, args=(number,), daemon=True) for number in range(_PROCESSES)
    ]
    for child in children:
        child.start()
    found = [results.get() for _ in children]
    for child in children:
        child.join()
    return [each for taken, _ in found for each in taken], sum(failed for _, failed in found)


def _percentile(unsorted: list[float], share: float) -> float:
    values = sorted(unsorted)
    return values[min(len(values) - 1, math.floor(len(values) * share))] if values else math.nan
