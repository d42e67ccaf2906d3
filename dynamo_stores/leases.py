"""
Leases: an item belongs to an owner until a moment, and a rising fence distinguishes the owners.

Locks, computations of cached values, jobs and capacity records keep their leases by the same rules.
Conditions are evaluated in one region, so a lease holds within its region.
"""

from __future__ import annotations

import logging
import math
import os
import random
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from pynamodb.attributes import UnicodeAttribute
from pynamodb.expressions.condition import Condition
from pynamodb.expressions.update import Action

from . import clock
from .exceptions import StoreUnavailable
from .item_access import ConditionFailed
from .models import IntegerAttribute, RawItem, integer_of, string_of

logger = logging.getLogger(__name__)

# Writes actions under a condition. Raises ConditionFailed, which carries the item as it is.
Update = Callable[[Sequence[Action], Condition], object]


class Lease(NamedTuple):
    """A lease that was taken: its owner, its fence (0 without one), its end in ms since 1970."""

    owner: str
    fence: int
    end: int


class LeaseAttributes:
    """
    The attributes in which a kind of item keeps its lease: the owner, the end in ms since the
    epoch, and the fence, where it has one.
    """

    def __init__(
        self,
        owner: UnicodeAttribute,
        end: IntegerAttribute,
        fence: IntegerAttribute | None = None,
    ) -> None:
        self._owner = owner
        self._end = end
        self._fence = fence

    def take(
        self,
        update: Update,
        seconds: float,
        actions: Callable[[int], Sequence[Action]] = lambda end: (),
        condition: Condition | None = None,
    ) -> Lease | RawItem:
        """
        Take the lease for ``seconds`` if it has no owner; return it, or else the item as it is.

        ``actions`` gets the end of the lease (ms since the epoch) and returns what else is written;
        ``condition`` must hold too. One write; a second one if the fence is ahead of the clock.
        """
        owner = os.urandom(12).hex()
        now = clock.now_ms()
        end = now + math.ceil(seconds * 1000)
        fence, ahead = now, self._is_behind(now)
        while True:
            written = [self._owner.set(owner), self._end.set(end), *actions(end)]
            if self._fence is not None:
                written.append(self._fence.set(fence))
            is_free: Condition = self._end.does_not_exist() | (self._end <= now)
            for each in (ahead, condition):
                if each is not None:
                    is_free = is_free & each
            try:
                update(written, is_free)
            except ConditionFailed as failed:
                old = failed.old or {}
                if self.owner_of(old) == owner:
                    # The answer to this call's own write was lost, and the write was repeated.
                    return Lease(owner, fence, end)
                if self.end_of(old) > now or self._fence is None:
                    return old
                seen = self.fence_of(old)
                fence, ahead = max(seen + 1, now), self._fence == seen
            else:
                return Lease(owner, 0 if self._fence is None else fence, end)

    def owner_of(self, item: RawItem) -> str:
        """Return the owner, ``""`` without one."""
        return string_of(item, self._owner)

    def end_of(self, item: RawItem) -> int:
        """Return the end of the lease in ms since the epoch, 0 without one."""
        return integer_of(item, self._end)

    def fence_of(self, item: RawItem) -> int:
        """Return the fence of the last owner, 0 without one."""
        return 0 if self._fence is None else integer_of(item, self._fence)

    def seconds_left(self, item: RawItem) -> float:
        """Return for how many seconds the lease is valid, 0 or less when it has ended."""
        return (self.end_of(item) - clock.now_ms()) / 1000

    def _is_behind(self, now: int) -> Condition | None:
        if self._fence is None:
            return None
        behind: Condition = self._fence.does_not_exist() | (self._fence < now)
        return behind


class Renewal(threading.Thread):
    """
    A thread that calls ``renew`` three times in each ``seconds``, until it returns False or
    :meth:`stop` is called.

    An attempt that raises StoreUnavailable is logged and repeated; ``what`` is leased: "lock".
    """

    def __init__(
        self,
        renew: Callable[[], bool],
        seconds: float,
        what: str,
        *,
        longest: float = math.inf,
    ) -> None:
        super().__init__(name=f"dynamo-stores-{what}", daemon=True)
        self._renew = renew
        self._interval = seconds / 3
        self._what = what
        self._until = clock.monotonic() + longest
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.wait(self._interval) and clock.monotonic() < self._until:
            try:
                if not self._renew():
                    return
            except StoreUnavailable as exc:
                logger.warning(
                    "The lease of a %s was not renewed; the next attempt is in %.1f s: %s",
                    self._what,
                    self._interval,
                    exc,
                )

    def stop(self) -> None:
        """Stop renewing; the lease ends at its present end."""
        self._stopping.set()

    @property
    def is_stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stopping.is_set()


class Waits:
    """
    The waits between attempts to take a lease: with jitter, longer each time, and never much past
    the end of the lease, so that the lease of a dead process is taken over soon.
    """

    def __init__(self, first: float, longest: float) -> None:
        self._next = first
        self._longest = longest

    def next(self, left: float) -> float:
        """Return the seconds to wait while the lease is valid for ``left`` seconds."""
        end = max(0.0, left) + random.uniform(0, 0.05)
        seconds = min(random.uniform(self._next / 2, self._next), end)
        self._next = min(self._next * 2, self._longest)
        return seconds
