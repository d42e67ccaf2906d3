"""What the same load would cost on a managed Redis, with nodes and serverless. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal

from .estimate import number
from .load import GB, Load
from .prices import MILLION, Prices, RedisNode, RedisServerless

# The share of a node's memory for data; ElastiCache advises to reserve a quarter.
# https://docs.aws.amazon.com/AmazonElastiCache/latest/dg/redis-memory-management.html
USABLE = Decimal("0.75")
_GIB = Decimal(2**30)


@dataclass(frozen=True)
class RedisCost:
    """The cost in a month of a Redis: ``name`` says which, ``arithmetic`` how it was computed."""

    name: str
    arithmetic: str
    amount: Decimal
    has_failover: bool


def on_redis(load: Load, prices: Prices) -> tuple[RedisCost, ...]:
    """
    Return what each engine costs: serverless, one node, and two nodes with failover; nothing where
    the file has no such prices. A replica in another region is not counted.

    One unit is one command, of as many ECPU as an item has KB, at least one.
    """
    found = [_serverless(load, prices, each) for each in prices.redis_serverless]
    for engine in dict.fromkeys(each.engine for each in prices.redis_nodes):
        nodes = [each for each in prices.redis_nodes if each.engine == engine]
        found += [_nodes(load, prices, nodes, count) for count in (1, 2)]
    return tuple(sorted(found, key=lambda each: each.amount))


def _serverless(load: Load, prices: Prices, serverless: RedisServerless) -> RedisCost:
    gb = max(_data(load) / GB, serverless.least_gb)
    commands = (load.units("read") + load.units("write")) * prices.days_per_month
    each = _ecpu(load)
    amount = gb * prices.hours_per_month * serverless.gb_hour
    amount += commands * each / MILLION * serverless.ecpu
    return RedisCost(
        f"{serverless.engine}, serverless",
        f"{number(gb)} GB × {number(prices.hours_per_month)} h × {prices.money(serverless.gb_hour)}"
        f" + {number(commands)} commands × {number(each)} ECPU / 1,000,000 × "
        f"{prices.money(serverless.ecpu)}",
        amount,
        has_failover=True,
    )


def _nodes(load: Load, prices: Prices, nodes: list[RedisNode], count: int) -> RedisCost:
    """The cheapest type, as many shards of it as the data needs."""
    gib = _data(load) / _GIB
    choices = []
    for node in nodes:
        shards = max(1, math.ceil(gib / (node.gib * USABLE)))
        amount = shards * count * node.hour * prices.hours_per_month
        choices.append((amount, shards, node))
    amount, shards, node = min(choices, key=lambda each: each[:2])
    number_of = shards * count
    plural = "node" if number_of == 1 else "nodes"
    return RedisCost(
        f"{node.engine}, {number_of} {plural} of {node.type}",
        f"{number_of} × {number(prices.hours_per_month)} h × {prices.money(node.hour)}",
        amount,
        has_failover=count > 1,
    )


def _data(load: Load) -> Decimal:
    """The bytes of the tables; a Redis has no indexes."""
    return sum((table.own.size for table in load.tables), Decimal(0))


def _ecpu(load: Load) -> Decimal:
    if not load.items:
        return Decimal(1)
    return max(Decimal(1), _data(load) / load.items / 1024)
