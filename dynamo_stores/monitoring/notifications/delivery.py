"""Sending notifications: to a topic of SNS, a webhook or a function."""

from __future__ import annotations

import hashlib
import hmac
import inspect
import json
import logging
import threading
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies
from django.db import connections

from ... import __version__, clock
from ...calls.account import get_account
from ...calls.environment import is_loopback
from ...concurrency.threads import start
from ...conf import get_config, imported
from ...conf.groups import NotifyConfig
from ...exceptions import code_of
from .messages import Notification

logger = logging.getLogger(__name__)

SIGNATURE_HEADER = "X-Dynamo-Stores-Signature"
# SNS allows fewer than 100 ASCII characters.
_MAX_SUBJECT = 99


class Refused(Exception):
    """A receiver answered that it did not take the notification."""


class Send(Protocol):
    """Sends a notification; raises any error."""

    def __call__(self, notification: Notification, /) -> object: ...


class Receiver:
    """
    One receiver of an alias; ``name`` is for logs. A call that hangs is left behind, and the
    receiver is not called again before it ends, so it keeps one thread at most.
    """

    def __init__(self, name: str, send: Send) -> None:
        self.name = name
        self._send = send
        self._sending: Sending | None = None

    def begin(self, notification: Notification) -> Sending:
        """Begin to send, in a thread; while an earlier call hangs, the result is that error."""
        before = self._sending
        if before is not None and not before.is_done:
            return Sending.failed("it has not answered an earlier one yet")
        self._sending = Sending(lambda: self._send(notification))
        return self._sending


class Sending:
    """A call under way, in a daemon thread."""

    def __init__(self, function: Callable[[], object] | None, error: str = "") -> None:
        self._done = threading.Event()
        self._error = error
        if function is None:
            self._done.set()
            return
        thread = threading.Thread(
            target=self._call, args=(function,), name="dynamo-stores-notify", daemon=True
        )
        if not start(thread):
            self._call(function)

    @classmethod
    def failed(cls, error: str) -> Sending:
        """Return a call that failed."""
        return cls(None, error)

    @property
    def is_done(self) -> bool:
        """Whether the call has ended."""
        return self._done.is_set()

    def error(self, seconds: float) -> str:
        """Wait; return what went wrong, without any content, ``""`` if nothing did."""
        if not self._done.wait(max(seconds, 0.0)):
            return "no answer in time"
        return self._error

    def _call(self, function: Callable[[], object]) -> None:
        try:
            function()
        except Refused as exc:
            self._error = str(exc)
        except ClientError as exc:
            self._error = code_of(exc) or type(exc).__name__
        except BaseException as exc:  # noqa: BLE001 - whatever the receiver raises is logged
            self._error = type(exc).__name__
        finally:
            # The function of an application may have used a database in this thread.
            connections.close_all()
            self._done.set()


class Delivery:
    """The receivers of one alias in this process."""

    def __init__(self, using: str) -> None:
        config = get_config(using).notify
        self.using = using
        self._timeout = config.timeout
        self.receivers: list[Receiver] = []
        if config.topic is not None:
            self.receivers.append(Receiver(f"the topic {config.topic}", Topic(using, config)))
        if config.webhook is not None:
            self.receivers.append(
                Receiver(f"the webhook at {urlsplit(config.webhook).hostname}", Webhook(config))
            )
        if config.function is not None:
            self.receivers.append(
                Receiver(f"the function {config.function}", Function(config.function))
            )

    def send(self, notification: Notification) -> dict[str, str]:
        """
        Send it to all receivers at once, within ``NOTIFY["TIMEOUT"]``; log and return the errors
        of those that did not take it, by their names.
        """
        until = clock.monotonic() + self._timeout
        begun = [(each, each.begin(notification)) for each in self.receivers]
        failed = {}
        for receiver, sending in begun:
            error = sending.error(until - clock.monotonic())
            if error:
                failed[receiver.name] = error
                logger.error(
                    "The notification %r was not taken by %s: %s.",
                    notification.subject, receiver.name, error,
                    extra={
                        "dynamodb_using": self.using,
                        "dynamodb_table": notification.table,
                        "dynamodb_event": notification.event,
                    },
                )  # fmt: skip
        return failed


class Topic:
    """Publishes to a topic of SNS: the text and the JSON, with attributes for its filters."""

    def __init__(self, using: str, config: NotifyConfig) -> None:
        self._using = using
        self._config = config
        self._client: Any = None

    def __call__(self, notification: Notification) -> None:
        # Made in this thread: the search for credentials may take long.
        if self._client is None:
            self._client = self._make_client()
        data = json.dumps(notification.as_json(), indent=2)
        names = {
            "event": notification.event,
            "using": notification.using,
            "table": notification.table,
        }
        self._client.publish(
            TopicArn=self._config.topic,
            Subject=subject_of(notification),
            Message=f"{notification.text}\n\n{data}",
            MessageAttributes={
                name: {"DataType": "String", "StringValue": value}
                for name, value in names.items()
                if value
            },
        )

    def _make_client(self) -> Any:
        config, url = get_config(self._using), self._config.topic_endpoint_url
        credentials: dict[str, Any] = {}
        if url is not None and is_loopback(url) and not config.names_account:
            credentials = {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
        return get_account(self._using).create_client(
            "sns",
            region_name=str(self._config.topic).split(":")[3],
            endpoint_url=url,
            config=Config(
                connect_timeout=self._config.timeout,
                read_timeout=self._config.timeout,
                retries={"total_max_attempts": 1, "mode": "standard"},
            ),
            **credentials,
        )


class Webhook:
    """Posts JSON to a URL, without following redirects."""

    def __init__(self, config: NotifyConfig) -> None:
        self._url = str(config.webhook)
        self._secret = config.webhook_secret
        self._timeout = config.timeout

    def __call__(self, notification: Notification) -> None:
        body = json.dumps(notification.as_json()).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": f"dynamo-stores/{__version__}",
            "Connection": "close",
        }
        if self._secret is not None:
            headers[SIGNATURE_HEADER] = signature(self._secret, body)
        # The stubs of botocore know whole seconds for both time-outs only.
        timeout: Any = (self._timeout, self._timeout)
        session = URLLib3Session(
            proxies=get_environ_proxies(self._url), timeout=timeout, max_pool_connections=1
        )
        try:
            # The body of the answer is not read.
            request = AWSRequest("POST", self._url, headers=headers, data=body, stream_output=True)
            answer = session.send(request.prepare())
            if not 200 <= answer.status_code < 300:
                raise Refused(f"it answered with status {answer.status_code}")
        finally:
            session.close()


class Function:
    """Calls a function of the application."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __call__(self, notification: Notification) -> None:
        result = imported(self._path)(notification)
        if inspect.isawaitable(result):
            if inspect.iscoroutine(result):
                # Python would warn that it is never awaited.
                result.close()
            raise Refused(f"it returned {type(result).__name__}; expected a plain function")


def signature(secret: str, body: bytes) -> str:
    """Return the value of the signature's header for ``body``."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def subject_of(notification: Notification) -> str:
    """Return the subject as SNS allows it."""
    printable = "".join(each if " " <= each <= "~" else "?" for each in notification.subject)
    return printable[:_MAX_SUBJECT]
