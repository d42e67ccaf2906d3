"""
What measuring costs a ``get``: the same calls without it, with reports, and with sinks.

An answer that the engine gave once comes from memory after that: the system's time for sockets
varies by more than what is measured.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, ClassVar

from ..calls import pool
from ..monitoring.meter import MOST_PENDING
from .benchmark.operations import Plan
from .benchmark.processes import python, result_of
from .benchmark.scenarios import planned

_CODE = (
    "import django; django.setup(); "
    "from dynamo_stores.management.metrics_benchmark import main; main()"
)
_LOGS = "dynamo_stores.monitoring.sinks.LoggingSink"
# Calls in a block: short enough that some blocks are not disturbed, and each counts once.
BLOCK = MOST_PENDING
# By the name of the row: METRICS and REPORTS.
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "nothing": {"METRICS": {"SINKS": []}, "REPORTS": {"ENABLED": False}},
    "reports": {"METRICS": {"SINKS": []}, "REPORTS": {"ENABLED": True, "INTERVAL": 3600.0}},
    "the defaults: reports and a summary in the log": {
        "METRICS": {"SINKS": [_LOGS], "INTERVAL": 3600.0},
        "REPORTS": {"ENABLED": True, "INTERVAL": 3600.0},
    },
}


def metrics_benchmark(options: dict[str, Any]) -> dict[str, float]:
    """Measure in fresh processes; return the least CPU seconds of a call by variant."""
    found: list[dict[str, float]] = []
    with planned(options) as (plan, environment):
        for _ in range(options["processes"]):
            with python(_CODE, environment) as process:
                if process.stdin is not None:
                    process.stdin.write(json.dumps(_request(plan)))
                    process.stdin.close()
                    process.stdin = None
                found.append(result_of(process))
    # Noise only adds: the process whose difference is least was disturbed least.
    *_, (defaults) = VARIANTS
    return min(found, key=lambda each: each[defaults] - each["nothing"])


def as_lines(least: Mapping[str, float]) -> Iterator[str]:
    """Yield the lines that show the result."""
    yield "CPU of a get, and what measuring adds to it:"
    for name, seconds in least.items():
        more = (seconds - least["nothing"]) * 1e6
        yield f"  {name}: {seconds * 1e6:.1f} µs, {more:+.1f} µs"


def _request(plan: Plan) -> dict[str, Any]:
    return {
        "url": plan.url, "region": plan.region, "prefix": plan.prefix,
        "rounds": plan.rounds, "calls": plan.calls, "size": plan.size,
    }  # fmt: skip


def main() -> None:
    """Measure in this process what standard input describes, and print the result."""
    import sys

    request = json.load(sys.stdin)
    pool._Stream = _FromMemory  # type: ignore[misc]
    logging.disable(logging.CRITICAL)
    print(json.dumps(_measure(**request)))  # noqa: T201 - the answer to the command


class _FromMemory(pool._Stream):
    """A connection whose answers to requests with the same body come from memory."""

    _known: ClassVar[dict[bytes, bytes]] = {}
    _body = b""
    _has_begun = False

    def send(self, data: bytes | memoryview, until: float) -> None:
        self._body, self._has_begun = bytes(data).partition(b"\r\n\r\n")[2], False
        if self._body not in self._known:
            super().send(data, until)

    def receive(self, until: float) -> int:
        if self._has_begun:
            # It comes in several pieces, which are not kept.
            self._known.pop(self._body, None)
            return super().receive(until)
        self._has_begun = True
        answer = self._known.get(self._body)
        if answer is None:
            count = super().receive(until)
            self._known[self._body] = bytes(self.view[:count])
            return count
        self.view[: len(answer)] = answer
        return len(answer)


def _measure(
    url: str | None, region: str, prefix: str, rounds: int, calls: int, size: int
) -> dict[str, float]:
    from django.conf import settings
    from django.test import override_settings

    from ..stores import CacheStore

    base = {"ENDPOINT_URL": url} if url else settings.DYNAMO_STORES.get("default", {})
    base = {**base, "REGION": region, "TABLE_PREFIX": prefix}
    least = dict.fromkeys(VARIANTS, float("inf"))
    for _ in range(rounds):
        for name, changes in VARIANTS.items():
            with override_settings(DYNAMO_STORES={"default": {**base, **changes}}):
                store = CacheStore()
                store.set("k", "v" * size)
                with _without_garbage_collection():
                    least[name] = min(least[name], _cpu_of(partial(store.get, "k"), calls))
    return least


def _cpu_of(call: Callable[[], object], blocks: int) -> float:
    """Return the CPU seconds of a call in the best of ``blocks`` blocks, after one to warm up."""
    least = float("inf")
    for _ in range(blocks + 1):
        # Of this thread: counting is done in it, and what other threads publish is not its cost.
        started = time.thread_time()
        for _ in range(BLOCK):
            call()
        least = min(least, (time.thread_time() - started) / BLOCK)
    return least


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
