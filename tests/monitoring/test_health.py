"""Health checks, the system check of the pages, and dynamo_status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest
from django.conf import settings
from django.core import checks
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.urls import clear_url_caches

from dynamo_stores.conf import get_config
from dynamo_stores.stores import CacheStore

READY = "/dynamo-stores/health/ready"


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
