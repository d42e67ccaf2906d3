"""The report of a process, and the sums of reports."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynamo_stores.capacity.usage import Usage, merged
from dynamo_stores.monitoring.report import (
    MAX_BYTES,
    BreakerReport,
    Calls,
    Report,
    Throttling,
    read_report,
    total_usage,
    usage_of,
)
from dynamo_stores.monitoring.reporter import role_of

FULL = Report(
    host="web-1",
    pid=7,
    role="gunicorn",
    version="0.1.0",
    started=1_000.0,
    at=2_000.0,
    interval=60.0,
    breakers=(BreakerReport("t", "open", 5, "ConnectTimeoutError", 1_990.0),),
    calls={"t": Calls(10, 5, 2)},
    reasons={"t": {"TableWriteProvisionedThroughputExceeded": 2}},
    use={33: {"t": Usage(1.5, 2.0, 0, 2), "t/GSI1": Usage(0.0, 1.0)}},
    cache_hits=3,
    cache_misses=1,
    limits_refused=4,
    token="a1b2c3",
    throttling={"t": Throttling("Write", 1_900.0, 1_999.0, 60.0, 20.5)},
    latencies={33: {"t": {"GetItem": {38: 7, 40: 1}, "PutItem": {44: 2}}}},
    events={33: {"hit": 7, "jobs.failed": 1}},
)


def test_a_report_is_read_as_it_was_written():
    """All of it."""
    assert read_report(FULL.as_text()) == FULL


def test_another_versions_fields_do_no_harm():
    """Unknown ones are ignored, missing ones have their defaults."""
    assert usage_of([1.0, 2.0, 3, 4]) == Usage(1.0, 2.0, 3, 4)
    assert usage_of([1.0, 2.0, 3, 4, 5, 6, 7]) == Usage(1.0, 2.0, 3, 4, 5, 6)
    values = json.loads(FULL.as_text())
    del values["cache_hits"]
    assert read_report(json.dumps({**values, "more": 1})) == replace(FULL, cache_hits=0)


@pytest.mark.parametrize(
    "change",
    [
        {"at": 1e18}, {"at": float("nan")}, {"started": None}, {"interval": "60"}, {"pid": True},
        {"reasons": []}, {"reasons": {"t": {"R": "1"}}}, {"host": "\ud800"}, {"version": None},
        {"calls": {"t": {"attempts": "1", "errors": 0, "throttled": 0}}}, {"breakers": [None]},
        {"breakers": [{"table": "t", "state": "open", "failures": 1, "error": "", "since": None}]},
        {"use": {"33": {"t": ["1", 2, 0, 0]}}}, {"use": {"33": {"t": [1, 2, 3]}}},
        {"latencies": {"33": {"t": {"GetItem": ["x"]}}}}, {"events": {"33": {"hit": -1}}},
        {"latencies": {"33": {"t": {"GetItem": [1, -1]}}}}, {"latencies": {"x": {}}},
        {"latencies": {"33": {"t": {"GetItem": [140, *[1] * 9]}}}}, {"events": {"33": 1}},
        {"use": {str(10**30): {}}}, {"throttling": {"t": 1}}, {"cache_hits": -1},
    ],
)  # fmt: skip
def test_a_value_of_another_type_makes_a_report_unreadable(change):
    """A page could not show it."""
    values = {**json.loads(FULL.as_text()), **change}
    with pytest.raises(ValueError):  # noqa: PT011 - of many kinds
        read_report(json.dumps(values))


@pytest.mark.parametrize("text", ["", "1", "[]", "null", "{}", '{"host": "h"}'])
def test_another_text_is_no_report(text):
    """Of another shape, or without the required fields."""
    with pytest.raises(ValueError):  # noqa: PT011 - of many kinds
        read_report(text)


@given(st.integers(0, 400), st.integers(1, 200))
def test_a_report_is_never_too_large(tables, name_length):
    """Tables with the fewest attempts are left out and counted; open breakers stay longest."""
    names = [f"{number:03}{'x' * name_length}" for number in range(tables)]
    report = replace(
        FULL,
        breakers=tuple(
            BreakerReport(name, "open" if not number else "closed", 0, "", 0.0)
            for number, name in enumerate(names)
        ),
        calls={name: Calls(number) for number, name in enumerate(names)},
        reasons={},
        use={minute: {name: Usage(1.0, 2.0) for name in names} for minute in range(5)},
    )
    text = report.as_text()
    assert len(text) <= MAX_BYTES
    read = read_report(text)
    assert len(read.calls) + read.left_out == tables
    if tables:
        assert read.breakers[0].state == "open"
        assert max(read.calls.values(), key=lambda calls: calls.attempts).attempts == tables - 1


@pytest.mark.parametrize(
    ("seconds", "has_ended", "late"), [(149, False, False), (151, False, True), (151, True, False)]
)
def test_a_process_is_late_after_two_and_a_half_intervals(seconds, has_ended, late):
    """Unless it reported its end."""
    assert replace(FULL, has_ended=has_ended).is_late(FULL.at + seconds) is late


def test_the_busiest_operations_keep_their_latencies():
    """Where not all fit, before a table is left out."""
    tables = {
        f"t{table}": {f"Op{each}": dict.fromkeys(range(140), 100 + table) for each in range(5)}
        for table in range(9)
    }
    read = read_report(replace(FULL, latencies={33: tables}).as_text())
    assert read.left_out == 0
    assert read.calls == FULL.calls
    kept = read.latencies[33]
    assert set(kept) == {"t7", "t8"}
    assert kept["t8"] == tables["t8"]


def test_use_is_summed_over_processes():
    """Minute by minute, table and indexes apart."""
    other = replace(FULL, use={33: {"t": Usage(1.0, 0.0, 1, 0)}, 34: {"u": Usage(5.0)}})
    assert total_usage([FULL, other]) == {
        33: {"t": Usage(2.5, 2.0, 1, 2), "t/GSI1": Usage(0.0, 1.0)},
        34: {"u": Usage(5.0)},
    }


def test_of_two_sums_the_later_counts():
    """Sums of a minute only rise while reports come in."""
    early, late = {1: {"t": Usage(1.0, 2.0)}}, {1: {"t": Usage(3.0, 2.0)}, 2: {"t": Usage(1.0)}}
    assert merged(early, late) == merged(late, early) == late


@pytest.mark.parametrize(
    ("argv", "role"),
    [
        (["/srv/manage.py", "runserver", "--token=secret"], "manage.py runserver"),
        (["manage.py", "--settings=secret", "runserver"], "manage.py runserver"),
        (["/usr/bin/gunicorn", "site.wsgi", "--env", "KEY=secret"], "gunicorn"),
        (["/lib/celery/__main__.py", "--app", "project", "worker", "-B"], "celery worker"),
        (["/lib/uvicorn/__main__.py", "site:app"], "uvicorn"),
        ([""], "python"),
        ([], "python"),
    ],
)
def test_what_a_process_is_called(argv, role):
    """Never by arguments that may be secret."""
    assert role_of(argv) == role
