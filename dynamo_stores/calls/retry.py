"""Delays before retries."""

from __future__ import annotations

import random
from collections.abc import Iterator

from ..conf.groups import RetryConfig


def delays(config: RetryConfig) -> Iterator[float]:
    """
    Yield seconds to wait, indefinitely: exponential backoff with full jitter.

    The n-th wait is uniform between 0 and min(``max_delay``, ``delay`` · 2ⁿ), as in
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/ ("Full Jitter").
    """
    limit = config.delay
    while True:
        limit = min(limit, config.max_delay)
        yield random.uniform(0, limit)
        limit *= 2
