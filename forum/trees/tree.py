"""Changes of the tree of a thread: posts that are added, removed and moved."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from dynamo_stores import clock
from dynamo_stores.calls.batches import execute_in_parallel
from dynamo_stores.exceptions import StoreError

from .. import keys
from ..adapters import (
    EXISTS,
    MISSING,
    Check,
    Conflict,
    Create,
    Database,
    Delete,
    Item,
    ItemMissing,
    Operation,
    Table,
    Update,
    WriteRefused,
)
from ..models import Post, Support, Thread
from .branches import PAGE, Branches, TreeUnfinished
from .places import Place, reply, root_of
from .work import (
    MOVE,
    PREPARED,
    REMOVE,
    VISIBLE,
    new_branch,
    new_work,
    place_of,
    recorded,
    text_of,
    work_of,
)

logger = logging.getLogger(__name__)

# A write is tried so often while others change the same posts.
_TRIES = 10
# Seconds for which ``finish_all`` of another process leaves a thread to the first.
_TAKEN_FOR = 120


class NoSuchThread(Exception):
    """The thread does not exist."""


class NoSuchPost(Exception):
    """The post does not exist, or is deleted."""


class TreeBusy(Exception):
    """A subtree is being moved or deleted; the same request succeeds in a moment."""


class WouldBeCycle(Exception):
    """A post cannot be moved below itself."""


class Tree:
    """
    The trees of the forum's threads. Thread-safe.

    A subtree that has more posts than a transaction can change is moved in steps, which
    ``work`` of the thread's item records: its places are copied to a branch of its own, one
    transaction makes the branch visible at the new place and the old places invisible, and the old
    ones are deleted. ``finish`` continues after a crash; each step may be repeated.

    With a ``patience`` in seconds the object is for one call: one that takes longer raises
    TreeUnfinished, and leaves the rest to ``finish_all``.
    """

    def __init__(self, database: Database, *, patience: float | None = None) -> None:
        self._database = database
        self._branches = Branches(database, patience)
        self._threads = database.adapter(Thread)
        self._posts = database.adapter(Post)
        self._support = database.adapter(Support)

    def add(self, post: Item, others: Sequence[Operation] = ()) -> Item:
        """
        Write a post as the last reply to its ``parent``, or to the thread, together with ``others``
        in one transaction; return it with its place.

        Raises NoSuchThread, NoSuchPost or TreeBusy.
        """
        for _ in range(_TRIES):
            thread, parent = self._numbered(post["threadId"], post.get("parent"))
            work = work_of(thread)
            if parent is not None and work is not None and self._is_below(parent, work):
                raise TreeBusy("The post that is replied to is being moved or deleted.")
            number = (thread if parent is None else parent)["children"] - 1
            place = reply(_place_of(parent), number, post["postId"])
            placed = {**post, **place.attributes(), "children": 0, "replies": 0}
            operations = [
                *self._additions(placed, place, parent),
                self._counted(thread, posts=1, set={"activeAt": post["createdAt"]}),
                *others,
            ]
            try:
                self._database.transact(operations)
            except (Conflict, ItemMissing) as exc:
                if exc.position >= len(operations) - len(others):
                    raise
                continue
            return placed
        raise TreeBusy("Other posts of the thread were written all the time.")

    def remove(self, post: Item, empty: Sequence[str], others: Sequence[Operation] = ()) -> None:
        """
        Delete a post. One that has replies stays, without the attributes ``empty``.

        Raises NoSuchPost, TreeBusy, or Conflict if the post was changed since it was read.
        """
        version = post["version"]
        for _ in range(_TRIES):
            thread = self._thread(post["threadId"])
            found = self._post(post["threadId"], post["postId"])
            if found["version"] != version:
                raise Conflict("The post was changed.", item=found)
            work = work_of(thread)
            if work is not None and self._is_below(found, work):
                raise TreeBusy("The post is being moved or deleted.")
            operations = [*self._removals(found, empty), self._counted(thread, posts=-1), *others]
            try:
                self._database.transact(operations)
            except WriteRefused as exc:
                if exc.position >= len(operations) - len(others):
                    raise
                continue
            return
        raise TreeBusy("Replies to the post were written all the time.")

    def move(self, thread_id: str, post_id: str, parent_id: str | None) -> None:
        """
        Move a post with all posts below it: it becomes the last reply to another post of its
        thread, or to the thread. Raises NoSuchThread, NoSuchPost, WouldBeCycle, TreeBusy or
        TreeUnfinished.
        """
        for _ in range(_TRIES):
            thread, post = self._finish_others(thread_id), self._post(thread_id, post_id)
            if post.get("parent") == parent_id:
                return
            work = new_work(MOVE, post)
            if parent_id is not None and self._is_below(self._post(thread_id, parent_id), work):
                raise WouldBeCycle("A post cannot be moved below itself.")
            counted, parent = self._numbered(thread_id, parent_id)
            number = (counted if parent is None else parent)["children"] - 1
            place = reply(_place_of(parent), number, post_id)
            work["to"] = {
                "parent": parent_id or "",
                "branch": place.branch,
                "place": place.path,
                "depth": place.depth,
            }
            checks = [self._same(Check, post)]
            if parent is not None:
                checks.append(self._same(Check, parent))
            if self._begin(thread, work, checks):
                self.finish(thread_id)
                if self._post(thread_id, post_id).get("parent") == parent_id:
                    return
        raise TreeBusy("Other posts of the thread were moved all the time.")

    def remove_all(self, thread_id: str, post_id: str) -> None:
        """
        Delete a post with all posts below it. Raises NoSuchThread, NoSuchPost, TreeBusy or
        TreeUnfinished.
        """
        for _ in range(_TRIES):
            thread = self._finish_others(thread_id)
            post = self._posts.get_by_id((post_id, thread_id), consistent=True)
            if post is None:
                raise NoSuchPost
            if self._begin(thread, new_work(REMOVE, post), [self._same(Check, post, MISSING)]):
                self.finish(thread_id)
                return
        raise TreeBusy("Other posts of the thread were moved all the time.")

    def remove_thread(self, thread_id: str) -> None:
        """
        Delete all posts of a thread whose item is deleted: ``removal_of_thread`` makes sure that
        this is finished. Raises TreeUnfinished.
        """
        row = self._support.get_by_id(keys.work(thread_id), consistent=True) or {}
        self._branches.delete(thread_id, "", None)
        if row.get("copies"):
            self._branches.delete_rows(thread_id, row["copies"])
        self._support.delete(keys.work(thread_id))

    def place_again(self, thread_id: str, post_id: str, *, at_top: bool = False) -> None:
        """
        Give a post whose place is missing or wrong a new one: as the last reply to its parent, or
        to the thread if the parent does not exist or with ``at_top``. Replies that are in a branch
        of its own stay below it.

        Raises NoSuchThread, NoSuchPost, TreeBusy, or WriteRefused if the post was changed
        meanwhile.
        """
        if work_of(self._thread(thread_id)) is not None:
            raise TreeBusy("A subtree is being moved or deleted.")
        post = self._posts.get_by_id((post_id, thread_id), consistent=True)
        if post is None:
            raise NoSuchPost
        parent = None
        if post.get("parent") and not at_top:
            key = (post["parent"], thread_id)
            with contextlib.suppress(ItemMissing):
                parent = self._posts.update(key, add={"children": 1}, expect={"place": EXISTS})
        counted = self._threads.update(thread_id, add={"children": int(parent is None)})
        number = (counted if parent is None else parent)["children"] - 1
        place = reply(_place_of(parent), number, post_id)
        place = dataclasses.replace(place, own=post.get("ownBranch") or place.own)
        placed = {"parent": None if parent is None else parent["postId"]}
        was = {name: post.get(name, MISSING) for name in ("place", "branch", "parent")}
        operations: list[Operation] = [
            Update(
                self._posts.table, self._key(post), {**place.attributes(), **placed}, expect=was
            ),
            Create(self._support.table, place_item(thread_id, {**post, **placed}, place)),
            self._counted(counted, posts=0),
        ]
        if "place" in post:
            old = keys.place(thread_id, post.get("branch", ""), post["place"])
            row = self._support.get_by_id(old, consistent=True)
            if row is not None and row["postId"] == post_id:
                operations.append(Delete(self._support.table, old, {"postId": post_id}))
        self._database.transact(operations)

    def finish(self, thread_id: str) -> Item:
        """
        Finish the move or deletion of a subtree of the thread, if there is one; return the thread.
        Several processes may do it at once. Raises NoSuchThread or TreeUnfinished.
        """
        done = None
        while (work := work_of(thread := self._thread(thread_id))) is not None:
            done = work["id"]
            if work["stage"] == PREPARED:
                if work["kind"] == MOVE:
                    self._copy(thread_id, work)
                    self._switch(thread_id, work)
                else:
                    self._hide(thread_id, work)
            else:
                if work["kind"] == MOVE:
                    self._tidy_moved(thread_id, work)
                else:
                    self._branches.delete(thread_id, work["branch"], work["place"])
                    if work["own"]:
                        self._branches.delete(thread_id, work["own"], None)
                    self._posts.delete((work["post"], thread_id))
                self._end(thread_id, work)
        if done is not None:
            self._forget(thread_id, done)
        return thread

    def finish_all(self) -> int:
        """
        Finish what other calls have left; return for how many threads. A thread at which another
        process works is left to it for two minutes. One that cannot be finished stops no other.
        """
        count, after = 0, None
        while True:
            page = self._support.page(keys.WORK, size=PAGE, after=after, consistent=True)
            for row in page.items:
                if taken_by := self._take(row):
                    try:
                        count += self._finish_row(row)
                    except StoreError:
                        self._give_back(row, taken_by)
                        raise
            if (after := page.after) is None:
                return count

    def _finish_row(self, row: Item) -> bool:
        try:
            self.finish(row["SK"])
        except NoSuchThread:
            self.remove_thread(row["SK"])
        except WriteRefused:
            logger.exception("A move or deletion of posts could not be finished.")
            return False
        else:
            self._forget(row["SK"], row["work"])
        return True

    def _take(self, row: Item) -> str | None:
        """Take the work at a thread; return its ``takenBy``, None if another process has it."""
        now, until = int(clock.now()), row.get("takenUntil")
        if until is not None and until > now:
            return None
        expect = {"takenUntil": MISSING if until is None else until, "work": row["work"]}
        taken_by = uuid.uuid4().hex
        taken = {"takenUntil": now + _TAKEN_FOR, "takenBy": taken_by}
        try:
            self._support.update(row, taken, expect=expect)
        except WriteRefused as exc:
            # This one has taken it if the answer to its first attempt was lost.
            is_own = exc.item is not None and exc.item.get("takenBy") == taken_by
            return taken_by if is_own else None
        return taken_by

    def _give_back(self, row: Item, taken_by: str) -> None:
        """Let any process take the work that an error has ended, unless another one has it."""
        expect = {"work": row["work"], "takenBy": taken_by}
        with contextlib.suppress(WriteRefused, StoreError):
            self._support.update(row, {"takenUntil": 0}, expect=expect)

    def _forget(self, thread_id: str, work_id: str) -> None:
        """Delete the record of a work that has ended, unless another one has begun."""
        with contextlib.suppress(Conflict, ItemMissing):
            self._support.delete(keys.work(thread_id), expect={"work": work_id})

    def _finish_others(self, thread_id: str) -> Item:
        try:
            return self.finish(thread_id)
        except TreeUnfinished as exc:
            raise TreeBusy("Many posts of the thread are still being moved or deleted.") from exc

    def is_being_removed(self, thread: Item, post: Item) -> bool:
        """Return whether a post is below one that is deleted with its replies, or is that one."""
        work = work_of(thread)
        return (
            work is not None
            and (work["kind"], work["stage"]) == (REMOVE, VISIBLE)
            and self._is_below(post, work)
        )

    def _numbered(self, thread_id: str, parent_id: str | None) -> tuple[Item, Item | None]:
        """Return the thread and the parent, one of which has counted a new child."""
        if parent_id is None:
            try:
                return self._threads.update(thread_id, add={"children": 1}), None
            except ItemMissing as exc:
                raise NoSuchThread from exc
        key = (parent_id, thread_id)
        try:
            parent = self._posts.update(key, add={"children": 1}, expect={"isDeleted": MISSING})
        except (ItemMissing, Conflict) as exc:
            raise NoSuchPost from exc
        return self._thread(thread_id), parent

    def _thread(self, thread_id: str) -> Item:
        found = self._threads.get_by_id(thread_id, consistent=True)
        if found is None:
            raise NoSuchThread
        return found

    def _post(self, thread_id: str, post_id: str) -> Item:
        found = self._posts.get_by_id((post_id, thread_id), consistent=True)
        if found is None or found.get("isDeleted"):
            raise NoSuchPost
        return found

    def _is_below(self, post: Item, work: Item) -> bool:
        """Return whether ``post`` is the post of ``work`` or below it."""
        moved, place = place_of(work), Place.of(post)
        while True:
            if moved.contains(place.branch, place.path):
                return True
            if not place.branch:
                return False
            root_id = root_of(place.branch)
            if root_id == work["post"]:
                return True
            root = self._posts.get_by_id((root_id, post["threadId"]), consistent=True)
            if root is None:
                return False
            place = Place.of(root)

    def _additions(self, post: Item, place: Place, parent: Item | None) -> Iterator[Operation]:
        yield Create(self._posts.table, post)
        yield Create(self._support.table, place_item(post["threadId"], post, place))
        if parent is not None:
            yield self._same(Update, parent, add={"replies": 1})

    def _removals(self, post: Item, empty: Sequence[str]) -> Iterator[Operation]:
        thread_id = post["threadId"]
        if post["replies"]:
            yield Update(
                self._posts.table,
                self._key(post),
                {**dict.fromkeys(empty), "isDeleted": True},
                {"version": 1},
                {"version": post["version"], "replies": post["replies"]},
            )
            return
        yield Delete(self._posts.table, self._key(post), {"version": post["version"], "replies": 0})
        place = Place.of(post)
        yield Delete(self._support.table, keys.place(thread_id, place.branch, place.path))
        yield from self._reply_less(thread_id, post.get("parent", ""))

    def _reply_less(self, thread_id: str, post_id: str) -> list[Operation]:
        """Return the operation that counts one reply less, none if the post does not exist."""
        key = {"postId": post_id, "threadId": thread_id}
        if not post_id or self._posts.get_by_id(key, consistent=True) is None:
            return []
        return [Update(self._posts.table, key, add={"replies": -1})]

    def _counted(
        self, thread: Item, *, posts: int, moves: int = 0, set: dict[str, Any] | None = None
    ) -> Operation:
        return Update(
            self._threads.table,
            {"threadId": thread["threadId"]},
            set or {},
            {"posts": posts, "changes": 1, **({"moves": moves} if moves else {})},
            {"work": thread.get("work", MISSING)},
        )

    def _same(self, kind: Any, post: Item, deleted: Any = MISSING, **changes: Any) -> Operation:
        """Return an operation that needs ``post`` to be at its place, and not deleted."""
        expect = {
            "place": post["place"],
            "branch": post.get("branch", MISSING),
            "isDeleted": post.get("isDeleted", deleted),
        }
        found: Operation = kind(self._posts.table, self._key(post), **changes, expect=expect)
        return found

    def _key(self, post: Item) -> Item:
        return self._posts.table.key_of(post)

    def _begin(self, thread: Item, work: Item, checks: Sequence[Operation]) -> bool:
        """Record ``work``; return False if the tree was changed since ``thread`` was read."""
        expect = {"work": MISSING, "moves": thread.get("moves", MISSING)}
        key = {"threadId": thread["threadId"]}
        try:
            self._database.transact(
                [
                    Update(self._threads.table, key, {"work": text_of(work)}, expect=expect),
                    recorded(thread["threadId"], work["id"]),
                    *checks,
                ]
            )
        except WriteRefused:
            return False
        return True

    def _end(self, thread_id: str, work: Item) -> bool:
        """Remove the record of ``work``; return False if another process has done it."""
        try:
            # What is cached of the time between is not right any more.
            self._threads.update(
                thread_id, {"work": None}, add={"changes": 1}, expect={"work": text_of(work)}
            )
        except (Conflict, ItemMissing):
            return False
        return True

    def _copy(self, thread_id: str, work: Item) -> None:
        if work["own"]:
            return
        # A process that is late must not write what readers see by then.
        is_prepared = Check(self._threads.table, {"threadId": thread_id}, {"work": text_of(work)})
        for rows in self._branches.rows(thread_id, work["branch"], work["place"]):
            copies: list[Operation] = [
                self._copied(thread_id, work, row) for row in rows if row["SK"] != work["place"]
            ]
            try:
                self._database.transact([is_prepared, *copies])
            except (Conflict, ItemMissing):
                # Another process has gone on.
                return

    def _copied(self, thread_id: str, work: Item, row: Item) -> Operation:
        path, depth = row["SK"][len(work["place"]) :], row["depth"] - work["depth"]
        shown = {name: row.get(name) for name in ("postId", "parent", "ownBranch")}
        key = keys.place(thread_id, new_branch(work), path)
        return Update(self._support.table, key, {**shown, "depth": depth}, upsert=True)

    def _switch(self, thread_id: str, work: Item) -> None:
        to = work["to"]
        place = Place(to["branch"], to["place"], to["depth"], own=new_branch(work))
        moved = {"postId": work["post"], "threadId": thread_id, "parent": to["parent"] or None}
        old = keys.place(thread_id, work["branch"], work["place"])
        operations: list[Operation] = [
            self._work_visible(thread_id, work, posts=0),
            Delete(self._support.table, old),
            Create(self._support.table, place_item(thread_id, moved, place)),
            Update(
                self._posts.table,
                self._key(moved),
                {**place.attributes(), "parent": moved["parent"]},
                expect={"place": work["place"], "branch": work["branch"] or MISSING},
            ),
        ]
        operations += self._reply_less(thread_id, work["parent"])
        if to["parent"]:
            key = {"postId": to["parent"], "threadId": thread_id}
            expect = {"isDeleted": MISSING}
            operations.append(Update(self._posts.table, key, {}, {"replies": 1}, expect))
        try:
            self._database.transact(operations)
        except WriteRefused as exc:
            # The post or its new parent was deleted: the move is given up.
            if exc.position and self._end(thread_id, work) and not work["own"]:
                self._branches.delete_rows(thread_id, new_branch(work))

    def _hide(self, thread_id: str, work: Item) -> None:
        count = self._branches.count(thread_id, work["branch"], work["place"])
        if work["own"]:
            count += self._branches.count(thread_id, work["own"], None)
        operations = [
            self._work_visible(thread_id, work, posts=-count),
            Delete(self._support.table, keys.place(thread_id, work["branch"], work["place"])),
        ]
        # A refusal says that another process was faster, or that the parent was just deleted.
        with contextlib.suppress(WriteRefused):
            self._database.transact([*operations, *self._reply_less(thread_id, work["parent"])])

    def _work_visible(self, thread_id: str, work: Item, *, posts: int) -> Operation:
        return Update(
            self._threads.table,
            {"threadId": thread_id},
            {"work": text_of({**work, "stage": VISIBLE})},
            {"posts": posts, "changes": 1, "moves": 1},
            {"work": text_of(work)},
        )

    def _tidy_moved(self, thread_id: str, work: Item) -> None:
        if work["own"]:
            return
        for rows in self._branches.rows(thread_id, work["branch"], work["place"]):
            execute_in_parallel(rows, lambda row: self._replace(thread_id, work, row))
            self._support.delete_all(rows)

    def _replace(self, thread_id: str, work: Item, row: Item) -> None:
        """Let a post below the one that was moved name its place in the new branch."""
        path, depth = row["SK"][len(work["place"]) :], row["depth"] - work["depth"]
        try:
            self._posts.update(
                (row["postId"], thread_id),
                {"branch": new_branch(work), "place": path, "depth": depth},
                expect={"place": row["SK"], "branch": work["branch"] or MISSING},
            )
        except (Conflict, ItemMissing):
            # It was done before, or the post is deleted.
            return


def first_post(post: Item) -> list[Operation]:
    """Return the operations that write the first post of a new thread, whose ``children`` is 1."""
    place = reply(None, 0, post["postId"])
    placed = {**post, **place.attributes(), "children": 0, "replies": 0}
    return [
        Create(Table.of(Post), placed),
        Create(Table.of(Support), place_item(post["threadId"], post, place)),
    ]


def _place_of(post: Item | None) -> Place | None:
    return None if post is None else Place.of(post)


def place_item(thread_id: str, post: Item, place: Place) -> Item:
    """Return the item of a place, which says which post is there."""
    return {
        **keys.place(thread_id, place.branch, place.path),
        "postId": post["postId"],
        "parent": post.get("parent"),
        "depth": place.depth,
        "ownBranch": place.own or None,
    }
