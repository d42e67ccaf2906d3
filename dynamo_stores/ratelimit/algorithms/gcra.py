"""
GCRA, the generic cell rate algorithm: requests spread evenly, with a burst.

The item holds, for each rate, the theoretical arrival time: the moment when the whole burst is
available again. Any window admits at most the limit plus the burst. ITU-T Recommendation I.371, in
its virtual scheduling form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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
    refuses,
    tightest,
    whole,
)

# Microseconds since the epoch are whole numbers that a float of seconds can still represent.
_MICRO = 1_000_000


class Gcra:
    """``burst`` is how many requests are admitted at once, a tenth of the limit by default."""

    def __init__(self, burst: int | None = None) -> None:
        self._burst = burst

    def sort_key(self, rates: Sequence[Rate]) -> str:
        return f"GCRA#{'-'.join(name_of(rate.window) for rate in rates)}"

    def capacity(self, rate: Rate) -> int:
        if not rate.limit:
            return 0
        return self._burst or max(1, rate.limit // 10)

    def read(self, item: RawItem, count: int) -> tuple[int, ...]:
        return tuple(whole(item, f"t{each}") for each in range(count))

    def decide(
        self,
        state: tuple[int, ...] | None,
        rates: Sequence[Rate],
        cost: int,
        times: Times,
        *,
        force: bool = False,
    ) -> Decision:
        levels = self._levels(state, rates, cost, times)
        if not force and refuses(levels, cost):
            return Decision(False, None, lambda: tightest(levels, cost))
        now = math.floor(times.low * _MICRO)
        changes: list[str] = []
        conditions: list[str] = []
        values: dict[str, Any] = {}
        spent: list[int] = []
        for each, rate in enumerate(rates):
            step = cost * self._interval(rate)
            busy_until = self._busy_until(state, each, rate, times)
            if force:
                step = max(0, min(step, self._latest(rate, now) - max(busy_until, now)))
            values[f":s{each}"] = number(step if busy_until >= now else now + step)
            spent.append(max(busy_until, now) + step)
            if busy_until >= now:
                changes.append(f"t{each} = t{each} + :s{each}")
                values[f":a{each}"] = number(now)
                conditions.append(f"t{each} >= :a{each}")
                if not force:
                    latest = now + self.capacity(rate) * self._interval(rate) - step
                    values[f":z{each}"] = number(latest)
                    conditions.append(f"t{each} <= :z{each}")
            else:
                changes.append(f"t{each} = :s{each}")
                if state and state[each] > now:
                    values[f":a{each}"] = number(state[each])
                    conditions.append(f"t{each} = :a{each}")
                else:
                    values[f":a{each}"] = number(now)
                    conditions.append(f"(attribute_not_exists(t{each}) OR t{each} < :a{each})")
        values[":ttl"] = number(max(spent) // _MICRO + GRACE)
        changes.append("#ttl = :ttl")
        return Decision(
            True,
            Write(f"SET {', '.join(changes)}", " AND ".join(conditions), values),
            lambda: as_admitted(self.look(tuple(spent), rates, 0, times)),
        )

    def look(
        self, state: tuple[int, ...] | None, rates: Sequence[Rate], cost: int, times: Times
    ) -> RateLimitStatus:
        return tightest(self._levels(state, rates, cost, times), cost)

    def without(self, state: tuple[int, ...], rates: Sequence[Rate], cost: int) -> tuple[int, ...]:
        return tuple(
            at - cost * self._interval(rate) for at, rate in zip(state, rates, strict=True)
        )

    def refund(
        self, state: tuple[int, ...] | None, rates: Sequence[Rate], cost: int, times: Times
    ) -> Write | None:
        if not state:
            return None
        now = math.floor(times.low * _MICRO)
        changes, conditions, values = [], [], {}
        for each, rate in enumerate(rates):
            if self._busy_until(state, each, rate, times) <= now:
                continue
            back = min(cost * self._interval(rate), state[each] - now)
            changes.append(f"t{each} = t{each} - :r{each}")
            conditions.append(f"t{each} >= :l{each}")
            values[f":r{each}"] = number(back)
            values[f":l{each}"] = number(now + back)
        if not changes:
            return None
        return Write(f"SET {', '.join(changes)}", " AND ".join(conditions), values)

    def _levels(
        self, state: tuple[int, ...] | None, rates: Sequence[Rate], cost: int, times: Times
    ) -> list[Level]:
        now = math.floor(times.low * _MICRO)
        levels = []
        for each, rate in enumerate(rates):
            busy_until = max(now, self._busy_until(state, each, rate, times))
            if not rate.limit:
                levels.append(Level(rate, 0, times.low + rate.window, rate.window))
                continue
            interval, capacity = self._interval(rate), self.capacity(rate)
            free = (now + capacity * interval - busy_until) // interval
            wait = busy_until + cost * interval - capacity * interval - now
            retry_after = wait / _MICRO + AFTER if wait > 0 else 0.0
            levels.append(Level(rate, free, busy_until / _MICRO, retry_after))
        return levels

    def _busy_until(
        self, state: tuple[int, ...] | None, each: int, rate: Rate, times: Times
    ) -> int:
        """Return the theoretical arrival time, 0 for none and for that of a broken clock."""
        if not state:
            return 0
        at = state[each] / _MICRO
        if is_broken(at, rate.window, times):
            # Requests can be ahead by a burst, too.
            burst = self.capacity(rate) * self._interval(rate) / _MICRO
            return 0 if is_broken(at - burst, rate.window, times) else state[each]
        return state[each]

    def _latest(self, rate: Rate, now: int) -> int:
        """Return the latest arrival time of requests that are counted without a decision."""
        return now + self.capacity(rate) * self._interval(rate) + math.ceil(rate.window * _MICRO)

    @staticmethod
    def _interval(rate: Rate) -> int:
        return math.ceil(rate.window * _MICRO / rate.limit) if rate.limit else 0
