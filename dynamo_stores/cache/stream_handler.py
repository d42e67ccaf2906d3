"""
Handlers of streams that invalidate caches; see docs/streams.md.

They take records of :mod:`dynamo_stores.streams`, from a worker, a follower or AWS Lambda.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from django.conf import settings
from django.core.cache import caches

from .. import keys
from ..conf import aliases, get_config
from ..conf.rules import suggestion
from ..exceptions import ConfigurationError
from ..models import RawItem
from .backend import DynamoDBCache
from .store.invalidation import get_numbers
from .store.items import EXPIRY, GENERATION, NUMBER, TAGS, WRITE, invalidation_of
from .store.near import NearTier, near_tiers
from .store.recent import get_recent_writes

# What differs between two versions of an entry.
_VERSION = (WRITE, EXPIRY, NUMBER, GENERATION, TAGS)


class Record(Protocol):
    """What is needed of a :class:`~dynamo_stores.streams.StreamRecord`."""

    @property
    def table(self) -> str: ...
    @property
    def raw_keys(self) -> RawItem: ...
    @property
    def raw_new_image(self) -> RawItem | None: ...


def invalidate_caches(records: Sequence[Record]) -> None:
    """
    Drop the entries that changed from the near tiers of this process; for the stream of a store's
    table. Entries that this process wrote itself stay, if the stream has new images.

    Near tiers of other processes are not changed.
    """
    for using in aliases():
        table = get_config(using).store_table
        tiers = near_tiers(using)
        changed = [record for record in records if record.table == table]
        for prefix, near in tiers.items() if changed else ():
            for record in changed:
                _invalidate(using, prefix, near, record)


class CacheInvalidator:
    """
    A handler that deletes entries of a cache when items of a table change.

    ``keys`` returns the cache keys for a record, ``tags`` the tags, each as an iterable; either may
    be left out. The entries are deleted in DynamoDB, so for all processes; near tiers of other
    processes see it within ``LOCAL_TIMEOUT``. Raises StoreUnavailable when DynamoDB cannot answer,
    also with ``IGNORE_EXCEPTIONS``, and ConfigurationError for text in place of an iterable.
    """

    def __init__(
        self,
        cache: str = "default",
        *,
        keys: Callable[[Any], Iterable[Any]] | None = None,
        tags: Callable[[Any], Iterable[str]] | None = None,
        version: int | None = None,
    ) -> None:
        if cache not in settings.CACHES:
            raise ConfigurationError(
                f"CACHES has no cache {cache!r}{suggestion(cache, settings.CACHES)} "
                f"Known: {', '.join(map(repr, settings.CACHES))}."
            )
        if keys is None and tags is None:
            raise ConfigurationError(
                "CacheInvalidator has neither keys nor tags; expected a function of a record for "
                "one of them."
            )
        self.cache = cache
        self._keys = keys
        self._tags = tags
        self._version = version

    def __call__(self, records: Sequence[Record]) -> None:
        cache: Any = caches[self.cache]
        unwanted = _collected("keys", self._keys, records)
        tags = _collected("tags", self._tags, records)
        if unwanted and isinstance(cache, DynamoDBCache):
            # The cache's own method may ignore that DynamoDB does not answer.
            full = [cache.make_and_validate_key(key, version=self._version) for key in unwanted]
            cache.store.delete_many(full)
        elif unwanted:
            cache.delete_many(unwanted, version=self._version)
        if tags:
            if not isinstance(cache, DynamoDBCache):
                raise ConfigurationError(
                    f"The cache {self.cache!r} is no DynamoDBCache; it has no tags."
                )
            cache.store.invalidate_tags(tags)


def _collected(
    name: str, function: Callable[[Any], Iterable[Any]] | None, records: Sequence[Record]
) -> list[Any]:
    if function is None:
        return []
    found: dict[Any, None] = {}
    for record in records:
        answer = function(record)
        if isinstance(answer, str) or not isinstance(answer, Iterable):
            raise ConfigurationError(
                f"{name!r} of a CacheInvalidator returned a {type(answer).__name__}; expected an "
                "iterable such as a list or a set, also for one."
            )
        found.update(dict.fromkeys(answer))
    return list(found)


def _invalidate(using: str, prefix: str, near: NearTier, record: Record) -> None:
    pk, new = str(record.raw_keys["PK"].get("S", "")), record.raw_new_image
    sk = record.raw_keys["SK"].get("S", "")
    if sk == keys.ENTRY and pk.startswith(keys.cache_prefix(prefix)):
        if near.has_kept(pk, lambda head: new is not None and _is_same(head, new)):
            return
        # Replicas may not show the change yet, so the next reads are strong.
        get_recent_writes(using, prefix).add([pk])
        near.forget([pk])
    elif pk == keys.generation(prefix).pk or pk.startswith(keys.tags_prefix(prefix)):
        numbers = get_numbers(using, prefix)
        if new is not None:
            numbers.adopt(pk, invalidation_of(new))
        else:
            # Which entries carry the number is not known.
            numbers.doubt(pk)
            near.clear()


def _is_same(one: RawItem, other: RawItem) -> bool:
    return all(one.get(name) == other.get(name) for name in _VERSION)
