"""
The tree of shards: which of them may be read now, and how workers share them.

A shard is split when its table grows, and ends by itself after some hours. Changes of one key
continue in its child, so a child is read only after its parent was read to the end. A stream that
is enabled again is another stream, which is read after the older one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

# Seconds for which DynamoDB keeps records: a shard that is open now is not trimmed before.
RETENTION = 86_400.0


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
    """
    What is stored about a shard: its parent, whether it was read to its end, its owner, and when it
    was last seen open, in seconds since the epoch.
    """

    parent: ShardId | None
    is_finished: bool
    owner: str = ""
    opened: float = 0.0


def readable(listed: Iterable[Shard], known: Mapping[ShardId, Known]) -> tuple[ShardId, ...]:
    """
    Return the shards that may be read now, in their order. ``known`` has every shard that was ever
    seen; those that are not listed any more, and not finished, are read as well: only their reader
    finds out that they are gone.
    """
    shards = {shard.id: shard for shard in listed}
    parents = {shard.id: shard.parent for shard in shards.values()}
    parents |= {found: each.parent for found, each in known.items()}
    finished = {found for found, each in known.items() if each.is_finished}
    todo = sorted((shards.keys() | known.keys()) - finished)
    # Streams are read one after the other.
    current = todo[0].label if todo else ""
    found = []
    for each in todo:
        parent = parents[each]
        waits = parent is not None and parent not in finished and parent in parents
        if each.label == current and not waits:
            found.append(each)
    return tuple(found)


def hidden(labels: Collection[str], known: Mapping[ShardId, Known], now: float) -> list[str]:
    """
    Return the streams with unfinished shards that are not among ``labels``, those that are listed,
    and cannot be trimmed: one of their shards was open less than 24 hours before ``now``.
    """
    opened: dict[str, float] = {}
    for shard, each in known.items():
        opened[shard.label] = max(each.opened, opened.get(shard.label, 0.0))
    unfinished = {shard.label for shard, each in known.items() if not each.is_finished}
    return sorted(label for label in unfinished - set(labels) if now - opened[label] < RETENTION)


def fair_share(count: int, workers: Collection[str], me: str) -> int:
    """Return how many of ``count`` shards the worker ``me`` reads, one of ``workers``."""
    ranks = sorted({*workers, me})
    each, more = divmod(count, len(ranks))
    return each + (ranks.index(me) < more)
