"""The memory of limits in one process: states, refusals, stored limits and blocks; bounded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from .. import clock
from ..concurrency.bounded import BoundedDict
from ..concurrency.per_process import PerProcess
from ..conf.rates import Rate
from .algorithms.base import RateLimitStatus

_MAX_ENTRIES = 10_000
# The most seconds for which a refusal is remembered. After it a reset, a refund or another rate
# of another process has its effect.
LONGEST_REFUSAL = 2.0
# Seconds after which a probe without an outcome is given up, and another thread may probe.
_PROBE_TIMEOUT = 10.0


class _Refusal:
    __slots__ = ("cost", "made_at", "probed_at", "status", "until")

    def __init__(self, status: RateLimitStatus, cost: int) -> None:
        now = clock.monotonic()
        self.status = status
        self.cost = cost
        self.made_at = now
        self.until = now + min(status.retry_after, LONGEST_REFUSAL)
        self.probed_at: float | None = None


class Refusals:
    """
    The requests that were refused lately. After a refusal has expired, one thread probes: it sends
    its request to the table, while the others are still refused.
    """

    def __init__(self) -> None:
        self._refused: BoundedDict[Hashable, _Refusal] = BoundedDict(_MAX_ENTRIES)
        self._lock = threading.Lock()

    def find(self, name: Hashable, cost: int) -> RateLimitStatus | None:
        """
        Return the status of the refusal, or None if the table must decide.

        The table decides on a smaller cost than the refused one, and on the probe after the
        refusal has expired.
        """
        refusal = self._refused.get(name)
        if refusal is None or cost < refusal.cost:
            return None
        now = clock.monotonic()
        if now >= refusal.until:
            with self._lock:
                probed_at = refusal.probed_at
                if probed_at is None or now - probed_at > _PROBE_TIMEOUT:
                    refusal.probed_at = now
                    return None
        left = max(0.0, refusal.status.retry_after - (now - refusal.made_at))
        return refusal.status._replace(retry_after=left)

    def remember(self, name: Hashable, cost: int, status: RateLimitStatus) -> None:
        """Remember a refusal, or forget it if ``status`` admits."""
        known = self._refused.get(name)
        if not status.allowed:
            if known is not None and clock.monotonic() < known.until:
                cost = min(cost, known.cost)
            self._refused.put(name, _Refusal(status, cost))
        elif known is not None:
            self._refused.drop(name)

    def forget(self, name: Hashable) -> None:
        """Forget the refusal, so that the table decides on the next request."""
        self._refused.drop(name)

    def end_probe(self, name: Hashable) -> None:
        """Let another thread probe, because this one got no answer."""
        refusal = self._refused.get(name)
        if refusal is not None:
            refusal.probed_at = None


class LocalLimiter:
    """Exact limits within this process, for use while the table is not available."""

    def __init__(self) -> None:
        self._admitted: BoundedDict[Hashable, deque[tuple[float, int]]] = BoundedDict(1_000)
        self._lock = threading.Lock()

    def acquire(self, name: Hashable, rates: Sequence[Rate], cost: int) -> RateLimitStatus:
        """Count a request of ``cost`` if all ``rates`` admit it; return the status."""
        with self._lock:
            now = clock.monotonic()
            admitted = self._admitted.get_or_put(name, deque)
            while admitted and admitted[0][0] <= now - rates[-1].window:
                admitted.popleft()
            tightest: tuple[int, Rate] | None = None
            wait = 0.0
            for rate in rates:
                held = [each for each in admitted if each[0] > now - rate.window]
                free = rate.limit - sum(each for _, each in held)
                if tightest is None or free < tightest[0]:
                    tightest = (free, rate)
                if free < cost:
                    wait = max(wait, held[0][0] + rate.window - now if held else rate.window)
            if not wait:
                admitted.append((now, cost))
        assert tightest is not None  # noqa: S101 - there is a rate at least
        free, rate = tightest
        return RateLimitStatus(
            allowed=not wait,
            limit=rate.limit,
            remaining=max(0, free if wait else free - cost),
            reset_at=clock.now() + rate.window,
            retry_after=wait,
            window=rate.window,
        )


class StoredConfig(NamedTuple):
    """A limit as it was read from the table: JSON, None without one."""

    text: str | None
    read_at: float


class RateMemory:
    """The memory of limits of one alias."""

    def __init__(self) -> None:
        self.states: BoundedDict[Hashable, Any] = BoundedDict(_MAX_ENTRIES)
        self.refusals = Refusals()
        self.local = LocalLimiter()
        self.configs: BoundedDict[Hashable, StoredConfig] = BoundedDict(_MAX_ENTRIES)
        self.blocks = Blocks()
        self._guard = threading.Lock()
        self._locks: WeakValueDictionary[Hashable, threading.Lock] = WeakValueDictionary()

    def lock_of(self, name: Hashable) -> threading.Lock:
        """Return the lock for replacing the item of ``name``, one at a time in this process."""
        with self._guard:
            lock = self._locks.get(name)
            if lock is None:
                lock = self._locks[name] = threading.Lock()
            return lock


def _make(using: str) -> RateMemory:
    return RateMemory()


_memories = PerProcess(_make)


def get_rate_memory(using: str) -> RateMemory:
    """Return this process's memory of the limits of the alias ``using``."""
    return _memories.get(using)


# A block is at most this part (an eighth) of what remains of a limit, so that processes with few
# requests get theirs.
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
    """The blocks of requests that this process has counted ahead, by limit and key."""

    def __init__(self) -> None:
        self._blocks: BoundedDict[Hashable, _Block] = BoundedDict(1_000)

    def take(self, name: Hashable, cost: int, is_live: Any) -> RateLimitStatus | None:
        """Take ``cost`` from a block whose state ``is_live``; None if it has not enough."""
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
        Return the size of the next block, at least ``cost``: twice the last one if that was used
        up, else half of it, at most ``longest`` and an eighth of what remained of the limit.
        """
        block = self._blocks.get_or_put(name, _Block)
        with block.lock:
            grown = block.size * 2 if not block.left else block.size // 2
            remaining = (block.status.remaining or 0) if block.status is not None else 0
            block.size = max(1, min(grown, longest, remaining // _SHARE))
            return max(cost, block.size)

    def put(self, name: Hashable, left: int, state: Any, status: RateLimitStatus) -> None:
        """Store that ``left`` of the block that was counted in ``state`` are not used yet."""
        block = self._blocks.get(name)
        if block is not None:
            with block.lock:
                block.left, block.state, block.status = left, state, status
