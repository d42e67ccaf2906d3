"""
What is to happen to a table, kept where a broker or a worker that dies cannot lose it.

Each table that was raised has a record with a deadline. Whoever finds a deadline passed takes the
record's lease, by a conditional write, and brings the table down; a raise meanwhile moves the
deadline on and counts the generation up. Broker restarts, SIGKILL, double and late delivery then
all end in one lowering per deadline.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pynamodb.attributes import UnicodeAttribute, UnicodeSetAttribute

from .. import clock, keys
from ..calls.batches import MAX_READS, chunks
from ..item_access import ConditionFailed, DirectStore, Store
from ..models import ControlItem, IntegerAttribute, RawItem


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
        return int(changed["g"]["N"])

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
        return sorted(item.get("t", {}).get("SS", ())) if item is not None else []

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
        now, owner = clock.now_ms(), os.urandom(12).hex()
        lease_end = now + math.ceil(seconds * 1000)
        as_found = (CapacityRecord.generation == record.generation) & (
            CapacityRecord.deadline == _ms(record.deadline or 0)
        )
        free = CapacityRecord.lease_end.does_not_exist() | (CapacityRecord.lease_end <= now)
        actions = [CapacityRecord.lease_end.set(lease_end), CapacityRecord.owner.set(owner)]
        try:
            self._update(keys.capacity(record.table, keys.RECORD), actions, as_found & free)
        except ConditionFailed as refused:
            if refused.old is None or refused.old.get("o", {}).get("S") != owner:
                return None
        return Record(
            record.table,
            record.generation,
            record.deadline,
            record.decision,
            lease_end / 1000,
            owner,
        )

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
            if refused.old is not None and refused.old.get("o", {}).get("S") == record.owner:
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
            wanted = {keys.capacity(table, keys.RECORD).pk: table for table in some}
            answer = self._call(
                control,
                "BatchGetItem",
                {
                    "RequestItems": {
                        control.table_name: {
                            "Keys": [{"PK": {"S": pk}, "SK": {"S": keys.RECORD}} for pk in wanted]
                        }
                    }
                },
            )
            for item in answer["Responses"].get(control.table_name, ()):
                table = wanted[item["PK"]["S"]]
                found[table] = _record(table, item)
        return found


def _record(table: str, item: RawItem) -> Record:
    deadline = int(item["d"]["N"]) / 1000 if "d" in item else None
    return Record(
        table=table,
        generation=int(item.get("g", {}).get("N", "0")),
        deadline=deadline,
        decision=json.loads(item.get("x", {}).get("S", "{}")),
        lease_end=int(item.get("l", {}).get("N", "0")) / 1000,
        owner=item.get("o", {}).get("S", ""),
    )


def _ms(moment: float) -> int:
    return math.ceil(round(moment * 1000, 3))
