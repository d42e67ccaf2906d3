"""Aliases with NOTIFY, and receivers of notifications."""

from __future__ import annotations

import json
import threading

import pytest

from dynamo_stores.monitoring.notifications.notifier import get_notifier

received = []
hanging = threading.Event()


def remember(notification):
    """Keep the notification; a receiver."""
    received.append(notification)


def slow(notification):
    """Keep the notification after a second; a receiver."""
    hanging.wait(1)
    received.append(notification)


def fail(notification):
    """Raise; a receiver."""
    raise LookupError("secret content")


def hang(notification):
    """Wait until the test ends; a receiver."""
    received.append(notification)
    hanging.wait(120)


async def asynchronous(notification):
    """A coroutine function, which nobody awaits."""
    received.append(notification)


not_callable = 1


def path_of(function):
    return f"{__name__}.{function.__name__}"


@pytest.fixture
def notified(alias):
    """
    ``notified(FUNCTION=…, using_settings)``: an alias that notifies ``remember``, or what is named;
    ``received`` has what was told. ``SETTINGS`` are settings of the alias.
    """
    received.clear()
    hanging.clear()

    def make(SETTINGS=None, **notify):
        notify = notify or {"FUNCTION": path_of(remember)}
        return alias(NOTIFY={"TIMEOUT": 60.0, **notify}, **(SETTINGS or {}))

    yield make
    hanging.set()


def all_sent(using):
    """Wait until this process has sent everything, and return the events that were received."""
    notifier = get_notifier(using)
    notifier.wait(60)
    assert notifier.is_idle
    return [each.event for each in received]


def bodies(peer):
    """The JSON that a webhook got."""
    return [json.loads(each) for each in peer.requests]
