"""What the measured clients share: the values, the verbs of a cache, counting of requests."""

from __future__ import annotations

import itertools
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.core.cache.backends.base import BaseCache

from ...calls.environment import is_loopback
from ...calls.observer import units_of
from .operations import Plan

# Called without arguments; that of ``aget`` returns an awaitable.
Call = Callable[[], Any]

# How long the stored values are kept, in seconds.
KEPT = 3600


@dataclass
class Count:
    """The requests to DynamoDB of some calls, and the capacity units that they consumed."""

    requests: int = 0
    units: float = 0.0


class Subject:
    """
    A client. It has a method for each verb that it knows, which prepares what the call needs and
    returns the call to measure.
    """

    name: str

    def prepare(self, verb: str, amount: int) -> Call | None:
        """Return the call of ``verb``, None if this client has no such verb."""
        found = getattr(self, verb, None)
        call: Call | None = None if found is None else found(amount)
        return call

    @contextmanager
    def counting(self) -> Iterator[Count | None]:
        """Count the requests within the block; None if this client cannot."""
        yield None


class CacheSubject(Subject):
    """A backend of Django's cache."""

    def __init__(self, name: str, cache: BaseCache, size: int) -> None:
        self.name = name
        self.cache: Any = cache
        self._size = size
        self._numbers = itertools.count()

    def get(self, amount: int) -> Call:
        name = f"get-{amount}"
        self.cache.set(name, value_of(amount), KEPT)
        return lambda: self.cache.get(name)

    def get_int(self, _: int) -> Call:
        self.cache.set("int", 5, KEPT)
        return lambda: self.cache.get("int")

    def miss(self, _: int) -> Call:
        return lambda: self.cache.get("missing")

    def set(self, amount: int) -> Call:
        value = value_of(amount)
        return lambda: self.cache.set("set", value, KEPT)

    def add(self, amount: int) -> Call:
        value = value_of(amount)
        return lambda: self.cache.add(f"add-{next(self._numbers)}", value, KEPT)

    def incr(self, _: int) -> Call:
        self.cache.set("incr", 1, KEPT)
        return lambda: self.cache.incr("incr")

    def touch(self, amount: int) -> Call:
        self.cache.set("touch", value_of(amount), KEPT)
        return lambda: self.cache.touch("touch", KEPT)

    def get_many(self, amount: int) -> Call:
        values = {f"many-{number}": value_of(self._size) for number in range(amount)}
        for name, value in values.items():
            self.cache.set(name, value, KEPT)
        names = list(values)
        return lambda: self.cache.get_many(names)

    def set_many(self, amount: int) -> Call:
        values = {f"set-{number}": value_of(self._size) for number in range(amount)}
        return lambda: self.cache.set_many(values, KEPT)

    def aget(self, amount: int) -> Call:
        self.get(amount)
        return lambda: self.cache.aget(f"get-{amount}")


@contextmanager
def counting_client(client: Any) -> Iterator[Count]:
    """Count the requests of a botocore client, and ask for the units that they consume."""
    count, events = Count(), client.meta.events

    def ask(params: dict[str, Any], **kwargs: Any) -> None:
        params.setdefault("ReturnConsumedCapacity", "INDEXES")

    def add(parsed: dict[str, Any], **kwargs: Any) -> None:
        count.requests += 1
        count.units += sum(units_of(parsed).values())

    events.register("before-parameter-build.dynamodb", ask)
    events.register("after-call.dynamodb", add)
    try:
        yield count
    finally:
        events.unregister("before-parameter-build.dynamodb", ask)
        events.unregister("after-call.dynamodb", add)


def value_of(size: int) -> dict[str, Any]:
    """Return a dict that takes about ``size`` bytes when it is pickled."""
    value = {"id": 12345, "title": "A title", "score": 4.5, "tags": ["a", "b", "c"], "body": ""}
    value["body"] = "x" * max(0, size - len(pickle.dumps(value)))
    return value


def own_name(name: str) -> str:
    """Return a name of this process, because processes share the tables."""
    return f"{name}-{os.getpid()}"


def local_keys(plan: Plan) -> dict[str, str]:
    """Return the credentials for an endpoint on this machine, which needs no real ones."""
    if plan.url is None or not is_loopback(plan.url):
        return {}
    return {"aws_access_key_id": "local", "aws_secret_access_key": "local"}
