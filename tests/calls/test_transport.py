"""The choice between the lean transport and botocore's client, and the clock of signatures."""

from __future__ import annotations

import datetime
import email.utils
import json
import logging
import os
import subprocess
import sys
import time

import botocore
import pytest
from botocore import awsrequest
from botocore.client import BaseClient

from dynamo_stores.calls.client import ClientTransport
from dynamo_stores.calls.connection import get_connection
from dynamo_stores.calls.hooks import find_hook
from dynamo_stores.calls.transport import LeanTransport
from dynamo_stores.exceptions import ConfigurationError, StoreRefused, StoreUnavailable
from tests.helpers.peers import Peer, answering, item_response, response

KEY = {"TableName": "t", "Key": {"k": {"S": "x"}}}
WARNINGS = "dynamo_stores.calls.transport"


def kind(using, request=KEY):
    """Return the class of the transport that a request of the alias takes."""
    transport = get_connection(using)._transport
    return type(transport.prepare(time.monotonic() + 60, request))


@pytest.mark.parametrize(
    ("transport", "expected"),
    [("auto", LeanTransport), ("lean", LeanTransport), ("botocore", ClientTransport)],
)
def test_the_setting_decides(alias, transport, expected):
    """Nothing is logged: all is as configured."""
    assert kind(alias(TRANSPORT=transport)) is expected


@pytest.mark.parametrize(
    "request_",
    [
        {"TableName": "arn:aws:dynamodb:eu-west-1:123456789012:table/t"},
        {"RequestItems": {"a": {}, "arn:aws:dynamodb:eu-west-1:1:table/t": {}}},
        {"TransactItems": [{"Put": {"TableName": "arn:aws:dynamodb:eu-west-1:1:table/t"}}]},
    ],
)
def test_a_table_named_by_its_arn_goes_through_botocore(alias, caplog, request_):
    """Its account is a part of the endpoint."""
    using = alias(TRANSPORT="auto")
    for _ in range(3):
        assert kind(using, request_) is ClientTransport
        assert kind(using) is LeanTransport
    assert [each.getMessage().count("by its ARN") for each in caplog.records] == [1]


def test_a_proxy_goes_through_botocore(alias, monkeypatch, caplog):
    """It is said once; 'lean' is a contradiction, and says what to do."""
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    using = alias(TRANSPORT="auto", ENDPOINT_URL="https://dynamodb.example", REGION="eu-west-1")
    for _ in range(3):
        assert kind(using) is ClientTransport
    (record,) = caplog.records
    assert f"The requests of the alias {using!r} go through botocore" in record.getMessage()
    assert "the environment names a proxy" in record.getMessage()
    using = alias(TRANSPORT="lean", ENDPOINT_URL="https://dynamodb.example", REGION="eu-west-1")
    with pytest.raises(ConfigurationError, match=r"'lean', but .* proxy\. Set it to 'auto'"):
        kind(using)


@pytest.mark.parametrize("transport", ["lean", "botocore"])
def test_https_to_an_engine_that_speaks_http_names_the_setting(alias, dynamo_engine, transport):
    """As the answer of another server does."""
    url = dynamo_engine.replace("http:", "https:")
    using = alias(ENDPOINT_URL=url, TRANSPORT=transport, RETRY={"MAX_RETRIES": 0})
    with pytest.raises(StoreUnavailable, match=r"got no answer .* Check ENDPOINT_URL, and proxies"):
        get_connection(using).dispatch("GetItem", dict(KEY))


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (BaseClient, "_make_api_call"),
        (BaseClient, "__init__"),
        (awsrequest, "AWSHTTPConnection"),
        (awsrequest.AWSHTTPSConnectionPool, "ConnectionCls"),
    ],
)
def test_a_tool_that_hooks_into_botocore_sees_the_requests(alias, monkeypatch, caplog, owner, name):
    """As long as it does; 'lean' stays lean, and says once who will not see its requests."""
    auto, lean = alias(TRANSPORT="auto"), alias(TRANSPORT="lean")
    assert (kind(auto), kind(lean)) == (LeanTransport, LeanTransport)
    own = getattr(owner, name)

    class Wrapper(own if isinstance(own, type) else object):
        pass

    def wrapper(*args, **kwargs):
        return own(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, Wrapper if isinstance(own, type) else wrapper)
        for _ in range(3):
            assert (kind(auto), kind(lean)) == (ClientTransport, LeanTransport)
    first, second = [record.getMessage() for record in caplog.records]
    replaced = f"code of {__name__} replaced {owner.__name__}.{name}"
    assert f"{auto!r} go through botocore: {replaced}. Each takes" in first
    assert "['TRANSPORT'] to 'botocore'" in first
    assert second.startswith(f"C{replaced[1:]}, which does not see the requests of the alias")
    assert (kind(auto), find_hook()) == (LeanTransport, "")


def test_handlers_of_all_sessions_see_the_requests(alias, monkeypatch):
    """Those that ``botocore.register_initializer`` adds."""
    using = alias(TRANSPORT="auto")
    assert kind(using) is LeanTransport
    monkeypatch.setattr(botocore, "_INITIALIZERS", [lambda session: None])
    assert kind(using) is ClientTransport


CALLS = """
import json, os, sys
{before}
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x",
    INSTALLED_APPS=["dynamo_stores"],
    DYNAMO_STORES={{"default": {{
        "TABLE_NAME": "test", "REGION": "eu-west-1", "ENDPOINT_URL": {url!r},
        "REPORTS": {{"ENABLED": False}}, "TRANSPORT": {transport!r},
    }}}},
    CACHES={{"default": {{
        "BACKEND": "dynamo_stores.cache.DynamoDBCache", "OPTIONS": {{"OPERATION_TIMEOUT": 60.0}},
    }}}},
)
django.setup()
from django.core.cache import cache
from dynamo_stores.calls.connection import get_connection
{after}
"""
OPENTELEMETRY = """
from opentelemetry.instrumentation.botocore import BotocoreInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
seen = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(seen))
"""
INSTRUMENT = "BotocoreInstrumentor().instrument(tracer_provider=provider)\n"
READ = """
assert cache.get("k") is None
print(json.dumps([span.name for span in seen.get_finished_spans()]))
"""
XRAY = """
from aws_xray_sdk.core import patch, xray_recorder
xray_recorder.configure(sampling=False, context_missing="LOG_ERROR")
seen = []
class Emitter:
    def send_entity(self, entity):
        seen.extend(child.name + " " + child.aws["operation"] for child in entity.subsegments)
    def set_daemon_address(self, address):
        pass
xray_recorder.emitter = Emitter()
"""
PATCH = 'patch(["botocore"])\n'
READ_TRACED = """
with xray_recorder.in_segment("test"):
    assert cache.get("k") is None
print(json.dumps(seen))
"""
SENTRY = """
import sentry_sdk
from sentry_sdk.integrations.boto3 import Boto3Integration
seen = []
class Transport(sentry_sdk.transport.Transport):
    def capture_envelope(self, envelope):
        event = envelope.get_transaction_event()
        if event:
            seen.extend(span["description"] for span in event["spans"])
sentry_sdk.init(
    "http://x@localhost/1", transport=Transport, traces_sample_rate=1.0,
    default_integrations=False,
    integrations=[Boto3Integration()],
)
"""
READ_SENTRY = """
with sentry_sdk.start_transaction(name="test"):
    assert cache.get("k") is None
print(json.dumps(seen))
"""


def run(url, before, after, transport="auto"):
    """Return the last line and the messages of a process that does this."""
    code = CALLS.format(before=before, after=after, url=url, transport=transport)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


@pytest.mark.parametrize(
    ("module", "before", "after", "expected", "name"),
    [
        (
            "opentelemetry.instrumentation.botocore",
            OPENTELEMETRY + INSTRUMENT,
            READ,
            ["DynamoDB.GetItem"],
            "opentelemetry",
        ),
        (
            "opentelemetry.instrumentation.botocore",
            OPENTELEMETRY,
            "assert cache.get('k') is None\n" + INSTRUMENT + READ,
            ["DynamoDB.GetItem"],
            "opentelemetry",
        ),
        ("aws_xray_sdk", XRAY + PATCH, READ_TRACED, ["dynamodb GetItem"], "aws_xray_sdk"),
        ("sentry_sdk", SENTRY, READ_SENTRY, ["aws.dynamodb.GetItem"], "sentry_sdk"),
    ],
    ids=["OpenTelemetry", "OpenTelemetry later", "X-Ray", "Sentry"],
)
def test_instrumentations_see_the_requests(module, before, after, expected, name):
    """Also if they begin after the first request. What it costs is said once."""
    pytest.importorskip(module)
    with Peer(answering(response())) as peer:
        seen, messages = run(peer.url, before, after)
        assert seen == expected
        assert messages.count("go through botocore") == 1
        assert f"code of {name}" in messages
        seen, messages = run(peer.url, before, after, "lean")
        assert seen == []
        assert messages.count("which does not see the requests of the alias 'default'") == 1
        seen, messages = run(peer.url, before, after, "botocore")
        assert seen == expected
        assert "which" not in messages


MOTO = """
os.environ["AWS_ACCESS_KEY_ID"] = os.environ["AWS_SECRET_ACCESS_KEY"] = "testing"
from django.core.management import call_command
from moto import mock_aws
with mock_aws():
    call_command("dynamo_create_tables", verbosity=0)
    cache.set("k", {"a": 1})
    found = [cache.get("k"), cache.incr("n", 2) if cache.add("n", 1) else None]
print(json.dumps(found))
"""


def test_a_mock_of_moto_answers():
    """It is active, so no request leaves the process; there is no such endpoint."""
    pytest.importorskip("moto")
    found, messages = run(None, "", MOTO)
    assert found == [{"a": 1}, 3]
    assert messages.count("a mock of moto is active") >= 1


def skewed(seconds, code="InvalidSignatureException"):
    """Return DynamoDB's refusal of a signature, by a clock that is ahead by so many seconds."""
    date = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    text = email.utils.format_datetime(date, usegmt=True)
    return refusal(Date=text, code=code)


def refusal(code="InvalidSignatureException", **headers):
    """Return DynamoDB's refusal of a signature."""
    body = json.dumps({"__type": f"com.amazon.coral.service#{code}", "message": "Signature"})
    return response(body.encode(), 400, **headers)


def signed_at(peer):
    """Return the times of the signatures that the server received."""
    return [
        datetime.datetime.strptime(line.split(b": ")[1].decode(), "%Y%m%dT%H%M%SZ")
        for head in peer.heads
        for line in head.split(b"\r\n")
        if line.startswith(b"x-amz-date: ")
    ]


@pytest.mark.parametrize("ahead", [-100_000, -600, 600, 100_000])
def test_a_clock_that_is_off_is_corrected(alias, make_cache, caplog, ahead):
    """The request is signed again with AWS's time, and so are the next ones."""
    with Peer(answering(skewed(ahead), item_response("x"))) as peer:
        connection = get_connection(alias(ENDPOINT_URL=peer.url, TRANSPORT="lean"))
        for _ in range(2):
            answer = connection.dispatch("GetItem", dict(KEY))
            assert answer["Item"] == {"k": {"S": "x"}}
        first, second, third = signed_at(peer)
        for later in (second, third):
            assert abs((later - first).total_seconds() - ahead) < 60
        connection.close()
    messages = [each.getMessage() for each in caplog.records if each.name == WARNINGS]
    (message,) = messages
    assert "The clock of this machine differs by" in message


@pytest.mark.parametrize(
    "refused",
    [
        lambda: skewed(0),
        lambda: skewed(10_000, "UnrecognizedClientException"),
        refusal,
        lambda: refusal(Date="nonsense"),
    ],
)
def test_a_refusal_for_another_reason_is_not_repeated(alias, refused):
    """The clock is right, or the reason is another one."""
    with Peer(answering(refused())) as peer:
        connection = get_connection(alias(ENDPOINT_URL=peer.url, TRANSPORT="lean"))
        with pytest.raises(StoreRefused):
            connection.dispatch("GetItem", dict(KEY))
        assert len(peer.requests) == 1
        connection.close()


def test_a_clock_that_stays_off_is_corrected_once(alias):
    """A server whose time jumps does not make requests without end."""
    with Peer(answering(skewed(10_000), skewed(20_000), skewed(30_000))) as peer:
        connection = get_connection(alias(ENDPOINT_URL=peer.url, TRANSPORT="lean"))
        with pytest.raises(StoreRefused):
            connection.dispatch("GetItem", dict(KEY))
        assert len(peer.requests) == 2
        connection.close()


def test_a_request_is_sent_once(alias, caplog):
    """The log has neither keys nor values, at any level."""
    caplog.set_level(logging.DEBUG, "dynamo_stores")
    with Peer(answering(item_response("value-7"))) as peer:
        connection = get_connection(alias(ENDPOINT_URL=peer.url, TRANSPORT="lean"))
        connection.dispatch("GetItem", {"TableName": "t", "Key": {"k": {"S": "key-7"}}})
        assert len(peer.requests) == 1
        connection.close()
    assert "-7" not in caplog.text
