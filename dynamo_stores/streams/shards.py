"""
The tree of shards: which of them may be read now, and how workers share them.

A shard is split when its table grows, and ends by itself after some hours. Changes of one key
continue in its child, so a child is read only after its parent was read to the end. A stream that
is enabled again is another stream, which is read after the older one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple


class ShardId(NamedTuple):
    """A shard of a stream. ``label`` is the stream's, the time at which it was enabled."""

    label: str
    name: str


class Shard(NamedTuple):
    """A shard: its parent in the same stream (None without one), and whether it was closed."""

    id: ShardId
    parent: ShardId | None = None
    is_closed: bool = False


class Known(NamedTuple):
    """What is stored about a shard: its parent, whether it was read to its end, its owner."""

    parent: ShardId | None
    is_finished: bool
    owner: str = ""


class Plan(NamedTuple):
    """
    The shards that may be read now, in their order. The ``orphans`` among them were never read, and
    neither were their parents, which are trimmed.
    """

    readable: tuple[ShardId, ...]
    orphans: frozenset[ShardId]


def plan(listed: Iterable[Shard], known: Mapping[ShardId, Known]) -> Plan:
    """
    Return what may be read. ``known`` has every shard that was ever read; those that are not listed
    any more, and not finished, are read as well: only their reader finds out that they are gone.
    """
    shards = {shard.id: shard for shard in listed}
    parents = {shard.id: shard.parent for shard in shards.values()}
    parents |= {found: each.parent for found, each in known.items()}
    finished = {found for found, each in known.items() if each.is_finished}
    todo = sorted((shards.keys() | known.keys()) - finished)
    # Streams are read one after the other.
    current = todo[0].label if todo else ""
    readable = []
    for each in todo:
        parent = parents[each]
        waits = parent is not None and parent not in finished and parent in parents
        if each.label == current and not waits:
            readable.append(each)
    orphans = {
        shard.id
        for shard in shards.values()
        if shard.id not in known and shard.parent is not None and shard.parent not in parents
    }
    return Plan(tuple(readable), frozenset(orphans))


def fair_share(count: int, workers: Collection[str], me: str) -> int:
    """Return how many of ``count`` shards the worker ``me`` reads, one of ``workers``."""
    ranks = sorted({*workers, me})
    each, more = divmod(count, len(ranks))
    return each + (ranks.index(me) < more)
