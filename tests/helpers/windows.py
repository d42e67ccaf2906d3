"""A model of the item of a limit, and of processes that count in it."""

from __future__ import annotations

from hypothesis import strategies as st

from dynamo_stores.calls.server_time import Times

SKEWS = st.lists(st.tuples(st.floats(0, 4), st.floats(0, 4)), min_size=1, max_size=3)
REQUESTS = st.lists(
    st.tuples(st.floats(0, 9), st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=150
)


class Caller:
    """A process: its own memory of the item, and a clock that is wrong within its bounds."""

    def __init__(self, algorithm, rates, item, low, high) -> None:
        self._algorithm, self._rates, self._item = algorithm, rates, item
        self._low, self._high = low, high
        self._state = None

    def ask(self, now: float, cost: int = 1):
        times = Times(now - self._low, now + self._high)
        for _ in range(3):
            decision = self._algorithm.decide(self._state, self._rates, cost, times)
            if decision.write is None:
                fresh = self._item.attributes
                state = None if fresh is None else self._algorithm.read(fresh, len(self._rates))
                if state == self._state:
                    return decision.status
                self._state = state
                continue
            done = self._item.write(decision.write)
            fresh = self._item.attributes
            self._state = None if fresh is None else self._algorithm.read(fresh, len(self._rates))
            if done:
                return decision.status
        raise AssertionError("One caller at a time has no races.")


def most_in_any(window, found):
    return max(
        (sum(cost for at, cost in found if start <= at < start + window) for start, _ in found),
        default=0,
    )
