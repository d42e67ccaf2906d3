"""A benchmark of the status pages while many processes report."""

from __future__ import annotations

import secrets
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from django.apps import apps
from django.core.management.base import CommandError
from django.test import RequestFactory
from django.test.utils import override_settings

from .. import clock
from ..calls.control import get_control
from ..capacity.history import Decisions
from ..capacity.usage import MINUTES, Usage, UsageHistory, minute_of
from ..infrastructure.tables import create_table, wanted_tables
from ..monitoring.report import BreakerReport, Calls
from ..monitoring.report_store import ReportStore
from ..monitoring.reporter import get_reporter
from ..monitoring.snapshot import get_descriptions, read_all
from ..testing.engine import EmbeddedEngine

_DECISIONS = 50


def status_benchmark(write: Callable[[str], object], *, processes: int, rounds: int) -> None:
    """
    Publish reports of ``processes`` on an embedded engine, then read the snapshot and render the
    pages ``rounds`` times; print the medians.
    """
    if not apps.is_installed("django.contrib.admin"):
        raise CommandError("The status pages require 'django.contrib.admin' in INSTALLED_APPS.")
    with EmbeddedEngine() as engine:
        alias = {
            "ENDPOINT_URL": engine.url,
            "REGION": "us-east-1",
            "TABLE_PREFIX": f"benchmark-{secrets.token_hex(4)}-",
            "BILLING_MODE": "PROVISIONED",
        }
        with override_settings(DYNAMO_STORES={"default": alias}):
            names = [spec.name for spec in wanted_tables()]
            for spec in wanted_tables():
                create_table(spec, lambda line: None)
            _publish_reports(names, processes)
            _measure(write, len(names), processes, rounds)
            for name in names:
                get_control().call("DeleteTable", {"TableName": name})


def _publish_reports(names: list[str], processes: int) -> None:
    own = get_reporter("default").report()
    full = replace(
        own,
        breakers=tuple(BreakerReport(name, "closed", 0, "", own.started) for name in names),
        calls={name: Calls(100_000, 12, 3) for name in names},
    )
    store = ReportStore("default")
    for number in range(processes):
        store.publish(replace(full, host=f"host-{number:03}"))
    now, history = minute_of(clock.now()), UsageHistory("default")
    for back in range(1, MINUTES + 1):
        history.roll_up({now - back: {name: Usage(12.5, 3.0) for name in names}})
    for number in range(_DECISIONS):
        at = clock.now() - number
        why = "the demand exceeded the write capacity of the table"
        Decisions("default").publish(names[0], {"at": at, "code": "raised", "why": why})


def _measure(write: Callable[[str], object], tables: int, processes: int, rounds: int) -> None:
    from django.contrib.auth.models import User

    from ..admin import views

    user = User(username="benchmark", is_active=True, is_staff=True, is_superuser=True)
    write(f"{processes} processes, {tables} tables, medians of {rounds} rounds:")
    reads = []
    for _ in range(rounds):
        get_descriptions("default").clear()
        reads.append(_milliseconds(lambda: read_all(lambda using: get_reporter(using).report())))
    write(f"  the snapshot, with DescribeTable: {statistics.median(reads):.0f} ms")
    for view in (views.overview, views.breakers, views.history):
        request: Any = RequestFactory().get("/")
        request.user = user
        size = 0

        def render(view: Any = view, request: Any = request) -> None:
            nonlocal size
            size = len(view(request).render().content)

        render()
        times = [_milliseconds(render) for _ in range(rounds)]
        write(f"  {view.__name__}: {statistics.median(times):.0f} ms, {size / 1000:.0f} KB")


def _milliseconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1000
