"""A model of the item of a limit, and what DynamoDB does with the writes of the algorithms."""

from __future__ import annotations

import re

from dynamo_stores.calls.server_time import Times
from dynamo_stores.conf.rates import Rate

_PARTS = re.compile(r"(SET|REMOVE) (.*?)(?= REMOVE |$)")
_NO_ITEM = "attribute_not_exists(PK)"


class Item:
    """Checks the condition of a write, sets what is set and removes what is removed."""

    def __init__(self) -> None:
        self.attributes: dict | None = None

    def write(self, write) -> bool:
        old = dict(self.attributes or {})
        if not all(_holds(each, old, write.values) for each in write.condition.split(" AND ")):
            return False
        new = dict(old)
        for action, changes in _PARTS.findall(write.update):
            for change in re.split(r", (?![^()]*\))", changes):
                if action == "REMOVE":
                    assert change not in write.update.partition(" REMOVE ")[0]
                    new.pop(change, None)
                    continue
                name, _, value = change.partition(" = ")
                terms = re.split(r" ([+-]) ", value)
                new[name] = _value(terms[0], old, write.values)
                if len(terms) == 3:
                    sign = 1 if terms[1] == "+" else -1
                    other = _value(terms[2], old, write.values)
                    new[name] = {"N": str(int(new[name]["N"]) + sign * int(other["N"]))}
        self.attributes = new
        return True


def _value(term, old, values):
    if term.startswith("if_not_exists("):
        name, _, default = term[len("if_not_exists(") : -1].partition(", ")
        return old.get(name, values[default])
    return values[term] if term.startswith(":") else old[term]


def _holds(condition, old, values) -> bool:
    if " OR " in condition:
        return any(_holds(each, old, values) for each in condition[1:-1].split(" OR "))
    if condition.startswith("attribute_not_exists("):
        return not old if condition == _NO_ITEM else condition[21:-1] not in old
    name, operator, value = condition.split(" ")
    if name not in old:
        return False
    held, given = int(old[name]["N"]), int(values[value]["N"])
    return {"=": held == given, "<=": held <= given, ">=": held >= given, "<": held < given}[
        operator
    ]


# The begin of a minute, an hour and a day.
START = 1_800_057_600
TEN = Rate(10, 10)


def at(seconds, low=0.0, high=0.0):
    """Return the time ``seconds`` after the start, on a clock that is exact unless told."""
    return Times(START + seconds - low, START + seconds + high)


class Limit:
    """A limit and its item; each request reads the item before."""

    def __init__(self, algorithm, *rates):
        self.algorithm, self.rates, self.item = algorithm, rates or (TEN,), Item()

    @property
    def state(self):
        found = self.item.attributes
        return None if found is None else self.algorithm.read(found, len(self.rates))

    def decide(self, seconds, cost=1, **options):
        return self.algorithm.decide(self.state, self.rates, cost, at(seconds), **options)

    def ask(self, seconds, cost=1, **options):
        decision = self.decide(seconds, cost, **options)
        assert decision.write is None or self.item.write(decision.write)
        return decision.status

    def look(self, seconds, cost=1):
        return self.algorithm.look(self.state, self.rates, cost, at(seconds))

    def refund(self, seconds, cost=1):
        return self.algorithm.refund(self.state, self.rates, cost, at(seconds))

    @property
    def stored(self):
        return {
            name: [int(each["N"]) for each in value["L"]] if "L" in value else int(value["N"])
            for name, value in self.item.attributes.items()
        }
