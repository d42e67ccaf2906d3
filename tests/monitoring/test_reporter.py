"""The reports of processes."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError
from django.conf import settings
from django.test import override_settings

from dynamo_stores import clock, keys
from dynamo_stores.calls import observer
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.observer import Measurement, measuring
from dynamo_stores.capacity.usage import Usage, minute_of
from dynamo_stores.concurrency.effects import run
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import StoreUnavailable, ThrottlingError
from dynamo_stores.monitoring.meter import Meter, get_meter
from dynamo_stores.monitoring.report import KEPT, Calls
from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.monitoring.reporter import get_reporter
from dynamo_stores.monitoring.snapshot import read_status
from dynamo_stores.stores import CacheStore, DedupeStore, RateLimitStore
from dynamo_stores.testing import FakeClock
from tests.helpers.forking import in_processes
from tests.helpers.status import HERE, open_breaker

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def report_of(using, process=HERE):
    return next(
        (
            each
            for each in ReportStore(using).latest()
            if process in (each.process, f"{each.host}#{each.pid}")
        ),
        None,
    )


def total(report, name):
    """The use of a table or index over all minutes of a report."""
    found = Usage()
    for resources in report.use.values():
        found = found.plus(resources.get(name, Usage()))
    return found


def test_a_process_reports_from_its_first_call_on(reporting, until, monkeypatch):
    """The process and its calls, in an item that is kept for an hour."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/gunicorn", "site.wsgi"])
    using = reporting()
    assert report_of(using) is None
    store = CacheStore(using)
    store.set("k", "v")
    assert (store.get("k"), store.get("none")) == ("v", None)
    limit = RateLimitStore(using)
    assert [limit.acquire("r", rate="1/h").allowed for _ in range(3)] == [True, False, False]
    report = until(lambda: report_of(using))
    table = get_config(using).store_table
    assert report.role == "gunicorn"
    assert report.calls[table].attempts >= 5
    assert (report.cache_hits, report.cache_misses, report.limits_refused) == (1, 1, 2)
    assert [(each.table, each.state) for each in report.breakers] == [(table, "closed")]
    used = total(report, table)
    assert used.read > 0
    assert used.write >= 2
    processes = ReportStore(using)
    item = run(processes._items.get(keys.process_status(HERE), consistent=True))
    assert int(item["TTL"]["N"]) == pytest.approx(report.at + KEPT, abs=2)
    first = report.at
    until(lambda: report_of(using).at > first)


def test_a_report_is_one_write_that_is_not_measured(reporting, until):
    """It uses a direct connection, so that it does not count itself."""
    using = reporting()
    CacheStore(using).get("k")
    until(lambda: report_of(using))
    with measuring() as measurements:
        get_reporter(using).publish()
    assert measurements == []
    assert report_of(using).calls == {get_config(using).store_table: Calls(1, 0, 0)}


def test_an_open_breaker_is_reported(reporting, dynamo_faults, until):
    """At once, over the direct connection."""
    using = reporting(
        REPORTS={"INTERVAL": 3600.0}, ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}
    )
    open_breaker(using, dynamo_faults)
    report = until(
        lambda: (
            (found := report_of(using))
            and [each.state for each in found.breakers] == ["open"]
            and found
        )
    )
    (breaker,) = report.breakers
    assert breaker.failures == 5
    assert breaker.error
    assert breaker.since == pytest.approx(clock.now(), abs=20)
    assert report.calls[breaker.table].errors == 5


def test_a_breaker_is_reset_at_the_next_report(reporting, dynamo_faults, until):
    """The request is written to the process's item; the next report carries it out, once."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0})
    open_breaker(using, dynamo_faults)
    until(lambda: report_of(using))
    table = get_config(using).store_table
    breaker = get_connection(using).policy_for(table).breaker
    assert breaker.state == "open"
    processes = ReportStore(using)
    assert processes.request_reset(HERE, [table])
    until(lambda: breaker.state == "closed")
    assert processes.publish(get_reporter(using).report()) == set()
    assert not processes.request_reset("unknown#1", [table])


def test_children_report_by_themselves(reporting, until):
    """After a fork there is another process, with counts of its own."""
    using = reporting()
    store = CacheStore(using)
    store.get("k")
    until(lambda: report_of(using))

    def child(number):
        store.get("k")
        name = f"{socket.gethostname()[:64]}#{os.getpid()}"
        return until(lambda: (found := report_of(using, name)) and (found.pid, found.calls))

    (found,) = in_processes(1, child)
    assert found[0] != os.getpid()
    assert [calls.attempts for calls in found[1].values()] == [1]


def test_a_killed_process_is_late_and_then_gone(reporting):
    """An hour after its last report, whether DynamoDB has deleted it or not."""
    using = reporting()
    processes = ReportStore(using)
    reporter = get_reporter(using)
    processes.publish(replace(reporter.report(), pid=1))
    with FakeClock(time.time() + 30 * 60):
        (report,) = processes.latest()
        assert report.is_late(clock.now())
    with FakeClock(time.time() + KEPT + 1):
        assert processes.latest() == []
        assert [each.pid for each in processes.all()] == [1]


def test_a_command_reports_its_end(reporting, dynamo_engine, until):
    """By a last write at the end of the process."""
    using = reporting()
    config = get_config(using)
    script = (
        "import time, django\n"
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['dynamo_stores'], DYNAMO_STORES={'default': {\n"
        f"    'ENDPOINT_URL': {dynamo_engine!r}, 'TABLE_PREFIX': {config.table_prefix!r}}}}})\n"
        "django.setup()\n"
        "from dynamo_stores.stores import CacheStore\n"
        "CacheStore().get('k')\n"
        "time.sleep(2.5)\n"
    )
    done = subprocess.Popen([sys.executable, "-W", "error", "-c", script], cwd=settings.BASE_DIR)
    there = f"{socket.gethostname()[:64]}#{done.pid}"
    assert not until(lambda: report_of(using, there)).has_ended
    assert done.wait(30) == 0
    assert report_of(using, there).has_ended


def test_ctrl_c_during_the_last_report_ends_quietly(reporting, dynamo_faults):
    """Here by a timer, while DynamoDB does not answer."""
    prefix = get_config(reporting()).table_prefix
    script = (
        "import atexit, signal, django\n"
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['dynamo_stores'], DYNAMO_STORES={'default': {\n"
        f"    'ENDPOINT_URL': {dynamo_faults.url!r}, 'TABLE_PREFIX': {prefix!r}}}}})\n"
        "django.setup()\n"
        "from dynamo_stores.monitoring.reporter import get_reporter\n"
        "get_reporter('default').publish()\n"
        "print('published', get_reporter('default').has_published(), flush=True)\n"
        "input()\n"
        "signal.signal(signal.SIGALRM, signal.default_int_handler)\n"
        "atexit.register(signal.setitimer, signal.ITIMER_REAL, 0.2)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=settings.BASE_DIR,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "published True\n"
        dynamo_faults.hang("UpdateItem")
        _, errors = process.communicate("\n", timeout=30)
    assert (process.returncode, errors) == (0, "")


def test_an_unavailable_dynamodb_is_not_logged(reporting, caplog):
    """A report that cannot be published is no error; the thread goes on."""
    using = reporting(
        make_tables=False, ENDPOINT_URL="http://127.0.0.1:9", RETRY={"MAX_RETRIES": 0}
    )
    reporter = get_reporter(using)
    with caplog.at_level(logging.INFO):
        with pytest.raises(StoreUnavailable):
            CacheStore(using).get("k")
        reporter.publish()
        time.sleep(2)
    assert "could not be published" not in caplog.text
    assert reporter._thread.is_alive()
    assert sum(each.errors for each in reporter.report().calls.values()) == 1


def test_a_missing_control_table_is_logged_once(reporting, caplog):
    """With the command that creates it."""
    using = reporting(make_tables=False)
    reporter = get_reporter(using)
    with caplog.at_level(logging.WARNING):
        reporter.publish()
        reporter.publish()
    assert caplog.text.count("could not be published") == 1
    assert "dynamo_create_tables" in caplog.text


def test_switched_off_nothing_is_counted(alias):
    """No thread, and no capacity units are asked for."""
    using = alias()
    assert not observer._observers
    CacheStore(using).get("k")
    assert f"dynamo-stores-reports-{using}" not in {each.name for each in threading.enumerate()}


def test_the_thread_ends_with_its_settings(reporting, until):
    """Other settings, another thread."""
    using = reporting()
    CacheStore(using).get("k")
    thread = get_reporter(using)._thread
    until(lambda: report_of(using))
    with override_settings(DYNAMO_STORES={"default": {}}):
        until(lambda: not thread.is_alive())


def test_throttles_are_counted_by_reason_and_minute(reporting, dynamo_faults):
    """Of the table and of its index, reads and writes apart."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url, RETRY={"THROTTLE_RETRIES": 0})
    table = get_config(using).store_table
    arn = f"arn:aws:dynamodb:us-east-1:000000000000:table/{table}/index/GSI1"
    reason = "IndexWriteProvisionedThroughputExceeded"
    dynamo_faults.throttle("PutItem", times=2, reason=reason, resource=arn)
    dynamo_faults.throttle("GetItem", times=1)
    store = CacheStore(using)
    for call in (lambda: store.set("k", 1), lambda: store.set("k", 1), lambda: store.get("k")):
        with pytest.raises(StoreUnavailable):
            call()
    report = get_reporter(using).report()
    assert report.reasons == {table: {reason: 2, "no reason named": 1}}
    assert report.calls[table] == Calls(3, 0, 3)
    assert total(report, f"{table}/GSI1").throttled_writes == 2
    assert total(report, table).throttled_reads == 1


def test_throttles_of_a_hot_partition_are_told_apart(reporting, dynamo_faults):
    """Because more capacity does not cure them."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url, RETRY={"THROTTLE_RETRIES": 0})
    table = get_config(using).store_table
    arn = f"arn:aws:dynamodb:us-east-1:000000000000:table/{table}"
    store = CacheStore(using)
    for reason in ("KeyRangeThroughputExceeded", "ProvisionedThroughputExceeded"):
        dynamo_faults.throttle("PutItem", times=1, reason=f"TableWrite{reason}", resource=arn)
        with pytest.raises(StoreUnavailable):
            store.set("k", 1)
    use = total(get_reporter(using).report(), table)
    assert (use.throttled_writes, use.incurable_writes) == (2, 1)


def test_failed_conditions_are_not_errors(reporting):
    """Of a cache, a limit and a job, also within a cancelled transaction."""
    using = reporting()
    table = get_config(using).store_table
    store, limit = CacheStore(using), RateLimitStore(using)
    assert [store.add("k", 1), store.add("k", 1)] == [True, False]
    assert [limit.acquire("r", rate="1/h").allowed for _ in range(2)] == [True, False]
    put = {"Put": {"TableName": table, "Item": {"PK": {"S": "p"}, "SK": {"S": "s"}}}}
    put["Put"]["ConditionExpression"] = "attribute_exists(PK)"
    with pytest.raises(ClientError, match="ConditionalCheckFailed"):
        get_connection(using).dispatch("TransactWriteItems", {"TransactItems": [put]})
    report = get_reporter(using).report()
    assert report.calls[table].attempts >= 4
    assert sum(each.errors for each in report.calls.values()) == 0


def test_latencies_are_those_of_calls(reporting, dynamo_faults, monkeypatch):
    """With their retries and the waits between them, also of those that failed."""
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    using = reporting(
        ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 1, "DELAY": 0.3, "MAX_DELAY": 0.3}
    )
    table, store = get_config(using).store_table, CacheStore(using)
    store.set("k", 1)
    dynamo_faults.delay(0.2, "GetItem", times=1)
    store.get("k")
    dynamo_faults.fail("GetItem", times=1)
    store.get("k")
    dynamo_faults.fail("GetItem", times=2)
    with pytest.raises(StoreUnavailable):
        store.get("k")
    (found,) = [each for each in read_status(using, get_reporter(using).report()).tables
                if each.table == table]  # fmt: skip
    by_operation = {each.operation: each for each in found.latency}
    assert by_operation["GetItem"].calls == 3
    assert by_operation["GetItem"].p50 > 0.18
    assert by_operation["PutItem"].calls >= 1


def test_events_of_stores_are_counted_by_minute(reporting, dynamo_clock):
    """Between one report and the next."""
    using = reporting()
    store, reporter = CacheStore(using), get_reporter(using)
    store.set("k", 1)
    store.get("k")
    minute = minute_of(dynamo_clock.now())
    assert reporter.report().events == {minute: {"hit": 1}}
    store.get("missing")
    assert RateLimitStore(using).acquire("r", rate="0/h").allowed is False
    assert DedupeStore(using).run("job", lambda: 1) == 1
    dynamo_clock.advance(60)
    assert reporter.report().events == {
        minute: {"hit": 1},
        minute + 1: {"miss": 1, "refused": 1, "jobs.begun": 1, "jobs.completed": 1},
    }
    dynamo_clock.advance(60 * 20)
    assert reporter.report().events == {}


def test_processes_with_equal_hostnames_and_ids_have_a_report_each(reporting):
    """As containers have; a child has another token than its parent."""
    using = reporting()
    own = get_reporter(using).report()
    processes = ReportStore(using)
    for report in (own, replace(own, token="other")):
        processes.publish(report)
    assert len({each.process for each in processes.latest()}) == 2
    (token,) = in_processes(1, lambda number: get_reporter(using).report().token)
    assert token != own.token


def test_a_call_belongs_to_the_time_of_throttling_in_which_it_was_made(dynamo_clock: FakeClock):
    """Whenever it is counted."""
    meter = Meter("default")
    throttled = Measurement("default", "t", "PutItem", 0.1, error="ThrottlingError", throttled=True)
    consumed = {"TableName": "t", "CapacityUnits": 2.0}
    served = Measurement("default", "t", "PutItem", 0.1, attempt=2, consumed=consumed)
    meter.record(throttled)
    dynamo_clock.advance(0.5)
    meter.record(served)
    dynamo_clock.advance(3600)
    assert meter.answered_at == clock.now() - 3600
    assert meter.tally.throttling()["t"].served == 2.0
    assert meter.tally.calls()["t"] == Calls(2, 0, 1)


def test_the_last_answer_is_the_last_of_all_tables(dynamo_clock: FakeClock):
    """Whichever of them are counted together, also those of two minutes."""
    meter = Meter("default")
    meter.record_answer("a", "GetItem", 0.1, None)
    for table, seconds in (("a", 0.1), ("b", 0.1), ("a", 30.0), ("a", 0.1), ("b", 60.0)):
        dynamo_clock.advance(seconds)
        meter.record_answer(table, "GetItem", 0.1, None)
        if seconds > 1:
            assert meter.tally.answered_at == clock.now()
    assert meter.tally.calls() == {"a": Calls(4, 0, 0), "b": Calls(2, 0, 0)}


def test_throttling_is_reported_with_its_begin_and_the_units_asked_for(reporting, dynamo_faults):
    """A retry asks for nothing more; a throttled attempt costs what the last served one cost."""
    using = reporting(
        ENDPOINT_URL=dynamo_faults.url, REPORTS={"INTERVAL": 3600.0}, RETRY={"DELAY": 0.01}
    )
    table = get_config(using).store_table
    store = CacheStore(using)
    store.set("k", "v" * 1500)
    assert get_reporter(using).report().throttling == {}
    dynamo_faults.throttle("PutItem", times=2)
    began = clock.now()
    store.set("k", "v" * 1500)
    store.set("k", "v" * 1500)
    found = get_reporter(using).report().throttling[table]
    assert found.kind == "Write"
    assert began <= found.since <= found.last <= clock.now()
    assert found.served > 0
    assert found.asked == found.served


def test_the_begin_of_an_outage_is_known_until_the_next_answer(reporting, dynamo_faults):
    """The first attempt without an answer counts."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url, REPORTS={"INTERVAL": 3600.0})
    store, meter = CacheStore(using), get_meter(using)
    store.get("k")
    assert meter.unanswered_since is None
    dynamo_faults.fail("GetItem", times=2)
    began = clock.now()
    store.get("k")
    assert meter.unanswered_since is None
    dynamo_faults.fail("*")
    with pytest.raises(StoreUnavailable):
        store.get("k")
    since = meter.unanswered_since
    assert began <= since <= clock.now()
    with contextlib.suppress(StoreUnavailable):
        store.get("k")
    assert meter.unanswered_since == since


def test_an_answer_ends_an_outage_that_is_counted_with_it(reporting, dynamo_faults):
    """As while another thread takes a snapshot."""
    using = reporting(ENDPOINT_URL=dynamo_faults.url, REPORTS={"INTERVAL": 3600.0})
    store, meter = CacheStore(using), get_meter(using)

    def call():
        dynamo_faults.fail("*")
        with pytest.raises(StoreUnavailable):
            store.get("k")
        dynamo_faults.clear()
        store.get("k")

    with meter.locked(), ThreadPoolExecutor(1) as thread:
        thread.submit(call).result()
    assert meter.answered_at > 0
    assert meter.unanswered_since is None


def test_a_throttle_ends_an_outage(reporting, dynamo_faults):
    """It is an answer."""
    using = reporting(
        ENDPOINT_URL=dynamo_faults.url,
        REPORTS={"INTERVAL": 3600.0},
        RETRY={"MAX_RETRIES": 0},
    )
    store, meter = CacheStore(using), get_meter(using)
    dynamo_faults.fail("*")
    with pytest.raises(StoreUnavailable):
        store.get("k")
    assert meter.unanswered_since is not None
    dynamo_faults.clear()
    dynamo_faults.throttle("*")
    with pytest.raises(ThrottlingError):
        store.get("k")
    assert meter.unanswered_since is None


def test_a_breaker_is_reported_with_its_next_try(reporting, dynamo_faults):
    """As a time of the clock; a closed one has none."""
    using = reporting(
        ENDPOINT_URL=dynamo_faults.url,
        RETRY={"MAX_RETRIES": 0},
        CIRCUIT_BREAKER={"RECOVERY_TIMEOUT": 500.0},
    )
    CacheStore(using).get("k")
    (breaker,) = get_reporter(using).report().breakers
    assert breaker.next_try is None
    open_breaker(using, dynamo_faults)
    (breaker,) = get_reporter(using).report().breakers
    assert breaker.next_try == pytest.approx(breaker.since + 500, abs=60)
