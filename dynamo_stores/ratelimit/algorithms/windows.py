"""
Counting in buckets: a strict sliding window, and the fixed window, which has a single bucket.

Time is divided into buckets of a tenth of the window. An item holds, for each rate, the index of
its live bucket, and an attribute for the count of each bucket; those of earlier buckets no longer
change. So several processes can begin the same bucket. A request is admitted if the counts of all
buckets that may overlap the window stay within the limit. So a rate of 100/m admits at most 100 in
*any* minute, and may refuse for up to one bucket longer than a perfect window.

Clocks: a request is counted in the bucket of the latest possible time, and a bucket is dropped when
it is a whole window old at the earliest possible time. So a clock that is wrong within its bounds
errs towards refusing. Buckets that are further ahead than their window were counted by a broken
clock, and are replaced.
"""

from __future__ import annotations

import functools
import math
import string
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from ...calls.server_time import Times
from ...conf.rates import Rate
from ...models import RawItem
from .base import (
    AFTER,
    GRACE,
    Decision,
    Level,
    RateLimitStatus,
    Write,
    as_admitted,
    is_broken,
    name_of,
    number,
    tightest,
    whole,
)

_DIGITS = string.digits + string.ascii_lowercase
# More buckets than that are not read, whatever an item holds.
_MAX_BUCKETS = 1_000
# The count of a bucket may be begun by several processes if the last one is so many buckets ago.
_NEAR = 3


class Window(NamedTuple):
    """The buckets of one rate: the live one, its count, the earlier counts, newest first."""

    bucket: int
    held: int
    frozen: tuple[int, ...]


@functools.lru_cache(maxsize=4096)
def counter_of(each: int, bucket: int) -> str:
    """
    Return the attribute that holds the count of a bucket of window number ``each``. The index of
    the bucket is written to the base 36, because an item of 1 KB is one write unit.
    """
    digits = ""
    while bucket > 0:
        bucket, digit = divmod(bucket, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return f"c{each}_{digits or 0}"


def read_window(item: RawItem, each: int) -> Window:
    """Return window number ``each`` of an item."""
    bucket, prefix = whole(item, f"b{each}"), f"c{each}_"
    counts = {
        bucket - int(name[len(prefix) :], len(_DIGITS)): int(held["N"])
        for name, held in item.items()
        if name.startswith(prefix)
    }
    oldest = min(_MAX_BUCKETS, max(counts, default=0))
    frozen = tuple(counts.get(age, 0) for age in range(1, oldest + 1))
    return Window(bucket, counts.get(0, 0), frozen)


def take_back(windows: Iterable[tuple[int, Window, Window]], cost: int) -> Write | None:
    """Return the write that subtracts ``cost`` from the live buckets; None if there is nothing."""
    changes, conditions, values = [], [], {}
    for each, old, now in windows:
        if old.bucket != now.bucket or not old.held:
            continue
        counter = counter_of(each, old.bucket)
        changes.append(f"{counter} = {counter} - :n{each}")
        conditions.append(f"b{each} = :b{each} AND {counter} >= :n{each}")
        values[f":n{each}"] = number(min(cost, old.held))
        values[f":b{each}"] = number(old.bucket)
    if not changes:
        return None
    return Write(f"SET {', '.join(changes)}", " AND ".join(conditions), values)


def free_of(limit: int, window: Window) -> int:
    """Return how much of ``limit`` is left in a window, below 0 if it is exceeded."""
    return limit - window.held - sum(window.frozen)


def spent(windows: Iterable[Window], cost: int) -> list[Window]:
    """Return the windows with ``cost`` counted in their live buckets."""
    return [window._replace(held=window.held + cost) for window in windows]


class Buckets:
    """The buckets of one rate: ``count`` in a window; 0 is the fixed window."""

    def __init__(self, rate: Rate, count: int) -> None:
        self._rate = rate
        self._count = count

    def index(self, moment: float) -> int:
        """Return the bucket in which ``moment`` is."""
        return math.floor(moment * (self._count or 1) / self._rate.window)

    def middle(self, bucket: int) -> float:
        """Return the moment in the middle of ``bucket``."""
        return (bucket + 0.5) * self._rate.window / (self._count or 1)

    def rolled(self, old: Window | None, times: Times) -> Window:
        """Return the window now: moved to the live bucket, without buckets that are too old."""
        bucket = self.index(times.high)
        if old is None or (old.bucket > bucket and self._is_broken(old.bucket, times)):
            return Window(bucket, 0, ())
        # An item ahead of this clock was written by a faster one: its bucket is the live one.
        bucket = max(bucket, old.bucket)
        frozen = old.frozen
        # A bucket is kept until a window after its end.
        kept = max(0, bucket - self.index(times.low - self._rate.window)) if self._count else 0
        if gap := bucket - old.bucket:
            frozen = (*(0,) * min(gap - 1, kept), old.held, *frozen)
            return Window(bucket, 0, frozen[:kept])
        return old if len(frozen) <= kept else Window(bucket, old.held, frozen[:kept])

    def level(self, window: Window, cost: int, times: Times) -> Level:
        """Return how much of a window is left, and after how long ``cost`` would be admitted."""
        free, now = free_of(self._rate.limit, window), times.low
        newest: int | None = window.bucket
        if not window.held:
            ages = (age for age, held in enumerate(window.frozen, 1) if held)
            newest = next((window.bucket - age for age in ages), None)
        reset_at = now if newest is None else self._ends_at(newest)
        retry_at = now if free >= cost else self._free_at(window, cost - free, now)
        return Level(self._rate, free, reset_at, max(0.0, retry_at - now))

    def _free_at(self, window: Window, wanted: int, now: float) -> float:
        """Return when the oldest buckets with ``wanted`` requests in them are too old."""
        counts = [window.held, *window.frozen]
        for age in range(len(counts) - 1, -1, -1):
            wanted -= counts[age]
            if wanted <= 0:
                return self._ends_at(window.bucket - age)
        return now + self._rate.window

    def _is_broken(self, bucket: int, times: Times) -> bool:
        window = self._rate.window
        return is_broken(bucket * window / (self._count or 1), window, times)

    def _ends_at(self, bucket: int) -> float:
        end = (bucket + 1) * self._rate.window / (self._count or 1) + AFTER
        return end + self._rate.window if self._count else end


class Changes:
    """Collects the changes and conditions of a write."""

    def __init__(self, *, is_new: bool) -> None:
        self.changes: list[str] = []
        self.removed: list[str] = []
        self.conditions = ["attribute_not_exists(PK)"] if is_new else []
        self.values: dict[str, Any] = {}
        self.sets_ttl = is_new

    def count(
        self, each: int, old: Window | None, now: Window, cost: int, maximum: int | None
    ) -> None:
        """Count ``cost`` in window ``each``, whose count may be ``maximum`` before (None: any)."""
        values, counter = self.values, counter_of(each, now.bucket)
        values[":n"] = number(cost)
        values[f":b{each}"] = number(now.bucket)
        if old is not None and old.bucket == now.bucket:
            self.changes.append(f"{counter} = {counter} + :n")
            self.conditions.append(f"b{each} = :b{each}")
            if maximum is not None:
                self.conditions.append(f"{counter} <= :m{each}")
                values[f":m{each}"] = number(maximum)
            return
        self.sets_ttl = True
        self.changes.append(f"b{each} = :b{each}")
        if old is None or not old.bucket:
            self.changes.append(f"{counter} = :n")
            if old is not None:
                self.conditions.append(f"attribute_not_exists(b{each})")
            return
        if now.bucket < old.bucket:
            # A broken clock has counted in the item.
            self.changes.append(f"{counter} = :n")
        else:
            values[":zero"] = number(0)
            self.changes.append(f"{counter} = if_not_exists({counter}, :zero) + :n")
        self._follow(each, old, now)
        if maximum is None or now.bucket < old.bucket:
            return
        spare = 0
        if now.bucket - old.bucket <= len(now.frozen):
            # What others count in the two buckets meanwhile may be half of what is left, each.
            spare = maximum // 2
            self.conditions.append(f"{counter_of(each, old.bucket)} <= :p{each}")
            values[f":p{each}"] = number(old.held + spare)
        self.conditions.append(f"(attribute_not_exists({counter}) OR {counter} <= :m{each})")
        values[f":m{each}"] = number(maximum - spare)

    def _follow(self, each: int, old: Window, now: Window) -> None:
        """Make ``now`` the live bucket after that of ``old``, if no other one came between."""
        gap = now.bucket - old.bucket
        self.values[f":o{each}"] = number(old.bucket)
        if 0 < gap <= _NEAR:
            self.conditions.append(f"(b{each} = :o{each} OR b{each} = :b{each})")
            self.conditions += [
                f"attribute_not_exists({counter_of(each, between)})"
                for between in range(old.bucket + 1, now.bucket)
            ]
        else:
            self.conditions.append(f"b{each} = :o{each}")
        kept = len(now.frozen) - gap if gap > 0 else -1
        self.removed += [
            counter_of(each, bucket)
            for bucket in range(old.bucket - max(0, kept + 1), old.bucket - len(old.frozen) - 1, -1)
            if bucket != now.bucket
        ]

    def set(self, name: str, value: Any) -> None:
        """Set an attribute, as DynamoDB writes it."""
        self.changes.append(f"{name} = :{name}")
        self.values[f":{name}"] = value

    def write(self, ttl: float) -> Write:
        """Return the write; if it begins a bucket, the item then lives until ``ttl``."""
        if self.sets_ttl:
            self.changes.append("#ttl = :ttl")
            self.values[":ttl"] = number(math.ceil(ttl))
        removal = f" REMOVE {', '.join(self.removed)}" if self.removed else ""
        return Write(
            f"SET {', '.join(self.changes)}{removal}",
            " AND ".join(self.conditions),
            self.values,
        )


WindowState = tuple[Window, ...]


class Windows:
    """The sliding window with ``buckets`` in each window; 0 is the fixed window."""

    def __init__(self, buckets: int = 10) -> None:
        self._buckets = buckets

    def sort_key(self, rates: Sequence[Rate]) -> str:
        windows = "-".join(name_of(rate.window) for rate in rates)
        return f"SW#{self._buckets}#{windows}" if self._buckets else f"FW#{windows}"

    def capacity(self, rate: Rate) -> int:
        return rate.limit

    def read(self, item: RawItem, count: int) -> WindowState:
        return tuple(read_window(item, each) for each in range(count))

    def decide(
        self,
        state: WindowState | None,
        rates: Sequence[Rate],
        cost: int,
        times: Times,
        *,
        force: bool = False,
    ) -> Decision:
        now = self._now(state, rates, times)
        changes = Changes(is_new=state is None)
        for each, (window, rate) in enumerate(zip(now, rates, strict=True)):
            old = state[each] if state else None
            maximum = None if force else rate.limit - cost - sum(window.frozen)
            if maximum is not None and window.held > maximum:
                return Decision(False, None, lambda: self._status(now, rates, cost, times))
            changes.count(each, old, window, cost, maximum)
        return Decision(
            True,
            changes.write(times.high + 2 * rates[-1].window + GRACE),
            lambda: as_admitted(self._status(spent(now, cost), rates, 0, times)),
        )

    def look(
        self, state: WindowState | None, rates: Sequence[Rate], cost: int, times: Times
    ) -> RateLimitStatus:
        return self._status(self._now(state, rates, times), rates, cost, times)

    def without(self, state: WindowState, rates: Sequence[Rate], cost: int) -> WindowState:
        return tuple(spent(state, -cost))

    def refund(
        self, state: WindowState | None, rates: Sequence[Rate], cost: int, times: Times
    ) -> Write | None:
        now = self._now(state, rates, times)
        pairs = enumerate(zip(state or (), now, strict=False))
        return take_back(((each, old, window) for each, (old, window) in pairs), cost)

    def is_live(self, state: WindowState, rates: Sequence[Rate], times: Times) -> bool:
        """Return whether a request now would be counted in the same buckets as in ``state``."""
        return all(
            Buckets(rate, self._buckets).index(times.high) <= window.bucket
            for window, rate in zip(state, rates, strict=True)
        )

    def _now(self, state: WindowState | None, rates: Sequence[Rate], times: Times) -> list[Window]:
        return [
            Buckets(rate, self._buckets).rolled(state[each] if state else None, times)
            for each, rate in enumerate(rates)
        ]

    def _status(
        self, now: Sequence[Window], rates: Sequence[Rate], cost: int, times: Times
    ) -> RateLimitStatus:
        return tightest(
            [
                Buckets(rate, self._buckets).level(window, cost, times)
                for window, rate in zip(now, rates, strict=True)
            ],
            cost,
        )
