"""
Leases: an item belongs to an owner until a moment, and a rising fence distinguishes the owners.

Locks, computations of cached values, jobs and capacity records keep their leases by the same rules.
The moment is one of DynamoDB's clock, which a process knows as an interval: an owner writes the
latest end that its lease may have, and a lease is taken over when it has certainly ended.
Conditions are evaluated in one region, so a lease holds within its region.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import os
import random
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple

from pynamodb.attributes import UnicodeAttribute

from . import clock
from .calls.server_time import Times
from .concurrency.background import Background
from .concurrency.effects import Verb
from .concurrency.per_process import PerProcess
from .exceptions import StoreError, code_of
from .expressions import NO_CHANGE, Change, Condition, at_most, equals, less, missing, put
from .item_access import ConditionFailed
from .models import IntegerAttribute, RawItem, integer_of, string_of

logger = logging.getLogger(__name__)

# Seconds after which a release is tried again; each further wait is twice as long.
_FIRST_RELEASE = 0.5
# Releases of leases that a request may have taken, and that wait for their next attempt.
_MOST = 10_000
# A request of an owner that gave up may be carried out so many seconds later than its time-out.
LATE = 5.0

# Makes a change under a condition: a verb. Raises ConditionFailed, which has the item as it is.
Update = Callable[[Change, Condition], Verb[object]]


class Lease(NamedTuple):
    """A lease that was taken: its owner, its fence (0 without one), its end in ms since 1970."""

    owner: str
    fence: int
    end: int


def new_owner() -> str:
    """Return the name of an owner, which no other owner has."""
    return os.urandom(12).hex()


def end_after(times: Times, seconds: float) -> int:
    """Return the latest moment that may be ``seconds`` from now, in ms since the epoch."""
    return math.ceil((times.high + seconds) * 1000)


class LeaseAttributes:
    """
    The attributes in which a kind of item keeps its lease: the owner, the end in ms since the
    epoch, and the fence, where it has one.

    ``times`` is the interval that contains DynamoDB's time.
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

    async def take(
        self,
        update: Update,
        seconds: float,
        changes: Callable[[int], Change] = lambda end: NO_CHANGE,
        condition: Condition | None = None,
        *,
        owner: str | None = None,
        times: Times,
    ) -> Lease | RawItem:
        """
        Take the lease for ``seconds`` if it has no owner; return it, or else the item as it is. A
        verb.

        ``changes`` gets the end of the lease (ms since the epoch) and returns what else is written;
        ``condition`` must hold too. An ``owner`` whose earlier take had no answer takes the lease
        again. One write; a second one if the fence is ahead of the time.
        """
        mine = owner or new_owner()
        now, end = int(times.low * 1000), end_after(times, seconds)
        fence, ahead = now, self._is_behind(now)
        while True:
            written = put(self._owner, mine) + put(self._end, end) + changes(end)
            if self._fence is not None:
                written += put(self._fence, fence)
            is_free = missing(self._end) | at_most(self._end, now) | equals(self._owner, mine)
            for each in (ahead, condition):
                if each is not None:
                    is_free = is_free & each
            try:
                await update(written, is_free)
            except ConditionFailed as failed:
                old = failed.old or {}
                is_own, seen = self.owner_of(old) == mine, self.fence_of(old)
                if is_own and (self._fence is None or seen == fence):
                    # The answer to this call's own write was lost, and the write was repeated.
                    return Lease(mine, seen, end)
                if self._fence is None or (self.end_of(old) > now and not is_own):
                    return old
                fence, ahead = max(seen + 1, now), equals(self._fence, seen)
            else:
                return Lease(mine, 0 if self._fence is None else fence, end)

    def owner_of(self, item: RawItem) -> str:
        """Return the owner, ``""`` without one."""
        return string_of(item, self._owner)

    def end_of(self, item: RawItem) -> int:
        """Return the end of the lease in ms since the epoch, 0 without one."""
        return integer_of(item, self._end)

    def fence_of(self, item: RawItem) -> int:
        """Return the fence of the last owner, 0 without one."""
        return 0 if self._fence is None else integer_of(item, self._fence)

    def seconds_left(self, item: RawItem, times: Times | None = None) -> float:
        """
        Return for how many seconds the lease may be valid, 0 or less when it has ended; without
        ``times`` by the local clock.
        """
        now = clock.now() if times is None else times.low
        return (self.end_of(item) - int(now * 1000)) / 1000

    def _is_behind(self, now: int) -> Condition | None:
        if self._fence is None:
            return None
        return missing(self._fence) | less(self._fence, now)


class Renewal(threading.Thread):
    """
    A thread that calls ``renew`` three times in each ``seconds``, until it returns False (another
    owner has the lease) or :meth:`stop` is called.

    Errors are logged, and ``renew`` is called again, also after the end of the lease: it may
    succeed as long as nobody took the lease. ``what`` is leased: "lock".
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
        self._seconds = seconds
        self._what = what
        now = clock.monotonic()
        self._until = now + longest
        self._ends_at = now + seconds
        self._renew_at = now + seconds / 3
        # A second call of put() waits for none that was interrupted, unlike one of Event.set().
        self._changed: SimpleQueue[None] = SimpleQueue()
        self._is_stopping = False
        self.is_late = False

    def run(self) -> None:
        while self._wait():
            began_at = clock.monotonic()
            self._renew_at = began_at + self._seconds / 3
            try:
                if not self._renew():
                    self._lost()
                    return
            except Exception as exc:  # noqa: BLE001 - whatever failed, the next attempt may not
                self._failed(exc)
            else:
                self._ends_at = began_at + self._seconds
                self.is_late = False

    def ends_in(self, seconds: float) -> None:
        """Tell that the lease now ends in ``seconds``; it is renewed before."""
        now = clock.monotonic()
        self._ends_at = now + seconds
        self._renew_at = min(self._renew_at, now + seconds / 3)
        self._changed.put(None)

    def stop(self) -> None:
        """Stop renewing; the lease ends at its present end."""
        self._is_stopping = True
        self._changed.put(None)

    @property
    def is_stopping(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._is_stopping

    def _wait(self) -> bool:
        """Wait for the time of the next renewal; return whether there is one."""
        while not self._is_stopping and (left := self._renew_at - clock.monotonic()) > 0:
            with contextlib.suppress(Empty):
                self._changed.get(timeout=left)
        return not self._is_stopping and clock.monotonic() < self._until

    def _lost(self) -> None:
        if not self._is_stopping:
            logger.warning("The lease of a %s was lost: another owner has taken it.", self._what)

    def _failed(self, exc: Exception) -> None:
        text = exc if isinstance(exc, StoreError) else code_of(exc) or type(exc).__name__
        now = clock.monotonic()
        if now < self._ends_at:
            logger.warning(
                "The lease of a %s was not renewed; the next attempt is in %.1f s: %s",
                self._what,
                max(0.0, self._renew_at - now),
                text,
            )
        elif not self.is_late:
            self.is_late = True
            logger.warning(
                "The lease of a %s was lost: it has ended without a renewal, and another owner may "
                "take it: %s",
                self._what,
                text,
            )


# Leases that are known to be taken are released by a thread of their own, and all of them.
_taken = PerProcess(lambda using: Background(f"taken-{using}", most=math.inf))
_backgrounds = PerProcess(lambda using: Background(f"leases-{using}", most=_MOST))


def release_later(
    using: str, release: Callable[[], bool], seconds: float, *, untaken: float | None = None
) -> None:
    """
    Call ``release`` in the background, until it returns True; after an error, until ``seconds``
    have passed: by then the lease has ended.

    With ``untaken`` a request on its way may still take the lease for so many seconds: until then
    ``release`` is called again after it returned False, too.
    """
    background = (_taken if untaken is None else _backgrounds).get(using)
    began_at = clock.monotonic()

    def submit(wait: float, after: float) -> None:
        try:
            is_submitted = background.submit(functools.partial(attempt, wait), after=after)
        except RuntimeError:
            is_submitted = False
        if not is_submitted:
            logger.warning(
                "A lease that may have been taken is not released: too many releases wait, or no "
                "thread can start. It ends in %.0f s at most.",
                seconds,
            )

    def attempt(wait: float) -> None:
        until = began_at + (untaken or 0.0)
        try:
            if release():
                return
        except Exception as exc:  # noqa: BLE001 - tried again
            logger.debug("A lease was not released: %s", type(exc).__name__)
            until = began_at + seconds
        left = until - clock.monotonic()
        if left > 0:
            submit(wait * 2, min(wait, left))

    submit(_FIRST_RELEASE, 0.0)


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
