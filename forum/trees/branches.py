"""The partitions of a tree, read and deleted in pages."""

from __future__ import annotations

from collections.abc import Iterator

from dynamo_stores import clock

from .. import keys
from ..adapters import Database, Item
from ..models import Post, Support

# Posts that are read, copied or deleted at a time: with a check, one transaction.
PAGE = 99


class TreeUnfinished(Exception):
    """A large subtree is not moved or deleted yet; ``finish_all`` does the rest."""


class Branches:
    """
    The branches of the forum's trees; ``""`` is that of a thread. A ``prefix`` is a place: that
    post and those below it. After ``patience`` seconds methods raise TreeUnfinished.
    """

    def __init__(self, database: Database, patience: float | None) -> None:
        self._posts = database.adapter(Post)
        self._support = database.adapter(Support)
        self._until = None if patience is None else clock.monotonic() + patience

    def rows(self, thread_id: str, branch: str, prefix: str | None) -> Iterator[list[Item]]:
        """
        Yield the rows of a branch in pages; they may be deleted meanwhile. Raises TreeUnfinished.
        """
        partition, after = keys.tree(thread_id, branch), None
        while True:
            if self._until is not None and clock.monotonic() >= self._until:
                raise TreeUnfinished("The rest is done in the background.")
            page = self._support.page(
                partition, size=PAGE, prefix=prefix, after=after, consistent=True
            )
            if page.items:
                yield page.items
            if (after := page.after) is None:
                return

    def count(self, thread_id: str, branch: str, prefix: str | None) -> int:
        """Return how many posts that are not deleted are in a branch and its branches."""
        count, branches = 0, [(branch, prefix)]
        while branches:
            branch, prefix = branches.pop()
            for rows in self.rows(thread_id, branch, prefix):
                found = self._posts.get_many(
                    [(row["postId"], thread_id) for row in rows],
                    consistent=True,
                    attributes=["isDeleted"],
                )
                count += sum(not each.get("isDeleted") for each in found)
                branches += [
                    (row["ownBranch"], None)
                    for row in rows
                    if row.get("ownBranch") and row["SK"] != prefix
                ]
        return count

    def delete(self, thread_id: str, branch: str, prefix: str | None) -> None:
        """Delete the posts of a branch, or those below a place, with their places."""
        # No recursion, because branches may be in branches without end.
        running = [self._deletion(thread_id, branch, prefix)]
        while running:
            if (inner := next(running[-1], None)) is None:
                running.pop()
            else:
                running.append(self._deletion(thread_id, inner, None))

    def _deletion(self, thread_id: str, branch: str, prefix: str | None) -> Iterator[str]:
        """Delete the posts of a branch; yield each branch in it, which must be deleted first."""
        for rows in self.rows(thread_id, branch, prefix):
            yield from filter(None, (row.get("ownBranch") for row in rows))
            self._posts.delete_all([(row["postId"], thread_id) for row in rows])
            self._support.delete_all(rows)

    def delete_rows(self, thread_id: str, branch: str) -> None:
        """Delete the places of a branch, and no post."""
        for rows in self.rows(thread_id, branch, None):
            self._support.delete_all(rows)
