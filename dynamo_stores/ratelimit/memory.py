"""The memory of limits in one process: states, refusals, stored limits and blocks; bounded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from .. import clock
from ..concurrency.bounded import BoundedDict
from ..concurrency.per_process import PerProcess
from ..conf.rates import Rate
from ..keys import ItemKey
from .algorithms.base import RateLimitStatus
from .groups import Groups

# The name of a limit: the key of its item, and its rates.
Name = tuple[Any, ...]

_MAX_ENTRIES = 10_000
# The most seconds for which a refusal is remembered. After it a reset, a refund or another rate
# of another process has its effect.
LONGEST_REFUSAL = 2.0
# Seconds after which a probe without an outcome is given up, and another one may begin.
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
    The requests that were refused lately. After a refusal has expired, one thread or task
    probes: it sends its request to the table, while the others are still refused.
    """

    def __init__(self) -> None:
        self._refused: BoundedDict[Name, _Refusal] = BoundedDict(_MAX_ENTRIES)
        self._lock = threading.Lock()

    def find(self, name: Name, cost: int) -> RateLimitStatus | None:
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

    def remember(self, name: Name, cost: int, status: RateLimitStatus) -> None:
        """Remember a refusal, or forget it if ``status`` admits."""
        known = self._refused.get(name)
        if not status.allowed:
            if known is not None and clock.monotonic() < known.until:
                cost = min(cost, known.cost)
            self._refused.put(name, _Refusal(status, cost))
        elif known is not None:
            self._refused.drop(name)

    def forget(self, name: Name) -> None:
        """Forget the refusal, so that the table decides on the next request."""
        self._refused.drop(name)

    def forget_items(self, pk: str) -> None:
        """Forget the refusals of the items with the partition key ``pk``, of any rate."""
        self._refused.drop_where(lambda name: name[0].pk == pk)

    def end_probe(self, name: Name) -> None:
        """Let another thread or task probe, because this one got no answer."""
        refusal = self._refused.get(name)
        if refusal is not None:
            refusal.probed_at = None


# A window is counted in at most this many parts and the current one, so that a key takes little
# memory whatever its limit is. A request is admitted again late by one part of the window at most.
_PARTS = 100


class _Part:
    __slots__ = ("cost", "first", "last")

    def __init__(self, at: float) -> None:
        self.first = at
        self.last = at
        self.cost = 0


class _Tally:
    """What one rate admitted within its window."""

    __slots__ = ("_parts", "held", "rate")

    def __init__(self, rate: Rate) -> None:
        self.rate = rate
        self.held = 0
        self._parts: deque[_Part] = deque()

    def roll(self, now: float) -> None:
        """Forget what is older than the window."""
        while self._parts and self._parts[0].last <= now - self.rate.window:
            self.held -= self._parts.popleft().cost

    def wait(self, cost: int, now: float) -> float:
        """Return after how many seconds ``cost`` is admitted."""
        free = self.rate.limit - self.held
        if free >= cost:
            return 0.0
        for part in self._parts:
            free += part.cost
            if free >= cost:
                return part.last + self.rate.window - now
        return self.rate.window

    def count(self, cost: int, now: float) -> None:
        """Count an admitted request."""
        if not self._parts or now - self._parts[-1].first >= self.rate.window / _PARTS:
            self._parts.append(_Part(now))
        self._parts[-1].last = now
        self._parts[-1].cost += cost
        self.held += cost


class _LocalKey:
    """What one key was admitted, and until when (monotonic) that matters."""

    __slots__ = ("tallies", "until")

    def __init__(self, rates: Sequence[Rate]) -> None:
        self.tallies = [_Tally(rate) for rate in rates]
        self.until = 0.0

    def uses_half(self, cost: int) -> bool:
        """Return whether a request of ``cost`` uses half of a limit or more."""
        return any(2 * (tally.held + cost) >= tally.rate.limit for tally in self.tallies)

    def wait(self, cost: int, now: float) -> float:
        """Return after how many seconds all rates admit ``cost``."""
        longest = 0.0
        for tally in self.tallies:
            tally.roll(now)
            longest = max(longest, tally.wait(cost, now))
        return longest

    def count(self, cost: int, now: float) -> None:
        """Count an admitted request."""
        for tally in self.tallies:
            tally.count(cost, now)
        self.until = now + self.tallies[-1].rate.window

    def status(self, wait: float) -> RateLimitStatus:
        """Return the status of the tightest rate."""
        tightest = min(self.tallies, key=lambda each: each.rate.limit - each.held)
        rate = tightest.rate
        return RateLimitStatus(
            allowed=not wait,
            limit=rate.limit,
            remaining=max(0, rate.limit - tightest.held),
            reset_at=clock.now() + rate.window,
            retry_after=wait,
            window=rate.window,
        )


class LocalLimiter:
    """
    Limits within this process, for use while the table is not available. Never over a limit.

    It holds at most 10,000 keys that have used less than half of their limit, of which the oldest
    is forgotten for a new one, and 10,000 others, none of which is forgotten within its window.
    While there are so many of those, requests that would add another one are refused.
    """

    def __init__(self) -> None:
        self._keys: BoundedDict[Name, _LocalKey] = BoundedDict(_MAX_ENTRIES)
        self._kept: dict[Name, _LocalKey] = {}
        self._swept_at = -1.0
        self._lock = threading.Lock()

    def acquire(
        self, name: Name, rates: Sequence[Rate], cost: int, *, count: bool = True
    ) -> RateLimitStatus:
        """Return whether all ``rates`` admit a request of ``cost``; count it if they do."""
        # One lock: between a look-up and a count, another thread may move or forget the key.
        with self._lock:
            key = self._kept.get(name) or self._keys.get(name)
            if key is None:
                key = _LocalKey(rates)
                if count:
                    self._keys.put(name, key)
            now = clock.monotonic()
            wait = key.wait(cost, now)
            if count and not wait:
                if key.uses_half(cost) and not self._keep(name, key, now):
                    wait = rates[0].window
                else:
                    key.count(cost, now)
            return key.status(wait)

    def _keep(self, name: Name, key: _LocalKey, now: float) -> bool:
        """Keep the key until its window ends; return False if too many are kept."""
        if name not in self._kept and len(self._kept) >= _MAX_ENTRIES:
            if now - self._swept_at >= 1.0:
                self._swept_at = now
                self._kept = {each: kept for each, kept in self._kept.items() if kept.until > now}
            if len(self._kept) >= _MAX_ENTRIES:
                return False
        self._kept[name] = key
        self._keys.drop(name)
        return True


class StoredConfig(NamedTuple):
    """A limit as it was read from the table: JSON, None without one."""

    text: str | None
    read_at: float


class RateMemory:
    """The memory of limits of one alias."""

    def __init__(self) -> None:
        self.states: BoundedDict[ItemKey, Any] = BoundedDict(_MAX_ENTRIES)
        self.refusals = Refusals()
        self.local = LocalLimiter()
        self.configs: BoundedDict[Hashable, StoredConfig] = BoundedDict(_MAX_ENTRIES)
        self.blocks = Blocks()
        self.groups = Groups()

    def forget(self, pk: str) -> None:
        """Forget what is known of the items with the partition key ``pk``."""
        self.states.drop_where(lambda item: item.pk == pk)
        self.refusals.forget_items(pk)
        self.blocks.forget_items(pk)


def _make(using: str) -> RateMemory:
    return RateMemory()


_memories = PerProcess(_make)


def get_rate_memory(using: str) -> RateMemory:
    """Return this process's memory of the limits of the alias ``using``."""
    return _memories.get(using)


# A block is at most this part (an eighth) of what remains of a limit, so that processes with few
# requests get theirs.
_SHARE = 8


# Seconds after which another thread or task may take a block, if the one that does has no outcome.
_TAKING_TIMEOUT = 10.0

IsLive = Callable[[Any], bool]


class _Block:
    __slots__ = ("left", "lock", "size", "state", "status", "taken_at")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.size = 1
        self.left = 0
        self.state: Any = None
        self.status: RateLimitStatus | None = None
        # Since when a thread or task has been taking the next one.
        self.taken_at: float | None = None


class Taking:
    """
    The block of ``size`` requests that a thread or task takes; no other takes one meanwhile.

    An error or a cancellation may leave a block counted that nobody uses, so the next one is small.
    """

    __slots__ = ("_at", "_block", "size")

    def __init__(self, block: _Block, size: int, at: float) -> None:
        self._block = block
        self._at = at
        self.size = size

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, *exc_info: object) -> None:
        block = self._block
        with block.lock:
            if kind is not None:
                block.size = 1
            # After the timeout another one may take the next block.
            if block.taken_at == self._at:
                block.taken_at = None

    def put(self, left: int, state: Any, status: RateLimitStatus, is_live: IsLive) -> None:
        """Store that ``left`` of it, which was counted in ``state``, are not used yet."""
        block = self._block
        with block.lock:
            # With what was left before, if that was counted in the same bucket.
            kept = block.left if block.left and is_live(block.state) else 0
            block.left, block.state, block.status = left + kept, state, status


class Blocks:
    """The blocks of requests that this process has counted ahead, by limit and key."""

    def __init__(self) -> None:
        self._blocks: BoundedDict[Name, _Block] = BoundedDict(1_000)

    def take(self, name: Name, cost: int, is_live: IsLive) -> RateLimitStatus | None:
        """Take ``cost`` from a block whose state ``is_live``; None if it has not enough."""
        block = self._blocks.get(name)
        if block is None:
            return None
        with block.lock:
            if block.left < cost or block.status is None or not is_live(block.state):
                return None
            block.left -= cost
            return block.status

    def begin(self, name: Name, cost: int, longest: int) -> Taking | None:
        """
        Let the caller take the next block, unless another one does.

        Its size is at least ``cost``: twice the last one if that was used up, else half of it, at
        most ``longest`` and an eighth of what remained of the limit.
        """
        block, now = self._blocks.get_or_put(name, _Block), clock.monotonic()
        with block.lock:
            if block.taken_at is not None and now - block.taken_at < _TAKING_TIMEOUT:
                return None
            block.taken_at = now
            grown = block.size * 2 if not block.left else block.size // 2
            remaining = (block.status.remaining or 0) if block.status is not None else 0
            block.size = max(1, min(grown, longest, remaining // _SHARE))
            return Taking(block, max(cost, block.size), now)

    def forget_items(self, pk: str) -> None:
        """Forget the blocks of the items with the partition key ``pk``."""
        self._blocks.drop_where(lambda name: name[0].pk == pk)
