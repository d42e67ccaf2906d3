"""Other clients that people use, measured if they are installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.utils.module_loading import import_string
from pynamodb.attributes import NumberAttribute, UnicodeAttribute
from pynamodb.models import Model

from .clients import CacheSubject, Call, Count, Subject, counting_client, local_keys, own_name
from .operations import DYNAMODB_CACHE, Plan


class PynamoDB(Subject):
    """Models of PynamoDB without this package. It is no cache, so it has few of the verbs."""

    name = "PynamoDB"

    def __init__(self, plan: Plan, table: str) -> None:
        options = {"table_name": table, "region": plan.region, "host": plan.url}
        options |= local_keys(plan)

        class Plain(Model):
            Meta: Any = type("Meta", (), options)
            pk = UnicodeAttribute(hash_key=True, attr_name="PK")
            sk = UnicodeAttribute(range_key=True, attr_name="SK")
            title = UnicodeAttribute()
            body = UnicodeAttribute()
            views = NumberAttribute()

        self._model: Any = Plain
        self._size = plan.size

    def set(self, amount: int) -> Call:
        return self._document("set", amount).save  # type: ignore[no-any-return]

    def incr(self, _: int) -> Call:
        document = self._document("incr", 1)
        document.save()
        return lambda: document.update(actions=[self._model.views.add(1)])

    def model(self, amount: int) -> Call:
        document = self._document("model", amount)
        document.save()
        return lambda: self._model.get(document.pk, document.sk)

    def get_many(self, amount: int) -> Call:
        documents = [self._document(f"many-{number}", self._size) for number in range(amount)]
        self._write(documents)
        keys = [(each.pk, each.sk) for each in documents]
        return lambda: list(self._model.batch_get(keys))

    def set_many(self, amount: int) -> Call:
        documents = [self._document(f"set-{number}", self._size) for number in range(amount)]
        return lambda: self._write(documents)

    @contextmanager
    def counting(self) -> Iterator[Count | None]:
        with counting_client(self._model._get_connection().connection.client) as count:
            yield count

    def _document(self, name: str, size: int) -> Any:
        key = own_name(f"pynamodb-{name}")
        return self._model(key, "DOCUMENT", title="A title", body="x" * size, views=5)

    def _write(self, documents: list[Any]) -> None:
        with self._model.batch_write() as batch:
            for each in documents:
                batch.save(each)


class DynamoDBPeer(CacheSubject):
    """django-dynamodb-cache, on a table of its own."""

    def __init__(self, plan: Plan) -> None:
        params = {
            "KEY_PREFIX": own_name("peer"),
            "OPTIONS": {"aws_region_name": plan.region, **local_keys(plan)},
        }
        make = import_string("django_dynamodb_cache.backend.DjangoCacheBackend")
        cache = make(plan.prefix + DYNAMODB_CACHE, params)
        super().__init__(DYNAMODB_CACHE, cache, plan.size)

    @contextmanager
    def counting(self) -> Iterator[Count | None]:
        with counting_client(self.cache.table.meta.client) as count:
            yield count


def has_dynamodb_cache() -> bool:
    """Return whether django-dynamodb-cache is installed."""
    return not _missing("django_dynamodb_cache", DYNAMODB_CACHE)


def make_peers(plan: Plan) -> tuple[list[Subject], dict[str, str]]:
    """Return the peers to measure, and why the others are skipped, by name."""
    makers: dict[str, tuple[Callable[[], Subject], str]] = {
        "PynamoDB": (lambda: PynamoDB(plan, plan.table), ""),
        DYNAMODB_CACHE: (
            lambda: DynamoDBPeer(plan),
            _missing("django_dynamodb_cache", DYNAMODB_CACHE),
        ),
        "Redis": (
            lambda: _django_cache("redis.RedisCache", "Redis", str(plan.redis), plan.size),
            _missing("redis", "redis") if plan.redis else "no server is given; add --redis URL",
        ),
        "Memcached": (
            lambda: _django_cache(
                "memcached.PyMemcacheCache",
                "Memcached",
                str(plan.memcached),
                plan.size,
                # Without a pool a connection of its client serves one thread.
                use_pooling=True,
            ),
            _missing("pymemcache", "pymemcache")
            if plan.memcached
            else "no server is given; add --memcached HOST:PORT",
        ),
    }
    chosen = {name: each for name, each in makers.items() if plan.chooses(name)}
    skipped = {name: reason for name, (_, reason) in chosen.items() if reason}
    return [make() for make, reason in chosen.values() if not reason], skipped


def _django_cache(backend: str, name: str, location: str, size: int, **options: bool) -> Subject:
    make = import_string(f"django.core.cache.backends.{backend}")
    cache = make(location, {"KEY_PREFIX": own_name("benchmark"), "OPTIONS": options})
    # A server that does not answer ends the run here.
    cache.get("k")
    return CacheSubject(name, cache, size)


def _missing(module: str, package: str) -> str:
    found = importlib.util.find_spec(module) is not None
    return "" if found else f"it is not installed; pip install {package}"
