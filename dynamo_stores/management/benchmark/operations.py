"""What is measured: the operations of each scenario, and the plan of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

_KB = 1000
_SIZES = (100, _KB, 10 * _KB, 100 * _KB, 300 * _KB)
_BATCHES = (1, 10, 25, 50, 100)
_THREADS = (1, 2, 4, 8, 16)
_TASKS = (1, 10, 100, 1000)
# Numbers of processes that measure at the same time.
TOGETHER = (1, 2, 4)
# Numbers of items in the table.
TABLE_SIZES = (1_000, 10_000, 100_000, 1_000_000)

# The names of the clients. The first two are the stores on that TRANSPORT, and aliases.
BARE = "boto3"
TRANSPORTS = ("lean", "botocore")
DYNAMODB_CACHE = "django-dynamodb-cache"
SUBJECTS = (*TRANSPORTS, "PynamoDB", DYNAMODB_CACHE, "Redis", "Memcached")


@dataclass(frozen=True)
class Operation:
    """
    One line of the table. ``verb`` is a method of the subjects, which gets ``amount``: the bytes
    of the value or the number of keys.

    It is called by ``threads`` at the same time, or by ``tasks`` of an event loop. What is
    answered ``in_memory`` has no counterpart in boto3; its figures are absolute.
    """

    name: str
    verb: str
    amount: int = 0
    threads: int = 1
    tasks: int = 0
    in_memory: bool = False

    def calls(self, wanted: int) -> int:
        """Return how often it is called in a round with ``wanted`` calls."""
        if self.in_memory:
            return 20 * wanted
        if self.verb in ("get_many", "set_many"):
            return max(1, wanted // 5)
        at_once = max(self.threads, self.tasks)
        return max(1, wanted // at_once) * at_once


@dataclass(frozen=True)
class Plan:
    """
    What one measuring process does; it is passed as JSON. ``names`` and ``subjects`` choose
    operations and clients, empty for all.
    """

    url: str | None
    region: str
    prefix: str
    table: str
    rounds: int
    calls: int
    size: int
    scenario: str = "calls"
    names: list[str] = field(default_factory=list)
    subjects: list[str] = field(default_factory=list)
    redis: str | None = None
    memcached: str | None = None

    def chooses(self, subject: str) -> bool:
        """Return whether this client is measured."""
        return not self.subjects or subject in self.subjects

    def operations(self) -> list[Operation]:
        """Return the operations to measure: all of the scenario, or those in ``names``."""
        found = operations_of(self.scenario, self.size)
        return [each for each in found if not self.names or each.name in self.names]


def operations_of(scenario: str, size: int) -> list[Operation]:
    """Return the operations of ``calls`` with values of ``size`` bytes, or those of ``growth``."""
    return [*(_growth() if scenario == "growth" else _calls(size))]


def names_of(scenario: str) -> list[str]:
    """Return the names of the operations of a scenario, for ``--operation``."""
    if scenario not in ("calls", "growth"):
        return []
    names = [each.name for each in operations_of(scenario, _KB)]
    if scenario == "growth":
        names += [name_together(count) for count in TOGETHER]
        names += [name_in_table(verb, size) for size in TABLE_SIZES for verb in ("get", "set")]
    return names


def name_together(count: int) -> str:
    """Return the name of ``get`` by processes at the same time."""
    return f"get, processes: {count}"


def name_in_table(verb: str, size: int) -> str:
    """Return the name of ``verb`` in a table of ``size`` items."""
    return f"{verb}, items: {size:,}"


def _calls(size: int) -> Iterator[Operation]:
    yield Operation("get", "get", size)
    yield Operation("get of an int", "get_int")
    yield Operation("get of a miss", "miss")
    yield Operation("set", "set", size)
    yield Operation("add", "add", size)
    yield Operation("incr", "incr")
    yield Operation("touch", "touch", size)
    yield Operation("acquire", "acquire")
    yield Operation("register", "register")
    yield Operation("Model.get", "model", size)
    for count in (25, 50, 100):
        yield Operation(f"get_many({count})", "get_many", count)
    for count in (25, 50):
        yield Operation(f"set_many({count})", "set_many", count)
    yield Operation("aget", "aget", size, tasks=1)
    yield Operation("1,000 aget at once", "aget", size, tasks=1000)
    yield Operation("get, 8 threads", "get", size, threads=8)
    yield Operation("near hit", "near", size, in_memory=True)
    yield Operation("refused acquire", "refused", in_memory=True)


def _growth() -> Iterator[Operation]:
    for size in _SIZES:
        yield Operation(f"get, {size:,} bytes", "get", size)
        yield Operation(f"set, {size:,} bytes", "set", size)
    for count in _BATCHES:
        yield Operation(f"get_many({count})", "get_many", count)
        yield Operation(f"set_many({count})", "set_many", count)
    for threads in _THREADS:
        yield Operation(f"get, threads: {threads}", "get", _KB, threads=threads)
    for tasks in _TASKS:
        yield Operation(f"aget, tasks: {tasks:,}", "aget", _KB, tasks=tasks)
