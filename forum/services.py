"""The content of the pages, read from DynamoDB in few calls and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar

from django.core.cache import cache

from dynamo_stores.calls.batches import execute_in_parallel
from dynamo_stores.stores import AdaptiveRateLimitStore

from .models import LISTING, Post, Thread, User

T = TypeVar("T")

THREADS_PER_PAGE = 500
POSTS_PER_PAGE = 200
# Seconds for which a page is cached.
FRESH_FOR = 60
# The limit of reads that are not from the cache; visitors have priority over background work.
READS, READ_RATE = "forum.reads", "1200/m"


class Busy(Exception):
    """The limit of reads is exceeded; ``status`` is the refusal of the limit."""

    def __init__(self, status: Any) -> None:
        super().__init__("The forum is busy.")
        self.status = status


@dataclass(frozen=True)
class ThreadLine:
    """A thread as a row of the front page."""

    thread_id: str
    title: str
    description: str
    created_at: datetime


@dataclass(frozen=True)
class ThreadList:
    """Threads, newest first; ``older`` is where the next page starts, ``""`` on the last."""

    threads: list[ThreadLine]
    older: str = ""


@dataclass(frozen=True)
class PostView:
    """A post on the page of its thread."""

    author: str
    title: str
    content: str
    created_at: datetime


@dataclass(frozen=True)
class ThreadPage:
    """A thread with posts in their order; ``later`` is where the next page starts."""

    thread: ThreadLine
    author: str
    posts: list[PostView]
    later: str = ""


@dataclass(frozen=True)
class Page(Generic[T]):
    """The content of a page, and whether it came from the cache."""

    content: T
    from_cache: bool


def list_threads(before: str = "", priority: str = "user") -> Page[ThreadList]:
    """
    Return the newest threads, or those older than the time ``before``: one Query.

    Raises Busy, as :func:`show_thread` does, if the page is not cached and the limit is exceeded.
    """
    return _cached(f"threads:{before}", lambda: _read_threads(before), priority)


def show_thread(thread_id: str, after: str = "", priority: str = "user") -> Page[ThreadPage] | None:
    """
    Return a thread and its posts after the time ``after``; None if there is no such thread.

    A GetItem and a Query in parallel, then a BatchGetItem for the authors' names.
    """
    key = _thread_key(thread_id, after)
    page = _cached(key, lambda: _read_thread(thread_id, after), priority)
    return None if page.content is None else page


def search(words: str) -> Page[ThreadList]:
    """
    Return those of the newest 500 threads whose title contains all of ``words``.

    DynamoDB has no full-text index, so this searches the list of the front page.
    """
    wanted = words.casefold().split()
    page = list_threads()
    found = [
        thread
        for thread in page.content.threads
        if all(word in thread.title.casefold() for word in wanted)
    ]
    return Page(ThreadList(found), page.from_cache)


def invalidate(*thread_ids: str) -> None:
    """Delete the front page and the pages of these threads from the cache."""
    cache.delete_many(["threads:", *(_thread_key(thread_id) for thread_id in thread_ids)])


def _thread_key(thread_id: str, after: str = "") -> str:
    # An id may contain spaces, of which Django warns in keys.
    return f"thread:{hashlib.sha256(thread_id.encode()).hexdigest()}:{after}"


def _cached(key: str, read: Callable[[], T], priority: str) -> Page[T]:
    found = cache.get(key)
    if found is not None:
        return Page(found, from_cache=True)
    status = AdaptiveRateLimitStore().acquire(READS, rate=READ_RATE, priority=priority)
    if not status.allowed:
        raise Busy(status)
    content = read()
    if content is not None:
        cache.set(key, content, FRESH_FOR)
    return Page(content, from_cache=False)


def _read_threads(before: str) -> ThreadList:
    threads = list(
        Thread.created_at_index.query(
            LISTING,
            Thread.created_at < before if before else None,
            scan_index_forward=False,
            limit=THREADS_PER_PAGE,
            attributes_to_get=["threadId", "title", "description", "createdAt"],
        )
    )
    older = threads[-1].created_at if len(threads) == THREADS_PER_PAGE else ""
    return ThreadList([_line(thread) for thread in threads], older)


def _read_thread(thread_id: str, after: str) -> ThreadPage | None:
    thread, posts = execute_in_parallel(
        [_get_thread, _query_posts], lambda read: read(thread_id, after)
    )
    if thread is None:
        return None
    names = _names({thread.created_by, *(post.user_id for post in posts)} - {None})
    return ThreadPage(
        thread=_line(thread),
        author=names.get(thread.created_by, ""),
        posts=[
            PostView(
                author=names.get(post.user_id, post.user_id),
                title=post.title or "",
                content=post.content,
                created_at=datetime.fromisoformat(post.created_at),
            )
            for post in posts
        ],
        later=posts[-1].created_at if len(posts) == POSTS_PER_PAGE else "",
    )


def _get_thread(thread_id: str, after: str) -> Any:
    shown = ["threadId", "title", "description", "createdBy", "createdAt"]
    try:
        return Thread.get(thread_id, attributes_to_get=shown)
    except Thread.DoesNotExist:
        return None


def _query_posts(thread_id: str, after: str) -> Any:
    return list(
        Post.thread_index.query(
            thread_id,
            Post.created_at > after if after else None,
            limit=POSTS_PER_PAGE,
            attributes_to_get=["postId", "threadId", "userId", "title", "content", "createdAt"],
        )
    )


def _names(user_ids: set[str]) -> dict[str, str]:
    users = User.batch_get(sorted(user_ids), attributes_to_get=["userId", "name"])
    return {user.user_id: user.name for user in users} if user_ids else {}


def _line(thread: Thread) -> ThreadLine:
    return ThreadLine(
        thread_id=thread.thread_id,
        title=thread.title,
        description=thread.description or "",
        created_at=datetime.fromisoformat(thread.created_at),
    )
