"""
What is to happen to a table, kept where a broker or a worker that dies cannot lose it.

Each table that was raised has a record with a deadline. Whoever finds a deadline passed takes the
record's lease, by a conditional write, and brings the table down; a raise meanwhile moves the
deadline on and counts the generation up. Broker restarts, SIGKILL, double and late delivery then
all end in one lowering per deadline.
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
    What was decided about a table: ``deadline`` is when it is to come down, in ms since the epoch,
    absent when nothing is to; ``generation`` counts its raises; ``lease_end`` is until when
    ``owner`` brings it down; ``decision`` is the last one, in JSON.
    """

    generation = IntegerAttribute(null=True, attr_name="g")
    deadline = IntegerAttribute(null=True, attr_name="d")
    lease_end = IntegerAttribute(null=True, attr_name="l")
    owner = UnicodeAttribute(null=True, attr_name="o")
    decision = UnicodeAttribute(null=True, attr_name="x")


_LEASE = LeaseAttributes(CapacityRecord.owner, CapacityRecord.lease_end)


class CapacityTables(ControlItem):
    """The tables that have a record."""

    tables = UnicodeSetAttribute(null=True, attr_name="t")


class CapacityClaim(ControlItem):
    """Who raises a table now: nobody else does until ``until``, in ms since the epoch."""

    until = IntegerAttribute(null=True, attr_name="u")


@dataclass(frozen=True)
class Record:
    """
    What the control table says of ``table``: ``deadline`` (seconds since the epoch, None: nothing
    is to happen), ``generation`` and the last ``decision``; ``owner`` while one has its lease.
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
        """Take the right to raise ``table`` for ``seconds``; one write, False for the loser."""
        key, now = keys.capacity(table, keys.CLAIM), clock.now_ms()
        until = now + math.ceil(seconds * 1000)
        free = CapacityClaim.until.does_not_exist() | (CapacityClaim.until <= now)
        ttl = CapacityClaim.ttl.set(until // 1000 + 3600)
        try:
            self._update(key, [CapacityClaim.until.set(until), ttl], free)
        except ConditionFailed:
            return False
        return True

    def raised(self, table: str, deadline: float, decision: Mapping[str, Any]) -> int:
        """Note that ``table`` was raised and is to come down at ``deadline``; its generation."""
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
        """Let a table that is to come down do so at ``deadline`` at the earliest."""
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
        """Return the record of ``table``, read strongly."""
        item = self._get(keys.capacity(table, keys.RECORD), consistent=True)
        return None if item is None else _record(table, item)

    def tables(self) -> list[str]:
        """Return the tables that ever had a record."""
        item = self._get(keys.capacity_tables(), consistent=True)
        return sorted(strings_of(item or {}, CapacityTables.tables))

    def due(self) -> list[Record]:
        """Return the records whose deadline has passed and that nobody is working on."""
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
        """Take the record, if it is still as it was found; None for who was second."""
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
        Give the lease back, with the next deadline, or closed. False where the table was raised
        meanwhile, or somebody else has the lease: their deadline stays.
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
    """The same records, read through the side door and all at once."""

    kind = CapacityRecord

    def get_many(self, tables: Sequence[str]) -> dict[str, Record]:
        """Return the records by table, those that there are; a BatchGetItem for each hundred."""
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
