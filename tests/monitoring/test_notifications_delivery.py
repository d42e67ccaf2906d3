"""How notifications are sent: SNS, a webhook over a real socket, a function."""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import json
import threading

import boto3
import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections

from dynamo_stores.exceptions import StoreRefused
from dynamo_stores.monitoring.notifications import Notification, messages
from dynamo_stores.monitoring.notifications.delivery import (
    SIGNATURE_HEADER,
    Delivery,
    Receiver,
    signature,
    subject_of,
)
from dynamo_stores.testing import EmbeddedEngine
from tests.helpers.notifications import asynchronous, bodies, fail, path_of, received, remember
from tests.helpers.peers import Peer, answering, make_certificate, reset, response

NEWS = messages.breaker_opened("default", "t", 2_000_000_000.0, "StoreUnavailable", recovery=60)
NOTIFICATION = NEWS.notification


class _Engine(EmbeddedEngine):
    def _environment(self):
        return {**super()._environment(), "SERVICES": "sns,sqs"}


@pytest.fixture(scope="module")
def aws():
    """A local SNS and SQS: the endpoint, and a function that makes clients."""

    def client(service):
        return boto3.client(
            service, region_name="eu-west-1", endpoint_url=engine.url,
            aws_access_key_id="local", aws_secret_access_key="local",
        )  # fmt: skip

    with _Engine() as engine:
        yield engine.url, client


@pytest.fixture
def topic(aws):
    """The ARN of a topic, and a function that returns the messages of its subscriber."""
    _, client = aws
    sns, sqs = client("sns"), client("sqs")
    arn = sns.create_topic(Name="alerts")["TopicArn"]
    queue = sqs.create_queue(QueueName="alerts")["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])
    endpoint = queue_arn["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=arn, Protocol="sqs", Endpoint=endpoint)

    def read():
        found = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5, MaxNumberOfMessages=10)
        return [json.loads(each["Body"]) for each in found.get("Messages", ())]

    yield arn, read
    sns.delete_topic(TopicArn=arn)
    sqs.delete_queue(QueueUrl=queue)


def deliver(using, notification=NOTIFICATION):
    """Return how many receivers did not take it."""
    return len(Delivery(using).send(notification))


def test_sns_gets_the_text_the_fields_and_attributes(notified, aws, topic):
    """A message that people can read, and filters and programs too."""
    arn, read = topic
    using = notified(TOPIC=arn, TOPIC_ENDPOINT_URL=aws[0])
    assert deliver(using) == 0
    (message,) = read()
    assert message["Subject"] == "DynamoDB (default): Circuit breaker of t opened"
    text, _, data = message["Message"].partition("\n\n")
    assert text == NOTIFICATION.text
    assert json.loads(data) == NOTIFICATION.as_json()
    attributes = {name: each["Value"] for name, each in message["MessageAttributes"].items()}
    assert attributes == {"event": "breaker_opened", "using": "default", "table": "t"}


def test_what_is_about_no_table_has_no_such_attribute(notified, aws, topic):
    """SNS refuses empty ones."""
    arn, read = topic
    using = notified(TOPIC=arn, TOPIC_ENDPOINT_URL=aws[0])
    assert deliver(using, messages.summary("default", 0.0, {"capacity_changed": 3})) == 0
    (message,) = read()
    assert set(message["MessageAttributes"]) == {"event", "using"}


def test_a_topic_that_does_not_exist_is_logged(notified, aws, caplog):
    """With SNS's code."""
    arn = "arn:aws:sns:eu-west-1:000000000000:nothing"
    assert deliver(notified(TOPIC=arn, TOPIC_ENDPOINT_URL=aws[0])) == 1
    assert f"was not taken by the topic {arn}: NotFound" in caplog.text


def test_a_subject_is_what_sns_allows():
    """Fewer than a hundred printable ASCII characters."""
    subject = subject_of(dataclasses.replace(NOTIFICATION, subject="é\n" + "x" * 300))
    assert subject == "??" + "x" * 97


def test_a_webhook_gets_signed_json(notified):
    """By POST; the signature is of the bytes that were sent."""
    with Peer(answering(response())) as peer:
        using = notified(WEBHOOK=f"{peer.url}/hook?channel=1", WEBHOOK_SECRET="secret")
        assert deliver(using) == 0
    assert bodies(peer) == [NOTIFICATION.as_json()]
    (head,) = peer.heads
    first, *lines = head.decode().splitlines()
    assert first == "POST /hook?channel=1 HTTP/1.1"
    headers = dict(line.lower().split(": ", 1) for line in lines)
    assert headers["content-type"] == "application/json"
    digest = hmac.new(b"secret", peer.requests[0], hashlib.sha256).hexdigest()
    assert headers[SIGNATURE_HEADER.lower()] == f"sha256={digest}"
    assert signature("other", peer.requests[0]) != f"sha256={digest}"


def test_a_webhook_without_a_secret_is_not_signed(notified):
    """Any status from 200 to 299 is good."""
    with Peer(answering(response(status=202))) as peer:
        assert deliver(notified(WEBHOOK=peer.url)) == 0
    assert SIGNATURE_HEADER.lower().encode() not in peer.heads[0].lower()


@pytest.mark.parametrize("status", [301, 302, 307, 308, 404, 500])
def test_a_webhook_that_refuses_is_logged(notified, caplog, status):
    """Redirects are not followed; the path of the URL may be a secret, and is not logged."""
    with Peer(answering(response())) as target:
        answer = response(status=status, Location=f"{target.url}/elsewhere")
        with Peer(answering(answer)) as peer:
            assert deliver(notified(WEBHOOK=f"{peer.url}/hidden")) == 1
    assert target.requests == []
    assert len(peer.requests) == 1
    assert f"the webhook at 127.0.0.1: it answered with status {status}" in caplog.text
    assert "hidden" not in caplog.text


@pytest.mark.parametrize("fault", ["close", "reset", "nobody", "nonsense"])
def test_a_webhook_without_an_answer_is_logged(notified, caplog, fault):
    """Once: nothing is sent again, because it may have been taken."""

    def serve(peer, connection, number):
        peer.receive(connection)
        if fault == "reset":
            reset(connection)
        elif fault == "nonsense":
            connection.sendall(b"nonsense\r\n\r\n")

    with Peer(serve) as peer:
        url = "http://127.0.0.1:9" if fault == "nobody" else peer.url
        assert deliver(notified(WEBHOOK=url)) == 1
        assert peer.connections == (0 if fault == "nobody" else 1)
    assert "was not taken by the webhook at 127.0.0.1" in caplog.text


def test_a_webhook_that_hangs_is_given_up(notified, caplog):
    """After the time-out of the settings, although it sends a byte now and then."""

    def serve(peer, connection, number):
        peer.receive(connection)
        while not peer.ended.wait(0.1):
            connection.sendall(b"H")

    with Peer(serve) as peer:
        assert deliver(notified(WEBHOOK=peer.url, TIMEOUT=0.5)) == 1
    assert "no answer in time" in caplog.text


def test_a_certificate_that_is_not_trusted_is_refused(notified, tmp_path, caplog):
    """Nothing is sent."""
    with Peer(answering(response()), make_certificate(tmp_path / "server.pem")) as peer:
        assert deliver(notified(WEBHOOK=peer.url)) == 1
    assert peer.requests == []
    assert "SSLError" in caplog.text


def test_all_receivers_get_it(notified, aws, topic):
    """A topic, a webhook and a function together."""
    arn, read = topic
    with Peer(answering(response())) as peer:
        using = notified(
            TOPIC=arn, TOPIC_ENDPOINT_URL=aws[0], WEBHOOK=peer.url, FUNCTION=path_of(remember)
        )
        assert deliver(using) == 0
    assert [each["event"] for each in bodies(peer)] == ["breaker_opened"]
    assert received == [NOTIFICATION]
    assert isinstance(received[0], Notification)
    assert len(read()) == 1


def test_the_command_tests_each_receiver(notified, capsys):
    """No table is needed for it."""
    with Peer(answering(response())) as peer:
        using = notified(FUNCTION=path_of(remember), WEBHOOK=f"{peer.url}/secret")
        call_command("dynamo_notify", using=[using])
        (body,) = bodies(peer)
    (told,) = received
    assert told.as_json() == body
    assert (told.event, told.using) == ("test", using)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        f"{using}: the webhook at 127.0.0.1 took it.",
        f"{using}: the function {path_of(remember)} took it.",
    ]


def test_the_command_shows_who_did_not_take_it(notified, alias, capsys):
    with Peer(answering(response(status=500))) as peer:
        using = notified(FUNCTION=path_of(fail), WEBHOOK=peer.url)
        with pytest.raises(CommandError, match="2 of the receivers did not take it"):
            call_command("dynamo_notify", using=[using])
    shown = capsys.readouterr().out
    assert "the webhook at 127.0.0.1 did not take it: it answered with status 500." in shown
    assert f"the function {path_of(fail)} did not take it: LookupError." in shown
    assert "secret" not in shown
    with pytest.raises(CommandError, match="NOTIFY has no receiver"):
        call_command("dynamo_notify", using=[using, alias()])
    with pytest.raises(CommandError, match="nowhere"):
        call_command("dynamo_notify", using=["nowhere"])


def test_a_coroutine_function_does_not_take_it(notified, capsys):
    """Nobody would await it."""
    path = path_of(asynchronous)
    using = notified(FUNCTION=path)
    with pytest.raises(CommandError, match="1 of the receivers did not take it"):
        call_command("dynamo_notify", using=[using])
    assert capsys.readouterr().out == (
        f"{using}: the function {path} did not take it: it returned coroutine; expected a plain "
        "function.\n"
    )
    assert not received


def test_a_receiver_keeps_one_thread():
    """While a call hangs, others fail at once; then it is called again."""
    called, ends = [], threading.Event()

    def send(notification):
        called.append(notification)
        ends.wait(60)

    receiver = Receiver("r", send)
    first = receiver.begin(NOTIFICATION)
    assert first.error(0.1) == "no answer in time"
    assert receiver.begin(NOTIFICATION).error(0) == "it has not answered an earlier one yet"
    ends.set()
    assert first.error(60) == ""
    assert receiver.begin(NOTIFICATION).error(60) == ""
    assert len(called) == 2


@pytest.mark.parametrize("error", [StoreRefused("hidden"), SystemExit(1), ValueError("hidden")])
def test_whatever_a_receiver_raises_is_its_class(error):
    """The thread ends in any case."""

    def send(notification):
        raise error

    assert Receiver("r", send).begin(NOTIFICATION).error(60) == type(error).__name__


def test_a_function_may_use_the_database():
    """The connection of its thread is closed."""
    closed = []

    def send(notification):
        connections["default"].close = lambda: closed.append(threading.current_thread())

    assert Receiver("r", send).begin(NOTIFICATION).error(60) == ""
    (thread,) = closed
    assert thread is not threading.current_thread()
