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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pynamodb.attributes import UnicodeAttribute, UnicodeSetAttribute

from .. import clock, keys
from ..calls.batches import MAX_READS, chunks
from ..item_access import ConditionFailed, DirectStore, Store
from ..leases import Lease, LeaseAttributes
from ..models import ControlItem, IntegerAttribute, RawItem, integer_of, string_of, strings_of


class CapacityRecord(ControlItem):
    """
    The record of a raised table.

    ``deadline`` is when it is lowered, absent if it is not; ``generation`` counts its raises;
    ``owner`` holds the lease until ``lease_end``; ``decision`` is the last decision, in JSON.
    Times are in ms since the epoch.
    """

    generation = IntegerAttribute(null=True, attr_name="g")
    deadline = IntegerAttribute(null=True, attr_name="d")
    lease_end = IntegerAttribute(null=True, attr_name="l")
    owner = UnicodeAttribute(null=True, attr_name="o")
    decision = UnicodeAttribute(null=True, attr_name="x")


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
    raised, the last decision, and the lease of the process that lowers it.

    Times are in seconds since the epoch; ``owner`` is empty without a lease.
    """

    table: str
    generation: int
    deadline: float | None
    decision: Mapping[str, Any]
    lease_end: float = 0.0
    owner: str = ""


class CapacityRecords(Store[CapacityRecord]):
    """The records of one alias, in its control table. Durations in seconds."""

    kind = CapacityRecord

    def claim(self, table: str, seconds: float) -> bool:
        """Claim the right to raise ``table``; False if another process has it. One write."""
        key, now = keys.capacity(table, keys.CLAIM), clock.now_ms()
        until = now + math.ceil(seconds * 1000)
        free = CapacityClaim.until.does_not_exist() | (CapacityClaim.until <= now)
        ttl = CapacityClaim.ttl.set(until // 1000 + 3600)
        try:
            self._update(key, [CapacityClaim.until.set(until), ttl], free)
        except ConditionFailed:
            return False
        return True

    def record_raise(self, table: str, deadline: float, decision: Mapping[str, Any]) -> int:
        """Record that ``table`` is raised until ``deadline``; return the new generation."""
        self._update(keys.capacity_tables(), [CapacityTables.tables.add({table})])
        changed = self._update(
            keys.capacity(table, keys.RECORD),
            [
                CapacityRecord.generation.add(1),
                CapacityRecord.deadline.set(_ms(deadline)),
                CapacityRecord.decision.set(json.dumps(decision)),
            ],
        )
        return integer_of(changed, CapacityRecord.generation)

    def postpone(self, table: str, deadline: float) -> bool:
        """Move an earlier deadline of ``table`` to ``deadline``; return whether there was one."""
        later = CapacityRecord.deadline < _ms(deadline)
        try:
            self._update(
                keys.capacity(table, keys.RECORD),
                [CapacityRecord.deadline.set(_ms(deadline)), CapacityRecord.generation.add(1)],
                later,
            )
        except ConditionFailed:
            return False
        return True

    def get(self, table: str) -> Record | None:
        """Return the record of ``table``, by a strongly consistent read."""
        item = self._get(keys.capacity(table, keys.RECORD), consistent=True)
        return None if item is None else _record(table, item)

    def tables(self) -> list[str]:
        """Return the tables that have or had a record, sorted."""
        item = self._get(keys.capacity_tables(), consistent=True)
        return sorted(strings_of(item or {}, CapacityTables.tables))

    def due(self) -> list[Record]:
        """Return the records whose deadline has passed and whose lease is free."""
        now = clock.now()
        records = [self.get(table) for table in self.tables()]
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
        as_found = (CapacityRecord.generation == record.generation) & (
            CapacityRecord.deadline == _ms(record.deadline or 0)
        )
        taken = _LEASE.take(
            lambda actions, condition: self._update(key, actions, condition),
            seconds,
            condition=as_found,
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
        release = [CapacityRecord.lease_end.remove(), CapacityRecord.owner.remove()]
        is_ours = CapacityRecord.owner == record.owner
        deadline = (
            CapacityRecord.deadline.remove()
            if next_deadline is None
            else CapacityRecord.deadline.set(_ms(next_deadline))
        )
        done = [deadline, CapacityRecord.decision.set(json.dumps(decision)), *release]
        try:
            self._update(key, done, is_ours & (CapacityRecord.generation == record.generation))
        except ConditionFailed as refused:
            if _LEASE.owner_of(refused.old or {}) == record.owner:
                self._release(key, release, is_ours)
            return False
        return True

    def _release(self, key: keys.ItemKey, release: list[Any], is_ours: Any) -> None:
        try:
            self._update(key, release, is_ours)
        except ConditionFailed:
            return


class DirectRecords(DirectStore[CapacityRecord]):
    """The same records, read through a direct connection and in batches."""

    kind = CapacityRecord

    def get_many(self, tables: Sequence[str]) -> dict[str, Record]:
        """Return the existing records by table; a BatchGetItem for each 100 tables."""
        control, found = self._table, {}
        for some in chunks(tables, MAX_READS):
            wanted = {keys.capacity(table, keys.RECORD): table for table in some}
            by_pk = {key.pk: table for key, table in wanted.items()}
            answer = self._call(
                control,
                "BatchGetItem",
                {"RequestItems": {control.table_name: {"Keys": [key.raw() for key in wanted]}}},
            )
            for item in answer["Responses"].get(control.table_name, ()):
                table = by_pk[item["PK"]["S"]]
                found[table] = _record(table, item)
        return found


def _record(table: str, item: RawItem) -> Record:
    deadline = integer_of(item, CapacityRecord.deadline)
    return Record(
        table=table,
        generation=integer_of(item, CapacityRecord.generation),
        deadline=deadline / 1000 if deadline else None,
        decision=json.loads(string_of(item, CapacityRecord.decision) or "{}"),
        lease_end=_LEASE.end_of(item) / 1000,
        owner=_LEASE.owner_of(item),
    )


def _ms(moment: float) -> int:
    return math.ceil(round(moment * 1000, 3))
