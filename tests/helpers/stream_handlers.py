"""Handlers for workers in processes of their own: they write what they get to a file."""

from __future__ import annotations

import os
import signal
import time

from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.streams import each_record

# The key at which a worker in the process of the tests stops.
last = None


def write(record):
    """Append the worker, the key and the sequence number as one line."""
    line = f"{os.getpid()} {record.keys['id']} {record.sequence_number}\n"
    file = os.open(os.environ["HANDLED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)
    if record.keys["id"] == last:
        signal.raise_signal(signal.SIGTERM)


def handle(records):
    """Take some time for each record."""
    for record in records:
        time.sleep(float(os.environ.get("SECONDS_EACH", "0")))
        write(record)


@each_record
def refuse_poison(record):
    """Fail on the key 13."""
    if record.keys["id"] == 13:
        raise ValueError("secret value")
    write(record)


async def handle_async(records):
    """Handle them on an event loop."""
    handle(records)


def miss_store(records):
    """Do not get an answer."""
    raise StoreUnavailable("No answer for the handler.")


NOT_CALLABLE = 5
