"""The clients that are measured: the stores on each transport, beside bare boto3 and peers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pynamodb.attributes import NumberAttribute, UnicodeAttribute

from ...cache.backend import DynamoDBCache
from ...calls.observer import measuring
from ...conf import get_config
from ...dedupe.store import DedupeStore
from ...models import StoreItem
from ...ratelimit.store import RateLimitStore
from .bare import Boto3
from .clients import KEPT, CacheSubject, Call, Count, Subject, own_name, value_of
from .operations import TRANSPORTS, Plan
from .peers import make_peers

_RATE = "1000000/h"


class Stores(CacheSubject):
    """The stores of this package, on the alias whose ``TRANSPORT`` is ``name``."""

    def __init__(self, name: str, size: int) -> None:
        params = {"KEY_PREFIX": own_name(name), "OPTIONS": {"OPERATION_TIMEOUT": 60.0}}
        super().__init__(name, DynamoDBCache(name, params), size)
        self._limits = RateLimitStore(name)
        self._jobs = DedupeStore(name)

    def acquire(self, _: int) -> Call:
        key = own_name(self.name)
        return lambda: self._limits.acquire("benchmark", key=key, rate=_RATE)

    def register(self, _: int) -> Call:
        return lambda: self._jobs.register(f"{own_name(self.name)}-{next(self._numbers)}")

    def model(self, amount: int) -> Call:
        model, key = Document.bound_to(self.name), own_name(f"model-{self.name}")
        model(key, "DOCUMENT", title="A title", body="x" * amount, views=5).save()
        return lambda: model.get(key, "DOCUMENT")

    def near(self, amount: int) -> Call:
        params = {"KEY_PREFIX": own_name("near"), "OPTIONS": {"LOCAL_TIMEOUT": KEPT}}
        cache = DynamoDBCache(self.name, params)
        cache.set("k", value_of(amount), KEPT)
        return lambda: cache.get("k")

    def refused(self, _: int) -> Call:
        key = own_name(f"refused-{self.name}")
        self._limits.acquire("benchmark", key=key, rate="1/h")
        return lambda: self._limits.acquire("benchmark", key=key, rate="1/h")

    @contextmanager
    def counting(self) -> Iterator[Count | None]:
        count, table = Count(), get_config(self.name).store_table
        with measuring() as measurements:
            yield count
        for each in measurements:
            # The process also reports itself, in another table.
            if each.table == table:
                count.requests += 1
                count.units += sum(each.units.values())


class Document(StoreItem):
    """The item that is read by ``Model.get``."""

    title = UnicodeAttribute(attr_name="title")
    body = UnicodeAttribute(attr_name="body")
    views = NumberAttribute(attr_name="views")


def make_subjects(plan: Plan) -> tuple[list[Subject], dict[str, str]]:
    """Return the clients to measure, boto3 first, and why the others are skipped, by name."""
    peers, skipped = make_peers(plan)
    ours = [Stores(name, plan.size) for name in TRANSPORTS if plan.chooses(name)]
    return [Boto3(plan), *ours, *peers], skipped
