"""
Provisioned capacity as in DynamoDB: buckets of units, changes that take time, a limit of
decreases. Pure: every function receives the time, in seconds since the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

# Unused capacity of so many seconds is kept for bursts.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/burst-adaptive-capacity.html
BURST = 300.0
# Four decreases at any time of a UTC day, and one more in every hour without one.
# https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html
FREE_DECREASES, MAX_DECREASES, QUIET_HOUR = 4, 27, 3600.0
MAX_UNITS = 40_000
# The limits of one partition, independent of its table's capacity.
PARTITION_READ, PARTITION_WRITE = 3_000.0, 1_000.0

KINDS = ("Read", "Write")


class RefusedUpdate(Exception):
    """UpdateTable was refused; ``code`` is DynamoDB's error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Bucket:
    """
    Units that are added at a rate, up to ``burst`` seconds of it.

    The cost of a request is known afterwards, so the units may be negative; no request is then
    admitted until they are positive again.
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._held = rate * burst
        self._at = now
        self.throttled = 0

    def held(self, now: float) -> float:
        """Return the available units."""
        filled = self._held + max(0.0, now - self._at) * self.rate
        return min(filled, self.rate * self.burst)

    def admits(self, now: float) -> bool:
        """Return whether a request is admitted."""
        return self.held(now) >= 1.0 or self.held(now) >= self.rate * self.burst

    def spend(self, units: float, now: float) -> None:
        """Subtract the units of a request."""
        self._held, self._at = self.held(now) - units, max(now, self._at)

    def set_rate(self, rate: float, now: float) -> None:
        """Change the rate; the available units stay."""
        self._held, self._at = self.held(now), max(now, self._at)
        self.rate = rate


@dataclass
class Resource:
    """The capacity of a table or of one of its indexes."""

    name: str
    read: int
    write: int
    burst: float
    created_at: float
    last_increase: float | None = None
    last_decrease: float | None = None
    decreases: list[float] = field(default_factory=list)
    buckets: dict[str, Bucket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for kind, rate in zip(KINDS, (self.read, self.write), strict=True):
            self.buckets[kind] = Bucket(rate, self.burst, self.created_at)

    def decreases_today(self, now: float) -> int:
        """Return ``NumberOfDecreasesToday``, of the UTC day."""
        today = datetime.fromtimestamp(now, UTC).date()
        return sum(datetime.fromtimestamp(each, UTC).date() == today for each in self.decreases)

    def may_decrease(self, now: float) -> bool:
        """Return whether another decrease is allowed now."""
        count = self.decreases_today(now)
        if count < FREE_DECREASES:
            return True
        last = self.decreases[-1]
        return count < MAX_DECREASES and now - last >= QUIET_HOUR

    def set(self, read: int, write: int, now: float) -> None:
        """Change both rates."""
        self.read, self.write = read, write
        self.buckets["Read"].set_rate(read, now)
        self.buckets["Write"].set_rate(write, now)


class TableThroughput:
    """
    A provisioned table and its indexes, by their names (``""`` is the table itself).

    A change takes ``updating`` seconds, in which the old rates apply.
    """

    def __init__(
        self,
        arn: str,
        capacities: Mapping[str, tuple[int, int]],
        now: float,
        *,
        updating: float,
        burst: float = BURST,
    ) -> None:
        self.arn = arn
        self.resources = {
            name: Resource(name, read, write, burst, now)
            for name, (read, write) in capacities.items()
        }
        self._updating = updating
        self._pending: dict[str, tuple[int, int]] = {}
        self._active_at = now
        self.updates = 0

    def is_active(self, now: float) -> bool:
        """Return whether no change is in progress; applies a change whose time is over."""
        if now < self._active_at:
            return False
        for name, (read, write) in self._pending.items():
            self.resources[name].set(read, write, self._active_at)
        self._pending = {}
        return True

    def update(self, wanted: Mapping[str, tuple[int, int]], now: float) -> None:
        """Begin a change. Raises RefusedUpdate, and changes nothing, if DynamoDB refuses it."""
        if not self.is_active(now):
            raise RefusedUpdate(
                "ResourceInUseException",
                f"Attempt to change a resource which is still in use: {self.arn}",
            )
        for name, (read, write) in wanted.items():
            self._check(name, read, write, now)
        for name, (read, write) in wanted.items():
            resource = self.resources[name]
            if read > resource.read or write > resource.write:
                resource.last_increase = now
            if read < resource.read or write < resource.write:
                resource.last_decrease = now
                resource.decreases = [*resource.decreases[-MAX_DECREASES:], now]
        self._pending = dict(wanted)
        self._active_at = now + self._updating
        self.updates += 1

    def _check(self, name: str, read: int, write: int, now: float) -> None:
        resource = self.resources.get(name)
        what = f"the index {name}" if name else "the table"
        if resource is None:
            raise RefusedUpdate("ValidationException", f"There is no {what}.")
        if (read, write) == (resource.read, resource.write):
            raise RefusedUpdate(
                "ValidationException",
                f"The provisioned throughput for {what} will not change. The requested value "
                f"equals the current value. Current ReadCapacityUnits: {read}, "
                f"WriteCapacityUnits: {write}.",
            )
        if not (1 <= read <= MAX_UNITS and 1 <= write <= MAX_UNITS):
            raise RefusedUpdate(
                "ValidationException", f"Capacity units must be between 1 and {MAX_UNITS:,}."
            )
        is_decrease = read < resource.read or write < resource.write
        if is_decrease and not resource.may_decrease(now):
            raise RefusedUpdate(
                "LimitExceededException",
                f"Subscriber limit exceeded: Provisioned throughput decreases are limited within "
                f"a given UTC day. Number of decreases today: {resource.decreases_today(now)}. "
                f"This is {what}.",
            )

    def missing(self, spending: Iterable[tuple[str, str]], now: float) -> tuple[str, str] | None:
        """Return the first of these (name, kind) whose bucket refuses the request, or None."""
        self.is_active(now)
        for name, kind in spending:
            bucket = self.resources[name].buckets[kind]
            if not bucket.admits(now):
                bucket.throttled += 1
                return name, kind
        return None

    def spend(self, units: Mapping[tuple[str, str], float], now: float) -> None:
        """Subtract the units of a request, by (name, kind)."""
        for (name, kind), cost in units.items():
            if name in self.resources:
                self.resources[name].buckets[kind].spend(cost, now)

    def arn_of(self, name: str) -> str:
        """Return the ARN of the table, or of one of its indexes."""
        return f"{self.arn}/index/{name}" if name else self.arn

    def describe(self, description: dict[str, Any], now: float) -> dict[str, Any]:
        """Return the engine's description of the table with the state of this capacity."""
        active = self.is_active(now)
        found = {**description, "TableStatus": "ACTIVE" if active else "UPDATING"}
        found["ProvisionedThroughput"] = _throughput(self.resources[""], now)
        if indexes := description.get("GlobalSecondaryIndexes"):
            found["GlobalSecondaryIndexes"] = [self._describe_index(each, now) for each in indexes]
        return found

    def _describe_index(self, index: dict[str, Any], now: float) -> dict[str, Any]:
        resource = self.resources.get(index["IndexName"])
        if resource is None:
            return index
        status = "UPDATING" if index["IndexName"] in self._pending else "ACTIVE"
        throughput = _throughput(resource, now)
        return {**index, "IndexStatus": status, "ProvisionedThroughput": throughput}

    def status(self, now: float) -> dict[str, Any]:
        """Return the state of the buckets as JSON data."""
        return {
            "status": "ACTIVE" if self.is_active(now) else "UPDATING",
            "updates": self.updates,
            "resources": {
                name or "(table)": {
                    kind: {
                        "rate": bucket.rate,
                        "held": round(bucket.held(now), 1),
                        "throttled": bucket.throttled,
                    }
                    for kind, bucket in resource.buckets.items()
                }
                for name, resource in self.resources.items()
            },
        }


class Partitions:
    """The limits of each partition key, 3,000 read and 1,000 write units a second."""

    def __init__(self, read: float = PARTITION_READ, write: float = PARTITION_WRITE) -> None:
        self._rates = {"Read": read, "Write": write}
        self._buckets: dict[tuple[str, str, str], Bucket] = {}

    def admits(self, table: str, key: str, kind: str, now: float) -> bool:
        """Return whether a request for this partition key is admitted."""
        return self._bucket(table, key, kind, now).admits(now)

    def spend(self, table: str, key: str, kind: str, units: float, now: float) -> None:
        """Subtract the units of a request."""
        self._bucket(table, key, kind, now).spend(units, now)

    def _bucket(self, table: str, key: str, kind: str, now: float) -> Bucket:
        if len(self._buckets) > 10_000:
            self._buckets.clear()
        name = (table, key, kind)
        if name not in self._buckets:
            self._buckets[name] = Bucket(self._rates[kind], 1.0, now)
        return self._buckets[name]


def _throughput(resource: Resource, now: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ReadCapacityUnits": resource.read,
        "WriteCapacityUnits": resource.write,
        "NumberOfDecreasesToday": resource.decreases_today(now),
    }
    for name, moment in (
        ("LastIncreaseDateTime", resource.last_increase),
        ("LastDecreaseDateTime", resource.last_decrease),
    ):
        if moment is not None:
            found[name] = math.floor(moment * 1000) / 1000
    return found
