"""Notifications: what is told, by which process, and how often."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

import pytest
from celery import current_app
from django.conf import settings
from django.core import checks
from django.test import override_settings

from dynamo_stores import conf
from dynamo_stores.calls.breaker import CircuitBreaker, State
from dynamo_stores.capacity.description import Units
from dynamo_stores.capacity.history import Decisions
from dynamo_stores.capacity.manual import change_manually
from dynamo_stores.capacity.records import CapacityRecords
from dynamo_stores.capacity.scale_up import get_scaler
from dynamo_stores.capacity.update import describe
from dynamo_stores.capacity.usage import Usage
from dynamo_stores.conf import get_config
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.monitoring.health import perform_health_check
from dynamo_stores.monitoring.meter import get_meter
from dynamo_stores.monitoring.notifications.ledger import AT_ONCE, WINDOW
from dynamo_stores.monitoring.notifications.notifier import get_notifier
from dynamo_stores.monitoring.notifications.sources import check
from dynamo_stores.signals import breaker_state_changed, capacity_changed, failed_over
from dynamo_stores.stores import CacheStore
from dynamo_stores.tasks import beat_schedule, roll_up_status
from dynamo_stores.testing import FakeClock
from tests.helpers.capacity import reason, record_use
from tests.helpers.forking import in_processes
from tests.helpers.notifications import (
    all_sent,
    bodies,
    fail,
    hang,
    path_of,
    received,
    remember,
    slow,
)
from tests.helpers.peers import Peer, answering, response
from tests.helpers.status import HERE

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

NOWHERE = "http://127.0.0.1:9"


def breaker(using, table, old, new, error="StoreUnavailable"):
    """Send the signal of a breaker."""
    breaker_state_changed.send_robust(
        CircuitBreaker, using=using, table=table, old=old, new=new, error=error
    )


def opens(using, table="t"):
    breaker(using, table, State.CLOSED, State.OPEN)


def closes(using, table="t"):
    breaker(using, table, State.OPEN, State.CLOSED, "")


def test_a_breaker_is_told_when_it_opens_and_when_it_closes(
    notified, dynamo_faults, dynamo_clock, caplog
):
    """By real calls: with where, since when, why, what was done and what comes next."""
    caplog.set_level(logging.INFO, "dynamo_stores.calls.connection")
    using = notified(
        SETTINGS={
            "ENDPOINT_URL": dynamo_faults.url,
            "RETRY": {"MAX_RETRIES": 0},
            "CIRCUIT_BREAKER": {"FAILURE_THRESHOLD": 2, "RECOVERY_TIMEOUT": 60.0},
            "OPERATION_TIMEOUT": 120.0,
        }
    )
    table, began = get_config(using).store_table, dynamo_clock.now()
    # The control table answers: only reads of the store's table fail.
    dynamo_faults.fail("GetItem", times=2)
    store = CacheStore(using)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            store.get("never stored")
    assert all_sent(using) == ["breaker_opened"]
    (opened,) = received
    assert (opened.using, opened.table, opened.at) == (using, table, began)
    assert opened.fields["error"] == "InternalServerError"
    assert opened.fields["next_try"] == began + 60
    assert opened.fields["is_shared"] is True
    assert opened.fields["process"] == HERE
    assert opened.text == (
        f"The circuit breaker of table {table} (alias {using}) opened at 2033-05-18 03:33:20 UTC "
        f"in the process {opened.fields['process']} after InternalServerError: its requests fail "
        "at once, and the next try is 1 minute later."
    )
    dynamo_clock.advance(120)
    assert store.get("never stored") is None
    assert all_sent(using) == ["breaker_opened", "breaker_closed"]
    assert received[1].fields["since"] == began
    assert "closed at 2033-05-18 03:35:20 UTC after 2 minutes" in received[1].text
    lines = [each.getMessage() for each in caplog.records if each.name.endswith("connection")]
    about = f"The circuit breaker of table {table} went from"
    assert lines == [
        f"{about} closed to open after InternalServerError.",
        f"{about} open to half_open.",
        f"{about} half_open to closed.",
    ]


def test_nobody_is_told_without_the_setting(alias):
    """And nothing is made for it."""
    using = alias()
    opens(using)
    assert get_config(using).notify.is_on is False
    assert get_notifier(using)._delivery.receivers == []
    assert get_notifier(using).is_idle


def test_a_failed_probe_tells_nothing(notified):
    """The breaker was told when it opened; half open is no news."""
    using = notified()
    opens(using)
    breaker(using, "t", State.OPEN, State.HALF_OPEN)
    breaker(using, "t", State.HALF_OPEN, State.OPEN)
    assert all_sent(using) == ["breaker_opened"]
    breaker(using, "t", State.HALF_OPEN, State.CLOSED)
    assert all_sent(using) == ["breaker_opened", "breaker_closed"]


def test_an_outage_of_hours_is_one_change(notified, dynamo_clock):
    """Its failed probes prolong it, for processes that notice it late."""
    using = notified()
    opens(using)
    for _ in range(12):
        dynamo_clock.advance(1200)
        breaker(using, "t", State.HALF_OPEN, State.OPEN)
        assert all_sent(using) == ["breaker_opened"]
    opens(using)
    assert all_sent(using) == ["breaker_opened"]


def test_several_processes_send_one_notification(notified):
    """Of eight that see the same breaker open and close, and the same capacity change."""
    with Peer(answering(response())) as peer:
        using = notified(WEBHOOK=f"{peer.url}/hook")

        def work(number):
            opens(using)
            notifier = get_notifier(using)
            notifier.wait(60)
            return notifier.is_idle

        assert all(in_processes(8, work))
        assert [each["event"] for each in bodies(peer)] == ["breaker_opened"]

        def close(number):
            closes(using)
            _changed(using)
            notifier = get_notifier(using)
            notifier.wait(60)
            return notifier.is_idle

        assert all(in_processes(8, close))
        events = [each["event"] for each in bodies(peer)]
        assert sorted(events) == ["breaker_closed", "breaker_opened", "capacity_changed"]
        assert {each["is_shared"] for each in bodies(peer)} == {True}


def _changed(using, table="t", units=(10, 10)):
    capacity_changed.send_robust(
        CapacityRecords, using=using, table=table, changes={"": Units(*units)}, code="raised",
        why="the demand exceeded the read capacity of the table",
    )  # fmt: skip


def test_without_the_control_table_each_process_tells_by_itself(notified, dynamo_faults, caplog):
    """And says so; it agrees with the others when it can again."""
    using = notified(SETTINGS={"ENDPOINT_URL": dynamo_faults.url})
    dynamo_faults.fail("*")
    opens(using)
    opens(using)
    assert all_sent(using) == ["breaker_opened"]
    assert received[0].fields["is_shared"] is False
    assert received[0].text.endswith("so other processes may send the same.")
    assert "cannot be reached (StoreUnavailable)" in caplog.text
    dynamo_faults.clear()
    opens(using)
    assert all_sent(using) == ["breaker_opened"]

    def work(number):
        opens(using)
        return all_sent(using)

    # The process that told it by itself has told the others.
    assert in_processes(1, work) == [["breaker_opened"]]
    closes(using)
    assert all_sent(using) == ["breaker_opened", "breaker_closed"]
    assert received[1].fields["is_shared"] is True


def test_a_control_table_that_hangs_delays_no_caller(notified, dynamo_faults):
    """It is given up; the notification is sent without it."""
    using = notified(SETTINGS={"ENDPOINT_URL": dynamo_faults.url})
    dynamo_faults.hang("*")
    opens(using)
    # The call has returned, and the thread waits for the control table.
    assert received == []
    assert all_sent(using) == ["breaker_opened"]
    assert received[0].fields["is_shared"] is False


def test_commands_wait_until_all_is_sent(provisioned, settings, run, until):
    """A process that ends after its work would leave it unsent."""
    received.clear()
    using, table, _ = provisioned()
    stores = dict(settings.DYNAMO_STORES)
    stores[using] = {**stores[using], "NOTIFY": {"FUNCTION": path_of(slow)}}
    settings.DYNAMO_STORES = stores
    run("dynamo_scale", table, "up", "--using", using)
    assert [each.event for each in received] == ["capacity_changed"]
    until(lambda: describe(using, table).is_active)
    with FakeClock(time.time() + 1000):
        record_use(using, table, Usage())
        run("dynamo_reconcile", "--using", using)
    assert [each.fields["code"] for each in received] == ["by_hand", "lowered"]


def test_without_the_control_table_a_process_is_bounded(notified, dynamo_clock, caplog):
    """By the same limit, for itself."""
    using = notified(SETTINGS={"ENDPOINT_URL": NOWHERE}, FUNCTION=path_of(remember), MAX_PER_HOUR=3)
    for number in range(10):
        opens(using, f"t{number}")
    assert all_sent(using) == ["breaker_opened"] * 3
    dynamo_clock.advance(3601)
    opens(using, "later")
    assert all_sent(using) == ["breaker_opened"] * 3 + ["left_out", "breaker_opened"]
    assert received[3].fields["left_out"] == {"breaker_opened": 7}
    assert received[3].fields["is_shared"] is False


def test_no_more_than_the_limit_of_an_hour(notified, dynamo_clock):
    """Over all processes; what was left out is summed up when the hour allows it."""
    using = notified(FUNCTION=path_of(remember), MAX_PER_HOUR=4)

    def work(number):
        opens(using, f"process{number}")
        return all_sent(using)

    assert sorted(in_processes(6, work)) == [[], []] + [["breaker_opened"]] * 4
    opens(using, "here")
    assert all_sent(using) == []
    dynamo_clock.advance(3601)
    closes(using, "process0")
    assert all_sent(using) == ["left_out", "breaker_closed"]
    assert received[0].fields["left_out"] == {"breaker_opened": 3}
    assert "Before it 3 notifications were not sent" in received[0].text


def test_a_breaker_that_flaps_does_not_flood(notified, dynamo_clock):
    """A few changes are told at once, and the last one when it is calm."""
    using = notified()
    for _ in range(20):
        opens(using)
        closes(using)
        dynamo_clock.advance(1)
    assert all_sent(using) == ["breaker_opened", "breaker_closed"] * (AT_ONCE // 2)
    dynamo_clock.advance(WINDOW)
    assert check(using) == 0
    assert all_sent(using)[AT_ONCE:] == ["breaker_closed"]
    assert received[-1].fields["changes_not_told"] == 40 - AT_ONCE - 1


def test_what_was_held_is_told_by_its_process(notified, dynamo_clock, until):
    """Without a task, and without another change."""
    using = notified()
    for number in range(AT_ONCE + 2):
        _changed(using, units=(10 + number, 10))
    assert len(all_sent(using)) == AT_ONCE
    dynamo_clock.advance(WINDOW)
    until(lambda: len(received) == AT_ONCE + 1)
    assert received[-1].fields["changes"] == {"": [10 + AT_ONCE + 1, 10]}


def test_capacity_and_its_maximum(alias, dynamo_capacity, provisioned, run, until, settings):
    """By real changes of a table: by hand, by demand, and where the maximum does not allow it."""
    received.clear()
    using, table, _ = provisioned(SCALING={"MAX_READ_CAPACITY": 20, "MAX_WRITE_CAPACITY": 20})
    stores = dict(settings.DYNAMO_STORES)
    stores[using] = {**stores[using], "NOTIFY": {"FUNCTION": path_of(remember)}}
    settings.DYNAMO_STORES = stores
    change_manually(using, table, "to", read=20, write=20, by="ann")
    assert all_sent(using) == ["capacity_changed"]
    (changed,) = received
    assert changed.fields["changes"] == {"": [20, 20], "GSI1": [20, 20]}
    assert changed.fields["code"] == "by_hand"
    assert "20 RCU and 20 WCU" in changed.text
    assert "requested by ann" in changed.text
    assert "1 minute after it was needed last" in changed.text
    until(lambda: describe(using, table).is_active)
    assert get_scaler(using).handle(table, [reason(using, table)]).code == "at_maximum"
    assert all_sent(using) == ["capacity_changed", "capacity_at_maximum"]
    assert "20 write units (MAX_WRITE_CAPACITY)" in received[1].text
    # Another process decides the same.
    decision = {"at": received[1].at + 5, "code": "at_maximum", "why": "w", "from": {}, "to": {}}
    Decisions(using).publish(table, decision)
    assert all_sent(using) == ["capacity_changed", "capacity_at_maximum"]
    later = time.time() + 1000
    with FakeClock(later):
        assert check(using) == 1
        assert check(using) == 1
        roll_up_status()
        assert all_sent(using)[2:] == ["scale_down_stuck"]
    assert "nothing runs dynamo_reconcile" in received[2].text
    assert received[2].fields["deadline"] < later


def test_checks_for_stuck_tables_are_counted_for_the_sinks(alias, provisioned, settings):
    """Without NOTIFY, too; an alias without provisioned tables or sinks is not checked."""
    using, table, _ = provisioned()
    sinks = {"METRICS": {"SINKS": ["dynamo_stores.monitoring.sinks.LoggingSink"]}}
    settings.DYNAMO_STORES = {
        **settings.DYNAMO_STORES,
        "on_demand": {**settings.DYNAMO_STORES["default"], **sinks},
        using: {**settings.DYNAMO_STORES[using], **sinks},
    }
    records, now = CapacityRecords(using), time.time()
    decision = {"at": now, "code": "raised", "why": "w", "from": {}, "to": {}}
    records.record_raise(describe(using, table), now + 600, decision)

    def checks(using):
        return get_meter(using).snapshot().counters.get("scale_down_checks", {})

    assert check(using) == check("on_demand") == check("default") == 0
    assert checks(using) == {("ok",): 1.0}
    with FakeClock(now + 1000):
        assert check(using) == 1
    assert checks(using) == {("ok",): 1.0, ("stuck",): 1.0}
    assert checks("on_demand") == checks("default") == {}


def test_a_table_that_may_not_be_lowered_is_stuck(alias, provisioned, settings):
    """Although it is tried, and the deadline moves on."""
    received.clear()
    using, table, _ = provisioned()
    stores = dict(settings.DYNAMO_STORES)
    stores[using] = {**stores[using], "NOTIFY": {"FUNCTION": path_of(remember)}}
    settings.DYNAMO_STORES = stores
    records, now = CapacityRecords(using), time.time()
    why = f"{table} cannot be changed: the permission dynamodb:UpdateTable is missing"
    decision = {"at": now, "code": "not_allowed", "why": why, "from": {}, "to": {}}
    records.record_raise(describe(using, table), now + 600, decision)
    assert check(using) == 1
    assert check(using) == 1
    assert all_sent(using) == ["scale_down_stuck"]
    assert "the permission dynamodb:UpdateTable is missing" in received[0].text
    assert "the next try is at" in received[0].text
    lowered = {**decision, "code": "lowered"}
    records.record_raise(describe(using, table), now + 600, lowered)
    assert check(using) == 0


def test_failover_is_told(notified):
    """Where it begins, and that it has ended."""
    using = notified()
    for is_active in (True, False):
        failed_over.send_robust(
            object, using=using, table="t", failover="other", is_active=is_active,
            error="StoreUnavailable" if is_active else "",
        )  # fmt: skip
    assert all_sent(using) == ["failover_begun", "failover_ended"]
    assert "alias other answers instead" in received[0].text
    assert received[1].fields["since"] == received[0].at


def test_a_real_failover_is_told(notified, alias):
    """By a call that another alias answered."""
    other = alias()
    changes = {"ENDPOINT_URL": NOWHERE, "FAILOVER": other, "RETRY": {"MAX_RETRIES": 0}}
    using = notified(SETTINGS={**changes, "HEALTH": {"TIMEOUT": 30.0}})
    assert perform_health_check(using).success
    assert all_sent(using) == ["failover_begun"]
    assert received[0].fields["failover"] == other
    assert received[0].table == get_config(using).store_table


def test_a_function_that_raises_is_logged(notified, caplog):
    """By the class of its error alone; other receivers get the notification."""
    with Peer(answering(response())) as peer:
        using = notified(FUNCTION=path_of(fail), WEBHOOK=peer.url)
        opens(using)
        all_sent(using)
        assert [each["event"] for each in bodies(peer)] == ["breaker_opened"]
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert "was not taken by the function" in record.message
    assert "LookupError" in record.message
    assert "secret content" not in caplog.text


def test_a_receiver_that_hangs_is_given_up(notified, caplog):
    """After the time-out; it is not called again before it returns, and others are."""
    with Peer(answering(response())) as peer:
        using = notified(FUNCTION=path_of(hang), WEBHOOK=peer.url, TIMEOUT=0.5)
        opens(using)
        closes(using)
        all_sent(using)
        assert [each.event for each in received] == ["breaker_opened"]
        assert [each["event"] for each in bodies(peer)] == ["breaker_opened", "breaker_closed"]
    assert "no answer in time" in caplog.text
    assert "it has not answered an earlier one yet" in caplog.text


def test_callers_never_wait(notified, caplog):
    """Even if the receiver hangs and very many things change; what has no place is logged."""
    using = notified(FUNCTION=path_of(hang), MAX_PER_HOUR=1000)
    for number in range(300):
        opens(using, f"t{number}")
    dropped = [each for each in caplog.messages if "breaker_opened was not sent" in each]
    # A hundred wait, and one or so is with the receiver.
    assert len(dropped) > 190


def test_a_forked_process_tells_for_itself(notified):
    """What waits in its parent is the parent's."""
    using = notified(FUNCTION=path_of(hang))
    opens(using, "parent")

    def work(number):
        received.clear()
        opens(using, "child")
        time.sleep(0.01)
        return list(get_notifier(using)._waiting.values())

    assert in_processes(1, work) == [["breaker_opened"]]


EXIT = """
import atexit, time
# It runs after those that are registered later.
atexit.register(lambda: print(time.monotonic() - ended, flush=True))
import django
django.setup()
from django.test import override_settings
from dynamo_stores.calls.breaker import CircuitBreaker, State
from dynamo_stores.signals import breaker_state_changed
override_settings(DYNAMO_STORES={{"default": {alias!r}}}).enable()
for table in ("a", "b"):
    breaker_state_changed.send_robust(
        CircuitBreaker, using="default", table=table, old=State.CLOSED, new=State.OPEN,
        error="StoreUnavailable",
    )
ended = time.monotonic()
"""


@pytest.mark.parametrize("hangs", [False, True])
def test_the_end_of_a_process(tables, default_alias, hangs):
    """What is on its way is sent; a receiver that hangs is not waited for, and is logged."""

    def serve(peer, connection, number):
        peer.receive(connection)
        if hangs:
            peer.ended.wait(60)
        else:
            connection.sendall(response(Connection="close"))

    with Peer(serve) as peer:
        notify = {"WEBHOOK": peer.url, "TIMEOUT": 60.0}
        name = f"{default_alias['TABLE_PREFIX']}exit{int(hangs)}-"
        alias = {**default_alias, "TABLE_PREFIX": name, "NOTIFY": notify}
        done = subprocess.run(
            [sys.executable, "-c", EXIT.format(alias=alias)],
            cwd=settings.BASE_DIR,
            env={
                **os.environ,
                "ENV_FILE": os.devnull,
                "DJANGO_SETTINGS_MODULE": "project.settings",
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert len(peer.requests) == (1 if hangs else 2)
    # Far less than the receiver would take.
    assert float(done.stdout) < 30
    assert ("ends without having sent 2 notifications" in done.stderr) == hangs


def test_the_settings_are_checked(tables):
    """Each with what was expected; a secret is never shown."""

    def problems(**notify):
        with override_settings(DYNAMO_STORES={"default": {"NOTIFY": notify}}):
            return [(each.id[-4:], each.message) for each in conf.find_problems()]

    assert problems(TOPIC="arn:aws:sns:eu-west-1:123456789012:alerts") == []
    assert problems(WEBHOOK="https://example.com/a?b=c", WEBHOOK_SECRET="s") == []
    assert problems(WEBHOOK="http://127.0.0.1:80/") == []
    assert problems(WEBHOOK="http://[::1]/") == []
    for wrong in ("http://example.com", "ftp://a", "https://", "https://me:pw@example.com", 1,
                  "https://a:b", "https://exa mple.com", "https://[::1"):  # fmt: skip
        ((number, message),) = problems(WEBHOOK=wrong)
        assert number == "E152"
        assert "expected an https URL" in message
        assert str(wrong) not in message.replace("https URL", "")
    for topic in ("alerts", "arn:aws:sns:eu-west-1:123456789012:alerts.fifo", ""):
        ((number, _),) = problems(TOPIC=topic)
        assert number == "E150"
    ((number, message),) = problems(WEBHOOK="https://example.com", WEBHOOK_SECRET=b"hidden")
    assert number == "E153"
    assert "hidden" not in message
    ((number, message),) = problems(WEBHOOK_SECRET="hidden")
    assert (number, "WEBHOOK_SECRET'] is set without WEBHOOK" in message) == ("E153", True)
    assert [each[0] for each in problems(TIMEOUT=0)] == ["E155"]
    assert [each[0] for each in problems(MAX_PER_HOUR=0)] == ["E156"]
    secret = {"WEBHOOK": "https://example.com/token", "WEBHOOK_SECRET": "hidden"}
    with override_settings(DYNAMO_STORES={"default": {"NOTIFY": secret}}):
        assert "hidden" not in repr(get_config())
        assert "token" not in repr(get_config())


@pytest.mark.parametrize("path", ["nowhere.function", "tests.helpers.notifications.nothing",
                                  "tests.helpers.notifications.not_callable",
                                  "tests.helpers.notifications.asynchronous",
                                  "builtins.object", "operator.eq"])  # fmt: skip
def test_a_function_that_cannot_be_called_is_an_error(tables, path):
    """Of the system checks."""
    with override_settings(DYNAMO_STORES={"default": {"NOTIFY": {"FUNCTION": path}}}):
        assert "dynamo_stores.E157" in {each.id for each in checks.run_checks()}
    good = {"NOTIFY": {"FUNCTION": path_of(remember)}}
    with override_settings(DYNAMO_STORES={"default": good}):
        assert "dynamo_stores.E157" not in {each.id for each in checks.run_checks()}


def test_beat_must_look_for_tables_that_are_stuck(tables):
    """The task is in the schedule with NOTIFY, and a check says if it is not planned."""
    notify = {"NOTIFY": {"FUNCTION": path_of(remember)}, "REPORTS": {"ENABLED": False}}
    before = current_app.conf.beat_schedule

    def is_found(**values):
        with override_settings(DYNAMO_STORES={"default": {**notify, **values}}):
            current_app.conf.beat_schedule = {}
            found = {each.id for each in checks.run_checks()}
            current_app.conf.beat_schedule = beat_schedule()
            assert "dynamo_stores.W020" not in {each.id for each in checks.run_checks()}
        return "dynamo_stores.W020" in found

    try:
        assert is_found(BILLING_MODE="PROVISIONED")
        assert not is_found()
    finally:
        current_app.conf.beat_schedule = before
    off = {"REPORTS": {"ENABLED": False}}
    for default, is_planned in (
        (notify, True),
        # With a sink, for the metric of raised tables.
        ({**off, "BILLING_MODE": "PROVISIONED"}, True),
        ({**off, "BILLING_MODE": "PROVISIONED", "METRICS": {"SINKS": []}}, False),
        (off, False),
    ):
        with override_settings(DYNAMO_STORES={"default": default}):
            assert ("dynamo_stores.roll_up_status" in beat_schedule()) is is_planned


def test_a_process_that_is_killed_leaves_the_rest_to_others(notified, dynamo_clock):
    """What it held is in the control table, and told by the next notifier."""
    using = notified()

    def work(number):
        for each in range(AT_ONCE + 3):
            _changed(using, units=(10 + each, 10))
        all_sent(using)
        return len(received)

    assert in_processes(1, work) == [AT_ONCE]
    assert received == []
    dynamo_clock.advance(WINDOW + 1)
    check(using)
    assert all_sent(using) == ["capacity_changed"]
    assert received[0].fields["changes_not_told"] == 2
