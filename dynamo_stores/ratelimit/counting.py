"""Counting requests: decided by the remembered item, written if the item is unchanged."""

from __future__ import annotations

import contextlib
import logging
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import clock, keys
from ..calls.batches import batch_write
from ..calls.connection import get_connection
from ..calls.server_time import ServerClock, Times
from ..conf.rates import Rate, ResourceConfig
from ..exceptions import CircuitBreakerOpenError, StoreUnavailable, ThrottlingError
from ..item_access import ConditionFailed
from ..keys import ItemKey
from ..models import RawItem
from ..signals import rate_limited
from .algorithms import algorithm_of
from .algorithms.base import Algorithm, RateLimitStatus, Write
from .algorithms.windows import Windows
from .memory import RateMemory
from .resources import LimitsStore

logger = logging.getLogger(__name__)

# After this many lost races each further attempt waits, for up to this many seconds.
_MAX_RACES, _LONGEST_PAUSE = 3, 0.05

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
    """A decision, and the state of the item in which it was counted."""

    status: RateLimitStatus
    state: Any


class RateCounter(LimitsStore):
    """Counts requests in items, by the algorithm of their limit."""

    def _acquire(self, limit: ResolvedLimit, cost: int, on_unavailable: str | None) -> Any:
        shards, verdict = shards_of(limit), verdict_of(limit, cost)
        if verdict is not None:
            # Decided whatever the table holds, so it is not read.
            state = self._memory.states.get(shards[0].item)
            status = limit.algorithm.look(state, shards[0].rates, cost, self._times())
            return _decided(self._of_shards(limit, shards, status), allowed=verdict)
        refused: list[Any] = []
        try:
            for shard in shards:
                status = self._acquire_shard(shard, cost)
                if status.allowed:
                    return self._of_shards(limit, shards, status)
                refused.append(status)
        except StoreUnavailable as exc:
            return self._without_store(limit, cost, exc, on_unavailable)
        return self._of_shards(limit, shards, min(refused, key=_wait_of))

    def _acquire_shard(self, limit: ResolvedLimit, cost: int) -> Any:
        refusals, name = self._memory.refusals, name_of(limit)
        known = refusals.find(name, cost) or self._take_from_block(limit, cost)
        if known is not None:
            return known
        try:
            status = self._count_block(limit, cost)
        except StoreUnavailable:
            refusals.end_probe(name)
            raise
        refusals.remember(name, cost, status)
        return status

    def _look(self, limit: ResolvedLimit, cost: int, on_unavailable: str | None) -> Any:
        """Return the decision of :meth:`_acquire` without counting, by the table."""
        shards, verdict, found = shards_of(limit), verdict_of(limit, cost), []
        try:
            for shard in shards:
                state = self._read(shard)
                found.append(shard.algorithm.look(state, shard.rates, cost, self._times()))
        except StoreUnavailable as exc:
            return self._without_store(limit, cost, exc, on_unavailable, count=False)
        status = self._of_shards(limit, shards, min(found, key=_wait_of))
        return status if verdict is None else _decided(status, allowed=verdict)

    def _of_shards(self, limit: ResolvedLimit, shards: Sequence[ResolvedLimit], status: Any) -> Any:
        """
        Return the status of one shard for the whole limit. ``remaining`` is the sum of the shards
        as this process last saw them; a shard that it has not seen counts as unused.
        """
        if len(shards) == 1:
            return status
        states, times = self._memory.states, self._times()
        found = [
            each.algorithm.look(states.get(each.item), each.rates, 0, times) for each in shards
        ]
        whole = next(rate.limit for rate in limit.rates if rate.window == status.window)
        return status._replace(
            limit=whole,
            remaining=min(whole, sum(each.remaining for each in found)),
            reset_at=max(each.reset_at for each in found),
        )

    def _take_from_block(self, limit: ResolvedLimit, cost: int) -> RateLimitStatus | None:
        algorithm = limit.algorithm
        if limit.config.block == 1 or not isinstance(algorithm, Windows):
            return None
        times = self._times()
        if _is_uncertain(times):
            return None

        def is_live(state: Any) -> bool:
            return algorithm.is_live(state, limit.rates, times)

        return self._memory.blocks.take(name_of(limit), cost, is_live)

    def _count_block(self, limit: ResolvedLimit, cost: int) -> RateLimitStatus:
        if limit.config.block == 1:
            return self._count(limit, cost).status
        blocks, name = self._memory.blocks, name_of(limit)
        size = blocks.size_for(name, cost, limit.config.block)
        counted = self._count(limit, size)
        if not counted.status.allowed and size > cost:
            size, counted = cost, self._count(limit, cost)
        if counted.status.allowed:
            blocks.put(name, size - cost, counted.state, counted.status)
        return counted.status

    def _count(self, limit: ResolvedLimit, cost: int, *, force: bool = False) -> Counted:
        """Decide by the item as remembered here, again if it changed before the write."""
        memory, algorithm, rates = self._memory, limit.algorithm, limit.rates
        state, is_fresh, races = memory.states.get(limit.item), False, 0
        with contextlib.ExitStack() as held:
            while True:
                times = self._times()
                if not is_fresh and _is_uncertain(times):
                    # The first call of a process, or its clock was set: the answer has the time.
                    state, is_fresh = self._read(limit), True
                    continue
                decision = algorithm.decide(state, rates, cost, times, force=force)
                if not is_fresh and (decision.write is None or decision.wants_fresh):
                    # The remembered item may have been reset or refunded meanwhile.
                    state, is_fresh = self._read(limit), True
                    continue
                if decision.write is None:
                    return Counted(decision.status, state)
                if decision.write.replaces and not races and _lock_item(memory, limit.item, held):
                    # Another thread of this process may just have replaced it.
                    newer = memory.states.get(limit.item)
                    if newer is not None and newer is not state:
                        state, is_fresh, races = newer, False, races + 1
                        continue
                try:
                    attributes = self._write(limit.item, decision.write)
                except ConditionFailed as failed:
                    state, is_fresh, races = self._remember(limit, failed.old), True, races + 1
                    if races > _MAX_RACES:
                        clock.sleep(random.uniform(0, _LONGEST_PAUSE))
                    continue
                state = self._remember(limit, attributes)
                if not decision.status.allowed:
                    return Counted(decision.status, state)
                left = algorithm.look(state, rates, 0, times)
                return Counted(left._replace(allowed=True, retry_after=0.0), state)

    def _without_store(
        self,
        limit: ResolvedLimit,
        cost: int,
        exc: StoreUnavailable,
        on_unavailable: str | None,
        *,
        count: bool = True,
    ) -> RateLimitStatus:
        chosen = on_unavailable or self._settings.on_unavailable
        if isinstance(exc, ThrottlingError) and on_unavailable != "deny":
            # Other clients can throttle a table: that must not switch the limits off.
            chosen = self._settings.on_throttled
        decided_without_store[self.using, chosen] += 1
        # The breaker logs once that it opened; a refused call is not worth a line each.
        level = logging.DEBUG if isinstance(exc, CircuitBreakerOpenError) else logging.WARNING
        logger.log(level, "A limit was decided without DynamoDB (%s): %s", chosen, exc)
        if chosen == "local":
            return self._memory.local.acquire(name_of(limit), limit.rates, cost, count=count)
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

    def _resolve(self, resource: str, key: str, rate: Any) -> ResolvedLimit | None:
        config = self._config(resource) if rate is None else self._ad_hoc(resource, key, rate)
        if config.rates is None:
            return None
        algorithm = algorithm_of(config)
        item = self._item_key(resource, key, algorithm.sort_key(config.rates))
        return ResolvedLimit(resource, key, config.rates, algorithm, config, item)

    def _read(self, limit: ResolvedLimit) -> Any:
        return self._remember(limit, self._get(limit.item, consistent=True))

    def _remember(self, limit: ResolvedLimit, item: RawItem | None) -> Any:
        if item is None:
            self._memory.states.drop(limit.item)
            return None
        state = limit.algorithm.read(item, len(limit.rates))
        self._memory.states.put(limit.item, state)
        return state

    def _write(self, key: ItemKey, write: Write) -> RawItem:
        table = self._table
        kwargs: dict[str, Any] = {
            "TableName": table.table_name,
            "Key": key.raw(),
            "UpdateExpression": write.update,
            "ConditionExpression": write.condition,
            "ExpressionAttributeValues": write.values,
            "ReturnValues": "ALL_NEW",
            "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
        }
        if "#ttl" in write.update:
            kwargs["ExpressionAttributeNames"] = {"#ttl": "TTL"}
        attributes: RawItem = self._call(table, "UpdateItem", kwargs)["Attributes"]
        return attributes

    def _send_refused(self, resource: str, status: Any, priority: str | None = None) -> None:
        rate_limited.send_robust(
            type(self), using=self.using, resource=resource, status=status, priority=priority
        )

    def _item_key(self, resource: str, key: str, sk: str, shard: int = 0) -> ItemKey:
        return keys.rate_window(resource, key, sk, shard=shard)

    def _times(self) -> Times:
        return self._server_clock.times()

    @property
    def _server_clock(self) -> ServerClock:
        return get_connection(self.using).server_clock

    def _refund(self, limit: ResolvedLimit, cost: int) -> bool:
        self._memory.refusals.forget(name_of(limit))
        state = None if _is_uncertain(self._times()) else self._memory.states.get(limit.item)
        state = state or self._read(limit)
        while write := limit.algorithm.refund(state, limit.rates, cost, self._times()):
            try:
                attributes = self._write(limit.item, write)
            except ConditionFailed as failed:
                state = self._remember(limit, failed.old)
            else:
                self._remember(limit, attributes)
                return True
        return False

    def _reset(self, pk: str) -> None:
        table = self._table
        found = self._call(
            table,
            "Query",
            {
                "TableName": table.table_name,
                "KeyConditionExpression": "PK = :pk",
                "ExpressionAttributeValues": {":pk": {"S": pk}},
                "ProjectionExpression": "PK, SK",
                "ConsistentRead": True,
            },
        )["Items"]
        try:
            _, error = batch_write(
                table.connection,
                table.table_name,
                [{"DeleteRequest": {"Key": each}} for each in found],
            )
            if error is not None:
                raise error
        finally:
            # Without an answer the items may be deleted all the same.
            self._memory.forget(pk)


def _is_uncertain(times: Times) -> bool:
    """Return whether the time is known no better than by the local clock."""
    return 0 < 2 * clock.skew() <= times.high - times.low


def _lock_item(memory: RateMemory, item: ItemKey, held: contextlib.ExitStack) -> bool:
    lock = memory.lock_of(item)
    if not lock.acquire(timeout=_LONGEST_PAUSE * 10):
        return False
    held.callback(lock.release)
    return True


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


def name_of(limit: ResolvedLimit) -> tuple[Any, ...]:
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
