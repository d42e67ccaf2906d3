"""
Records that wait for their handler, and what is tried after an error. Pure: knows no clock.

A batch that fails is tried again as a whole. After its last try it is halved until one record is
left, which has the same number of tries: then it is set aside, and the others go on. They had the
tries of a whole batch with it, so they are halved after one.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from .records import StreamRecord


class Outcome(Enum):
    """What follows an error: a try after a wait, a try of fewer records now, or none."""

    WAIT = "wait"
    HALVE = "halve"
    GIVE_UP = "give up"


class Pending:
    """
    The records of one shard that were read and not handled, in their order.

    The handler gets :meth:`batch`; one of :meth:`succeeded`, :meth:`failed` and, after GIVE_UP,
    :meth:`set_aside` tells what came of it. ``tries`` counts the failed tries of the batch;
    ``position`` is the sequence number of the last record that was removed, None before.
    """

    def __init__(self, tries: int) -> None:
        self.tries = 0
        self.position: str | None = None
        self._most = tries
        self._records: list[StreamRecord] = []
        # How many records the next batch has, None for all. A number while a record is looked for.
        self._size: int | None = None

    def __len__(self) -> int:
        return len(self._records)

    def add(self, records: Sequence[StreamRecord]) -> None:
        """Append records that were read."""
        self._records += records

    def batch(self) -> list[StreamRecord]:
        """Return the records of the next try."""
        return self._records[: self._size]

    def succeeded(self) -> None:
        """Remove the batch."""
        self._remove(len(self.batch()))

    def failed(self, handled: int | None = None, *, counts: bool = True) -> Outcome:
        """
        Return what follows an error. ``handled`` is the number of records that were handled before
        the one that failed, None if unknown. An error that does not count is waited for without
        limit.
        """
        if handled:
            self._remove(handled)
        if not counts:
            return Outcome.WAIT
        if handled is not None:
            self._size = 1
        count = len(self.batch())
        self.tries += 1
        is_searching = self._size is not None and count > 1
        if self.tries < self._most and not is_searching:
            return Outcome.WAIT
        if count == 1:
            return Outcome.GIVE_UP
        self._size, self.tries = count // 2, 0
        return Outcome.HALVE

    def set_aside(self) -> StreamRecord:
        """Remove and return the record that has no tries left."""
        record = self._records[0]
        self._remove(1)
        return record

    def _remove(self, count: int) -> None:
        self.position = self._records[count - 1].sequence_number
        del self._records[:count]
        self.tries = 0
        # Of what was halved the rest comes next, as a whole.
        if self._size is not None:
            self._size = len(self._records) or None
