"""How a request is settled: by the item as it is remembered, until it is still so when written."""

from __future__ import annotations

import contextlib
import logging
import random
from collections import Counter
from typing import Any, NamedTuple

from .. import clock, keys
from ..calls.batches import batch_write
from ..calls.connection import get_connection
from ..calls.server_time import ServerClock, Times
from ..conf.rates import Rate, ResourceConfig
from ..exceptions import CircuitBreakerOpenError, StoreUnavailable
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

# After so many lost races the next try waits a little, up to this many seconds.
_PATIENCE, _LONGEST_PAUSE = 3, 0.05

# How often a limit was decided without the table, by alias and by what was decided.
decided_without_store: Counter[tuple[str, str]] = Counter()


class ResolvedLimit(NamedTuple):
    """What one request is counted by."""

    resource: str
    key: str
    rates: tuple[Rate, ...]
    algorithm: Algorithm
    config: ResourceConfig
    item: ItemKey
    priority: str | None = None


class Counted(NamedTuple):
    """What was decided, and the state that it was counted in."""

    status: RateLimitStatus
    state: Any


class RateCounter(LimitsStore):
    """Counts requests in items, by the algorithm of their limit."""

    def _acquire(self, limited: ResolvedLimit, cost: int, on_unavailable: str | None) -> Any:
        refusals, name = self._memory.refusals, name_of(limited)
        known = refusals.find(name, cost) or self._hand_out(limited, cost)
        if known is not None:
            return known
        try:
            with self._in_time():
                status = self._settle_block(limited, cost)
        except StoreUnavailable as exc:
            refusals.end_probe(name)
            return self._without_store(limited, cost, exc, on_unavailable)
        refusals.remember(name, cost, status)
        return status

    def _hand_out(self, limited: ResolvedLimit, cost: int) -> RateLimitStatus | None:
        algorithm = limited.algorithm
        if limited.config.block == 1 or not isinstance(algorithm, Windows):
            return None
        times = self._times()

        def is_live(state: Any) -> bool:
            return algorithm.is_live(state, limited.rates, times)

        return self._memory.blocks.hand_out(name_of(limited), cost, is_live)

    def _settle_block(self, limited: ResolvedLimit, cost: int) -> RateLimitStatus:
        if limited.config.block == 1:
            return self._settle(limited, cost).status
        blocks, name = self._memory.blocks, name_of(limited)
        size = blocks.size_for(name, cost, limited.config.block)
        settled = self._settle(limited, size)
        if not settled.status.allowed and size > cost:
            size, settled = cost, self._settle(limited, cost)
        if settled.status.allowed:
            blocks.put(name, size - cost, settled.state, settled.status)
        return settled.status

    def _settle(self, limited: ResolvedLimit, cost: int, *, force: bool = False) -> Counted:
        """Decide by the item as this process knows it, until it is still so when it is written."""
        memory, algorithm, rates = self._memory, limited.algorithm, limited.rates
        state, is_fresh, races = memory.states.get(limited.item), False, 0
        if state is None and not self._server_clock.is_learned:
            # The first call of a process: its answer tells the time.
            state, is_fresh = self._read(limited), True
        with contextlib.ExitStack() as held:
            while True:
                times = self._times()
                decision = algorithm.decide(state, rates, cost, times, force=force)
                if not is_fresh and (decision.write is None or decision.wants_fresh):
                    # What is remembered may have been reset or refunded meanwhile.
                    state, is_fresh = self._read(limited), True
                    continue
                if decision.write is None:
                    return Counted(decision.status, state)
                if decision.write.replaces and not races and _takes(memory, limited.item, held):
                    # Another thread of this process may just have done it.
                    newer = memory.states.get(limited.item)
                    if newer is not None and newer is not state:
                        state, is_fresh, races = newer, False, races + 1
                        continue
                try:
                    attributes = self._write(limited.item, decision.write)
                except ConditionFailed as refused:
                    state, is_fresh, races = self._remember(limited, refused.old), True, races + 1
                    if races > _PATIENCE:
                        clock.sleep(random.uniform(0, _LONGEST_PAUSE))
                    continue
                state = self._remember(limited, attributes)
                if not decision.status.allowed:
                    return Counted(decision.status, state)
                left = algorithm.look(state, rates, 0, times)
                return Counted(left._replace(allowed=True, retry_after=0.0), state)

    def _without_store(
        self,
        limited: ResolvedLimit,
        cost: int,
        exc: StoreUnavailable,
        on_unavailable: str | None,
    ) -> RateLimitStatus:
        chosen = on_unavailable or self._settings.on_unavailable
        decided_without_store[self.using, chosen] += 1
        # The breaker has said that it opened; what it refuses is not worth a line each.
        level = logging.DEBUG if isinstance(exc, CircuitBreakerOpenError) else logging.WARNING
        logger.log(level, "A limit was decided by ON_UNAVAILABLE=%r: %s", chosen, exc)
        if chosen == "local":
            return self._memory.local.acquire(name_of(limited), limited.rates, cost)
        rate = limited.rates[0]
        allowed = chosen == "allow"
        return RateLimitStatus(
            allowed=allowed,
            limit=rate.limit,
            remaining=rate.limit if allowed else 0,
            reset_at=clock.now(),
            retry_after=0.0 if allowed else max(1.0, getattr(exc, "retry_after", 0.0)),
            window=rate.window,
        )

    def _limited(self, resource: str, key: str, rate: Any) -> ResolvedLimit | None:
        config = self._config(resource) if rate is None else self._ad_hoc(resource, key, rate)
        if config.rates is None:
            return None
        algorithm = algorithm_of(config)
        item = self._item_key(resource, key, algorithm.sort_key(config.rates))
        return ResolvedLimit(resource, key, config.rates, algorithm, config, item)

    def _read(self, limited: ResolvedLimit) -> Any:
        return self._remember(limited, self._get(limited.item, consistent=True))

    def _remember(self, limited: ResolvedLimit, item: RawItem | None) -> Any:
        if item is None:
            self._memory.states.drop(limited.item)
            return None
        state = limited.algorithm.read(item, len(limited.rates))
        self._memory.states.put(limited.item, state)
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

    def _tell(self, resource: str, status: Any, priority: str | None = None) -> None:
        rate_limited.send_robust(
            type(self), using=self.using, resource=resource, status=status, priority=priority
        )

    def _item_key(self, resource: str, key: str, sk: str, shard: int = 0) -> ItemKey:
        return keys.rate_window(resource, key, sk, shard=shard)

    def _times(self) -> Times:
        return self._server_clock.times()

    @property
    def _server_clock(self) -> ServerClock:
        server: ServerClock = get_connection(self.using).client.server_clock
        return server

    def _refund(self, limited: ResolvedLimit, cost: int) -> bool:
        self._memory.refusals.forget(name_of(limited))
        with self._in_time():
            state = self._memory.states.get(limited.item) or self._read(limited)
            while write := limited.algorithm.refund(state, limited.rates, cost, self._times()):
                try:
                    attributes = self._write(limited.item, write)
                except ConditionFailed as refused:
                    state = self._remember(limited, refused.old)
                else:
                    self._remember(limited, attributes)
                    return True
        return False

    def _forget(self, limited: ResolvedLimit) -> None:
        self._memory.refusals.forget(name_of(limited))
        self._memory.states.drop(limited.item)

    def _reset(self, pk: str) -> None:
        table = self._table
        with self._in_time():
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
            _, why = batch_write(
                table.connection,
                table.table_name,
                [{"DeleteRequest": {"Key": each}} for each in found],
            )
        if why is not None:
            raise why
        for each in found:
            self._memory.states.drop(ItemKey(each["PK"]["S"], each["SK"]["S"]))


def _takes(memory: RateMemory, item: ItemKey, held: contextlib.ExitStack) -> bool:
    lock = memory.lock_of(item)
    if not lock.acquire(timeout=_LONGEST_PAUSE * 10):
        return False
    held.callback(lock.release)
    return True


def check_cost(limited: ResolvedLimit, cost: int) -> None:
    if isinstance(cost, bool) or not isinstance(cost, int) or cost < 1:
        raise ValueError(f"cost is {cost!r}; expected a whole number, 1 or more.")
    for rate in limited.rates:
        capacity = limited.algorithm.capacity(rate) // limited.config.shards
        if cost > capacity and rate.limit:
            raise ValueError(
                f"A cost of {cost} is over what the limit {rate} admits at once ({capacity}): it "
                "would never be allowed."
            )


def name_of(limited: ResolvedLimit) -> tuple[Any, ...]:
    return limited.item, limited.rates, limited.priority


def shards_of(limited: ResolvedLimit) -> list[ResolvedLimit]:
    """Return the parts of the limit, each an item of its own, in a random order."""
    count = limited.config.shards
    if count == 1:
        return [limited]
    found = []
    for number in range(count):
        rates = tuple(
            rate._replace(limit=rate.limit // count + (number < rate.limit % count))
            for rate in limited.rates
        )
        pk, sk, _ = limited.item
        item = ItemKey(f"{pk}+#{number}" if number else pk, sk)
        found.append(limited._replace(rates=rates, item=item))
    random.shuffle(found)
    return found
