"""
Blocks: a process that asks often takes many at once, and hands them out by itself.

What is in a block was counted in a bucket, so it is handed out only while that bucket is live:
later it would be a request too many in a window. What is left then is lost, which errs towards
refusing.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from typing import Any

from .limits import RateLimitStatus

# Of what is left of a limit a process takes so much at most, so that gentle callers find some.
_SHARE = 8


class _Block:
    __slots__ = ("left", "lock", "size", "state", "status")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size = 1
        self.left = 0
        self.state: Any = None
        self.status: RateLimitStatus | None = None


class Blocks:
    """The blocks that this process holds, by what they were taken for."""

    def __init__(self) -> None:
        self._blocks: dict[Hashable, _Block] = {}

    def hand_out(self, name: Hashable, cost: int, is_live: Any) -> RateLimitStatus | None:
        """Return a status out of a block whose state ``is_live``, None if there is none."""
        block = self._blocks.get(name)
        if block is None:
            return None
        with block.lock:
            if block.left < cost or block.status is None or not is_live(block.state):
                return None
            block.left -= cost
            return block.status

    def size_for(self, name: Hashable, cost: int, longest: int) -> int:
        """
        Return how many to take: twice as many as last time where those were used up, half as many
        where they were not, and no more than an eighth of what was left then.
        """
        if len(self._blocks) > 1_000:
            self._blocks.clear()
        block = self._blocks.setdefault(name, _Block())
        with block.lock:
            grown = block.size * 2 if not block.left else block.size // 2
            remaining = (block.status.remaining or 0) if block.status is not None else 0
            block.size = max(1, min(grown, longest, remaining // _SHARE))
            return max(cost, block.size)

    def put(self, name: Hashable, left: int, state: Any, status: RateLimitStatus) -> None:
        """Hold ``left`` that were taken in ``state``."""
        block = self._blocks.get(name)
        if block is not None:
            with block.lock:
                block.left, block.state, block.status = left, state, status
