"""
What the rows of imported files get from their positions: times and ids that they lack.

The export leaves out what the import would derive again, so that it gives the files as they were.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

# The time of the first row of a file without times.
BEGINNING = datetime(2024, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)


def time_of_user(row: int) -> datetime:
    """Return the time of a user without one, by the number of the row from 1."""
    return BEGINNING + (row - 1) * _SECOND


def time_of_thread(row: int) -> datetime:
    """Return the time of a thread without one: later rows are newer."""
    return BEGINNING + (row - 1) * timedelta(minutes=1)


class PostPositions:
    """The times and ids of posts, in the order of their file."""

    def __init__(self, threads: dict[str, datetime]) -> None:
        self._latest = dict(threads)
        self._taken: dict[str, set[datetime]] = {thread_id: set() for thread_id in threads}
        self._last = BEGINNING

    def next_id(self, thread_id: str) -> str:
        """Return the id of the next post of a thread, if its row has none."""
        return f"{thread_id}-{len(self._taken[thread_id]) + 1:06}"

    def next_time(self, thread_id: str) -> datetime:
        """Return its time: after those of the thread, and of all rows before without a time."""
        return max(self._latest[thread_id], self._last) + _SECOND

    def add(self, thread_id: str, given: datetime | None) -> datetime:
        """Count a post; return its time. Posts of the same time keep the order of the file."""
        moment = self.next_time(thread_id) if given is None else given
        if given is None:
            self._last = moment
        while moment in self._taken[thread_id]:
            moment += timedelta(microseconds=1)
        self._taken[thread_id].add(moment)
        self._latest[thread_id] = moment
        return moment
