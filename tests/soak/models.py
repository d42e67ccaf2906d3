"""What a key may hold after operations of which some had no known outcome. Pure."""

from __future__ import annotations

from collections.abc import Iterable

MISSING = "<missing>"


class Register:
    """
    A key that one client writes. A write without a known outcome may have been carried out, or may
    be carried out for ``late`` more seconds. So may the first attempt of a write whose second one
    was confirmed: such a write is ``slow``.
    """

    def __init__(self, late: float) -> None:
        self._late = late
        self._may: set[object] = {MISSING}
        self._may_come: list[tuple[object, float]] = []

    def begin(self, value: object, now: float) -> tuple[object, float]:
        """Begin the write of ``value``; it has no known outcome until it is confirmed."""
        write = (value, now + self._late)
        self._may.add(value)
        self._may_come.append(write)
        return write

    def confirm(self, write: tuple[object, float], *, slow: bool = False) -> None:
        """The write was carried out."""
        self._may = {write[0]}
        if not slow:
            self._may_come.remove(write)

    def read(self, value: object, now: float) -> bool:
        """``value`` was read; return whether it may have been."""
        self._may_come = [each for each in self._may_come if each[1] > now]
        if value not in self.possible(now):
            return False
        self._may = {value}
        return True

    def may_be(self, value: object) -> None:
        """The key may hold ``value``, and not only what it may hold already."""
        self._may.add(value)

    def possible(self, now: float) -> set[object]:
        """Return the values that may be read."""
        return self._may | {value for value, until in self._may_come if until > now}


class Count:
    """
    A counter that one client increments. No confirmed increment is lost; each may be counted up to
    ``attempts`` times, because a request whose answer was lost is repeated.
    """

    def __init__(self, attempts: int) -> None:
        self._attempts = attempts
        self.low = self.high = 0

    def begin(self) -> None:
        """Begin an increment; it has no known outcome until it returns."""
        self.high += self._attempts

    def incremented(self, value: int) -> bool:
        """The increment returned ``value``; return whether it may have."""
        if not self.low < value <= self.high:
            return False
        self.low = value
        return True


def most_in_any(window: float, admitted: Iterable[tuple[float, float]]) -> int:
    """
    Return the largest number of requests that were certainly admitted within ``window`` seconds;
    each is the moment when it was asked and the moment of its answer.
    """
    pairs = list(admitted)
    return max(
        (
            sum(1 for asked, got in pairs if asked >= start and got < start + window)
            for start, _ in pairs
        ),
        default=0,
    )
