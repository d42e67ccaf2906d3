"""Caches, limits and jobs on tables of their own, for the pages that show them."""

from __future__ import annotations

import json

import pytest

from dynamo_stores import keys
from dynamo_stores.cache import cache_for
from dynamo_stores.concurrency.effects import run
from dynamo_stores.monitoring.history import History, PeriodItem

from .status import page


@pytest.fixture
def kept(settings, reporting):
    """
    ``kept({"COMPRESSOR": …}, ENDPOINT_URL=…)``: the cache ``kept`` of ``CACHES``, on an alias with
    tables of its own.
    """

    def make(options=None, **changes):
        using = reporting(**{"REPORTS": {"INTERVAL": 3600.0}, **changes})
        settings.CACHES = {
            **settings.CACHES,
            "kept": {
                "BACKEND": "dynamo_stores.cache.DynamoDBCache",
                "LOCATION": using,
                "KEY_PREFIX": "p",
                "OPTIONS": {"OPERATION_TIMEOUT": 60.0, **(options or {})},
            },
        }
        return cache_for("kept")

    return make


def look(client, name, **fields):
    """Look something up on a page; return its JSON."""
    answer = client.post(f"{page(name)}?format=json", fields)
    assert answer.status_code == 200, answer.text
    return json.loads(answer.content)


def sent(faults):
    """The operations that the relay got, without those of descriptions and reports."""
    return {
        name: count
        for name, count in faults.requests.items()
        if name not in ("DescribeTable", "UpdateItem")
    }


def sum_up(using, minutes=None, hours=None):
    """Write minutes and hours as the task that sums up reports does."""
    items = History(using)._items
    for key, periods in ((keys.metrics_minute, minutes), (keys.metrics_hour, hours)):
        for at, period in (periods or {}).items():
            text = period if isinstance(period, str) else period.as_text()
            run(items.put(PeriodItem(*key(at), period=text).serialize()))
