"""
The log: every admitted request is stored, so the window is exact; for small limits.

The item is read and written as a whole, on condition that it was not changed between.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    refuses,
    tightest,
    whole,
)

# The attributes: time and cost of each admitted request in turn, and the number of the last write.
ADMITTED, VERSION = "l", "v"


class Admitted(NamedTuple):
    """An admitted request: its time in ms since the epoch, and its cost."""

    at: int
    cost: int


class Entries(NamedTuple):
    """The admitted requests, oldest first, and the number of the last write."""

    version: int
    admitted: tuple[Admitted, ...]


class Log:
    """See the module."""

    def sort_key(self, rates: Sequence[Rate]) -> str:
        return f"LOG#{'-'.join(name_of(rate.window) for rate in rates)}"

    def capacity(self, rate: Rate) -> int:
        return rate.limit

    def read(self, item: RawItem, count: int) -> Entries:
        pairs = [int(held["N"]) for held in item.get(ADMITTED, {}).get("L", ())]
        return Entries(
            whole(item, VERSION),
            tuple(Admitted(*pair) for pair in zip(pairs[::2], pairs[1::2], strict=False)),
        )

    def decide(
        self,
        state: Entries | None,
        rates: Sequence[Rate],
        cost: int,
        times: Times,
        *,
        force: bool = False,
    ) -> Decision:
        levels = self._levels(state, rates, cost, times)
        if not force and refuses(levels, cost):
            return Decision(False, None, lambda: tightest(levels, cost))
        kept = self._kept(state, rates[-1], times)
        latest = max(math.ceil(times.high * 1000), kept[-1].at if kept else 0)
        after = Entries(state.version if state else 0, (*kept, Admitted(latest, cost)))
        return Decision(
            True,
            self._write(state, after.admitted, times.high + 2 * rates[-1].window + GRACE),
            lambda: as_admitted(self.look(after, rates, 0, times)),
        )

    def look(
        self, state: Entries | None, rates: Sequence[Rate], cost: int, times: Times
    ) -> RateLimitStatus:
        return tightest(self._levels(state, rates, cost, times), cost)

    def without(self, state: Entries, rates: Sequence[Rate], cost: int) -> Entries:
        *earlier, last = state.admitted
        if last.cost > cost:
            earlier.append(last._replace(cost=last.cost - cost))
        return state._replace(admitted=tuple(earlier))

    def refund(
        self, state: Entries | None, rates: Sequence[Rate], cost: int, times: Times
    ) -> Write | None:
        kept = list(self._kept(state, rates[-1], times))
        if not kept or state is None:
            return None
        # The newest go first: of those the limit would be kept longest.
        while kept and cost:
            last = kept.pop()
            back = min(cost, last.cost)
            cost -= back
            if last.cost > back:
                kept.append(last._replace(cost=last.cost - back))
        return self._write(state, tuple(kept), times.high + 2 * rates[-1].window + GRACE)

    @staticmethod
    def _write(state: Entries | None, admitted: Sequence[Admitted], ttl: float) -> Write:
        version = state.version if state else 0
        values: dict[str, Any] = {
            ":l": {"L": [number(each) for pair in admitted for each in pair]},
            ":w": number(version + 1),
            ":ttl": number(math.ceil(ttl)),
        }
        condition = "attribute_not_exists(PK)"
        if state is not None:
            condition, values[":v"] = f"{VERSION} = :v", number(version)
        return Write(f"SET {ADMITTED} = :l, {VERSION} = :w, #ttl = :ttl", condition, values)

    @staticmethod
    def _kept(state: Entries | None, rate: Rate, times: Times) -> tuple[Admitted, ...]:
        admitted = state.admitted if state else ()
        if admitted and is_broken(admitted[-1].at / 1000, rate.window, times):
            admitted = tuple(
                each for each in admitted if not is_broken(each.at / 1000, rate.window, times)
            )
        since = (times.low - rate.window) * 1000
        return tuple(each for each in admitted if each.at > since)

    def _levels(
        self, state: Entries | None, rates: Sequence[Rate], cost: int, times: Times
    ) -> list[Level]:
        return [self._level(state, rate, cost, times) for rate in rates]

    def _level(self, state: Entries | None, rate: Rate, cost: int, times: Times) -> Level:
        kept = self._kept(state, rate, times)
        free = rate.limit - sum(each.cost for each in kept)
        retry_at, available = times.low, free
        for each in kept:
            if available >= cost:
                break
            available += each.cost
            retry_at = each.at / 1000 + rate.window + AFTER
        if available < cost:
            retry_at = times.low + rate.window
        reset_at = kept[-1].at / 1000 + rate.window if kept else times.low
        return Level(rate, free, reset_at, max(0.0, retry_at - times.low))
