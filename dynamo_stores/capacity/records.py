"""
Records of raised tables, with the deadlines by which they are lowered.

They are in the control table, so that no broker or worker that dies can lose them. A process that
finds a deadline passed takes the record's lease by a conditional write and lowers the table. A
raise in the meantime moves the deadline on and increments the generation. So broker restarts,
SIGKILL, double and late delivery all end in one lowering per deadline.
"""

from __future__ import annotations

import dataclasses
import json
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pynamodb.attributes import UnicodeAttribute, UnicodeSetAttribute

from .. import keys
from ..concurrency.effects import run
from ..conf import DEFAULT_ALIAS
from ..expressions import (
    Change,
    Condition,
    add,
    at_most,
    equals,
    less,
    missing,
    put,
    remove,
)
from ..item_access import ConditionFailed, Items, raw_keys
from ..leases import Lease, LeaseAttributes, end_after
from ..models import ControlItem, IntegerAttribute, RawItem, integer_of, string_of, strings_of
from .description import KINDS, TableCapacity

# Before the kind, in an entry of the floor: a minimum was raised, and not the units themselves.
_MINIMUM = "Minimum"


class CapacityRecord(ControlItem):
    """
    The record of a raised table.

    ``deadline`` is when it is lowered, absent if it is not; ``generation`` counts its raises;
    ``floor`` has an entry (``Write#5#<table id>#GSI1``) for each raised kind of a resource: the
    units before that raise, or the minimum for Application Auto Scaling (``MinimumWrite#…``).
    ``raise_id`` is that of the last raise. ``owner`` holds the lease until ``lease_end``;
    ``decision`` is the last decision, in JSON. Times are in ms since the epoch.
    """

    generation = IntegerAttribute(null=True, attr_name="g")
    deadline = IntegerAttribute(null=True, attr_name="d")
    lease_end = IntegerAttribute(null=True, attr_name="l")
    owner = UnicodeAttribute(null=True, attr_name="o")
    decision = UnicodeAttribute(null=True, attr_name="x")
    floor = UnicodeSetAttribute(null=True, attr_name="f")
    raise_id = UnicodeAttribute(null=True, attr_name="i")


_LEASE = LeaseAttributes(CapacityRecord.owner, CapacityRecord.lease_end)


class CapacityTables(ControlItem):
    """The names of the tables that have a record."""

    tables = UnicodeSetAttribute(null=True, attr_name="t")


class CapacityClaim(ControlItem):
    """The claim of the process that raises a table, until ``until`` (ms since the epoch)."""

    until = IntegerAttribute(null=True, attr_name="u")


@dataclass(frozen=True)
class Record:
    """
    The record of ``table``: when it is lowered (``deadline``, None: never), how often it was
    raised, the last decision, what was raised (``entries``, see :meth:`floor_of`), and the lease of
    the process that lowers it.

    Times are in seconds since the epoch; ``owner`` is empty without a lease.
    """

    table: str
    generation: int
    deadline: float | None
    decision: Mapping[str, Any]
    entries: frozenset[str] = frozenset()
    lease_end: float = 0.0
    owner: str = ""

    def floor_of(self, table_id: str, *, minimums: bool = False) -> dict[tuple[str, str], int]:
        """
        Return the units that each raised kind of a resource had before its first raise, by resource
        and kind; with ``minimums`` the minimums for Application Auto Scaling.

        Raises of another table, which had this name before, do not count.
        """
        floor: dict[tuple[str, str], int] = {}
        for entry in self.entries:
            what, units, of_table, name = entry.split("#", 3)
            kind = what.removeprefix(_MINIMUM)
            if of_table in ("", table_id) and what.startswith(_MINIMUM) == minimums:
                floor[name, kind] = min(int(units), floor.get((name, kind), int(units)))
        return floor


# Each change of a record is of a later generation.
_NEXT = add(CapacityRecord.generation, 1)


def _is_as_read(record: Record) -> Condition:
    return equals(CapacityRecord.generation, record.generation)


@dataclass(frozen=True)
class RecordedRaise:
    """A raise of ``table`` that was recorded; ``before`` is the item of its record before."""

    table: str
    generation: int
    before: RawItem


class CapacityRecords:
    """The records of one alias, in its control table. Durations in seconds."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(CapacityRecord, using)

    def claim(self, table: str, seconds: float) -> bool:
        """Claim the right to raise ``table``; False if another process has it. One write."""
        key = keys.capacity(table, keys.CLAIM)
        times = run(self._items.learned_times(key))
        now, until = int(times.low * 1000), end_after(times, seconds)
        free = missing(CapacityClaim.until) | at_most(CapacityClaim.until, now)
        change = put(CapacityClaim.until, until) + put(CapacityClaim.ttl, until // 1000 + 3600)
        try:
            run(self._items.update(key, change, free))
        except ConditionFailed:
            return False
        return True

    def deadline_after(self, seconds: float) -> float:
        """Return the moment ``seconds`` from now by DynamoDB's clock, in s since the epoch."""
        return run(self._items.learned_times(keys.capacity_tables())).high + seconds

    def record_raise(
        self,
        capacity: TableCapacity,
        deadline: float,
        decision: Mapping[str, Any],
        *,
        of_minimums: bool = False,
    ) -> RecordedRaise:
        """
        Record that a table is raised until ``deadline``, and what each raised kind has before: the
        difference between ``from`` and ``to`` of the decision, of units or of minimums for
        Application Auto Scaling.
        """
        table, raise_id = capacity.table, secrets.token_hex(8)
        run(self._items.update(keys.capacity_tables(), add(CapacityTables.tables, {table})))
        change = (
            _NEXT
            + put(CapacityRecord.deadline, _ms(deadline))
            + put(CapacityRecord.decision, json.dumps(decision))
            + put(CapacityRecord.raise_id, raise_id)
        )
        if floor := _floor_entries(decision, capacity.table_id, of_minimums=of_minimums):
            change += add(CapacityRecord.floor, floor)
        key = keys.capacity(table, keys.RECORD)
        while True:
            before = run(self._items.get(key, consistent=True)) or {}
            generation = integer_of(before, CapacityRecord.generation)
            unchanged = equals(CapacityRecord.generation, generation)
            if not generation:
                unchanged |= missing(CapacityRecord.generation)
            try:
                run(self._items.update(key, change, unchanged))
            except ConditionFailed as failed:
                # Unless the answer to its own write was lost, another process raised the table.
                if string_of(failed.old or {}, CapacityRecord.raise_id) != raise_id:
                    continue
            return RecordedRaise(table, generation + 1, before)

    def take_back(self, raised: RecordedRaise, decision: Mapping[str, Any]) -> bool:
        """
        Restore the record as it was before a raise that was refused; return False, and leave the
        record, if the table was raised again in the meantime.
        """
        before = raised.before
        deadline = integer_of(before, CapacityRecord.deadline)
        floor = strings_of(before, CapacityRecord.floor)
        change = _NEXT + put(CapacityRecord.decision, json.dumps(decision))
        change += (
            put(CapacityRecord.deadline, deadline) if deadline else remove(CapacityRecord.deadline)
        )
        change += put(CapacityRecord.floor, set(floor)) if floor else remove(CapacityRecord.floor)
        unchanged = equals(CapacityRecord.generation, raised.generation)
        return self._change(raised.table, change, unchanged)

    def forget(self, record: Record, decision: Mapping[str, Any]) -> bool:
        """
        Remove the deadline of a table that is at its baseline again; False, without a change, if it
        was raised since ``record`` was read.
        """
        change = _NEXT + put(CapacityRecord.decision, json.dumps(decision))
        change += remove(CapacityRecord.deadline, CapacityRecord.floor)
        return self._change(record.table, change, _is_as_read(record))

    def lower_to_baseline(self, record: Record, capacity: TableCapacity) -> bool:
        """
        Let the lowering of a table that is due lead to the baseline; False, without a change, if it
        was raised since ``record`` was read.
        """
        floor = {
            f"{kind}#0#{capacity.table_id}#{name}" for name in capacity.resources for kind in KINDS
        }
        change = _NEXT + put(CapacityRecord.floor, floor)
        return self._change(record.table, change, _is_as_read(record))

    def postpone(self, table: str, deadline: float) -> bool:
        """Move an earlier deadline of ``table`` to ``deadline``; return whether there was one."""
        change = _NEXT + put(CapacityRecord.deadline, _ms(deadline))
        return self._change(table, change, less(CapacityRecord.deadline, _ms(deadline)))

    def get(self, table: str) -> Record | None:
        """Return the record of ``table``, by a strongly consistent read."""
        item = run(self._items.get(keys.capacity(table, keys.RECORD), consistent=True))
        return None if item is None else _record(table, item)

    def tables(self) -> list[str]:
        """Return the tables that have or had a record, sorted."""
        item = run(self._items.get(keys.capacity_tables(), consistent=True))
        return sorted(strings_of(item or {}, CapacityTables.tables))

    def due(self) -> list[Record]:
        """Return the records whose deadline has passed and whose lease is free."""
        records = [self.get(table) for table in self.tables()]
        now = run(self._items.learned_times(keys.capacity_tables())).low
        return [
            record
            for record in records
            if record is not None
            and record.deadline is not None
            and record.deadline <= now
            and record.lease_end <= now
        ]

    def lease(self, record: Record, seconds: float) -> Record | None:
        """
        Take the lease of a record for ``seconds`` and return the record with it; None if the
        record has changed or another process holds the lease.
        """
        key = keys.capacity(record.table, keys.RECORD)
        as_found = _is_as_read(record) & equals(CapacityRecord.deadline, _ms(record.deadline or 0))
        taken = run(
            _LEASE.take(
                lambda change, condition: self._items.update(key, change, condition),
                seconds,
                condition=as_found,
                times=run(self._items.learned_times(key)),
            )
        )
        if not isinstance(taken, Lease):
            return None
        return dataclasses.replace(record, lease_end=taken.end / 1000, owner=taken.owner)

    def finish(
        self, record: Record, decision: Mapping[str, Any], next_deadline: float | None
    ) -> bool:
        """
        Release the lease and set the next deadline, or none. Return False, and keep the deadline,
        if the table was raised in the meantime or another process holds the lease.
        """
        key = keys.capacity(record.table, keys.RECORD)
        release = remove(CapacityRecord.lease_end, CapacityRecord.owner)
        is_ours = equals(CapacityRecord.owner, record.owner)
        done = put(CapacityRecord.decision, json.dumps(decision)) + release
        if next_deadline is None:
            done += remove(CapacityRecord.deadline, CapacityRecord.floor)
        else:
            done += put(CapacityRecord.deadline, _ms(next_deadline))
        try:
            run(self._items.update(key, done, is_ours & _is_as_read(record)))
        except ConditionFailed as refused:
            if _LEASE.owner_of(refused.old or {}) == record.owner:
                self._change(record.table, release, is_ours)
            return False
        return True

    def _change(self, table: str, change: Change, condition: Condition) -> bool:
        try:
            run(self._items.update(keys.capacity(table, keys.RECORD), change, condition))
        except ConditionFailed:
            return False
        return True


class DirectRecords:
    """The same records, read through a direct connection and in batches."""

    def __init__(self, using: str = DEFAULT_ALIAS) -> None:
        self.using = using
        self._items = Items(CapacityRecord, using, direct=True)

    def get_many(self, tables: Sequence[str]) -> dict[str, Record]:
        """Return the existing records by table; a BatchGetItem for each 100 tables."""
        by_pk = {keys.capacity(table, keys.RECORD).pk: table for table in tables}
        wanted = [keys.capacity(table, keys.RECORD) for table in tables]
        found = {}
        for item in run(self._items.get_many(raw_keys(wanted), consistent=False)):
            table = by_pk[item["PK"]["S"]]
            found[table] = _record(table, item)
        return found


def _record(table: str, item: RawItem) -> Record:
    deadline = integer_of(item, CapacityRecord.deadline)
    decision = json.loads(string_of(item, CapacityRecord.decision) or "{}")
    if not isinstance(decision, dict):
        decision = {}
    # Records of earlier versions have no floor.
    entries = strings_of(item, CapacityRecord.floor) or _floor_entries(decision, "")
    return Record(
        table=table,
        generation=integer_of(item, CapacityRecord.generation),
        deadline=deadline / 1000 if deadline else None,
        decision=decision,
        entries=frozenset(entries),
        lease_end=_LEASE.end_of(item) / 1000,
        owner=_LEASE.owner_of(item),
    )


def _floor_entries(
    decision: Mapping[str, Any], table_id: str, *, of_minimums: bool = False
) -> set[str]:
    before: Mapping[str, Sequence[int]] = decision.get("from", {})
    what = _MINIMUM if of_minimums else ""
    return {
        f"{what}{kind}#{had}#{table_id}#{name}"
        for name, units in decision.get("to", {}).items()
        for kind, had, has in zip(KINDS, before.get(name, units), units, strict=True)
        if has > had
    }


def _ms(moment: float) -> int:
    return math.ceil(round(moment * 1000, 3))
