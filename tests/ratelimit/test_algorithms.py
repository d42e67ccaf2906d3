"""The arithmetic of limits: no window admits more than its limit, however wrong clocks are."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from dynamo_stores.calls.server_time import Times
from dynamo_stores.conf.rates import Rate
from dynamo_stores.ratelimit.algorithms import Windows
from dynamo_stores.ratelimit.algorithms.gcra import Gcra
from dynamo_stores.ratelimit.algorithms.log import Log


class Item:
    """What DynamoDB does with a write: check the condition, set what is set."""

    def __init__(self) -> None:
        self.attributes: dict | None = None

    def write(self, write) -> bool:
        old = dict(self.attributes or {})
        if not all(self._holds(each, old, write.values) for each in write.condition.split(" AND ")):
            return False
        new = dict(old)
        _, _, changes = write.update.partition(" ")
        for change in changes.split(", "):
            name, _, value = change.partition(" = ")
            left, operator, right = [*value.split(" "), "", ""][:3]
            if operator:
                sign = 1 if operator == "+" else -1
                new[name] = {"N": str(int(old[left]["N"]) + sign * int(write.values[right]["N"]))}
            else:
                new[name] = write.values[left]
        self.attributes = new
        return True

    @staticmethod
    def _holds(condition, old, values) -> bool:
        if " OR " in condition:
            either = condition.strip("()").split(" OR ")
            return any(Item._holds(_closed(each), old, values) for each in either)
        if condition.startswith("attribute_not_exists"):
            name = condition.partition("(")[2].rstrip(")")
            return not old if name == "PK" else name not in old
        name, operator, value = condition.split(" ")
        if name not in old:
            return False
        held, given_ = int(old[name]["N"]), int(values[value]["N"])
        found = {"=": held == given_, "<=": held <= given_, ">=": held >= given_}
        return found.get(operator, held < given_)


def _closed(condition: str) -> str:
    return (
        condition + ")"
        if condition.startswith("attribute_not_exists(") and not (condition.endswith(")"))
        else condition
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
        raise AssertionError("One caller at a time has no race to lose.")


def callers(algorithm, rates, skews):
    item = Item()
    return [Caller(algorithm, rates, item, low, high) for low, high in skews]


SKEWS = st.lists(st.tuples(st.floats(0, 4), st.floats(0, 4)), min_size=1, max_size=3)
REQUESTS = st.lists(
    st.tuples(st.floats(0, 9), st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=150
)


def admitted(algorithm, rates, skews, requests):
    """Send the requests one after the other; return the admitted ones, with their true times."""
    asking = callers(algorithm, rates, skews)
    now, found = 1_800_000_000.0, []
    for pause, who, cost in requests:
        now += pause
        if cost <= min(algorithm.capacity(rate) for rate in rates):
            status = asking[who % len(asking)].ask(now, cost)
            if status.allowed:
                found.append((now, cost))
    return found


def most_in_any(window, found):
    return max(
        (sum(cost for at, cost in found if start <= at < start + window) for start, _ in found),
        default=0,
    )


@given(SKEWS, REQUESTS, st.integers(1, 9))
@settings(max_examples=300, deadline=None)
def test_a_sliding_window_is_never_exceeded(skews, requests, limit):
    """Three processes whose clocks are wrong, one after the other; several rates at once."""
    rates = (Rate(limit, 7), Rate(limit * 3, 60))
    found = admitted(Windows(), rates, skews, requests)
    for rate in rates:
        assert most_in_any(rate.window, found) <= rate.limit


@given(SKEWS, REQUESTS, st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_a_log_is_never_exceeded(skews, requests, limit):
    """The same for the algorithm that stores each request."""
    rates = (Rate(limit, 7), Rate(limit * 3, 60))
    found = admitted(Log(), rates, skews, requests)
    for rate in rates:
        assert most_in_any(rate.window, found) <= rate.limit


@given(REQUESTS, st.integers(1, 9), st.integers(1, 5))
@settings(max_examples=200, deadline=None)
def test_gcra_admits_the_limit_and_the_burst_at_most(requests, limit, burst):
    """In any window."""
    found = admitted(Gcra(burst), (Rate(limit, 7),), [(0, 0)], requests)
    assert most_in_any(7, found) <= limit + burst


@given(REQUESTS, st.integers(1, 9))
@settings(max_examples=200, deadline=None)
def test_waiting_out_retry_after_admits(requests, limit):
    """And for the exact algorithms a request before it is refused."""
    for algorithm in (Windows(), Windows(0), Gcra(limit), Log()):
        rate = Rate(limit, 7)
        (caller,) = callers(algorithm, (rate,), [(0, 0)])
        now = 1_800_000_000.0
        for pause, _, cost in requests:
            now += pause
            if cost > algorithm.capacity(rate):
                continue
            status = caller.ask(now, cost)
            if not status.allowed:
                assert not caller.ask(now + status.retry_after * 0.9 - 0.01, cost).allowed
                now += status.retry_after
                assert caller.ask(now, cost).allowed


@given(REQUESTS, st.integers(2, 9))
@settings(max_examples=100, deadline=None)
def test_remaining_is_what_is_admitted_at_once(requests, limit):
    """At one moment exactly so many more requests are admitted."""
    for algorithm in (Windows(), Windows(0), Gcra(limit), Log()):
        (caller,) = callers(algorithm, (Rate(limit, 7),), [(0, 0)])
        now = 1_800_000_000.0
        for pause, _, _ in requests[:20]:
            now += pause
            status = caller.ask(now)
        left = status.remaining
        for _ in range(left):
            assert caller.ask(now).allowed
        assert not caller.ask(now).allowed


@given(REQUESTS, st.integers(1, 5))
@settings(max_examples=100, deadline=None)
def test_half_the_demand_is_never_refused(requests, limit):
    """Evenly spread requests at half the limit all pass."""
    for algorithm in (Windows(), Windows(0), Gcra(), Log()):
        (caller,) = callers(algorithm, (Rate(limit * 2, 10),), [(0.1, 0.1)])
        now = 1_800_000_000.0 + requests[0][0]
        for _ in range(50):
            assert caller.ask(now).allowed
            now += 10 / limit


def test_a_refund_never_goes_below_zero():
    """Refunds of more than was counted leave zero."""
    for algorithm in (Windows(), Gcra(3), Log()):
        item = Item()
        rates, times = (Rate(3, 7),), Times(1_800_000_000.0, 1_800_000_000.0)
        item.write(algorithm.decide(None, rates, 2, times).write)
        for _ in range(2):
            write = algorithm.refund(algorithm.read(item.attributes, 1), rates, 5, times)
            if write is not None:
                assert item.write(write)
        state = algorithm.read(item.attributes, 1)
        assert algorithm.look(state, rates, 1, times).remaining == 3
