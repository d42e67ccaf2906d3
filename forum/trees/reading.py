"""Pages of a tree, in order, with a bounded number of Queries."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from .. import keys
from ..adapters import DatabaseAdapter, Item
from .places import END, Place, first_codes

# The branches from the outermost to the innermost: the branch, the place after which it goes on,
# and the depth of its root.
Cursor = Sequence[tuple[str, str, int]]

# Queries for one page, which ends earlier when they are used up.
MAX_QUERIES = 8


@dataclass(frozen=True, slots=True)
class Root:
    """The post below which a tree is read, with its place and its depth in the whole tree."""

    post_id: str
    place: Place
    depth: int


@dataclass(frozen=True, slots=True)
class Node:
    """
    A post in its tree; one without a parent has depth 1. Replies to a post that ``is_cut`` are left
    out.
    """

    post_id: str
    parent: str
    depth: int
    is_cut: bool = False


@dataclass(slots=True)
class TreePage:
    """Posts in the order of the tree, and where the next page begins: None at the end."""

    nodes: list[Node] = field(default_factory=list)
    after: Cursor | None = None
    queries: int = 0


@dataclass(slots=True)
class _Frame:
    """A branch that is being read. Its root has the depth ``depth``."""

    branch: str
    depth: int
    prefix: str | None = None
    after: str | None = None
    rows: deque[Item] = field(default_factory=deque)
    is_finished: bool = False

    def skip(self, path: str) -> None:
        """Leave out the place ``path`` with all places below it."""
        while self.rows and self.rows[0]["SK"].startswith(path):
            self.rows.popleft()
        self.after = path + END


def read_page(
    support: DatabaseAdapter,
    thread_id: str,
    *,
    size: int,
    root: Root | None = None,
    after: Cursor | None = None,
    max_depth: int | None = None,
    hidden: Place | None = None,
) -> TreePage:
    """
    Return ``size`` posts of the tree at most, or of those below ``root``. Posts deeper than
    ``max_depth`` and those at the place ``hidden`` or below are left out.

    Eight Queries at most: a page of a tree with many branches may have fewer posts. They are
    strongly consistent, so that a post that was written is there.
    """
    page = TreePage()
    frames = _frames(root, after)
    if hidden is not None:
        frames = _without(hidden, frames)
    while frames:
        frame = frames[-1]
        if not frame.rows:
            if frame.is_finished:
                frames.pop()
                continue
            if page.queries == MAX_QUERIES:
                break
            page.queries += 1
            _fill(support, thread_id, frame, size - len(page.nodes) + 1)
            continue
        row = frame.rows[0]
        path, depth = row["SK"], frame.depth + row["depth"]
        if max_depth is not None and depth > max_depth:
            frame.skip(first_codes(path, max_depth - frame.depth))
            continue
        if hidden is not None and hidden.contains(frame.branch, path):
            frame.skip(hidden.path)
            continue
        if len(page.nodes) == size:
            break
        frame.rows.popleft()
        frame.after = path
        is_cut = depth == max_depth
        page.nodes.append(Node(row["postId"], row.get("parent", ""), depth, is_cut))
        if row.get("ownBranch") and not is_cut:
            frames.append(_Frame(row["ownBranch"], depth))
    if frames:
        page.after = [(each.branch, each.after or "", each.depth) for each in frames]
    return page


def _frames(root: Root | None, after: Cursor | None) -> list[_Frame]:
    first = _first(root)
    if not after:
        return [first]
    frames = [_Frame(branch, depth, after=path or None) for branch, path, depth in after]
    frames[0].prefix = first.prefix
    # The root may have been moved since the page was made.
    is_same = frames[0].branch == first.branch and (frames[0].after or "").startswith(
        first.prefix or ""
    )
    return frames if is_same else [first]


def _without(hidden: Place, frames: list[_Frame]) -> list[_Frame]:
    """Return the frames without those of branches below the place ``hidden``."""
    for number, frame in enumerate(frames, start=1):
        if frame.after is not None and hidden.contains(frame.branch, frame.after):
            frame.skip(hidden.path)
            return frames[:number]
    return frames


def _first(root: Root | None) -> _Frame:
    if root is None:
        return _Frame("", 0)
    place = root.place
    if place.own:
        return _Frame(place.own, root.depth)
    return _Frame(place.branch, root.depth - place.depth, prefix=place.path, after=place.path)


def _fill(support: DatabaseAdapter, thread_id: str, frame: _Frame, size: int) -> None:
    partition = keys.tree(thread_id, frame.branch)
    page = support.page(
        partition,
        size=size,
        prefix=frame.prefix,
        after=None if frame.after is None else {"PK": partition, "SK": frame.after},
        consistent=True,
        attributes=["postId", "parent", "depth", "ownBranch"],
    )
    frame.rows.extend(page.items)
    frame.is_finished = page.after is None
