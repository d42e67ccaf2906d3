"""What a key may hold after operations of which some had no known outcome. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

MISSING = "<missing>"


class Register:
    """
    A key that one client writes. A write without a known outcome may be carried out at any moment
    within ``late`` seconds from its beginning. So may the first attempt of a write whose second one
    was confirmed: such a write is ``slow``. A read may be ``lag`` seconds behind.
    """

    def __init__(self, late: float, lag: float = 0.0) -> None:
        self._late = late
        self._lag = lag
        self._value: set[object] = {MISSING}
        # What may have become the value since: a value, and the end of the time for its write.
        self._since: list[tuple[object, float]] = []
        # For the report of a violation.
        self.history: deque[str] = deque(maxlen=20)

    def begin(self, value: object, now: float) -> tuple[object, float]:
        """Begin the write of ``value``; it has no known outcome until it is confirmed."""
        write = (value, now + self._late)
        self._since.append(write)
        self._note(now, "write", value)
        return write

    def confirm(self, write: tuple[object, float], *, slow: bool = False) -> None:
        """The write was carried out."""
        value, until = write
        began = until - self._late
        self._since = [
            each for each in self._since if each[1] > began and (slow or each is not write)
        ]
        self._value = {value}
        self._note(began, "confirmed, slow" if slow else "confirmed", value)

    def read(self, value: object, asked: float) -> bool:
        """``value`` was read, by a request of the moment ``asked``; return whether it may be."""
        self._note(asked, "read", value)
        if value not in self.possible():
            return False
        self._value = {value}
        # Writes whose time is not over may still come.
        self._since = [each for each in self._since if each[1] > asked - self._lag]
        return True

    def may_be(self, value: object) -> None:
        """The key may hold ``value``, and not only what it may hold already."""
        self._value.add(value)

    def possible(self) -> set[object]:
        """Return the values that may be read."""
        return self._value | {value for value, _ in self._since}

    def _note(self, moment: float, event: str, value: object) -> None:
        self.history.append(f"{moment:.2f} {event} {str(value)[-400:].strip('.')[-20:]}")


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
