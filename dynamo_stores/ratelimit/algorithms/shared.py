"""
One limit shared by users and background work: the total, the share of the background, and a coarse
history of user requests, from which the shares are recalculated at intervals.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ...calls.server_time import Times
from ...conf.rates import Rate
from ...models import RawItem
from .base import GRACE, Decision, Level, Write, as_admitted, is_broken, number, tightest, whole
from .windows import Buckets, Changes, Window, free_of, read_window, spent, take_back

_BUCKETS = 10
# The monitoring window is divided into this many buckets.
_HISTORY = 30
_TOTAL, _BACKGROUND, _USERS = range(3)

# Attributes beside those of the three windows: the allocation in force and when it was made, in ms
# since the epoch; when users and background work were last admitted.
ALLOCATION, ALLOCATED_AT, LAST_USER, LAST_BACKGROUND = "al", "aa", "lu", "lb"


class Allocation(NamedTuple):
    """
    How a limit is shared: ``user_reserved`` and ``background_max`` add up to it.

    While ``paused``, background work is refused. ``reason`` is a sentence for people; ``trend`` is
    that of user requests: ``none``, ``stable``, ``increasing`` or ``decreasing``.
    """

    user_reserved: int
    background_max: int
    paused: bool
    reason: str
    trend: str


class Stored(NamedTuple):
    """An allocation in force: when it was made (ms since the epoch), and for which limit."""

    at: int
    limit: int
    allocation: Allocation


class WindowState(NamedTuple):
    """The state in an item; times in ms since the epoch, 0 for never."""

    windows: tuple[Window, Window, Window]
    last_user: int
    last_background: int
    stored: Stored | None


class AdaptiveStatus(NamedTuple):
    """A :class:`RateLimitStatus`, and the :class:`Allocation` by which it was decided."""

    allowed: bool
    limit: int | None = None
    remaining: int | None = None
    reset_at: float = 0.0
    retry_after: float = 0.0
    window: float | None = None
    user_reserved: int | None = None
    background_max: int | None = None
    paused: bool = False
    reason: str = ""
    trend: str = "none"


# How many requests there were, by their times in seconds since the epoch.
Counts = Mapping[float, int]
# limit, user requests, background requests, now → allocation
Allocate = Callable[[int, Counts, Counts, float], Allocation]


class SharedWindows:
    """
    Counts for ``priority``. ``monitoring_window`` and ``interval`` (of recalculation) and
    ``memory`` (how long an item lives at least) are in seconds.
    """

    def __init__(
        self,
        priority: str,
        allocate: Allocate,
        *,
        monitoring_window: float,
        interval: float,
        memory: float,
    ) -> None:
        self._is_background = priority == "background"
        self._allocate = allocate
        self._history = Rate(0, monitoring_window)
        self._interval = interval
        self._memory = memory

    def sort_key(self, rates: Sequence[Rate]) -> str:
        return "SW"

    def capacity(self, rate: Rate) -> int:
        return rate.limit

    def read(self, item: RawItem, count: int) -> WindowState:
        stored = None
        if ALLOCATION in item:
            limit, *parts = json.loads(item[ALLOCATION]["S"])
            stored = Stored(whole(item, ALLOCATED_AT), limit, Allocation(*parts))
        windows = (read_window(item, 0), read_window(item, 1), read_window(item, 2))
        return WindowState(windows, whole(item, LAST_USER), whole(item, LAST_BACKGROUND), stored)

    def decide(
        self,
        state: WindowState | None,
        rates: Sequence[Rate],
        cost: int,
        times: Times,
        *,
        force: bool = False,
    ) -> Decision:
        rate = rates[0]
        now = self._now(state, rate, times)
        stored, is_due = self._in_force(state, rate, now, times)
        is_counted = force or self._admits(now, rate, stored.allocation, cost)

        def make_status() -> Any:
            if not is_counted:
                return self._status(now, rate, stored, cost, times)
            return as_admitted(self._status(spent(now, cost), rate, stored, 0, times))

        if not is_counted and not is_due:
            return Decision(False, None, make_status)
        changes = Changes(is_new=state is None)
        if is_due:
            self._set_allocation(changes, state, stored)
        if is_counted:
            self._count(changes, state, now, rate, stored, cost, times, force=force, is_due=is_due)
        ttl = times.high + max(2 * rate.window, self._memory) + GRACE
        return Decision(is_counted, changes.write(ttl), make_status, wants_fresh=is_due)

    def look(
        self, state: WindowState | None, rates: Sequence[Rate], cost: int, times: Times
    ) -> AdaptiveStatus:
        now = self._now(state, rates[0], times)
        stored, _ = self._in_force(state, rates[0], now, times)
        return self._status(now, rates[0], stored, cost, times)

    def without(self, state: WindowState, rates: Sequence[Rate], cost: int) -> WindowState:
        windows = list(state.windows)
        for each in (_TOTAL, _BACKGROUND if self._is_background else _USERS):
            windows[each] = windows[each]._replace(held=windows[each].held - cost)
        return state._replace(windows=(windows[0], windows[1], windows[2]))

    def refund(
        self, state: WindowState | None, rates: Sequence[Rate], cost: int, times: Times
    ) -> Write | None:
        if state is None:
            return None
        now = self._now(state, rates[0], times)
        counted = (_TOTAL, _BACKGROUND) if self._is_background else (_TOTAL, _USERS)
        return take_back(((each, state.windows[each], now[each]) for each in counted), cost)

    def _now(self, state: WindowState | None, rate: Rate, times: Times) -> list[Window]:
        cut = (Buckets(rate, _BUCKETS), Buckets(rate, _BUCKETS), Buckets(self._history, _HISTORY))
        return [
            buckets.rolled(
                state.windows[each] if state and state.windows[each].bucket else None, times
            )
            for each, buckets in enumerate(cut)
        ]

    def _in_force(
        self, state: WindowState | None, rate: Rate, now: Sequence[Window], times: Times
    ) -> tuple[Stored, bool]:
        """Return the allocation to go by, and whether it is a new one."""
        stored = state.stored if state else None
        moment = times.low
        is_current = (
            stored is not None
            and stored.limit == rate.limit
            and moment * 1000 < stored.at + self._interval * 1000
            and not is_broken(stored.at / 1000, self._interval, times)
        )
        if stored is not None and is_current:
            return stored, False
        history = Buckets(self._history, _HISTORY)
        users: dict[float, int] = {}
        for age, held in enumerate((now[_USERS].held, *now[_USERS].frozen)):
            if held:
                at = min(history.middle(now[_USERS].bucket - age), moment)
                users[at] = users.get(at, 0) + held
        if not users and state and state.last_user:
            users = {min(state.last_user / 1000, moment): 1}
        background: dict[float, int] = {}
        if state and state.last_background:
            background = {min(state.last_background / 1000, moment): 1}
        allocation = self._allocate(rate.limit, users, background, moment)
        return Stored(int(moment * 1000), rate.limit, allocation), True

    @staticmethod
    def _set_allocation(changes: Changes, state: WindowState | None, stored: Stored) -> None:
        old = state.stored if state else None
        if old is not None:
            changes.conditions.append(f"{ALLOCATED_AT} = :seen")
            changes.values[":seen"] = number(old.at)
        elif state is not None:
            changes.conditions.append(f"attribute_not_exists({ALLOCATED_AT})")
        at = stored.at
        if old is not None and at <= old.at <= at + GRACE * 1000:
            # Two processes that win in the same millisecond must write different values.
            at = old.at + 1
        changes.set(ALLOCATED_AT, number(at))
        changes.set(ALLOCATION, {"S": json.dumps([stored.limit, *stored.allocation])})
        changes.sets_ttl = True

    def _count(
        self,
        changes: Changes,
        state: WindowState | None,
        now: Sequence[Window],
        rate: Rate,
        stored: Stored,
        cost: int,
        times: Times,
        *,
        force: bool,
        is_due: bool,
    ) -> None:
        old = state.windows if state else (None, None, None)
        maximum = None if force else rate.limit - cost - sum(now[_TOTAL].frozen)
        changes.count(_TOTAL, old[_TOTAL], now[_TOTAL], cost, maximum)
        moment = number(int(times.high * 1000))
        if not self._is_background:
            changes.count(_USERS, old[_USERS], now[_USERS], cost, None)
            changes.set(LAST_USER, moment)
            return
        share = stored.allocation.background_max - cost - sum(now[_BACKGROUND].frozen)
        changes.count(
            _BACKGROUND, old[_BACKGROUND], now[_BACKGROUND], cost, None if force else share
        )
        changes.set(LAST_BACKGROUND, moment)
        if not is_due:
            # The share is valid only under this allocation.
            changes.conditions.append(f"{ALLOCATED_AT} = :seen")
            changes.values[":seen"] = number(stored.at)

    def _admits(self, now: Sequence[Window], rate: Rate, allocation: Allocation, cost: int) -> bool:
        if free_of(rate.limit, now[_TOTAL]) < cost:
            return False
        if not self._is_background:
            return True
        return (
            not allocation.paused and free_of(allocation.background_max, now[_BACKGROUND]) >= cost
        )

    def _status(
        self, now: Sequence[Window], rate: Rate, stored: Stored, cost: int, times: Times
    ) -> AdaptiveStatus:
        allocation = stored.allocation
        levels = [Buckets(rate, _BUCKETS).level(now[_TOTAL], cost, times)]
        if self._is_background:
            share = Rate(allocation.background_max, rate.window)
            level = Buckets(share, _BUCKETS).level(now[_BACKGROUND], cost, times)
            if allocation.paused:
                again_at = stored.at / 1000 + self._interval
                level = Level(share, 0, again_at, max(0.001, again_at - times.low))
                cost = max(cost, 1)
            levels.append(level)
        return AdaptiveStatus(*tightest(levels, cost), *allocation)
