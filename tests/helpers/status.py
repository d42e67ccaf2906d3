"""Aliases whose processes report, on tables of their own; status pages and their readers."""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import socket

import boto3
import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from dynamo_stores.exceptions import CircuitBreakerOpenError, StoreUnavailable
from dynamo_stores.infrastructure.tables import wanted_tables
from dynamo_stores.monitoring.token import token_of
from dynamo_stores.stores import CacheStore

HERE = f"{socket.gethostname()[:64]}#{os.getpid()}#{token_of(os.getpid())}"


@pytest.fixture
def reporting(alias, dynamo_engine):
    """
    ``reporting(REPORTS={…}, …)``: an alias with tables of its own whose calls are reported;
    ``make_tables=False`` leaves the tables out.
    """
    made = []

    def make(REPORTS=None, make_tables=True, **changes):
        using = alias(
            TABLE_PREFIX=f"reports-{secrets.token_hex(4)}-",
            REPORTS={"ENABLED": True, "INTERVAL": 0.5, **(REPORTS or {})},
            **changes,
        )
        names = [spec.name for spec in wanted_tables() if spec.using == using]
        if make_tables:
            call_command("dynamo_create_tables", table=names, stdout=io.StringIO())
            made.extend(names)
        return using

    yield make
    engine = boto3.client(
        "dynamodb",
        region_name="us-east-1",
        endpoint_url=dynamo_engine,
        aws_access_key_id="local",
        aws_secret_access_key="local",
    )
    for name in made:
        engine.delete_table(TableName=name)


def page(name, **query):
    """The address of a status page."""
    url = reverse(f"dynamo_stores_admin:{name}")
    return f"{url}?{'&'.join(f'{k}={v}' for k, v in query.items())}" if query else url


@pytest.fixture
def log_in(client):
    """``log_in("view_status", …)``: a client logged in as staff with these permissions."""

    def log_in(*permissions, is_staff=True, csrf=False):
        user = User.objects.create_user(secrets.token_hex(4), is_staff=is_staff)
        for permission in permissions:
            user.user_permissions.add(Permission.objects.get(codename=permission))
        found = Client(enforce_csrf_checks=csrf)
        found.force_login(user)
        return found

    return log_in


@pytest.fixture
def manager(log_in):
    """A client logged in as staff with both permissions of tables and breakers."""
    return log_in("view_status", "manage_capacity")


@pytest.fixture
def keeper(log_in):
    """A client logged in as staff who may look, and act on entries, limits and jobs."""
    return log_in("view_status", "manage_data")


def ask(client, **fields):
    """Send the first form of an action; return the page that asks for confirmation."""
    answer = client.post(page("act"), fields)
    assert answer.status_code == 200, answer.text
    return answer.text


def token_of_form(html):
    """Return the token of the form that confirms an action."""
    return re.search(r'name="token" value="([^"]+)"', html).group(1)


def act(client, **fields):
    """Send both forms of an action; return the messages of the next page, and the token."""
    token = token_of_form(ask(client, **fields))
    answer = client.post(page("act"), {**fields, "token": token}, follow=True)
    return [str(message) for message in answer.context["messages"]], token


def read(client, using=None):
    """Return the JSON of the overview, of one alias or of all."""
    found = json.loads(client.get(page("overview", format="json")).content)
    return found if using is None else only(found, using)


def only(found, using):
    """The parts of one alias."""
    return {
        name: [each for each in part if each["using"] == using]
        for name, part in found.items()
        if name != "at"
    }


def open_breaker(using, faults):
    """Fail reads until the breaker of the store's table is open."""
    faults.fail("GetItem")
    store = CacheStore(using)
    for _ in range(100):
        try:
            store.get("k")
        except CircuitBreakerOpenError:
            break
        except StoreUnavailable:
            continue
    else:
        raise AssertionError("The breaker never opened.")
