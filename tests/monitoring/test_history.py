"""Minutes and hours of all processes: their sums, and how long they are kept."""

from __future__ import annotations

import time

import pytest

from dynamo_stores import keys
from dynamo_stores.capacity.usage import Usage, minute_of
from dynamo_stores.concurrency.effects import run
from dynamo_stores.monitoring.history import History, PeriodItem
from dynamo_stores.monitoring.periods import Period, hour_of, minutes_of, read_period, total
from dynamo_stores.monitoring.report import Report
from dynamo_stores.monitoring.report_store import ReportStore
from dynamo_stores.monitoring.reporter import get_reporter
from dynamo_stores.monitoring.roll_up import roll_up
from dynamo_stores.stores import CacheStore
from dynamo_stores.testing import FakeClock
from tests.helpers.commands import run as run_command
from tests.helpers.forking import in_processes

MINUTE = Period({"t": {"GetItem": {30: 5, 31: 1}}}, {"hit": 3})


@pytest.fixture
def now():
    """A moment in the middle of the first minute of an hour."""
    with FakeClock((time.time() // 3600) * 3600 + 30) as clock:
        yield clock


def report(using, clock, pid, minute, period, use=None):
    ReportStore(using).publish(
        Report(
            "h", pid, "test", "1", clock.now(), clock.now(), 60.0, use=use or {},
            latencies={minute: period.latencies}, events={minute: period.events},
        )
    )  # fmt: skip


def test_a_period_is_read_as_it_was_written():
    full = Period(MINUTE.latencies, MINUTE.events, {"t/I": Usage(1.5, 2.0)}, {"t/I": (0.5, 1.0)})
    assert read_period(full.as_text()) == full
    assert read_period(Period().as_text()) == Period()


@pytest.mark.parametrize(
    "text", ["[]", '{"events": {"hit": -1}}', '{"peak": {"t": [1]}}', '{"use": {"t": 1}}',
             '{"latencies": {"t": {"GetItem": [0, 1.5]}}}'],
)  # fmt: skip
def test_another_text_is_no_period(text):
    with pytest.raises((ValueError, LookupError)):
        read_period(text)


def test_sums():
    """Of processes by minute, and of minutes by hour."""
    one = Report("h", 1, "r", "1", 0.0, 0.0, 60.0, latencies={7: MINUTE.latencies})
    two = Report("h", 2, "r", "1", 0.0, 0.0, 60.0, latencies={7: MINUTE.latencies},
                 events={7: {"hit": 2}, 8: {"miss": 1}})  # fmt: skip
    found = minutes_of([one, two])
    assert found[7] == Period({"t": {"GetItem": {30: 10, 31: 2}}}, {"hit": 2})
    assert found[8] == Period({}, {"miss": 1})
    hour = hour_of(found.values(), {7: {"t": Usage(60.0, 6.0)}, 8: {"t": Usage(120.0)}})
    assert hour.events == {"hit": 2, "miss": 1}
    assert hour.use == {"t": Usage(180.0, 6.0)}
    assert hour.peak == {"t": (2.0, 0.1)}
    assert total([hour, hour]).use == {"t": Usage(360.0, 12.0)}
    assert total([hour, hour]).peak == hour.peak


def test_the_command_of_cron_sums_up_too(reporting, now):
    """Of tables on demand as well: it is what the charts and the costs are made from."""
    using, minute = reporting(REPORTS={"INTERVAL": 36_000.0}), minute_of(now.now())
    now.advance(120)
    report(using, now, 1, minute, MINUTE)
    assert run_command("dynamo_reconcile", using=[using]) == "No table is due.\n"
    assert History(using).minutes(minute, minute)[minute].events == MINUTE.events


def test_minutes_that_are_over_are_written_once(reporting, now):
    """The higher sum of two stays, because a report may have left out what is old."""
    using, minute = reporting(), minute_of(now.now())
    now.advance(120)
    report(using, now, 1, minute, MINUTE)
    assert roll_up(using).written == 1
    assert roll_up(using).written == 0
    report(using, now, 2, minute, Period({"t": {"GetItem": {30: 1}}}))
    roll_up(using)
    assert History(using).minutes(minute, minute)[minute].latencies == {
        "t": {"GetItem": {30: 6, 31: 1}}
    }
    ReportStore(using).delete(ReportStore(using).latest()[:1])
    assert roll_up(using).written == 0
    assert History(using).minutes(minute + 1, minute + 9) == {}


def test_an_hour_is_summed_up_when_it_is_over(reporting, now):
    """Once, by whichever process comes first; with the usage of its minutes."""
    using, minute = reporting(), minute_of(now.now())
    for _ in range(3):
        at = minute_of(now.now())
        now.advance(60)
        report(using, now, 1, at, MINUTE, use={at: {"t": Usage(30.0, 6.0)}})
        roll_up(using)
    now.advance(57 * 60)
    roll_up(using)
    assert History(using).hours(0, minute // 60) == {}
    now.advance(6 * 60)
    assert sorted(in_processes(3, lambda number: roll_up(using).written)) == [0, 0, 1]
    (hour,) = History(using).hours(0, minute // 60).values()
    assert hour.latencies == {"t": {"GetItem": {30: 15, 31: 3}}}
    assert hour.events == {"hit": 9}
    assert hour.use == {"t": Usage(90.0, 18.0)}
    assert hour.peak == {"t": (0.5, 0.1)}


def test_minutes_are_kept_for_three_hours_and_hours_for_35_days(reporting, now):
    """Also where DynamoDB's own deletion is late."""
    using, minute = reporting(), minute_of(now.now())
    now.advance(60)
    report(using, now, 1, minute, MINUTE)
    roll_up(using)
    now.advance(65 * 60)
    roll_up(using)
    history = History(using)
    assert len(history.minutes(0, minute + 9999)) == 1
    assert len(history.hours(0, minute)) == 1
    item = run(history._items.get(keys.metrics_hour(minute // 60), consistent=True))
    assert int(item["TTL"]["N"]) == (minute // 60 + 35 * 24) * 3600
    now.advance(3 * 3600)
    roll_up(using)
    assert history.minutes(0, minute + 9999) == {}
    assert len(history.hours(0, minute)) == 1
    now.advance(36 * 86_400)
    roll_up(using)
    assert history.hours(0, minute) == {}


def test_what_cannot_be_read_is_left_out(reporting, now):
    using, minute = reporting(), minute_of(now.now())
    history, key = History(using), keys.metrics_minute(minute)
    run(history._items.put(PeriodItem(key.pk, key.sk, period="odd").serialize()))
    assert history.minutes(minute, minute) == {}


def test_calls_of_a_process_reach_the_minutes(reporting, now):
    """From its meter, by its report."""
    using, minute = reporting(REPORTS={"INTERVAL": 3600.0}), minute_of(now.now())
    CacheStore(using).get("k")
    get_reporter(using).publish()
    now.advance(60)
    roll_up(using)
    found = History(using).minutes(minute, minute)[minute]
    assert found.events == {"miss": 1}
    ((operations,),) = [list(found.latencies.values())]
    assert sum(operations["GetItem"].values()) == 1
