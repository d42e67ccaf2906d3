"""The stores: what Django's front rooms are built on, usable by themselves."""

from .adaptive import AdaptiveRateLimitStore
from .cache import CacheStore
from .dedupe import DedupeStore
from .limits import RateLimitStatus
from .locks import AsyncLock, Lock, LockStore
from .ratelimit import RateLimitStore

__all__ = [
    "AdaptiveRateLimitStore",
    "AsyncLock",
    "CacheStore",
    "DedupeStore",
    "Lock",
    "LockStore",
    "RateLimitStatus",
    "RateLimitStore",
]
