"""What the algorithms share: the status they return, and the write they request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from ...calls.server_time import Times
from ...conf.rates import Rate
from ...models import RawItem

# Seconds added to a time, so that rounding of floats never makes it too early.
AFTER = 0.001
# Items live this many seconds longer, for processes whose clocks are behind.
GRACE = 60


class RateLimitStatus(NamedTuple):
    """
    A decision, and how much of the limit is left.

    ``limit`` and ``window`` (seconds) are those of the tightest rate, None without a limit;
    ``remaining`` is how many requests it would admit now. ``reset_at`` (seconds since the epoch) is
    when the whole limit is available again if no request is admitted before. ``retry_after`` is
    after how many seconds a refused request would be admitted, 0 for an admitted one.
    """

    allowed: bool
    limit: int | None = None
    remaining: int | None = None
    reset_at: float = 0.0
    retry_after: float = 0.0
    window: float | None = None


class Write(NamedTuple):
    """An UpdateItem: its expressions, and the values in them as DynamoDB writes them."""

    update: str
    condition: str
    values: dict[str, Any]


class Decision(NamedTuple):
    """
    Whether a request is admitted, and the write that must succeed for that to be valid; None for a
    refusal.

    A decision that ``wants_fresh`` must be based on an item that was just read.
    """

    allowed: bool
    write: Write | None
    make_status: Callable[[], Any]
    wants_fresh: bool = False

    @property
    def status(self) -> Any:
        """The status after the write if no other one comes before it, computed when it is read."""
        return self.make_status()


class Level(NamedTuple):
    """How much of one rate is left."""

    rate: Rate
    free: int
    reset_at: float
    retry_after: float


class Algorithm(Protocol):
    """Decides by the state of an item, and returns the write to make if the state is unchanged."""

    def sort_key(self, rates: Sequence[Rate]) -> str:
        """Return the sort key of the item that counts for these rates."""

    def capacity(self, rate: Rate) -> int:
        """Return the highest cost that can be admitted at once."""

    def read(self, item: RawItem, count: int) -> Any:
        """Return the state in ``item``, of ``count`` rates."""

    def decide(
        self, state: Any, rates: Sequence[Rate], cost: int, times: Times, *, force: bool = False
    ) -> Decision:
        """
        Decide on ``cost`` more requests; ``state`` is None without an item. With ``force`` they are
        counted without regard to the limit.
        """

    def look(self, state: Any, rates: Sequence[Rate], cost: int, times: Times) -> Any:
        """Return the status of a decision without counting."""

    def without(self, state: Any, rates: Sequence[Rate], cost: int) -> Any:
        """Return the state before ``cost`` was counted, by the write that led to ``state``."""

    def refund(self, state: Any, rates: Sequence[Rate], cost: int, times: Times) -> Write | None:
        """Return the write that takes ``cost`` back; None if there is nothing to take back."""


def tightest(levels: Sequence[Level], cost: int) -> RateLimitStatus:
    """Return the status of the rate that refuses longest, else of the one with least left."""
    refusing = [level for level in levels if level.free < cost]
    if len(levels) == 1:
        (level,) = levels
    elif refusing:
        level = max(refusing, key=lambda each: each.retry_after)
    else:
        level = min(levels, key=lambda each: (each.free, -each.rate.window))
    return RateLimitStatus(
        allowed=not refusing,
        limit=level.rate.limit,
        remaining=max(0, level.free),
        reset_at=level.reset_at,
        retry_after=level.retry_after if refusing else 0.0,
        window=level.rate.window,
    )


def refuses(levels: Iterable[Level], cost: int) -> bool:
    """Return whether one of the rates has less than ``cost`` left."""
    return any(level.free < cost for level in levels)


def as_admitted(status: Any) -> Any:
    """Return a status for a request that was counted, if need be without regard to the limit."""
    return status if status.allowed else status._replace(allowed=True, retry_after=0.0)


def is_broken(at: float, window: float, times: Times) -> bool:
    """
    Return whether the time ``at`` of an item is of a broken clock: ahead by more than ``window``
    seconds, and by more than clocks that are right can differ.
    """
    return at > times.high + max(window, GRACE)


def whole(item: Mapping[str, Any], name: str) -> int:
    """Return the whole number in an attribute, 0 without one."""
    return int(item.get(name, {}).get("N", "0"))


def number(value: int) -> dict[str, str]:
    """Return a whole number as DynamoDB writes it."""
    return {"N": str(value)}


def name_of(window: float) -> str:
    """Return a window, in seconds, as it is written in a sort key."""
    return f"{window:g}"
