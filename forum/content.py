"""The content of pages."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from . import times
from .adapters import Item
from .profiles import Profile


@dataclass(frozen=True)
class ThreadLine:
    """A thread as a row of a list; ``posts`` counts its posts."""

    thread_id: str
    title: str
    description: str
    author_id: str
    created_at: datetime
    active_at: datetime
    posts: int
    version: int
    number: int | None = None
    author: Profile | None = None

    @classmethod
    def of(cls, item: Item) -> ThreadLine:
        """Return the row for an item."""
        return cls(
            thread_id=item["threadId"],
            title=item["title"],
            description=item.get("description") or "",
            author_id=item.get("createdBy") or "",
            created_at=times.moment_of(item["createdAt"]),
            active_at=times.moment_of(item.get("activeAt") or item["createdAt"]),
            posts=int(item.get("posts", 0)),
            version=int(item.get("version", 1)),
            number=number_of(item),
        )


@dataclass(frozen=True)
class PostView:
    """A post; one without a parent has depth 1. ``is_cut``: its replies are on another page."""

    post_id: str
    thread_id: str
    author_id: str
    parent: str
    depth: int
    title: str
    content: str
    created_at: datetime
    edited_at: datetime | None
    replies: int
    version: int
    is_deleted: bool
    is_cut: bool = False
    number: int | None = None
    author: Profile | None = None

    @classmethod
    def of(cls, item: Item, *, depth: int = 1, is_cut: bool = False) -> PostView:
        """Return the view of an item."""
        edited = item.get("editedAt")
        replies = int(item.get("replies", 0))
        return cls(
            post_id=item["postId"],
            thread_id=item["threadId"],
            author_id=item["userId"],
            parent=item.get("parent") or "",
            depth=depth,
            title=item.get("title") or "",
            content=item.get("content") or "",
            created_at=times.moment_of(item["createdAt"]),
            edited_at=None if edited is None else times.moment_of(edited),
            replies=replies,
            version=int(item.get("version", 1)),
            is_deleted=bool(item.get("isDeleted")),
            is_cut=is_cut and replies > 0,
            number=number_of(item),
        )


@dataclass(frozen=True)
class ThreadList:
    """Threads, newest first, and where the next page begins."""

    threads: list[ThreadLine]
    after: Any = None


@dataclass(frozen=True)
class PostList:
    """Posts with the titles of their threads, and where the next page begins."""

    posts: list[PostView]
    after: Any = None
    titles: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ThreadPage:
    """
    A thread with posts in the order of its tree, and where the next page begins; ``root`` is the
    post below which they are, None for the whole thread.
    """

    thread: ThreadLine
    posts: list[PostView]
    after: Any = None
    root: PostView | None = None


def number_of(item: Item) -> int | None:
    """Return the imported id that was a number, None for other items."""
    number = item.get("number")
    return None if number is None else int(number)
