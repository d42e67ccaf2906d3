"""What is being moved or deleted in a thread: its record, and what readers see meanwhile."""

from __future__ import annotations

import json
import uuid

from .. import keys
from ..adapters import Item, Operation, Table, Update
from ..models import Support
from .places import Place, branch_of

MOVE, REMOVE = "move", "remove"
# The work is still invisible; or readers see its result, and what is left is tidied.
PREPARED, VISIBLE = "prepared", "visible"


def removal_of_thread(thread: Item) -> Operation:
    """
    Return the operation that records that the posts of a thread are to be deleted, for the
    transaction that deletes its item, which has to expect the same ``work``.
    """
    work = work_of(thread)
    copies = None if work is None or work["own"] else new_branch(work)
    return recorded(thread["threadId"], uuid.uuid4().hex, copies)


def place_now(thread: Item, post: Item) -> Place:
    """
    Return where readers find a post: below a post that is being moved, its item may still have the
    old place.
    """
    place, work = Place.of(post), work_of(thread)
    if work is None or work["stage"] != VISIBLE or work["kind"] != MOVE or work["own"]:
        return place
    if post["postId"] == work["post"] or not place_of(work).contains(place.branch, place.path):
        return place
    path, depth = place.path[len(work["place"]) :], place.depth - work["depth"]
    return Place(new_branch(work), path, depth, place.own)


def hidden_place(thread: Item) -> Place | None:
    """Return the place whose posts readers do not see any more, None without one."""
    work = work_of(thread)
    return place_of(work) if work is not None and work["stage"] == VISIBLE else None


def work_of(thread: Item) -> Item | None:
    """Return what is being moved or deleted in a thread, None for nothing."""
    return json.loads(thread["work"]) if "work" in thread else None


def recorded(thread_id: str, work_id: str, copies: str | None = None) -> Operation:
    """Return the operation that records that there is work at a thread, for ``finish_all``."""
    row = {"work": work_id, "takenUntil": None, "copies": copies}
    return Update(Table.of(Support), keys.work(thread_id), row, upsert=True)


def text_of(work: Item) -> str:
    """Return work as it is stored in the item of its thread."""
    # As text, because not every engine compares maps in a condition.
    return json.dumps(work, sort_keys=True)


def new_work(kind: str, post: Item) -> Item:
    """Return the work of moving or deleting a post with all below it."""
    return {
        "id": uuid.uuid4().hex,
        "kind": kind,
        "stage": PREPARED,
        "post": post["postId"],
        "parent": post.get("parent", ""),
        "branch": post.get("branch", ""),
        "place": post["place"],
        "depth": post["depth"],
        "own": post.get("ownBranch", ""),
    }


def place_of(work: Item) -> Place:
    """Return the place of the post that is moved or deleted, before that."""
    return Place(work["branch"], work["place"], work["depth"], work["own"])


def new_branch(work: Item) -> str:
    """Return the branch for the replies to the post that is moved."""
    return str(work["own"] or branch_of(work["post"], work["id"]))
