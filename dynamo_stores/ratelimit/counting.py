"""
Counting requests: decided by the remembered item, written if the item is unchanged.

Requests of one limit that come while a write for it is under way are decided together by the next.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .. import clock, keys
from ..calls.counters import get_counters
from ..calls.policy import time_left
from ..calls.server_time import Times
from ..concurrency.effects import Computation, Join, Wait
from ..concurrency.flights import AGAIN, Flight, Lead
from ..concurrency.per_process import PerProcess
from ..conf import get_config
from ..conf.rates import Rate, ResourceConfig
from ..exceptions import (
    CircuitBreakerOpenError,
    StoreError,
    StoreUnavailable,
    ThrottlingError,
)
from ..item_access import ConditionFailed, Items
from ..keys import ItemKey
from ..models import RawItem
from ..signals import rate_limited
from .algorithms import algorithm_of
from .algorithms.base import Algorithm, Decision, RateLimitStatus, Write, as_admitted
from .algorithms.windows import Windows
from .groups import Group, Member
from .items import RateWindow
from .memory import Name, Taking, get_rate_memory

logger = logging.getLogger(__name__)

# After this many lost races each further attempt waits, for up to this many seconds.
_MAX_RACES, _LONGEST_PAUSE = 3, 0.05
# For so many seconds at most a group waits for the one before it.
_LONGEST_WAIT = 10 * _LONGEST_PAUSE
# The share of its time that a request waits for others; the rest is for a call of its own.
_SHARE = 0.75

# How often a limit was decided without the table, by alias and ON_UNAVAILABLE.
decided_without_store: Counter[tuple[str, str]] = Counter()


class ResolvedLimit(NamedTuple):
    """The limit of one request, with the item that counts it."""

    resource: str
    key: str
    rates: tuple[Rate, ...]
    algorithm: Algorithm
    config: ResourceConfig
    item: ItemKey
    priority: str | None = None


class Counted(NamedTuple):
    """What an item counts: the algorithm, as ``ALGORITHM`` names it, and the windows in seconds."""

    algorithm: str
    windows: tuple[float, ...]


# A window as a sort key has it, by which windows are separated by "-".
_WINDOW = re.compile(r"[\d.]+(?:e[+-]?\d+)?")
_ALGORITHMS = {"SW": "sliding", "FW": "fixed", "GCRA": "gcra", "LOG": "log"}


class RateCounter:
    """
    Counts the requests of an operation in items, by the algorithms of their limits.

    It decides by what this process remembers, as far as it can. Its coroutines are verbs, and raise
    StoreUnavailable without an answer.
    """

    def __init__(self, using: str) -> None:
        self._items = Items(RateWindow, using, keeps_table=True)
        self._memory = get_rate_memory(using)
        self._clock = self._items.server_clock

    async def acquire(self, limit: ResolvedLimit, cost: int, on_unavailable: str | None) -> Any:
        """
        Count ``cost`` requests if the limit admits them; return the status.

        While DynamoDB is unavailable, ``on_unavailable`` or the setting decides; with ``raise``
        StoreUnavailable is raised. Raises ValueError for a cost that is not a whole number.
        """
        verdict = verdict_of(limit, cost)
        if verdict is not None:
            # Decided whatever the table holds, so it is not read.
            shards = shards_of(limit)
            state = self._memory.states.get(shards[0].item)
            status = limit.algorithm.look(state, shards[0].rates, cost, self._clock.times())
            return _decided(self._of_shards(limit, shards, status), allowed=verdict)
        if get_config(self._items.using).rate_limit.in_process:
            return self._acquire_here(limit, cost)
        try:
            if limit.config.shards == 1:
                return await self._acquire_one(limit, cost)
            return await self._acquire_in_shards(limit, cost)
        except StoreUnavailable as exc:
            return self._without_store(limit, cost, exc, on_unavailable)

    async def look(self, limit: ResolvedLimit, cost: int, on_unavailable: str | None) -> Any:
        """Return the status of :meth:`acquire` without counting, by the table."""
        shards, verdict, found = shards_of(limit), verdict_of(limit, cost), []
        if verdict is None and get_config(self._items.using).rate_limit.in_process:
            return self._acquire_here(limit, cost, count=False)
        try:
            for shard in shards:
                state = await self._read(shard)
                times = self._clock.times()
                found.append(shard.algorithm.look(state, shard.rates, cost, times))
        except StoreUnavailable as exc:
            return self._without_store(limit, cost, exc, on_unavailable, count=False)
        status = self._of_shards(limit, shards, min(found, key=_wait_of))
        return status if verdict is None else _decided(status, allowed=verdict)

    async def record(self, limit: ResolvedLimit, cost: int) -> None:
        """Count ``cost`` requests without regard to the limit."""
        await self._decide(shards_of(limit)[0], [Member(cost)], force=True)

    async def refund(self, limit: ResolvedLimit, cost: int) -> None:
        """Take back ``cost`` requests, of the first shard that has counted some."""
        for shard in shards_of(limit):
            if await self._refund_one(shard, cost):
                return

    async def reset(self, pk: str) -> None:
        """Delete the items with the partition key ``pk``, and forget what is known of them."""
        found = await self.items_of(pk)
        try:
            _, error = await self._items.write_many(
                {"DeleteRequest": {"Key": each}} for each in found
            )
            if error is not None:
                raise error
        finally:
            # Without an answer the items may be deleted all the same.
            self._memory.forget(pk)

    async def items_of(self, pk: str) -> list[RawItem]:
        """Return the keys of the items with the partition key ``pk``, read strongly."""
        return await self._items.query(
            {
                "KeyConditionExpression": "PK = :pk",
                "ExpressionAttributeValues": {":pk": {"S": pk}},
                "ProjectionExpression": "PK, SK",
                "ConsistentRead": True,
            }
        )

    async def counted(self, pk: str) -> list[Counted]:
        """Return what the items with the partition key ``pk`` count."""
        found = []
        for item in await self.items_of(pk):
            kind, _, rest = item["SK"]["S"].partition("#")
            windows = rest.rpartition("#")[2].split("-")
            # Other items were not written by this package.
            if kind in _ALGORITHMS and all(_WINDOW.fullmatch(each) for each in windows):
                found.append(Counted(_ALGORITHMS[kind], tuple(map(float, windows))))
        return found

    async def _acquire_in_shards(self, limit: ResolvedLimit, cost: int) -> Any:
        shards, refused = shards_of(limit), []
        for shard in shards:
            status = await self._acquire_one(shard, cost)
            if status.allowed:
                return self._of_shards(limit, shards, status)
            refused.append(status)
        return self._of_shards(limit, shards, min(refused, key=_wait_of))

    async def _acquire_one(self, limit: ResolvedLimit, cost: int) -> Any:
        refusals, name = self._memory.refusals, name_of(limit)
        # What is counted already is given out, also after the table has refused more.
        known = self._take_from_block(limit, name, cost) or refusals.find(name, cost)
        if known is not None:
            return known
        try:
            longest = limit.config.block
            taking = self._memory.blocks.begin(name, cost, longest) if longest > 1 else None
            if taking is None:
                return await self._acquire_together(limit, name, cost)
            status = await self._count_block(limit, cost, taking)
        except BaseException:
            refusals.end_probe(name)
            raise
        refusals.remember(name, cost, status)
        return status

    async def _acquire_together(self, limit: ResolvedLimit, name: Name, cost: int) -> Any:
        """Decide together with the other requests of this limit that are made meanwhile."""
        # The burst of gcra is not in the name.
        groups, shared = self._memory.groups, (*name, limit.config.burst)
        while True:
            member = Member(cost)
            try:
                place = groups.enter(shared, member)
                if isinstance(place, Flight):
                    await self._follow(place, member)
                else:
                    await self._lead(limit, name, shared, *place)
            except TimeoutError:
                break
            except StoreError:
                if member.status is None:
                    raise
            finally:
                member.has_left = True
            if member.status is not None:
                return member.status
        # The leader has no answer yet, or its event loop is busy.
        alone = Member(cost)
        await self._decide(limit, [alone])
        self._remember_refusals(name, [alone])
        return alone.status

    async def _follow(self, flight: Flight, member: Member) -> None:
        """
        Wait for the decision of a group; afterwards the member has no status if its leader ended
        before. Raises TimeoutError while there is time left for a decision without the group.
        """
        try:
            await Join(flight, _SHARE * self._time_left())
        except StoreError:
            if member.has_failed or self._time_left() <= _LONGEST_PAUSE:
                raise

    async def _lead(
        self, limit: ResolvedLimit, name: Name, shared: Name, lead: Lead, group: Group
    ) -> None:
        """Decide on all members of the group, after the group before it."""
        groups, outcome, error = self._memory.groups, AGAIN, None
        try:
            if group.before is not None:
                with contextlib.suppress(TimeoutError, StoreError):
                    await Join(group.before, min(_LONGEST_WAIT, _SHARE * self._time_left()))
            members = groups.close(shared, group)
            try:
                await self._decide(limit, members)
            except StoreError as exc:
                error = exc
                # Else it was the leader's time that was too short.
                if getattr(exc, "counts", True) and self._time_left():
                    for member in members:
                        member.has_failed = True
                raise
            finally:
                self._remember_refusals(name, members)
            outcome = None
        finally:
            groups.end(shared, lead, outcome, error)

    def _time_left(self) -> float:
        return time_left(get_config(self._items.using).rate_limit.operation_timeout)

    def _remember_refusals(self, name: Name, members: Sequence[Member]) -> None:
        """Remember the refusals; forget earlier ones if all that are decided were admitted."""
        refusals = self._memory.refusals
        decided = [member for member in members if member.status is not None]
        refused = [member for member in decided if not member.status.allowed]
        for member in refused or decided[-1:]:
            refusals.remember(name, member.cost, member.status)

    def _of_shards(self, limit: ResolvedLimit, shards: Sequence[ResolvedLimit], status: Any) -> Any:
        """
        Return the status of one shard for the whole limit. ``remaining`` is the sum of the shards
        as this process last saw them; a shard that it has not seen counts as unused.
        """
        if len(shards) == 1:
            return status
        states, times = self._memory.states, self._clock.times()
        found = [
            each.algorithm.look(states.get(each.item), each.rates, 0, times) for each in shards
        ]
        whole = next(rate.limit for rate in limit.rates if rate.window == status.window)
        return status._replace(
            limit=whole,
            remaining=min(whole, sum(each.remaining for each in found)),
            reset_at=max(each.reset_at for each in found),
        )

    def _take_from_block(
        self, limit: ResolvedLimit, name: Name, cost: int
    ) -> RateLimitStatus | None:
        if limit.config.block == 1:
            return None
        return self._memory.blocks.take(name, cost, self._is_live_for(limit))

    def _is_live_for(self, limit: ResolvedLimit) -> Callable[[Any], bool]:
        """Return a function that returns whether a state of the limit is the present one."""
        algorithm, times = limit.algorithm, self._clock.times()
        if not isinstance(algorithm, Windows) or _is_uncertain(times):
            return lambda state: False
        return lambda state: algorithm.is_live(state, limit.rates, times)

    async def _count_block(self, limit: ResolvedLimit, cost: int, taking: Taking) -> Any:
        with taking:
            block = Member(taking.size)
            await self._decide(limit, [block])
            if not block.status.allowed and block.cost > cost:
                block = Member(cost)
                await self._decide(limit, [block])
            if block.status.allowed:
                left = block.cost - cost
                taking.put(left, block.state, block.status, self._is_live_for(limit))
            return block.status

    async def _decide(
        self, limit: ResolvedLimit, members: Sequence[Member], *, force: bool = False
    ) -> None:
        """
        Decide on the members as if they came one after the other, and give each its status.

        Decides by the item as remembered here, again if it changed before the write.
        """
        algorithm, rates = limit.algorithm, limit.rates
        state, is_fresh, races = self._memory.states.get(limit.item), False, 0
        while members:
            times = self._clock.times()
            if not is_fresh and _is_uncertain(times):
                # The first call of a process, or its clock was set: the answer has the time.
                state, is_fresh = await self._read(limit), True
                continue
            admitted, decision = decide_together(limit, state, members, times, force=force)
            write = decision.write
            if not is_fresh and (write is None or decision.wants_fresh):
                # The remembered item may have been reset or refunded meanwhile.
                state, is_fresh = await self._read(limit), True
                continue
            if write is None:
                for member in members:
                    member.status = algorithm.look(state, rates, member.cost, times)
                    member.state = state
                return
            state, is_written = await self._write(limit, write)
            is_fresh = True
            if is_written:
                members = settle(limit, state, members, admitted, times)
                continue
            races += 1
            if races > _MAX_RACES:
                await Wait(random.uniform(0, _LONGEST_PAUSE))

    def _acquire_here(
        self, limit: ResolvedLimit, cost: int, *, count: bool = True
    ) -> RateLimitStatus:
        return self._memory.local.acquire(name_of(limit), limit.rates, cost, count=count)

    def _without_store(
        self,
        limit: ResolvedLimit,
        cost: int,
        exc: StoreUnavailable,
        on_unavailable: str | None,
        *,
        count: bool = True,
    ) -> RateLimitStatus:
        using = self._items.using
        settings = get_config(using).rate_limit
        if on_unavailable == "raise":
            raise exc
        chosen = on_unavailable or settings.on_unavailable
        if isinstance(exc, ThrottlingError) and on_unavailable != "deny":
            # Other clients can throttle a table: that must not switch the limits off.
            chosen = settings.on_throttled
        decided_without_store[using, chosen] += 1
        # The breaker logs once that it opened; a refused call is not worth a line each.
        level = logging.DEBUG if isinstance(exc, CircuitBreakerOpenError) else logging.WARNING
        logger.log(level, "A limit was decided without DynamoDB (%s): %s", chosen, exc)
        if chosen == "local":
            return self._acquire_here(limit, cost, count=count)
        rate = limit.rates[0]
        allowed = chosen == "allow"
        return RateLimitStatus(
            allowed=allowed,
            limit=rate.limit,
            remaining=rate.limit if allowed else 0,
            reset_at=clock.now(),
            retry_after=0.0 if allowed else max(1.0, getattr(exc, "retry_after", 0.0)),
            window=rate.window,
        )

    async def _read(self, limit: ResolvedLimit) -> Any:
        return self._remember(limit, await self._items.get(limit.item, consistent=True))

    async def _write(self, limit: ResolvedLimit, write: Write) -> tuple[Any, bool]:
        """Return the state of the item after an attempt to write, and whether it was written."""
        request: dict[str, Any] = {
            "Key": limit.item.raw(),
            "UpdateExpression": write.update,
            "ConditionExpression": write.condition,
            "ExpressionAttributeValues": write.values,
            "ReturnValues": "ALL_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if "#ttl" in write.update:
            request["ExpressionAttributeNames"] = {"#ttl": "TTL"}
        try:
            answer = await self._items.call("UpdateItem", request)
        except ConditionFailed as failed:
            return self._remember(limit, failed.old), False
        return self._remember(limit, answer["Attributes"]), True

    def _remember(self, limit: ResolvedLimit, item: RawItem | None) -> Any:
        if item is None:
            self._memory.states.drop(limit.item)
            return None
        state = limit.algorithm.read(item, len(limit.rates))
        self._memory.states.put(limit.item, state)
        return state

    async def _refund_one(self, limit: ResolvedLimit, cost: int) -> bool:
        self._memory.refusals.forget(name_of(limit))
        times = self._clock.times()
        state = None if _is_uncertain(times) else self._memory.states.get(limit.item)
        state = state or await self._read(limit)
        while write := limit.algorithm.refund(state, limit.rates, cost, self._clock.times()):
            state, is_written = await self._write(limit, write)
            if is_written:
                return True
        return False


_counters = PerProcess(RateCounter)


def get_counter(using: str) -> RateCounter:
    """Return this process's counter of the limits of the alias ``using``."""
    return _counters.get(using)


def decide_together(
    limit: ResolvedLimit,
    state: Any,
    members: Sequence[Member],
    times: Times,
    *,
    force: bool = False,
) -> tuple[Sequence[Member], Decision]:
    """
    Return the members that are admitted, in their order, and the decision on all of these.

    One that does not fit is refused, while smaller ones after it may be admitted. Without any that
    fits, the decision is the refusal of the last one.
    """
    algorithm, rates = limit.algorithm, limit.rates

    def decide(cost: int) -> Decision:
        return algorithm.decide(state, rates, cost, times, force=force)

    if len(members) == 1:
        decision = decide(members[0].cost)
        return members if decision.allowed else (), decision
    decision = decide(sum(member.cost for member in members))
    if decision.allowed:
        return members, decision
    free = algorithm.look(state, rates, 0, times).remaining
    admitted: list[Member] = []
    for member in members:
        if member.cost <= free:
            free -= member.cost
            admitted.append(member)
    if admitted:
        decision = decide(sum(member.cost for member in admitted))
    return (admitted if decision.allowed else []), decision


def settle(
    limit: ResolvedLimit,
    state: Any,
    members: Sequence[Member],
    admitted: Sequence[Member],
    times: Times,
) -> list[Member]:
    """
    Give each member its status, in the state of the item after the write that counted those that
    are ``admitted``. Return those that neither are nor are refused by that state.
    """
    algorithm, rates, undecided = limit.algorithm, limit.rates, []
    counted, later = set(map(id, admitted)), sum(member.cost for member in admitted)
    for member in members:
        is_admitted = id(member) in counted
        if is_admitted:
            later -= member.cost
        # The state as it was before the later ones.
        then = algorithm.without(state, rates, later) if later else state
        status = algorithm.look(then, rates, 0 if is_admitted else member.cost, times)
        if is_admitted:
            status = as_admitted(status)
        elif status.allowed:
            undecided.append(member)
            continue
        member.status, member.state = status, state
    return undecided


async def report_refusal(sender: type, *, using: str, **named: Any) -> None:
    """Count a refusal and send its signal, whose receivers may read the database. A verb."""
    get_counters(using).add("rate_limit_refusals", named["resource"])
    if rate_limited.has_listeners(sender):
        send = functools.partial(rate_limited.send_robust, sender, using=using, **named)
        await Computation(send)


@functools.lru_cache(maxsize=1024)
def counted_by(config: ResourceConfig) -> tuple[Algorithm, str]:
    """Return the algorithm of a limit with rates, and the sort key of the items that count it."""
    algorithm = algorithm_of(config)
    return algorithm, algorithm.sort_key(config.rates or ())


def _is_uncertain(times: Times) -> bool:
    """Return whether the time is known no better than by the local clock."""
    return 0 < 2 * clock.skew() <= times.high - times.low


def check_cost(cost: Any, least: int | None = None) -> None:
    """Raise ValueError for a cost that is not a whole number, ``least`` or more."""
    if isinstance(cost, bool) or not isinstance(cost, int) or (least is not None and cost < least):
        more = f", {least} or more" if least is not None else ""
        raise ValueError(f"cost is {cost!r}; expected a whole number{more}.")


def verdict_of(limit: ResolvedLimit, cost: int) -> bool | None:
    """
    Return whether ``cost`` is admitted whatever was counted, None if it depends on that.

    A limit of 0 refuses everything. A cost of 0 is free. A cost below 0, or above what the limit
    admits at once, is always refused. Raises ValueError if the cost is not a whole number.
    """
    check_cost(cost)
    for rate in limit.rates:
        if not rate.limit or not 0 <= cost <= limit.algorithm.capacity(rate) // limit.config.shards:
            return False
    return None if cost else True


def _decided(status: Any, *, allowed: bool) -> Any:
    wait = 0.0 if allowed else max(status.retry_after, status.window)
    return status._replace(allowed=allowed, retry_after=wait)


def _wait_of(status: Any) -> float:
    return float(status.retry_after)


def name_of(limit: ResolvedLimit) -> Name:
    """Return the name under which a process remembers the limit."""
    return limit.item, limit.rates, limit.priority


def shards_of(limit: ResolvedLimit) -> list[ResolvedLimit]:
    """Return the shards of the limit, each with an item of its own, in random order."""
    count = limit.config.shards
    if count == 1:
        return [limit]
    found = []
    for number in range(count):
        rates = tuple(
            rate._replace(limit=rate.limit // count + (number < rate.limit % count))
            for rate in limit.rates
        )
        item = keys.rate_window(limit.resource, limit.key, limit.item.sk, shard=number)
        found.append(limit._replace(rates=rates, item=item))
    random.shuffle(found)
    return found
