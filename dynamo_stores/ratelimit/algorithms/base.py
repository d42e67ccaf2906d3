"""What the algorithms have in common: the status they answer with, the write they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ...calls.server_time import Times
from ...conf.rates import Rate
from ...models import RawItem

# Seconds after which a moment has certainly passed, as floats go.
AFTER = 0.001


class RateLimitStatus(NamedTuple):
    """
    What was decided, and how much is left.

    ``limit`` and ``window`` (seconds) are those of the tightest rate, None where there is none;
    ``remaining`` is what it would admit now. ``reset_at`` (seconds since the epoch) is when all
    of it is free again if nothing is admitted meanwhile, ``retry_after`` (seconds) after how long
    a refused request would be admitted, 0 for an allowed one.
    """

    allowed: bool
    limit: int | None = None
    remaining: int | None = None
    reset_at: float = 0.0
    retry_after: float = 0.0
    window: float | None = None


class Write(NamedTuple):
    """
    An UpdateItem: its expressions, and the values in them as DynamoDB writes them.

    One that ``replaces`` what it saw fails if anybody else was faster; others only add.
    """

    update: str
    condition: str
    values: dict[str, Any]
    replaces: bool = False


class Decision(NamedTuple):
    """
    A status, and what must be written for it to hold; nothing for a plain refusal.

    One that ``wants_fresh`` must be taken by an item that was just read.
    """

    status: Any
    write: Write | None
    wants_fresh: bool = False


class Level(NamedTuple):
    """How full one rate is."""

    rate: Rate
    free: int
    reset_at: float
    retry_after: float


class Algorithm(Protocol):
    """Decides from an item as it was, and says how it may be changed if it still is like that."""

    def sort_key(self, rates: Sequence[Rate]) -> str:
        """Return the sort key of the item that counts for these rates."""

    def capacity(self, rate: Rate) -> int:
        """Return the most that may be asked for at once."""

    def read(self, item: RawItem, count: int) -> Any:
        """Return the state in ``item``, of ``count`` rates."""

    def decide(
        self, state: Any, rates: Sequence[Rate], cost: int, times: Times, *, force: bool = False
    ) -> Decision:
        """
        Decide on ``cost`` more; ``state`` None: there is no item. With ``force`` it is counted
        whatever the limit.
        """

    def look(self, state: Any, rates: Sequence[Rate], cost: int, times: Times) -> Any:
        """Return the status that would be decided, with what is left without counting it."""

    def refund(self, state: Any, rates: Sequence[Rate], cost: int, times: Times) -> Write | None:
        """Return the write that gives ``cost`` back; None where nothing can be."""


def tightest(levels: Sequence[Level], cost: int) -> RateLimitStatus:
    """Return the status of the one that refuses longest, else of the one with least left."""
    refusing = [level for level in levels if level.free < cost]
    level = (
        max(refusing, key=lambda each: each.retry_after)
        if refusing
        else min(levels, key=lambda each: (each.free, -each.rate.window))
    )
    return RateLimitStatus(
        allowed=not refusing,
        limit=level.rate.limit,
        remaining=max(0, level.free),
        reset_at=level.reset_at,
        retry_after=level.retry_after if refusing else 0.0,
        window=level.rate.window,
    )


def whole(item: Mapping[str, Any], name: str) -> int:
    """Return the whole number in an attribute; 0 for none."""
    return int(item.get(name, {}).get("N", "0"))


def number(value: int) -> dict[str, str]:
    """Return a whole number as DynamoDB writes it."""
    return {"N": str(value)}


def name_of(window: float) -> str:
    """Return a window as it stands in a sort key."""
    return f"{window:g}"
