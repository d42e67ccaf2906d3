"""Health checks, the system check of the pages, and dynamo_status."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.conf import settings
from django.core import checks
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.urls import clear_url_caches

from dynamo_stores.conf import get_config
from dynamo_stores.monitoring.health import TOO_OLD, HealthResult, perform_health_check
from dynamo_stores.stores import CacheStore
from tests.helpers.forking import in_processes
from tests.helpers.peers import Peer

READY = "/dynamo-stores/health/ready"
LIVE = "/dynamo-stores/health/live"
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def only(alias, default_alias):
    """``only(…)``: sets the settings of the only alias."""
    entered = []

    def make(**changes):
        override = override_settings(DYNAMO_STORES={"default": {**default_alias, **changes}})
        override.enable()
        entered.append(override)

    yield make
    for override in reversed(entered):
        override.disable()


def test_live_sends_no_request(only, client):
    """The process answers, whatever DynamoDB does."""
    only(ENDPOINT_URL="http://127.0.0.1:9")
    answer = client.get("/dynamo-stores/health/live")
    assert (answer.status_code, answer.text) == (200, "ok")
    assert "no-store" in answer["Cache-Control"]
    assert client.post("/dynamo-stores/health/live").status_code == 405


def test_ready_while_the_table_answers(only, client, dynamo_faults, dynamo_clock):
    """By one small read, cached for a second."""
    only(ENDPOINT_URL=dynamo_faults.url, RETRY={"MAX_RETRIES": 0}, HEALTH={"TIMEOUT": 30.0})
    for _ in range(5):
        assert client.get(READY).status_code == 200
    assert dynamo_faults.requests == {"GetItem": 1}
    dynamo_faults.fail("GetItem")
    assert client.get(READY).status_code == 200
    dynamo_clock.advance(1.1)
    answer = client.get(READY)
    assert (answer.status_code, answer.text) == (503, "unavailable")
    dynamo_faults.clear()
    dynamo_clock.advance(1.1)
    assert client.get(READY).status_code == 200


def test_not_ready_without_an_answer_in_time(only, client, dynamo_faults):
    """By a deadline of its own, over all attempts."""
    only(ENDPOINT_URL=dynamo_faults.url, HEALTH={"TIMEOUT": 0.2})
    dynamo_faults.hang("GetItem")
    assert client.get(READY).status_code == 503


def test_ready_where_the_application_can_do_without(only, client):
    """By the setting; no request is sent."""
    only(ENDPOINT_URL="http://127.0.0.1:9", HEALTH={"REQUIRED": False})
    assert client.get(READY).status_code == 200


def test_an_open_breaker_is_not_ready(only, client, dynamo_faults):
    """Its calls are refused at once; the check sends none."""
    only(
        ENDPOINT_URL=dynamo_faults.url,
        RETRY={"MAX_RETRIES": 0},
        CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1},
    )
    dynamo_faults.fail("GetItem", times=1)
    with pytest.raises(Exception, match="GetItem"):
        CacheStore().get("k")
    dynamo_faults.requests.clear()
    assert client.get(READY).status_code == 503
    assert not dynamo_faults.requests


def checks_under_way(using="default"):
    """The threads of checks, without those that only wait for the next one."""
    name = f"dynamo-stores-health-{using}"
    return [each for each in threading.enumerate() if each.name == name]


def test_a_check_by_hand(alias):
    """Returns what it found, in numbers and names."""
    using = alias(HEALTH={"TIMEOUT": 30.0})
    result = perform_health_check(using)
    assert isinstance(result, HealthResult)
    assert (result.success, result.using, result.error) == (True, using, "")
    assert 0 < result.seconds < 30
    (breaker,) = result.breakers.values()
    assert breaker.state == "closed"
    assert list(result.breakers) == [get_config(using).store_table]
    again = perform_health_check(using)
    assert again.at > result.at


@pytest.mark.parametrize("fault", ["closed port", "error", "throttle", "hang"])
def test_a_failed_check_has_the_class_of_its_error(alias, dynamo_faults, fault):
    """Whatever is wrong, it is a result and no exception."""
    changes = {"ENDPOINT_URL": dynamo_faults.url}
    if fault == "closed port":
        changes, expected = {"ENDPOINT_URL": NOWHERE}, "StoreUnavailable"
    elif fault == "error":
        dynamo_faults.fail("GetItem")
        expected = "StoreUnavailable"
    elif fault == "throttle":
        dynamo_faults.throttle("GetItem")
        expected = "ThrottlingError"
    else:
        dynamo_faults.hang("GetItem")
        expected = "OperationTimeoutError"
    using = alias(RETRY={"MAX_RETRIES": 0}, HEALTH={"TIMEOUT": 0.5}, **changes)
    result = perform_health_check(using)
    assert (result.success, result.error) == (False, expected)


def test_a_check_of_an_unknown_alias_is_a_failed_result(tables):
    """Wrong settings raise nothing either."""
    result = perform_health_check("nobody")
    assert (result.success, result.using, result.error) == (False, "nobody", "ConfigurationError")
    with override_settings(DYNAMO_STORES={"default": {"READ_TIMEOUT": 0}}):
        assert perform_health_check().error == "ConfigurationError"


def test_probes_of_a_server_that_hangs_share_one_thread(only, client):
    """Each probe waits for the check that is under way, and starts no other."""

    def serve(peer, connection, number):
        peer.receive(connection)
        peer.ended.wait(60)

    with Peer(serve) as peer:
        # Accepted connections that say nothing: the read of the answer hangs.
        only(ENDPOINT_URL=peer.url, HEALTH={"TIMEOUT": 1.0}, RETRY={"MAX_RETRIES": 0})
        with ThreadPoolExecutor(12) as threads:
            answers = list(threads.map(lambda _: perform_health_check(), range(12)))
        assert {each.success for each in answers} == {False}
        assert peer.connections == 1
        assert len(checks_under_way()) <= 1
        assert client.get(READY).status_code == 503


@pytest.mark.django_db
@pytest.mark.parametrize("path", [READY, LIVE])
def test_strangers_see_no_details(only, client, log_in, path):
    """Neither users without the permission nor those who are not staff, in no format."""
    only(HEALTH={"TIMEOUT": 30.0})
    for each in (
        client,
        log_in(),
        log_in("manage_capacity"),
        log_in("view_status", is_staff=False),
    ):
        for query in ({}, {"format": "json"}):
            answer = each.get(path, query)
            assert (answer.status_code, answer.content) == (200, b"ok")


@pytest.mark.django_db
def test_staff_see_details(only, log_in, dynamo_faults, dynamo_clock):
    """Of each alias: whether it answers and since when, the last error, breakers, as JSON."""
    only(
        ENDPOINT_URL=dynamo_faults.url,
        RETRY={"MAX_RETRIES": 0},
        CIRCUIT_BREAKER={"FAILURE_THRESHOLD": 1},
        HEALTH={"TIMEOUT": 30.0},
    )
    staff, table = log_in("view_status"), get_config().store_table

    def details(path=READY):
        answer = staff.get(path, {"format": "json"})
        (found,) = answer.json()["aliases"]
        return answer.status_code, found

    status, unknown = details(LIVE)
    assert (status, unknown["answers"], unknown["is_required"]) == (200, None, True)
    assert not dynamo_faults.requests
    began = dynamo_clock.now()
    status, found = details()
    assert (status, found["using"], found["answers"], found["error"]) == (200, "default", True, "")
    assert (found["since"], found["checked_at"], found["last_error"]) == (began, began, "")
    assert found["seconds"] >= 0
    assert [(each["table"], each["state"]) for each in found["breakers"]] == [(table, "closed")]
    dynamo_faults.fail("GetItem")
    dynamo_clock.advance(5)
    status, found = details()
    assert (status, found["is_ready"], found["answers"]) == (503, False, False)
    assert (found["since"], found["last_error"]) == (began + 5, "StoreUnavailable")
    assert [each["state"] for each in found["breakers"]] == ["open"]
    text = staff.get(READY).text
    assert text.startswith("unavailable\nalias default (required): does not answer (")
    assert f"circuit breaker of {table}: open since" in text
    dynamo_faults.clear()
    dynamo_clock.advance(120)
    status, found = details()
    assert (status, found["answers"], found["since"]) == (200, True, began + 125)
    assert (found["last_error"], found["last_error_at"]) == ("StoreUnavailable", began + 5)
    assert details(LIVE)[1] == found


@pytest.mark.django_db
def test_details_name_the_failover(alias, default_alias, log_in):
    """The alias answers by another one, which the details say."""
    other = alias()
    stores = {
        "default": {**default_alias, "ENDPOINT_URL": NOWHERE, "FAILOVER": other},
        other: {**default_alias, "HEALTH": {"REQUIRED": False, "TIMEOUT": 30.0}},
    }
    stores["default"] |= {"RETRY": {"MAX_RETRIES": 0}, "HEALTH": {"TIMEOUT": 30.0}}
    with override_settings(DYNAMO_STORES=stores):
        answer = log_in("view_status").get(READY, {"format": "json"})
    found = {each["using"]: each for each in answer.json()["aliases"]}
    assert answer.status_code == 200
    (failover,) = found["default"]["failovers"]
    assert (failover["failover"], failover["error"]) == (other, "StoreUnavailable")
    assert (found[other]["failovers"], found[other]["is_required"]) == ([], False)


@pytest.mark.django_db
def test_who_cannot_be_looked_up_is_a_stranger(only, log_in):
    """Sessions may be in the store that is being checked."""
    staff = log_in("view_status")
    only(ENDPOINT_URL=NOWHERE, RETRY={"MAX_RETRIES": 0})
    caches = {"default": {"BACKEND": "dynamo_stores.cache.DynamoDBCache"}}
    engine = "django.contrib.sessions.backends.cache"
    with override_settings(CACHES=caches, SESSION_ENGINE=engine):
        answer = staff.get(READY, {"format": "json"})
    assert (answer.status_code, answer.content) == (503, b"unavailable")


def test_periodic_checks(only, client, dynamo_faults, until):
    """A thread checks, and the views use its result: probes send nothing."""
    only(
        ENDPOINT_URL=dynamo_faults.url,
        RETRY={"MAX_RETRIES": 0},
        CIRCUIT_BREAKER={"ENABLED": False},
        HEALTH={"INTERVAL": 0.2, "TIMEOUT": 30.0},
    )
    assert client.get("/dynamo-stores/health/live").status_code == 200
    assert not dynamo_faults.requests
    assert client.get(READY).status_code == 200
    until(lambda: dynamo_faults.requests["GetItem"] > 2)
    dynamo_faults.fail("GetItem")
    until(lambda: client.get(READY).status_code == 503)
    dynamo_faults.clear()
    until(lambda: client.get(READY).status_code == 200)


def test_probes_send_nothing_between_periodic_checks(only, client, dynamo_faults):
    """However many they are; the first one waits for the first check."""
    only(ENDPOINT_URL=dynamo_faults.url, HEALTH={"INTERVAL": 1000.0, "TIMEOUT": 30.0})
    for _ in range(10):
        assert client.get(READY).status_code == 200
    assert dynamo_faults.requests == {"GetItem": 1}


@pytest.mark.django_db
def test_an_old_result_is_not_ready(only, client, log_in, dynamo_clock):
    """After two and a half intervals: the thread of the checks is gone, or hangs."""
    only(HEALTH={"INTERVAL": 1000.0, "TIMEOUT": 30.0})
    assert client.get(READY).status_code == 200
    dynamo_clock.advance(2499)
    assert client.get(READY).status_code == 200
    dynamo_clock.advance(2)
    assert client.get(READY).status_code == 503
    (found,) = log_in("view_status").get(READY, {"format": "json"}).json()["aliases"]
    assert (found["is_ready"], found["error"]) == (False, TOO_OLD)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_periodic_checks_go_on_in_a_forked_process(only, client, dynamo_faults, until):
    """With a thread of its own, from its first probe."""
    only(ENDPOINT_URL=dynamo_faults.url, HEALTH={"INTERVAL": 0.2, "TIMEOUT": 30.0})
    name = "dynamo-stores-health-checks-default"
    assert client.get(READY).status_code == 200

    def names():
        return [each.name for each in threading.enumerate()]

    def work(number):
        before = name in names()
        return before, client.get(READY).status_code, name in names()

    assert in_processes(1, work) == [(False, 200, True)]


def test_the_checks_end_with_the_process(tables, dynamo_engine, default_alias):
    """Although one of them hangs."""
    code = (
        "import django, socket, threading\n"
        "django.setup()\n"
        "from django.test import Client, override_settings\n"
        "silent = socket.create_server(('127.0.0.1', 0))\n"
        "url = f'http://127.0.0.1:{silent.getsockname()[1]}'\n"
        "health = {'INTERVAL': 0.1, 'TIMEOUT': 0.1}\n"
        "alias = {'ENDPOINT_URL': url, 'HEALTH': health, 'REPORTS': {'ENABLED': False}}\n"
        "with override_settings(DYNAMO_STORES={'default': alias}, ALLOWED_HOSTS=['testserver']):\n"
        f"    print(Client().get({READY!r}).status_code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=settings.BASE_DIR,
        env={**os.environ, "ENV_FILE": os.devnull, "DJANGO_SETTINGS_MODULE": "project.settings"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr.count("Traceback")) == (0, "503\n", 0)


def test_the_check_of_django_health_check(alias, rf):
    """Among the checks of its view, with the name of the alias."""
    views = pytest.importorskip("health_check.views")
    path = "dynamo_stores.monitoring.django_health_check.DynamoDB"

    def report(using):
        view = views.HealthCheckView.as_view(checks=[(path, {"using": using})])
        answer = asyncio.run(view(rf.get("/", {"format": "json"})))
        return answer.status_code, list(json.loads(answer.content).items())

    up = alias(HEALTH={"TIMEOUT": 30.0})
    assert report(up) == (200, [(f"DynamoDB(using={up!r})", "OK")])
    down = alias(ENDPOINT_URL=NOWHERE, RETRY={"MAX_RETRIES": 0}, HEALTH={"TIMEOUT": 30.0})
    text = f"Unavailable: the alias {down!r} does not answer (StoreUnavailable)"
    assert report(down) == (500, [(f"DynamoDB(using={down!r})", text)])


def test_pages_that_are_not_included_are_a_warning(tables):
    """By a check with a hint, where an alias or one of its tables is scaled."""

    def is_found(**changes):
        clear_url_caches()
        with override_settings(DYNAMO_STORES={"default": changes}):
            return "dynamo_stores.W004" in {each.id for each in checks.run_checks()}

    scaling = {"SCALING": {"ENABLED": True}}
    with override_settings(ROOT_URLCONF="tests.admin.admin_alone"):
        assert is_found(**scaling)
        assert is_found(TABLES={"invoices": scaling})
        assert not is_found()
    assert not is_found(**scaling)


def test_the_command_shows_the_same(reporting, run):
    """As text and JSON; a missing table is an error."""
    using = reporting(BILLING_MODE="PROVISIONED")
    table = get_config(using).store_table
    found = json.loads(run("dynamo_status", "--json", table=[table]))
    assert [each["table"] for each in found["capacity"]] == [table]
    assert "breakers" in found
    printed = run("dynamo_status", table=[table])
    assert f"alias {using}: 0 processes reporting" in printed
    with pytest.raises(CommandError, match=r"^--watch is 0\.0; expected a number"):
        run("dynamo_status", watch=0.0)
    missing = reporting(make_tables=False)
    with pytest.raises(CommandError, match="dynamo_create_tables"):
        run("dynamo_status", table=[get_config(missing).store_table])


def test_the_command_without_dynamodb(reporting, capsys):
    """One sentence, without what the outage is to its own process, and an exit status."""
    using = reporting(make_tables=False, ENDPOINT_URL="http://127.0.0.1:9")
    sentence = (
        "DynamoDB does not answer at endpoint 127.0.0.1:9, region us-east-1: connection refused"
    )
    with override_settings(DYNAMO_STORES={"default": settings.DYNAMO_STORES[using]}):
        with pytest.raises(CommandError) as raised:
            call_command("dynamo_status")
        assert str(raised.value) == f"Alias 'default': {sentence}."
        printed = capsys.readouterr().out
        assert "unknown, because DynamoDB did not answer" in printed
        assert sentence not in printed
        with pytest.raises(CommandError):
            call_command("dynamo_status", "--json")
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert (problem["problem"], problem["since"], problem["next_try"]) == (sentence, None, None)


def test_the_command_watches_until_it_is_stopped(
    tables, dynamo_engine, default_alias, interruptible
):
    """Again and again; Ctrl-C is a good end."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "dynamo_status", "--watch", "0.1"],
        cwd=settings.BASE_DIR,
        env={
            **os.environ,
            "ENV_FILE": os.devnull,
            "DYNAMODB_ENDPOINT": dynamo_engine,
            "DYNAMODB_TABLE_PREFIX": default_alias["TABLE_PREFIX"],
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    screens = 0
    try:
        for line in process.stdout:
            screens += "forum-posts: ACTIVE" in line
            if screens == 2:
                break
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert (screens, process.returncode, complaints) == (2, 0, "")
