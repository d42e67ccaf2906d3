"""
The demand on a table: attempted units a second, served or throttled, summed over processes.

Clients that are throttled send less, so an average is too small: the busiest of the last seconds
counts. A throttled attempt is assumed to cost as much as the last served one of its operation.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
from collections import defaultdict, deque
from collections.abc import Mapping

from pynamodb.attributes import UnicodeAttribute

from .. import clock, keys
from ..calls.observer import Measurement
from ..concurrency.effects import run
from ..concurrency.per_process import PerProcess
from ..conf import DEFAULT_ALIAS
from ..item_access import Items
from ..models import ControlItem, IntegerAttribute, RawItem, integer_of, string_of


class DemandItem(ControlItem):
    """
    The demand of one process on a table, in JSON, and when it was published, by DynamoDB's time in
    ms.
    """

    at = IntegerAttribute(null=True, attr_name="a")
    units = UnicodeAttribute(null=True, attr_name="x")


# Seconds of which the busiest counts, and for which the demand of other processes is used.
WINDOW = 10.0

# Units by resource ("" is the table) and "Read" or "Write".
Units = dict[tuple[str, str], float]


class LocalDemand:
    """The demand of this process on the tables of one alias. Thread-safe."""

    def __init__(self) -> None:
        self._seconds: dict[str, deque[tuple[int, Units]]] = defaultdict(deque)
        self._last_cost: dict[tuple[str, str], Mapping[str, float]] = {}
        self._lock = threading.Lock()

    def record(self, measurement: Measurement) -> None:
        """Count an attempt, whether served or throttled."""
        operation = (measurement.table, measurement.operation)
        units = measurement.units
        with self._lock:
            if units:
                self._last_cost[operation] = units
            elif not measurement.throttled:
                return
            cost = units or self._last_cost.get(operation, {measurement.table: 1.0})
            self._add(cost, measurement.kind)

    def peak(self, table: str) -> Units:
        """Return the units of the busiest second, by resource and kind."""
        with self._lock:
            return self._peak(table)

    def _add(self, cost: Mapping[str, float], kind: str) -> None:
        second = int(clock.monotonic())
        for name, units in cost.items():
            table, _, index = name.partition("/")
            seconds = self._seconds[table]
            if not seconds or seconds[-1][0] != second:
                seconds.append((second, defaultdict(float)))
                while seconds[0][0] < second - WINDOW:
                    seconds.popleft()
            seconds[-1][1][index, kind] += units

    def _peak(self, table: str) -> Units:
        since = clock.monotonic() - WINDOW
        found: Units = defaultdict(float)
        for second, units in self._seconds.get(table, ()):
            if second >= since:
                for resource, cost in units.items():
                    found[resource] = max(found[resource], cost)
        return dict(found)


class SharedDemand:
    """The demand of all processes on a table: an item of each in the control table, for 60 s."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(DemandItem, using)

    def publish(self, table: str, units: Units) -> None:
        """Publish the demand of this process to the other processes; one write."""
        key = keys.demand(table, _process(self.using))
        now = run(self._items.learned_times(key)).high
        run(
            self._items.put(
                DemandItem(
                    key.pk,
                    key.sk,
                    ttl=int(now) + 60,
                    at=int(now * 1000),
                    units=json.dumps([[*resource, cost] for resource, cost in units.items()]),
                ).serialize()
            )
        )

    def total(self, table: str) -> Units:
        """Return the sum of the demands that were published in the last seconds; one Query."""
        key = keys.demand(table, "")
        answer = run(
            self._items.call(
                "Query",
                {
                    "KeyConditionExpression": "PK = :pk AND begins_with(SK, :sk)",
                    "ExpressionAttributeValues": {":pk": {"S": key.pk}, ":sk": {"S": key.sk}},
                    "ConsistentRead": True,
                },
            )
        )
        return total_of(answer["Items"], run(self._items.learned_times(key)).low)


def total_of(items: list[RawItem], now: float) -> Units:
    """Return the sum of the demands in ``items`` that are not too old, and not of the future."""
    found: Units = defaultdict(float)
    for item in items:
        if now - WINDOW < integer_of(item, DemandItem.at) / 1000 <= now + WINDOW:
            for index, kind, cost in json.loads(string_of(item, DemandItem.units)):
                found[index, kind] += cost
    return dict(found)


# Containers may have equal hostnames and process ids.
_tokens = PerProcess(lambda using: secrets.token_hex(4))


def _process(using: str) -> str:
    return f"{socket.gethostname()}#{os.getpid()}#{_tokens.get(using)}"
