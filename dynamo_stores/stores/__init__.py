"""The stores: what Django's front rooms are built on, usable by themselves."""

from .adaptive import AdaptiveRateLimitStore
from .cache import CacheStore
from .dedupe import DedupeStore
from .leases import LockStore
from .limits import RateLimitStatus
from .locks import AsyncLock, Lock
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
