"""What a simulation's result means: what breaks first, and what to do."""

from __future__ import annotations

import math

from .simulation import KINDS, Break, Result, Table
from .units import PARTITION, Units


def verdict_on(result: Result, table: Table) -> list[str]:
    """Return the verdict as sentences."""
    last = result.minutes[-1]
    if result.first is None:
        hottest = max(minute.hottest for minute in result.minutes)
        return [
            "Nothing is throttled.",
            f"The hottest partition is asked for {hottest:.0%} of what it carries.",
        ]
    throttled = sum(last.throttled.values())
    share = throttled / last.offered
    if share < 0.00005:
        rest = "In the last minute nothing is throttled."
    else:
        cause = max(last.throttled, key=lambda each: last.throttled[each])
        rest = f"In the last minute {share:.2%} of the requests is throttled, most for the {cause}."
    return [_what_broke(result.first), *_what_to_do(result.first, result, table), rest]


def _what_broke(broken: Break) -> str:
    subject = {
        "key": "one key",
        "table": f"the {'quota of the ' if broken.limit == 'quota' else ''}table",
        "partition": "one partition",
    }[broken.cause]
    kind = KINDS.index(broken.kind)
    return (
        f"First to break, after {broken.second:,} seconds: {subject}, which is asked for "
        f"{broken.asked[kind]:,.0f} {broken.kind} units a second and carries "
        f"{broken.carried[kind]:,.0f}."
    )


def _what_to_do(broken: Break, result: Result, table: Table) -> list[str]:
    kind = KINDS.index(broken.kind)
    if broken.cause == "key":
        items = math.ceil(round(result.busiest[kind] / PARTITION[kind], 3))
        if broken.kind == "read":
            return [f"Raise LOCAL_TIMEOUT, or read {items:,} copies under keys of their own."]
        return [f"Spread the key over {items:,} items, as SHARDS of a limit does."]
    if broken.cause == "partition":
        return [f"DynamoDB splits it after {table.heat:,} seconds; let the traffic grow slowly."]
    if table.provisioned:
        return [f"Provision {_above(result.peak, table.capacity)}."]
    found = []
    if wanted := _above(result.peak, table.capacity):
        found.append(
            f"Raise the warm throughput to {wanted} before, or let the traffic grow more slowly."
        )
    if wanted := _above(result.peak, Units(table.quota, table.quota)):
        found.append(f"Ask AWS for a quota of {wanted}, or use several tables.")
    return found


def _above(asked: Units, limit: Units) -> str:
    """Return those of ``asked`` that are above the limit, in words."""
    return " and ".join(
        f"{math.ceil(round(asked[kind], 3)):,} {KINDS[kind]} units"
        for kind in (0, 1)
        if asked[kind] > limit[kind]
    )
