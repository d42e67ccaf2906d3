"""
Pages in the cache: shared by all processes, and limited when they have to be read.

A page that is kept under a version is right as long as the version is; another is fresh for a
minute. While DynamoDB does not answer, a page that the process still has is shown, with its age.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from django.core.cache import cache

from dynamo_stores import clock
from dynamo_stores.exceptions import StoreUnavailable
from dynamo_stores.stores import AdaptiveRateLimitStore

T = TypeVar("T")

# Seconds: how long a page without a version is fresh, and how long pages are kept.
FRESH_FOR, KEPT_FOR = 60, 3600
# The limit of reads that are not from the cache; visitors have priority over background work.
READS, READ_RATE = "forum.reads", "1200/m"


class Busy(Exception):
    """The limit of reads is exceeded; ``status`` is the refusal of the limit."""

    def __init__(self, status: Any) -> None:
        super().__init__("The forum is busy.")
        self.status = status


@dataclass(frozen=True)
class Page(Generic[T]):
    """
    The content of a page, and whether it came from the cache. ``age`` is in seconds, for a page
    that is shown because DynamoDB does not answer; 0 otherwise.
    """

    content: T
    from_cache: bool
    age: float = 0.0


@dataclass(frozen=True)
class _Kept:
    content: Any
    version: Any
    read_at: float


def key_of(kind: str, *parts: str) -> str:
    """Return the key of a page. An id may have characters that keys may not have."""
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return f"{kind}:{hashlib.sha256(text).hexdigest()}"


def cached(
    key: str,
    read: Callable[[], T],
    *,
    priority: str = "user",
    version: Callable[[], Any] | None = None,
    is_worth: Callable[[T], bool] = lambda content: True,
) -> Page[T]:
    """
    Return what ``read`` returns, from the cache if it is there with the present ``version``. What
    is not worth it is not kept.

    Raises Busy if the limit of reads is exceeded, and StoreUnavailable if DynamoDB does not answer
    and this process has no such page.
    """
    kept: _Kept | None = None
    try:
        kept = cache.get(key)
        current = None if version is None else version()
        is_fresh = kept is not None and (
            version is not None or clock.now() - kept.read_at < FRESH_FOR
        )
        if kept is not None and is_fresh and kept.version == current:
            return Page(kept.content, from_cache=True)
        admit(priority)
        content = read()
        if is_worth(content):
            kept = _Kept(content, current, clock.now())
            cache.set(key, kept, KEPT_FOR)
    except StoreUnavailable:
        if kept is None:
            raise
        return Page(kept.content, from_cache=True, age=max(0.0, clock.now() - kept.read_at))
    return Page(content, from_cache=False)


def admit(priority: str = "user") -> None:
    """Count a read of the forum's tables. Raises Busy if the limit of reads is exceeded."""
    status = AdaptiveRateLimitStore().acquire(READS, rate=READ_RATE, priority=priority)
    if not status.allowed:
        raise Busy(status)


def forget(*keys: str) -> None:
    """Delete pages from the cache."""
    cache.delete_many(keys)
