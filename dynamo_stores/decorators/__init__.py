"""What is put on functions and views."""

from .caching import cached
from .deduplication import deduplicated
from .idempotency import idempotent
from .limits import (
    adaptive_ratelimit,
    aget_usage,
    ais_ratelimited,
    get_usage,
    is_ratelimited,
    ratelimit,
)

__all__ = [
    "adaptive_ratelimit",
    "aget_usage",
    "ais_ratelimited",
    "cached",
    "deduplicated",
    "get_usage",
    "idempotent",
    "is_ratelimited",
    "ratelimit",
]
