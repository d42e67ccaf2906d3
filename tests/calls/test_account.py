"""The account of an alias: a profile, a role, or the application's own session."""

from __future__ import annotations

import copy
import os
import re
import threading
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import botocore.handlers
import botocore.session
import pytest
from botocore.config import Config
from django.core.management import call_command
from django.core.management.base import SystemCheckError

from dynamo_stores.calls.account import get_account
from dynamo_stores.calls.client import ClientTransport
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.control import get_control
from dynamo_stores.calls.policy import deadline
from dynamo_stores.calls.transport import LeanTransport
from dynamo_stores.client import get_dynamodb_client
from dynamo_stores.exceptions import (
    ConfigurationError,
    OperationTimeoutError,
    StoreRefused,
    StoreUnavailable,
)
from tests.helpers.forking import in_processes
from tests.helpers.peers import Peer, answering, response

ROLE = "arn:aws:iam::123456789012:role/reports"
CREDENTIALS = """
[one]
aws_access_key_id = ONE
aws_secret_access_key = secret
[two]
aws_access_key_id = TWO
aws_secret_access_key = secret
"""
BOTH = pytest.mark.parametrize("transport", ["lean", "botocore"])


@pytest.fixture(autouse=True)
def configuration(monkeypatch, tmp_path):
    """AWS's configuration files, and nothing of this machine."""
    for name in list(os.environ):
        if name.startswith("AWS_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(CREDENTIALS)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def table():
    """A DynamoDB that has one item."""
    # The thread of a connection that is kept alive would be waited for.
    answer = response(b'{"Item": {"k": {"S": "found"}}}', Connection="close")
    with Peer(answering(answer)) as peer:
        yield peer


def keys(peer):
    """Return the access key of each request, in order."""
    return [head.decode().split("Credential=")[1].split("/")[0] for head in peer.heads]


class Sts:
    """
    AWS STS. ``seconds`` is how long roles are valid, ``status`` what is answered, ``asked`` has the
    arguments of each request. It answers while ``answers`` is set.
    """

    def __init__(self):
        self.seconds, self.status, self.asked = 3600.0, 200, []
        self.answers = threading.Event()
        self.answers.set()
        sts = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                arguments = dict(urllib.parse.parse_qsl(body))
                arguments["key"] = self.headers["Authorization"].split("Credential=")[1][:3]
                sts.asked.append(arguments)
                sts.answers.wait(30)
                answer = sts.answer(len(sts.asked)).encode()
                self.send_response(sts.status)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True

    def answer(self, number):
        if self.status != 200:
            return (
                "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>"
                "<Message>no</Message></Error></ErrorResponse>"
            )
        end = datetime.now(UTC) + timedelta(seconds=self.seconds)
        return (
            "<AssumeRoleResponse><AssumeRoleResult><Credentials>"
            f"<AccessKeyId>ROLE{number}</AccessKeyId><SecretAccessKey>s</SecretAccessKey>"
            f"<SessionToken>t{number}</SessionToken><Expiration>{end:%Y-%m-%dT%H:%M:%SZ}"
            "</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"
        )


@pytest.fixture
def sts(monkeypatch):
    """AWS STS, on this machine."""
    found = Sts()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{found.server.server_port}")
    thread = threading.Thread(target=found.server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield found
    found.answers.set()
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def get(using):
    """Read one item."""
    request = {"TableName": "t", "Key": {"PK": {"S": "k"}}}
    return get_connection(using).dispatch("GetItem", request)["Item"]


@BOTH
def test_each_alias_uses_its_profile(alias, table, transport):
    """Also for an endpoint on this machine, and for the control plane."""
    for profile in ("one", "two"):
        using = alias(ENDPOINT_URL=table.url, TRANSPORT=transport, PROFILE=profile)
        assert get(using) == {"k": {"S": "found"}}
        get_control(using).call("ListTables", {})
    assert keys(table) == ["ONE", "ONE", "TWO", "TWO"]
    assert get(alias(ENDPOINT_URL=table.url, TRANSPORT=transport))
    assert keys(table)[-1] == "local"


def test_a_profile_that_does_not_exist(alias, table, capsys):
    """A warning of the check, and a ConfigurationError of the call, both name it."""
    using = alias(ENDPOINT_URL=table.url, PROFILE="nope")
    with pytest.raises(ConfigurationError, match=r"nope.*\['PROFILE'\]"):
        get(using)
    call_command("check")
    error = capsys.readouterr().err
    assert "W016" in error
    assert f"DYNAMO_STORES['{using}']['PROFILE'] is 'nope'" in error
    assert not table.connections


@BOTH
def test_a_role_is_assumed_with_the_credentials_of_the_alias(alias, table, sts, transport):
    """Once for a process and alias, whatever the number of threads and of clients."""
    using = alias(
        ENDPOINT_URL=table.url, TRANSPORT=transport, PROFILE="two", ROLE_ARN=ROLE,
        EXTERNAL_ID="customer/1", SESSION_NAME="web",
    )  # fmt: skip
    assert not sts.asked
    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(get, [using] * 8))) == 8
    get_control(using).call("ListTables", {})
    assert keys(table) == ["ROLE1"] * 9
    (asked,) = sts.asked
    assert (asked["key"], asked["RoleArn"]) == ("TWO", ROLE)
    assert (asked["ExternalId"], asked["RoleSessionName"]) == ("customer/1", "web")


def test_the_handlers_of_botocore_are_registered_with_the_first_client(
    alias, table, sts, monkeypatch
):
    """Once, also where a role's session is a copy of another."""
    seen = []
    handler = ("before-call", lambda model, **kwargs: seen.append(model.name))
    monkeypatch.setattr(
        botocore.handlers, "BUILTIN_HANDLERS", [*botocore.handlers.BUILTIN_HANDLERS, handler]
    )
    get(alias(ENDPOINT_URL=table.url, PROFILE="one", TRANSPORT="lean"))
    assert not seen
    using = alias(ENDPOINT_URL=table.url, PROFILE="two", ROLE_ARN=ROLE, TRANSPORT="botocore")
    session = get_account(using).session
    clients = [
        each.create_client("dynamodb", region_name="eu-west-1", endpoint_url=table.url)
        for each in (session, copy.copy(session), session)
    ]
    for client in clients:
        client.list_tables()
    assert sorted(seen) == ["AssumeRole"] + ["ListTables"] * 3


def test_functions_that_initialize_sessions_find_the_handlers_of_botocore(alias, sts, monkeypatch):
    """They may remove a handler, add one that is called after botocore's, and make clients."""
    event, called, made = "before-call.sts", [], []

    def removed(**kwargs):
        called.append("removed")

    handlers = [(event, lambda **kwargs: called.append("botocore")), (event, removed)]
    monkeypatch.setattr(
        botocore.handlers, "BUILTIN_HANDLERS", [*botocore.handlers.BUILTIN_HANDLERS, *handlers]
    )

    def initialize(session):
        session.unregister(event, removed)
        session.register(event, lambda **kwargs: called.append("application"))
        made.append(session.create_client("sts"))

    monkeypatch.setattr(botocore, "_INITIALIZERS", [initialize])
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    client = get_account(alias(PROFILE="one")).create_client("sts")
    client.assume_role(RoleArn=ROLE, RoleSessionName="web")
    assert made
    assert called == ["botocore", "application"]


def test_a_forked_process_assumes_the_role_itself(alias, table, sts):
    """A session, its locks and its connections are not shared over a fork."""
    using = alias(ENDPOINT_URL=table.url, PROFILE="one", ROLE_ARN=ROLE)
    get(using)
    assert in_processes(1, lambda _: get(using)["k"]["S"]) == ["found"]
    assert keys(table) == ["ROLE1", "ROLE2"]


def test_a_role_that_expires_during_a_run(alias, table, sts):
    """
    It is refreshed while requests go on. Without an answer of STS they use the last credentials to
    their end, and then wait no longer than their deadline.
    """
    sts.seconds = 32.0
    using = alias(
        ENDPOINT_URL=table.url,
        TRANSPORT="lean",
        PROFILE="one",
        ROLE_ARN=ROLE,
        CIRCUIT_BREAKER={"ENABLED": False},
    )
    get(using)
    sts.answers.clear()
    until = time.monotonic() + 20

    def go_on():
        while time.monotonic() < until:
            with deadline(0.8):
                get(using)
            time.sleep(0.05)

    with pytest.raises(OperationTimeoutError, match="expired"):
        go_on()
    assert set(keys(table)) == {"ROLE1"}
    assert 2 <= len(sts.asked) <= 3
    sts.seconds = 3600.0
    sts.answers.set()
    get(using)
    assert keys(table)[-1] != "ROLE1"


def test_a_failed_refresh_is_not_noticed_while_the_credentials_are_valid(alias, table, sts, caplog):
    """It is logged, and tried again."""
    sts.seconds = 600.0
    using = alias(ENDPOINT_URL=table.url, TRANSPORT="lean", PROFILE="one", ROLE_ARN=ROLE)
    get(using)
    sts.status = 403
    until = time.monotonic() + 20
    while len(sts.asked) < 3 and time.monotonic() < until:
        get(using)
        time.sleep(0.05)
    assert set(keys(table)) == {"ROLE1"}
    assert "could not be refreshed: StoreRefused" in caplog.text
    sts.status, sts.seconds = 200, 3600.0
    while keys(table)[-1] == "ROLE1" and time.monotonic() < until:
        get(using)
        time.sleep(0.05)
    assert keys(table)[-1].startswith("ROLE")


@BOTH
def test_a_role_that_cannot_be_assumed(alias, table, sts, transport):
    """A refusal names the setting; no answer of STS is an unavailable store."""
    sts.status = 403
    settings = {"ENDPOINT_URL": table.url, "TRANSPORT": transport, "ROLE_ARN": ROLE}
    using = alias(**settings, PROFILE="one", RETRY={"MAX_RETRIES": 0})
    with pytest.raises(StoreRefused, match=r"\['ROLE_ARN'\].*AccessDenied.*trust policy"):
        get(using)
    sts.status = 500
    with pytest.raises(StoreUnavailable, match=r"\['ROLE_ARN'\].*STS failed"):
        get(alias(**settings, PROFILE="one", RETRY={"MAX_RETRIES": 0}))
    with pytest.raises(StoreRefused, match="no valid AWS credentials"):
        get(alias(**settings, RETRY={"MAX_RETRIES": 0}))
    assert not table.connections


def make_botocore_session():
    return botocore.session.Session(profile="one")


def make_boto3_session():
    return boto3.Session(profile_name="two")


def make_method():
    return make_boto3_session().client


def make_function():
    def create(service, **kwargs):
        return make_boto3_session().client(service, **kwargs)

    return create


def make_regional_function():
    def create(service, region_name=None, **kwargs):
        return boto3.Session(profile_name="two").client(service, region_name="eu-west-1", **kwargs)

    return create


def make_configured_session():
    session = make_botocore_session()
    session.set_default_client_config(Config(client_cert="client.pem", region_name="eu-west-1"))
    return session


def make_session_with_own_options():
    session = make_botocore_session()
    session.set_default_client_config(Config(retries={"max_attempts": 9}, read_timeout=1))
    return session


class Tenants:
    """A factory of an application, with a session that is not the one of its clients."""

    def __init__(self):
        self._session = botocore.session.Session(profile="one")

    def client(self, service, **kwargs):
        return make_boto3_session().client(service, **kwargs)


def make_factory():
    return Tenants().client


def make_nothing():
    return None


def fail():
    raise LookupError("a secret")


@pytest.mark.parametrize(
    ("function", "key"),
    [
        (make_botocore_session, "ONE"),
        (make_boto3_session, "TWO"),
        (make_method, "TWO"),
        (make_function, "TWO"),
        (make_factory, "TWO"),
    ],
)
@pytest.mark.parametrize("transport", ["auto", "botocore"])
def test_the_session_of_the_application_is_used(alias, table, function, key, transport):
    """A session of botocore or boto3, or a function that makes clients."""
    path = f"{__name__}.{function.__name__}"
    using = alias(ENDPOINT_URL=table.url, TRANSPORT=transport, SESSION=path)
    assert get(using) == {"k": {"S": "found"}}
    get_control(using).call("ListTables", {})
    assert keys(table) == [key, key]


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (make_regional_function, "SESSION makes clients"),
        (make_configured_session, r"its clients \(region_name, client_cert\)"),
    ],
)
def test_clients_that_are_configured_elsewhere_go_through_botocore(alias, caplog, function, words):
    """Their region, proxies and certificate are not left out."""
    path = f"{__name__}.{function.__name__}"
    using = alias(ENDPOINT_URL=None, REGION=None, SESSION=path, TRANSPORT="auto")
    transport = get_connection(using)._transport.prepare(time.monotonic() + 60)
    assert isinstance(transport, ClientTransport)
    assert transport.region == "eu-west-1"
    assert re.search(words, caplog.text)
    using = alias(ENDPOINT_URL=None, REGION=None, SESSION=path, TRANSPORT="lean")
    with pytest.raises(ConfigurationError, match=words):
        get_connection(using)._transport.prepare(time.monotonic() + 60)


def test_options_that_are_the_librarys_own_need_no_client(alias):
    path = f"{__name__}.make_session_with_own_options"
    using = alias(ENDPOINT_URL=None, REGION="eu-west-1", SESSION=path, TRANSPORT="auto")
    transport = get_connection(using)._transport.prepare(time.monotonic() + 60)
    assert isinstance(transport, LeanTransport)


def test_a_role_is_assumed_from_the_session_of_the_application(alias, table, sts):
    """Which keeps its own credentials."""
    using = alias(ENDPOINT_URL=table.url, ROLE_ARN=ROLE, SESSION=f"{__name__}.make_boto3_session")
    get(using)
    assert keys(table) == ["ROLE1"]
    assert sts.asked[0]["key"] == "TWO"


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        (
            "make_nothing",
            ConfigurationError,
            r"\['SESSION'\] returned NoneType; expected a session",
        ),
        ("fail", StoreRefused, r"\['SESSION'\] raised LookupError"),
        ("missing", ConfigurationError, "missing"),
    ],
)
def test_a_function_that_returns_no_session(alias, table, name, error, words):
    """The error names the setting and what was expected, without the function's message."""
    with pytest.raises(error, match=words) as caught:
        get(alias(ENDPOINT_URL=table.url, SESSION=f"{__name__}.{name}"))
    assert "a secret" not in str(caught.value)


def test_a_client_of_an_unknown_profile(alias, table):
    """The same error for the clients of botocore that are made for the application."""
    client = get_dynamodb_client(alias(ENDPOINT_URL=table.url, PROFILE="nope"))
    with pytest.raises(ConfigurationError, match=r"\['PROFILE'\]"):
        client.get_client()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"EXTERNAL_ID": "ab"}, "E007.*set without ROLE_ARN"),
        ({"SESSION_NAME": "ab"}, "E008.*set without ROLE_ARN"),
        ({"ROLE_ARN": "reports"}, "E006.*the ARN of a role"),
        ({"ROLE_ARN": ROLE, "SESSION_NAME": "a b"}, "E008.*letters, digits"),
        ({"PROFILE": "one", "SESSION": "a.b"}, "E009.*expected one of them"),
        ({"SESSION": "no.such.function"}, "E009.*cannot be imported"),
        ({"SESSION": f"{__name__}.ROLE"}, "E009.*not a function"),
    ],
)
def test_settings_are_checked_without_the_network(alias, changes, words):
    """``manage.py check`` names each."""
    alias(**changes)
    with pytest.raises(SystemCheckError) as caught:
        call_command("check")
    lines = str(caught.value).replace("\n", " ")
    number, _, sentence = words.partition(".*")
    assert number in lines
    assert sentence in lines
