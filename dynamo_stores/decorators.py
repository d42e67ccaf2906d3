"""The decorators for functions, views and tasks."""

from .cache.decorators import cached
from .dedupe.decorators import deduplicated
from .dedupe.idempotency import idempotent
from .ratelimit.decorators import (
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
