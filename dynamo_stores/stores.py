"""The stores beneath the cache backend and the decorators, usable without Django's APIs."""

from .cache.locks import AsyncLock, Lock, LockStore
from .cache.store.store import CacheStore
from .dedupe.store import DedupeStore
from .ratelimit.adaptive import AdaptiveRateLimitStore, allocate
from .ratelimit.algorithms import RateLimitStatus
from .ratelimit.store import RateLimitStore

__all__ = [
    "AdaptiveRateLimitStore",
    "AsyncLock",
    "CacheStore",
    "DedupeStore",
    "Lock",
    "LockStore",
    "RateLimitStatus",
    "RateLimitStore",
    "allocate",
]
