"""A model of the item of a limit, and of processes that count in it."""

from __future__ import annotations

from hypothesis import strategies as st

from dynamo_stores.calls.server_time import Times

SKEWS = st.lists(st.tuples(st.floats(0, 4), st.floats(0, 4)), min_size=1, max_size=3)
REQUESTS = st.lists(
    st.tuples(st.floats(0, 9), st.integers(0, 2), st.integers(1, 3)), min_size=1, max_size=150
)


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
        raise AssertionError("One caller at a time has no races.")


def most_in_any(window, found):
    return max(
        (sum(cost for at, cost in found if start <= at < start + window) for start, _ in found),
        default=0,
    )
